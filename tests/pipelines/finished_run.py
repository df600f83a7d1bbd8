"""A small finished run on disk, as ``vlm3-recon SCENE --out mesh.ply`` leaves it, without running anything."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from pipelines.records import save_record
from pipelines.workspace import FORMAT, MARKER
from recon.capture.records import ImportRecord, record_path, write_record
from recon.interop.meshes import write_mesh
from recon.mapping.model import UNKNOWN_SCALE, write_model
from recon.surface.store import FolderDepthStore
from recon.surface.types import DepthMap
from recon.types import Camera, GpsFix, MetricScale, PosedView, Scene
from tests.interop.toy import HEIGHT, WIDTH, Toy, toy, wall

METRIC = MetricScale(1.0, 0.97, 1.03, ("gps",), ())
LENS = Camera("SIMPLE_RADIAL", WIDTH, HEIGHT, (50.0, WIDTH / 2, HEIGHT / 2, -0.2), "refined")
STRAIGHT = Camera("PINHOLE", WIDTH, HEIGHT, (50.0, 51.0, WIDTH / 2, HEIGHT / 2), "refined")


def make_scene(cameras: Toy, camera: Camera, metric: bool) -> Scene:
    """Points of the wall z = 4, each observed where it is seen."""
    from recon.cameras.pinhole import project

    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-1.5, 1.5, (40, 2)), np.full(40, 4.0)])
    views = []
    for name, pose in cameras.by_name.items():
        pixels = project(camera, points @ pose[:, :3].T + pose[:, 3])
        with np.errstate(invalid="ignore"):
            seen = np.flatnonzero(((pixels > 0) & (pixels < [WIDTH, HEIGHT])).all(axis=1))
        views.append(PosedView(name, camera, pose, seen, pixels[seen]))
    colors = rng.integers(0, 255, (40, 3)).astype(np.uint8)
    scale = METRIC if metric else UNKNOWN_SCALE
    return Scene(tuple(views), points, colors, np.full(40, 0.3), (), scale)


def make_run(
    parent: Path, camera: Camera = LENS, metric: bool = True, gps: bool = False, depth: bool = True, masks: int = 0
) -> Path:
    """Writes ``mesh.ply`` and ``mesh-workspace`` below ``parent``; returns the mesh. ``masks`` photos have a mask."""
    cameras, root = toy(), parent / "mesh-workspace"
    (root / "images").mkdir(parents=True)
    (root / MARKER).write_text(FORMAT)
    scene = make_scene(cameras, camera, metric)
    rng = np.random.default_rng(1)
    for index, view in enumerate(scene.views):
        Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)).save(root / "images" / view.name)
        # metres east and north of a place in Zurich; the world's z looks north, its y down
        east, down, north = view.centre_world
        fix = GpsFix(47.3769 + north / 111_194.0, 8.5417 + east / 75_400.0, 408.0 - down, 0.01) if gps else None
        record = ImportRecord("k", view.name, view.name, 1, "h", WIDTH, HEIGHT, 1, "c", None, fix, ())
        write_record(record_path(root, PurePosixPath(view.name)), record)
        if index < masks:
            (root / "masks").mkdir(exist_ok=True)
            mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
            mask[:10] = 0
            Image.fromarray(mask).save(root / "masks" / f"{view.name}.png")
    save_record(root / "stages" / "scale.npz", (scene, {"sparse/0": 1}), "key", root)
    write_model(scene, root / "sparse" / "0")
    (root / "database.db").write_bytes(b"SQLite format 3\0")
    if depth:
        flat = dataclasses.replace(STRAIGHT)
        store = FolderDepthStore(root / "dense" / "abc")
        for name, values, pose in zip(cameras.names, cameras.depth, cameras.poses):
            black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            store.save("final", DepthMap(name, values, np.ones_like(values), flat, pose, black))
    write_mesh(wall(), parent / "mesh.ply")
    summary = {
        "format": 1, "status": "done", "source": "photos", "output": str(parent / "mesh.ply"), "seconds": 12.5,
        "started": "2026-01-01T00:00:00Z", "photos_given": 7, "photos_registered": 6, "points": 40, "notices": [],
        "scale": {"known": metric, "metres_per_unit": 1.0, "low": 0.97, "high": 1.03, "used": ["gps"], "votes": [],
                  "notes": []},
        "mesh": {"vertices": 169, "faces": 288}, "versions": {"vlm3-recon": "0"},
        "stages": [{"name": "photos", "status": "done", "seconds": 1.0}],
        "photos": [{"name": name, "registered": True, "points": 20, "focal_px": 50.0} for name in cameras.names]
        + [{"name": "photo_99.jpg", "registered": False, "reason": "the file is empty"}],
    }  # fmt: skip
    (root / "summary.json").write_text(json.dumps(summary))
    return parent / "mesh.ply"
