"""Writes docs/images/demo.jpg: a photo of the demo's room beside its mesh from the same place, in colour and as clay.

make demo && python -m tools.write_demo_picture
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.runs import open_run
from recon.interop.meshes import read_mesh
from recon.surface.picture import render_mesh

RUN = Path("runs/demo/room.ply")
TARGET = Path(__file__).resolve().parent.parent / "docs" / "images" / "demo.jpg"
PHOTO = 7
WIDTH_PX, HEIGHT_PX = 480, 360


def main() -> None:
    """Writes the picture."""
    run = open_run(RUN)
    view = run.scene.views[PHOTO]
    camera = view.camera.resized(WIDTH_PX, HEIGHT_PX)
    mesh = read_mesh(RUN)
    photo = Image.open(run.workspace.images / view.name).convert("RGB").resize((WIDTH_PX, HEIGHT_PX), Image.LANCZOS)
    pictures = [np.asarray(photo)]
    pictures += [render_mesh(mesh, camera, view.cam_from_world, style) for style in ("color", "clay")]
    Image.fromarray(np.hstack(pictures)).save(TARGET, quality=88, optimize=True)


if __name__ == "__main__":
    main()
