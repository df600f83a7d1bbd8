"""Writes docs/images/texture.jpg: a photo of the demo's room, the mesh from there with vertex colours, and its texture.

vlm3-recon examples/room --out room.glb --texture --trust-model && python -m tools.write_texture_picture room.glb
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.runs import open_run
from recon.errors import BadInputError
from recon.surface.picture import render_mesh
from recon.surface.texture.picture import render_textured

TARGET = Path(__file__).resolve().parent.parent / "docs" / "images" / "texture.jpg"
PHOTO = 7
WIDTH_PX, HEIGHT_PX = 640, 480


def main(path: Path) -> None:
    """Writes the picture of the run whose mesh lies at ``path``."""
    run = open_run(path)
    textured = run.textured()
    if textured is None:
        raise BadInputError(f"{path}: has no texture; make it with --texture")
    view = run.scene.views[PHOTO]
    camera, pose = view.camera.resized(WIDTH_PX, HEIGHT_PX), view.cam_from_world
    photo = Image.open(run.workspace.images / view.name).convert("RGB").resize((WIDTH_PX, HEIGHT_PX), Image.LANCZOS)
    pictures = [np.asarray(photo), render_mesh(textured.mesh, camera, pose, "color")]
    pictures.append(render_textured(textured, camera, pose, 3))
    Image.fromarray(np.hstack(pictures)).save(TARGET, quality=88, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
