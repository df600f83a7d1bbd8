"""What dense depth and fusion cost: seconds per photo, and the largest memory of the process.

    python -m benchmarks.surface_costs --out benchmarks/results/surface_costs.json

Photos of a procedural room with its true poses and points, so that nothing but the surface step is measured. Each
figure comes from a process of its own: peak memory is the process's.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.provenance import provenance
from recon.surface.frames import Frame
from recon.surface.fuse import fuse
from recon.surface.grid import plan_grid
from recon.surface.multiview import Prior, refine
from recon.surface.options import FuseOptions, MultiviewOptions
from recon.surface.store import FolderDepthStore, StoredDepthMaps
from recon.surface.types import DepthMap
from recon.synth.capture import SynthCaptureOptions, capture_views
from recon.synth.render import SynthView


@dataclass(frozen=True)
class Options:
    """What is measured."""

    seed: int = 119
    views: int = 16
    """photos on an orbit through the room"""
    width_px: int = 640
    height_px: int = 480
    repeats: int = 3
    """photos refined; the median counts"""
    threads: int = 2
    voxels_m: tuple[float, ...] = (0.02, 0.01, 0.005)
    """of the fusions"""
    out: Path | None = None
    """JSON file to write"""


def refinement(options: Options, views: list[SynthView]) -> dict[str, float]:
    """Seconds per photo of the search over the points' range and around a prior, with six neighbours."""
    torch.set_num_threads(options.threads)
    frames = [_frame(view, index) for index, view in enumerate(views)]
    figures = {}
    for name in ("points", "prior"):
        seconds = []
        for k in range(options.repeats + 1):  # the first one warms up
            neighbours = [frames[(k + step) % len(frames)] for step in (-3, -2, -1, 1, 2, 3)]
            prior = Prior(views[k].depth_m, 0.05) if name == "prior" else None
            started = time.perf_counter()
            refine(frames[k], neighbours, MultiviewOptions(), prior, "cpu")
            seconds.append(time.perf_counter() - started)
        figures[name] = float(np.median(seconds[1:]))
    return {f"seconds per photo, search around the {name}": value for name, value in figures.items()} | _memory()


def fusion(options: Options, views: list[SynthView], voxel_m: float, limit_mb: int) -> dict[str, float]:
    """Time and memory of fusing all photos' true depth, read from files one at a time as in a run."""
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        store = FolderDepthStore(Path(folder))
        for index, view in enumerate(views):
            store.save("final", _depth_map(view, index))
        names = [str(index) for index in range(len(views))]
        views.clear()
        maps = StoredDepthMaps(store, "final", names)
        before = _memory()["peak MB"]
        fuse_options = FuseOptions(voxel_m=voxel_m, max_memory_mb=limit_mb)
        started = time.perf_counter()
        plan = plan_grid(maps, fuse_options)
        mesh = fuse(maps, fuse_options, plan=plan)
        seconds = time.perf_counter() - started
    return {
        "voxel_m": plan.voxel_m,
        "planned MB": plan.memory_mb,
        "faces": float(len(mesh.faces)),
        "seconds": seconds,
        "peak MB before": before,
    } | _memory()


def main(options: Options) -> dict[str, Any]:
    """Runs the benchmark; returns what is written."""
    size = SynthCaptureOptions(num_views=options.views, width_px=options.width_px, height_px=options.height_px)
    _, views = capture_views(options.seed, dataclasses.replace(size, supersample=1, mesh_cell_m=0.0))
    figures: dict[str, Any] = {"refinement": _apart(refinement, options, views)}
    limits = [(voxel, 2048) for voxel in options.voxels_m] + [(options.voxels_m[-1], 256)]
    figures["fusion"] = [_apart(fusion, options, views, *limit) for limit in limits]
    result = {
        "photos": options.views,
        "size": [options.width_px, options.height_px],
        "threads": options.threads,
        "figures": figures,
        **provenance("python -m benchmarks.surface_costs " + " ".join(sys.argv[1:])),
    }
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _apart(work: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        figures = pool.apply(work, arguments)
    return {name: round(value, 4 if value < 1 else 2) for name, value in figures.items()}


def _frame(view: SynthView, index: int) -> Frame:
    rows, columns = (np.linspace(10, size - 11, 20).astype(int) for size in view.depth_m.shape)
    row, column = (grid.ravel() for grid in np.meshgrid(rows, columns, indexing="ij"))
    pixels = np.stack([column + 0.5, row + 0.5], axis=-1)
    return Frame(
        str(index), view.image, view.camera, view.camera, view.cam_from_world,
        np.arange(len(row)), pixels, view.depth_m[row, column].astype(np.float64),
    )  # fmt: skip


def _depth_map(view: SynthView, index: int) -> DepthMap:
    confidence = np.isfinite(view.depth_m).astype(np.float32)
    return DepthMap(str(index), view.depth_m, confidence, view.camera, view.cam_from_world, view.image, "exact")


def _memory() -> dict[str, float]:
    return {"peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=2))
