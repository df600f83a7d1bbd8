"""A finished run whose mesh is textured, without running anything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipelines.records import save_record
from pipelines.runs import TEXTURE_STAGE
from recon.interop.textured import write_textured
from recon.surface.mesh import with_normals
from recon.surface.texture.bake import to_jpeg
from recon.surface.texture.types import TexturedMesh
from tests.interop.toy import wall
from tests.pipelines.finished_run import STRAIGHT, make_run

HALVES = np.array([[210, 60, 40], [40, 90, 200]], dtype=np.uint8)  # the colours of its two pages


def textured_wall() -> TexturedMesh:
    """The wall, its triangles alternately in two pages of one colour each, of 2400 x 1600 pixels."""
    mesh = with_normals(wall())
    page = (np.arange(len(mesh.faces)) % 2).astype(np.int32)
    uv = np.random.default_rng(0).uniform(0.1, 0.9, (len(page), 3, 2)).astype(np.float32)
    pages = tuple(to_jpeg(np.broadcast_to(color, (1600, 2400, 3)).copy()) for color in HALVES)
    return TexturedMesh(mesh, uv, page, pages, 1.0, 1.0, 6)


def make_textured_run(parent: Path) -> Path:
    """Writes ``mesh.glb`` and ``mesh-workspace`` below ``parent``; returns the mesh."""
    old = make_run(parent, STRAIGHT)
    root, out = parent / "mesh-workspace", parent / "mesh.glb"
    old.unlink()
    textured = textured_wall()
    save_record(root / "stages" / f"{TEXTURE_STAGE}.npz", (textured, {}), "key", root)
    write_textured(textured, out)
    summary = json.loads((root / "summary.json").read_text())
    summary |= {"output": str(out), "settings": {"texture": True}}
    (root / "summary.json").write_text(json.dumps(summary))
    return out
