"""Time and memory of ``compare`` for 1000 photos and 50 million points on each side.

    python -m benchmarks.compare_large [--photos 1000] [--points 50000000]

Two COLMAP folders are made (a binary model with 2000 observations per photo and 500 000 points, ``fused.ply`` beside
it), the second a little turned, moved and scaled, with noise. Each step runs in a process of its own, so that its peak
memory is its own. Writes ``results/compare_large.json``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import struct
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipelines.hardware import hardware
from pipelines.summary import versions

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


def read(folder: Path, other: Path) -> str:
    from recon.interop.results import read_result

    result = read_result(folder)
    return f"{len(result.poses)} photos, {result.surface.points if result.surface else 0} points"


def compare_poses_and_surfaces(folder: Path, other: Path) -> str:
    from recon.evaluation.compare import compare
    from recon.interop.results import read_result

    found = compare(read_result(folder), read_result(other))
    assert found.similarity is not None
    assert found.surface is not None
    return f"scale {found.similarity.scale:.4f}, F-score {found.surface.scores.scores.f_score}"


def refined_by_icp(folder: Path, other: Path) -> str:
    from recon.evaluation.compare import CompareOptions, compare
    from recon.interop.results import read_result

    found = compare(read_result(folder), read_result(other), CompareOptions(icp=True))
    assert found.surface is not None
    return f"F-score {found.surface.scores.scores.f_score}"


STEPS: tuple[Callable[[Path, Path], str], ...] = (read, compare_poses_and_surfaces, refined_by_icp)


def measured(step: Callable[[Path, Path], str], folder: Path, other: Path, sender: Connection
             ) -> None:  # fmt: skip
    started = time.perf_counter()
    said = step(folder, other)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    sender.send({
        "step": step.__name__, "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1), "peak_mb": round(usage.ru_maxrss / 1000),
        "says": said,
    })  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--points", type=int, default=50_000_000)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folders = Path(temporary) / "a", Path(temporary) / "b"
        for folder, moved in zip(folders, (False, True), strict=True):
            write_folder(folder, options.photos, options.points, moved)
        for step in STEPS:
            receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
            process = multiprocessing.get_context("spawn").Process(target=measured, args=(step, *folders, sender))
            process.start()
            sender.close()
            rows.append(receiver.recv())
            process.join()
            print(rows[-1], flush=True)
    data = {
        "benchmark": f"compare: {options.photos} photos and {options.points} points on each side",
        "command": "python -m benchmarks.compare_large",
        "limits": {"seconds": 60, "peak_mb": 2000},
        "note": "seconds include the start of Python; the load of the machine is with the hardware",
        "hardware": hardware() | {"load": round(os.getloadavg()[0], 1)},
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
    }
    (Path(__file__).parent / "results" / "compare_large.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
