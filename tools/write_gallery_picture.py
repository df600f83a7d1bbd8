"""Writes docs/images/real_meshes.jpg: geometry of real captures' meshes, each seen from one of its photos.

vlm3-recon CAPTURE/images --out MESHES/CAPTURE.ply of each, then python -m tools.write_gallery_picture MESHES
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipelines.runs import open_run
from recon.interop.meshes import read_mesh
from recon.surface.picture import render_mesh

TARGET = Path(__file__).resolve().parent.parent / "docs" / "images" / "real_meshes.jpg"
CAPTURES = ("fountain-P11", "fox", "dino", "sceaux-castle", "brighton-beach-drone", "lund-street", "banana")
COLUMNS, WIDTH_PX, HEIGHT_PX = 4, 400, 300


def main(meshes: Path) -> None:
    """Writes the picture of ``meshes/CAPTURE.ply``."""
    sheet = Image.new("RGB", (COLUMNS * WIDTH_PX, -(-len(CAPTURES) // COLUMNS) * HEIGHT_PX), "white")
    for number, capture in enumerate(CAPTURES):
        corner = number % COLUMNS * WIDTH_PX, number // COLUMNS * HEIGHT_PX
        sheet.paste(Image.fromarray(seen(meshes / f"{capture}.ply")), corner)
        ImageDraw.Draw(sheet).text((corner[0] + 6, corner[1] + 4), capture, fill="black")
    sheet.save(TARGET, quality=85, optimize=True)


def seen(path: Path) -> np.ndarray:
    """The mesh of a run [h, w, 3] as clay, from the middle one of its photos, in a frame of at most the given size."""
    run = open_run(path)
    assert run.scene is not None
    view = run.scene.views[len(run.scene.views) // 2]
    factor = min(WIDTH_PX / view.camera.width_px, HEIGHT_PX / view.camera.height_px)
    camera = view.camera.resized(round(factor * view.camera.width_px), round(factor * view.camera.height_px))
    return render_mesh(read_mesh(path), camera, view.cam_from_world, "clay")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
