"""A finished run whose report has something to show, and names that a report must not believe."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.records import save_record
from pipelines.runs import open_run
from recon.interop.meshes import write_mesh
from recon.mapping.model import write_model
from recon.surface.types import Mesh
from recon.types import Rejected
from tests.interop.toy import HEIGHT, WIDTH, wall
from tests.pipelines.finished_run import STRAIGHT, make_run

HOSTILE = "<script>document.title='taken'<"  # a folder: with the file's name it reads </script>
HOSTILE_NAME = f"{HOSTILE}/script><img src=x onerror=alert(1)>&amp;'\".jpg"
HOSTILE_REASON = "</td><script>alert(2)</script>{{ 7 * 7 }}"


def coloured_wall(cells: int = 60) -> Mesh:
    """The toy's wall with a colour for every place on it: a picture of it has thousands of colours."""
    mesh = wall(cells=cells)
    x, y, _ = np.asarray(mesh.vertices_world_m).T
    colors = np.stack([255 * (x + 3) / 6, 255 * (y + 3) / 6, 128 + 127 * np.sin(3 * x * y)], axis=1)
    return Mesh(mesh.vertices_world_m, mesh.faces, np.clip(colors, 0, 255).astype(np.uint8))


def make_report_run(parent: Path, gps: bool = True, hostile: bool = True) -> Path:
    """A run of six photos, with a coloured mesh, matches in the database and, if ``hostile``, such names and reasons.

    Returns its mesh.
    """
    path = make_run(parent, STRAIGHT, gps=gps)
    write_mesh(coloured_wall(), path)
    root = parent / "mesh-workspace"
    run = open_run(path)
    scene = run.scene
    if hostile:
        old = scene.views[0].name
        target = root / "images" / HOSTILE_NAME
        target.parent.mkdir(parents=True)
        shutil.move(root / "images" / old, target)
        views = (dataclasses.replace(scene.views[0], name=HOSTILE_NAME), *scene.views[1:])
        scene = dataclasses.replace(scene, views=views, unregistered=(Rejected("photo_99.jpg", HOSTILE_REASON),))
        save_record(root / "stages" / "scale.npz", (scene, {"sparse/0": 1}), "key", root)
        write_model(scene, root / "sparse" / "0")
        summary = json.loads((root / "summary.json").read_text())
        summary["photos"][0]["name"] = HOSTILE_NAME
        summary["photos"][-1]["reason"] = HOSTILE_REASON
        summary["notices"] = [HOSTILE_REASON]
        summary["photos"].append({"name": "../../outside.jpg", "registered": False, "reason": "outside"})
        Image.new("RGB", (8, 8)).save(parent / "outside.jpg")
        (root / "summary.json").write_text(json.dumps(summary))
    write_database(root / "database.db", [view.name for view in scene.views])
    return path


def write_database(path: Path, names: list[str], count: int = 30) -> None:
    """COLMAP's tables as far as matches need them: the first three photos are matched with one another.

    The last ten keypoints of a photo are a checkpoint's: there are that many fewer descriptors.
    """
    rng = np.random.default_rng(0)
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE images (image_id INTEGER PRIMARY KEY, name TEXT)")
        for table in ("keypoints", "descriptors"):
            db.execute(f"CREATE TABLE {table} (image_id INTEGER PRIMARY KEY, rows INTEGER, cols INTEGER, data BLOB)")
        db.execute(
            "CREATE TABLE two_view_geometries (pair_id INTEGER PRIMARY KEY, rows INTEGER, cols INTEGER, data BLOB)"
        )
        for number, name in enumerate(names, start=1):
            points = (rng.random((count, 6)) * [WIDTH, HEIGHT, 1, 1, 1, 1]).astype(np.float32)
            db.execute("INSERT INTO images VALUES (?, ?)", (number, name))
            db.execute("INSERT INTO keypoints VALUES (?, ?, ?, ?)", (number, count, 6, points.tobytes()))
            db.execute("INSERT INTO descriptors VALUES (?, ?, ?, ?)", (number, count - 10, 128, b""))
        for (a, b), matched in {(1, 2): count, (1, 3): 18, (2, 3): 16}.items():
            links = np.stack([np.arange(matched)] * 2, axis=1).astype(np.uint32)
            row = (a * 2147483647 + b, matched, 2, links.tobytes())
            db.execute("INSERT INTO two_view_geometries VALUES (?, ?, ?, ?)", row)
    db.close()
