"""Mapping against pycolmap's own on the same features: seconds, photos registered, and poses where the truth is known.

    python -m benchmarks.mapping_speed --data ../shared/data --keep FOLDER --out benchmarks/results/mapping_speed.json

Features and verified matches of a capture are found once. Then, in one process and in turns: ``pycolmap``, its
incremental mapping with all its defaults (threads and seed apart), which ends with its own adjustment of everything;
and ``photos``, our map of the same database without answers, from the verified matches to the written model, with its
own last adjustment. ``answers`` adds an oracle's answers about matches and poses of all pairs where the capture has
true depth; asking is not timed. Seconds are medians over the repeats.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pycolmap
import tyro
from numpy.typing import NDArray

from benchmarks.mapping import Case, ask, make_case
from benchmarks.oracle import oracle_of
from benchmarks.provenance import provenance
from recon.evaluation.pose import evaluate_poses
from recon.mapping.map import MapOptions, build_map
from recon.types import Matches, RelativePose


@dataclass(frozen=True)
class Options:
    """Which captures, how often, with how many threads."""

    captures: tuple[str, ...] = ("fountain-P11", "fox", "dino", "redkitchen-a")
    """folders of ``data``"""
    answers: tuple[str, ...] = ("redkitchen-a",)
    """of these, the ones that are mapped with an oracle's answers, too; nothing behind the option: none"""
    match_budget: int = 128
    """match questions per pair"""
    repeats: int = 3
    threads: int = 1
    data: Path = Path("../shared/data")
    keep: Path | None = None
    """folder for photos and features (default: a temporary one)"""
    out: Path | None = None
    """JSON file to write"""


Poses = Mapping[str, NDArray[np.float64]]


def with_pycolmap(case: Case, threads: int) -> Poses:
    """The largest model of pycolmap's incremental mapping as it comes."""
    settings = pycolmap.IncrementalPipelineOptions()
    settings.num_threads = settings.mapper.num_threads = threads
    settings.random_seed = settings.mapper.random_seed = settings.triangulation.random_seed = 0
    with tempfile.TemporaryDirectory() as folder:
        models = pycolmap.incremental_mapping(
            case.workspace / "features.db", case.workspace / "images", folder, settings
        )
    best = max(models.values(), key=lambda model: model.num_reg_images(), default=None)
    if best is None:
        return {}
    return {best.image(i).name: np.asarray(best.image(i).cam_from_world().matrix()) for i in best.reg_image_ids()}


def ours(
    case: Case, threads: int, matches: Sequence[Matches] = (), relative_poses: Sequence[RelativePose] = ()
) -> Poses:
    """Our map of the same features."""
    options = MapOptions()
    options = MapOptions(
        mapper=type(options.mapper)(num_threads=threads), refine=type(options.refine)(num_threads=threads)
    )
    scene = build_map(case.workspace, case.capture, case.cameras, matches, relative_poses, options)
    return {view.name: view.cam_from_world for view in scene.views}


def timed(case: Case, method: Callable[[], Poses]) -> tuple[float, float, Poses]:
    """Wall and CPU seconds, and what came out; the database is a fresh copy."""
    shutil.copy(case.workspace / "features.db", case.workspace / "database.db")
    wall, cpu = time.perf_counter(), time.process_time()
    poses = method()
    return time.perf_counter() - wall, time.process_time() - cpu, poses


def measure(case: Case, options: Options, name: str) -> list[dict[str, Any]]:
    """One row per method."""
    methods: dict[str, Callable[[], Poses]] = {
        "pycolmap": lambda: with_pycolmap(case, options.threads),
        "photos": lambda: ours(case, options.threads),
    }
    if name in options.answers:
        oracle = oracle_of(options.data / name, 0)
        answers = ask(case, oracle, options.match_budget)
        methods["answers"] = lambda: ours(case, options.threads, *answers)
    times: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
    found: dict[str, Poses] = {}
    for _ in range(options.repeats):
        for method, run in methods.items():
            wall, cpu, found[method] = timed(case, run)
            times[method].append((wall, cpu))
    rows = []
    for method, pairs in times.items():
        wall, cpu = (median(column) for column in zip(*pairs, strict=True))
        base = median(c for _, c in times["pycolmap"])
        truth = {n: pose for n, pose in case.truth.poses.items() if n in {v.name for v in case.capture.views}}
        rows.append(
            {
                "capture": name,
                "method": method,
                "registered": f"{len(found[method])} of {len(case.capture.views)}",
                "auc_5": round(evaluate_poses(dict(found[method]), truth).auc_exact[5], 3) if truth else None,
                "wall_seconds": round(wall, 2),
                "cpu_seconds": round(cpu, 2),
                "cpu_of_each": [round(c, 2) for _, c in pairs],
                "ratio_cpu": round(cpu / base, 2),
                "ratio_wall": round(wall / median(w for w, _ in times["pycolmap"]), 2),
            }
        )
    return rows


def main(options: Options) -> None:
    """Measures all captures and writes after each."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, rows = options.keep or Path(temporary), []
        for name in options.captures:
            workspace = folder / name
            workspace.mkdir(parents=True, exist_ok=True)
            for row in measure(make_case(options.data / name, workspace, 1), options, name):
                rows.append(row)
                print(json.dumps(row), flush=True)
            if options.out is not None:
                command = f"python -m benchmarks.mapping_speed {' '.join(sys.argv[1:])}"
                content = {"measured": provenance(command), "threads": options.threads, "rows": rows}
                options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options))
