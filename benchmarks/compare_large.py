"""Time and memory of ``compare`` and ``report`` for 1000 photos and 50 million points.

    python -m benchmarks.compare_large [--photos 1000] [--points 50000000]

Two COLMAP folders are made (a binary model with 2000 observations per photo and 500 000 points, ``fused.ply`` beside
it), the second a little turned, moved and scaled, with noise; a third whose points are all in ``points3D.bin``, with
tracks of 2 to 20 observations; and a finished run of ours with that many points in its cloud, 12-megapixel photos, a
depth map of each and matches of each with ten others. Each step runs in a process of its own, so that its peak memory
(the kernel's ``VmHWM``) is its own. About 12 GB of disk are needed. Writes ``results/compare_large.json``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import struct
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from pipelines.hardware import hardware
from pipelines.records import save_record
from pipelines.summary import versions
from pipelines.workspace import FORMAT, MARKER
from recon.surface.store import FolderDepthStore
from recon.surface.types import DepthMap
from recon.types import Camera, MetricScale, PosedView, Scene

OBSERVATIONS, SPARSE, CHUNK = 2000, 500_000, 1 << 20


def write_folder(folder: Path, photos: int, points: int, moved: bool) -> None:
    """A model and a fused cloud of a wavy ground seen from above; ``moved`` by a small similarity, with noise."""
    rng = np.random.default_rng(0)
    turn, shift, scale = (
        (Rotation.from_euler("xyz", [3, 5, 30], degrees=True), np.array([5.0, -2.0, 1.0]), 1.3)
        if moved
        else (Rotation.identity(), np.zeros(3), 1.0)
    )
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    (model / "cameras.bin").write_bytes(struct.pack("<QiiQQ4d", 1, 1, 1, 4000, 3000, 3000.0, 3000.0, 2000.0, 1500.0))
    side = int(np.ceil(np.sqrt(photos)))
    with open(model / "images.bin", "wb") as file:
        file.write(struct.pack("<Q", photos))
        observations = np.zeros(OBSERVATIONS, dtype=[("xy", "<f8", 2), ("id", "<i8")]).tobytes()
        for i in range(photos):
            centre = np.array([i % side, i // side, 20.0]) + 0.02 * moved * rng.normal(size=3)
            cam_from_world = Rotation.from_euler("x", 180, degrees=True) * turn.inv()
            translation = -cam_from_world.apply(scale * turn.apply(centre) + shift)
            x, y, z, w = cam_from_world.as_quat()
            file.write(struct.pack("<I7dI", i + 1, w, x, y, z, *translation, 1) + f"{i:05d}.jpg\0".encode())
            file.write(struct.pack("<Q", OBSERVATIONS) + observations)
    sparse = np.zeros(SPARSE, dtype=[("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("e", "<f8"), ("n", "<u8"),
                                     ("track", "<u4", 4)])  # fmt: skip
    sparse["id"], sparse["n"] = np.arange(1, SPARSE + 1), 2
    sparse["xyz"] = scale * turn.apply(ground(rng, SPARSE, side)) + shift
    (model / "points3D.bin").write_bytes(struct.pack("<Q", SPARSE) + sparse.tobytes())
    with open(folder / "fused.ply", "wb") as file:
        names = [f"property float {axis}" for axis in ("x", "y", "z", "nx", "ny", "nz")]
        names += [f"property uchar {c}" for c in ("red", "green", "blue")]
        head = ["ply", "format binary_little_endian 1.0", f"element vertex {points}", *names, "end_header", ""]
        file.write("\n".join(head).encode())
        kind = np.dtype([("xyz", "<f4", 3), ("normal", "<f4", 3), ("rgb", "u1", 3)])
        for start in range(0, points, CHUNK):
            rows = np.zeros(min(CHUNK, points - start), dtype=kind)
            place = ground(rng, len(rows), side) + 0.01 * moved * rng.normal(size=(len(rows), 3))
            rows["xyz"], rows["normal"] = scale * turn.apply(place) + shift, turn.apply([0.0, 0.0, 1.0])
            rows.tofile(file)


def ground(rng: np.random.Generator, count: int, side: int) -> NDArray[np.float64]:
    x, y = rng.uniform(0, side, (2, count))
    return np.stack([x, y, np.sin(x) * np.cos(0.7 * y)], axis=1)


def write_model_points(folder: Path, model: Path, points: int, side: int) -> None:
    """The cameras of ``model`` with ``points`` points in its ``points3D.bin``."""
    target = folder / "sparse" / "0"
    target.mkdir(parents=True)
    for name in ("cameras.bin", "images.bin"):
        os.link(model / name, target / name)
    rng = np.random.default_rng(1)
    head = np.dtype([("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("track", "<u8")])
    with open(target / "points3D.bin", "wb") as file:
        file.write(struct.pack("<Q", points))
        for start in range(0, points, CHUNK):
            rows = np.zeros(min(CHUNK, points - start), dtype=head)
            rows["id"], rows["xyz"] = start + 1 + np.arange(len(rows)), ground(rng, len(rows), side)
            rows["error"], rows["track"] = rng.random(len(rows)), np.minimum(1 + rng.geometric(0.35, len(rows)), 20)
            ends = np.cumsum(head.itemsize + 8 * rows["track"].astype(np.int64))
            at = ends - head.itemsize - 8 * rows["track"].astype(np.int64)
            content = rng.integers(1, 1000, int(ends[-1]) // 4 + 1, dtype="<u4").view(np.uint8)[: int(ends[-1])]
            content[at[:, None] + np.arange(head.itemsize)] = rows.view(np.uint8).reshape(len(rows), -1)
            content.tofile(file)


def write_run(folder: Path, cloud: Path, model: Path, photos: int) -> None:
    """A finished run of ours: its map, photos, depth maps, matches and summary; ``cloud`` is its output."""
    root = folder / "run-workspace"
    for name in ("images", "stages", "dense", "sparse"):
        (root / name).mkdir(parents=True)
    os.link(cloud, folder / "run.ply")
    shutil.copytree(model, root / "sparse" / "0", copy_function=os.link)
    (root / MARKER).write_text(FORMAT)
    rng = np.random.default_rng(2)
    side = int(np.ceil(np.sqrt(photos)))
    Image.fromarray(rng.integers(0, 255, (3000, 4000, 3), dtype=np.uint8)).save(root / "images" / "00000.jpg")
    camera = Camera.pinhole(4000, 3000, 3000.0, 3000.0, 2000.0, 1500.0)
    small = camera.resized(640, 480)
    points = ground(rng, SPARSE, side)
    flat, color = np.full((480, 640), 20.0, np.float32), np.zeros((480, 640, 3), np.uint8)
    store, views = FolderDepthStore(root / "dense" / "abc"), []
    down = np.diag([1.0, -1.0, -1.0])
    for i in range(photos):
        name = f"{i:05d}.jpg"
        if i:
            os.link(root / "images" / "00000.jpg", root / "images" / name)
        pose = np.column_stack([down, -down @ [i % side, i // side, 20.0]])
        seen = rng.choice(SPARSE, OBSERVATIONS, replace=False)
        views.append(PosedView(name, camera, pose, seen, rng.uniform(0, [4000, 3000], (OBSERVATIONS, 2))))
        store.save("final", DepthMap(name, flat, np.ones_like(flat), small, pose, color))
    colors = rng.integers(0, 255, (SPARSE, 3)).astype(np.uint8)
    scene = Scene(tuple(views), points, colors, rng.random(SPARSE), (), MetricScale(1.0, 0.97, 1.03, ("GPS",), ()))
    save_record(root / "stages" / "scale.npz", (scene, {}), "key", root)
    with pycolmap.Database.open(root / "database.db") as database:
        database.write_camera(pycolmap.Camera(model="PINHOLE", width=4000, height=3000, params=camera.params,
                                              camera_id=1), use_camera_id=True)  # fmt: skip
        for i, view in enumerate(views):
            database.write_image(pycolmap.Image(name=view.name, camera_id=1, image_id=i + 1), use_image_id=True)
            database.write_keypoints(i + 1, view.pixels.astype(np.float32))
        found = pycolmap.TwoViewGeometry()
        found.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
        found.inlier_matches = np.stack([np.arange(200), rng.permutation(200)], axis=1).astype(np.uint32)
        for i in range(photos):
            for k in range(1, min(11, photos - i)):
                database.write_two_view_geometry(i + 1, i + 1 + k, found)
    rows = [{"name": view.name, "registered": True, "points": OBSERVATIONS, "focal_px": 3000.0} for view in views]
    (root / "summary.json").write_text(json.dumps({"status": "done", "output": "run.ply", "photos": rows}))


def read(root: Path) -> str:
    from recon.interop.results import read_result

    result = read_result(root / "a")
    return f"{len(result.poses)} photos, {result.surface.points if result.surface else 0} points"


def compared(first: Path, second: Path, icp: bool = False) -> str:
    from recon.evaluation.compare import CompareOptions, compare
    from recon.interop.results import read_result

    found = compare(read_result(first), read_result(second), CompareOptions(icp=icp))
    assert found.similarity is not None
    assert found.surface is not None
    scores = [round(score, 4) for score in found.surface.scores.scores.f_score]
    return f"scale {found.similarity.scale:.4f}, F-score {scores}, {found.notes[-1]}"


def compare_poses_and_surfaces(root: Path) -> str:
    return compared(root / "a", root / "b")


def compare_refined_by_icp(root: Path) -> str:
    return compared(root / "a", root / "b", icp=True)


def compare_points_of_a_model(root: Path) -> str:
    return compared(root / "c", root / "b")


def report(root: Path) -> str:
    from pipelines.report import write_report

    page = write_report(root / "run" / "run.ply")
    return f"{page.stat().st_size / 1e6:.1f} MB"


STEPS: tuple[Callable[[Path], str], ...] = (
    read, compare_poses_and_surfaces, compare_refined_by_icp, compare_points_of_a_model, report
)  # fmt: skip


def measured(step: Callable[[Path], str], root: Path, sender: Connection) -> None:
    started = time.perf_counter()
    said = step(root)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    sender.send({
        "step": step.__name__, "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1), "peak_mb": round(peak_kib() * 1.024e-3),
        "load": round(os.getloadavg()[0], 1), "says": said,
    })  # fmt: skip


def peak_kib() -> int:
    """Of this process alone: ``ru_maxrss`` would count what its parent had before."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--points", type=int, default=50_000_000)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root, side = Path(temporary), int(np.ceil(np.sqrt(options.photos)))
        write_folder(root / "a", options.photos, options.points, moved=False)
        write_folder(root / "b", options.photos, options.points, moved=True)
        write_model_points(root / "c", root / "a" / "sparse" / "0", options.points, side)
        write_run(root / "run", root / "a" / "fused.ply", root / "a" / "sparse" / "0", options.photos)
        for step in STEPS:
            receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
            process = multiprocessing.get_context("spawn").Process(target=measured, args=(step, root, sender))
            process.start()
            sender.close()
            rows.append(receiver.recv())
            process.join()
            print(rows[-1], flush=True)
    data = {
        "benchmark": f"compare and report: {options.photos} photos and {options.points} points on each side",
        "command": "python -m benchmarks.compare_large",
        "limits": {"seconds": 60, "peak_mb": 2000},
        "note": "seconds include imports; load is the machine's over the last minute (1 per busy process; 2 cores)",
        "hardware": hardware(),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
    }
    (Path(__file__).parent / "results" / "compare_large.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
