"""What a texture shows of a photo that it was not made of, beside the same mesh with colours at its vertices.

python -m benchmarks.texture_held_out MESH...   # of runs, plain or textured; writes results/texture_held_out.json

The middle one of a run's photos is left out. The mesh and the colours of its vertices were made with it, the texture
without it. PSNR over the pixels where the photo sees the mesh; ``exposed alike`` after each picture's channels were
given the photo's mean.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.provenance import provenance
from pipelines.runs import open_run
from recon.interop.run import depth_files
from recon.surface.mesh import simplify
from recon.surface.options import TextureOptions
from recon.surface.picture import cast_camera, render_mesh
from recon.surface.store import read_depth_map
from recon.surface.texture.build import texture_mesh
from recon.surface.texture.picture import render_textured
from recon.surface.texture.views import projector
from recon.surface.types import Photos

TARGET = Path(__file__).parent / "results" / "texture_held_out.json"


def held_out(path: Path) -> dict[str, object]:
    """The figures of one run."""
    run, options = open_run(path), TextureOptions()
    assert run.output is not None
    views = run.scene.views
    left_out = views[len(views) // 2]
    mesh = simplify(run.mesh(run.output), options.target_faces)
    photos = Photos(lambda name: np.asarray(Image.open(run.workspace.images / name).convert("RGB")))
    maps = [read_depth_map(file) for file in depth_files(run.workspace.root).values()]
    textured = texture_mesh(mesh, [view for view in views if view is not left_out], photos, options, maps)
    place = projector(left_out)
    photo, pose = place.load(photos), left_out.cam_from_world
    where = cast_camera(mesh, place.camera, pose, 1)[0] >= 0
    pictures = {
        "colours": render_mesh(mesh, place.camera, pose, "color"),
        "texture": render_textured(textured, place.camera, pose),
    }
    figures: dict[str, object] = {"run": path.name, "photo": left_out.name, "faces": len(textured.mesh.faces)}
    for name, picture in pictures.items():
        seen, wanted = picture[where].astype(np.float64), photo[where].astype(np.float64)
        figures[name] = round(psnr(seen, wanted), 2)
        alike = seen * (wanted.mean(axis=0) / np.maximum(seen.mean(axis=0), 1))
        figures[f"{name}, exposed alike"] = round(psnr(alike, wanted), 2)
    return figures


def psnr(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Of colours [N, 3] in 0..255, in dB."""
    return float(10 * np.log10(255**2 / np.mean((np.clip(first, 0, 255) - second) ** 2)))


if __name__ == "__main__":
    rows = [held_out(Path(argument)) for argument in sys.argv[1:]]
    names = " ".join(Path(argument).name for argument in sys.argv[1:])
    result = {"provenance": provenance(f"python -m benchmarks.texture_held_out {names}"), "rows": rows}
    TARGET.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
