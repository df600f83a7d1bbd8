"""How good is the ground truth that maps of ``redkitchen-a`` are compared with? Maps and truth judged by one another.

    python -m benchmarks.mapping_truth --data ../shared/data --keep FOLDER --out benchmarks/results/mapping_truth.json

Three sets of poses of the same 30 photos: the ground truth's, those of the map made with the sensor's depth, those of
the map of the photos alone (scaled by the sensor's depth at its points). Each is judged by what none of them was scored
with: the gaps between the depth maps of two photos (distance from the other's tangent plane over depth, the median of
a pair; a third of the pixels that alignment takes, drawn otherwise), and the distance of verified SIFT matches from
their epipolar lines. Then the sets are compared with one another. If their errors had nothing in common, half of what
two differences have more than the third is a set's own error (Gray and Allan, 1974, of three clocks).
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.mapping import Case, make_case, noise_ceiling, verified_matches
from benchmarks.provenance import provenance
from recon.capture.masks import load_sensor_depth
from recon.evaluation.pose import angle_deg, evaluate_poses
from recon.interop.groundtruth import read_folder
from recon.mapping.dense import DenseOptions, SurfaceMap, surface_map
from recon.mapping.dense import _associate as associate
from recon.mapping.map import build_map
from recon.mapping.pose_graph import compose, inverse
from recon.mapping.veto import epipolar_px
from recon.types import Camera, Capture, Scene

Poses = Mapping[str, NDArray[np.float64]]
GRID_PX, SAMPLES, REACH = 3, 1500, 0.08


@dataclass(frozen=True)
class Options:
    """Where things are."""

    data: Path = Path("../shared/data")
    keep: Path | None = None
    """folder for photos and features (default: a temporary one)"""
    out: Path | None = None
    """JSON file to write"""


@dataclass(frozen=True)
class PoseSet:
    poses: Poses
    cameras: Mapping[str, Camera]


def with_depth(case: Case) -> Capture:
    """The capture with the sensor's depth."""
    folder = case.truth.source / "gt" / "depth"
    views = tuple(replace(v, depth_path=folder / f"{Path(v.name).stem}.png") for v in case.capture.views)
    return replace(case.capture, views=views)


def maps(case: Case, depth: Mapping[str, NDArray[np.float32]]) -> dict[str, PoseSet]:
    """The three sets, in metres."""
    found = {"ground truth": PoseSet(case.truth.poses, case.truth.cameras)}
    for name, capture in (("sensor", with_depth(case)), ("photos", case.capture)):
        shutil.copy(case.workspace / "features.db", case.workspace / "database.db")
        scene = build_map(case.workspace, capture, case.cameras)
        scale = 1.0 if name == "sensor" else _scale(scene, depth)
        poses = {
            view.name: np.column_stack([view.cam_from_world[:, :3], scale * view.cam_from_world[:, 3]])
            for view in scene.views
        }
        found[name] = PoseSet(poses, {v.name: v.camera for v in scene.views})
    return found


def _scale(scene: Scene, depth: Mapping[str, NDArray[np.float32]]) -> float:
    """Metres per unit: the median ratio of the sensor's depth and the map's at its points."""
    ratios = []
    for view in scene.views:
        z = (scene.points_world[view.point_ids] @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3])[:, 2]
        measured = depth[view.name]
        column, row = view.pixels.astype(int).T
        height, width = measured.shape
        ratios.append(measured[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)] / z)
    return float(np.nanmedian(np.concatenate(ratios)))


def gaps(sets: Mapping[str, PoseSet], depth: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float64]]:
    """By set: the median gap of each ordered pair of photos that overlap by a quarter under all of the sets."""
    by_pair: dict[tuple[str, str], dict[str, float]] = {}
    for name, chosen in sets.items():
        rng = np.random.default_rng(5)
        surfaces = {n: surface_map(depth[n], chosen.cameras[n], GRID_PX) for n in sorted(depth)}
        samples = {n: _drawn(surface, rng) for n, surface in surfaces.items()}
        for first in surfaces:
            for second in surfaces:
                if first == second:
                    continue
                poses = np.array([chosen.poses[first], chosen.poses[second]])
                near = associate(
                    poses, 0, 1, surfaces[first], *samples[second], chosen.cameras[first], REACH,
                    DenseOptions(grid_px=GRID_PX),
                )  # fmt: skip
                if len(near[0]) >= 0.25 * SAMPLES:
                    gap = np.abs(((near[0] - near[2]) * near[3]).sum(axis=1)) / near[0][:, 2]
                    by_pair.setdefault((first, second), {})[name] = float(np.median(gap))
    common = [row for row in by_pair.values() if len(row) == len(sets)]
    return {name: np.array([row[name] for row in common]) for name in sets}


def _drawn(surface: SurfaceMap, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    known = np.isfinite(surface.points).all(axis=2) & np.isfinite(surface.normals).all(axis=2)
    rows = rng.permutation(int(known.sum()))[:SAMPLES]
    return surface.points[known][rows], surface.normals[known][rows]


def epipolar(case: Case, sets: Mapping[str, PoseSet]) -> dict[str, NDArray[np.float64]]:
    """By set: the median distance in pixels of each pair's matches (40 or more, photos 15 cm apart or more)."""
    found: dict[str, list[float]] = {name: [] for name in sets}
    for pair in verified_matches(case):
        truth = compose(case.truth.poses[pair.name1], inverse(case.truth.poses[pair.name2]))
        if len(pair.pixels1) < 40 or np.linalg.norm(truth[:, 3]) < 0.15:
            continue
        for name, chosen in sets.items():
            motion = compose(chosen.poses[pair.name1], inverse(chosen.poses[pair.name2]))
            cameras = chosen.cameras[pair.name1], chosen.cameras[pair.name2]
            found[name].append(float(np.median(epipolar_px(motion, *cameras, pair.pixels1, pair.pixels2))))
    return {name: np.array(values) for name, values in found.items()}


def differences(first: Poses, second: Poses) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of all pairs of photos: degrees and metres between what two sets say of their relative pose."""
    turns, shifts = [], []
    for a, b in combinations(sorted(set(first) & set(second)), 2):
        one, other = (compose(poses[a], inverse(poses[b])) for poses in (first, second))
        turns.append(float(angle_deg(one[:, :3].T @ other[:, :3])))
        shifts.append(float(np.linalg.norm(inverse(one)[:, 3] - inverse(other)[:, 3])))
    return np.array(turns), np.array(shifts)


def own_errors(squares: Mapping[frozenset[str], float]) -> dict[str, float]:
    """Each set's own error (rms) from the mean squared differences of the three pairs of sets."""
    total, names = sum(squares.values()) / 2, set().union(*squares)
    return {n: float(np.sqrt(max(total - squares[frozenset(names - {n})], 0.0))) for n in sorted(names)}


def main(options: Options) -> None:
    """Maps, judges, prints and writes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        case = make_case(options.data / "redkitchen-a", folder, 1)
        measured = {view.name: load_sensor_depth(view) for view in with_depth(case).views}
        depth = {name: values for name, values in measured.items() if values is not None}
        sets = maps(case, depth)
    truth = read_folder(options.data / "redkitchen-a")
    result: dict[str, Any] = {"auc_10_of_exact_poses_under_the_stated_error": noise_ceiling(truth, 0.7, 0.03)}
    result["auc_10"] = {
        f"{a} as judged by {b}": round(evaluate_poses(dict(sets[a].poses), dict(sets[b].poses)).auc_exact[10], 3)
        for a in sets
        for b in sets
        if a != b
    }
    for key, values in (("depth_gap_percent", gaps(sets, depth)), ("epipolar_px", epipolar(case, sets))):
        factor = 100 if key == "depth_gap_percent" else 1
        result[key] = {
            name: {
                "median": round(float(np.median(of)) * factor, 3),
                "mean": round(float(np.mean(of)) * factor, 3),
                "smaller_than_the_truths": round(float((of < values["ground truth"]).mean()), 2),
                "pairs": len(of),
            }
            for name, of in values.items()
        }
    turns: dict[frozenset[str], float] = {}
    shifts: dict[frozenset[str], float] = {}
    for a, b in combinations(sets, 2):
        turn, shift = differences(sets[a].poses, sets[b].poses)
        turns[frozenset((a, b))], shifts[frozenset((a, b))] = float((turn**2).mean()), float((shift**2).mean())
        result.setdefault("differences", {})[f"{a}, {b}"] = {
            "median_deg": round(float(np.median(turn)), 2),
            "median_cm": round(100 * float(np.median(shift)), 1),
        }
    result["own_error_deg"] = {name: round(value, 2) for name, value in own_errors(turns).items()}
    result["own_error_cm"] = {name: round(100 * value, 1) for name, value in own_errors(shifts).items()}
    print(json.dumps(result, indent=1))
    if options.out is not None:
        command = f"python -m benchmarks.mapping_truth {' '.join(sys.argv[1:])}"
        content = {"measured": provenance(command), **result}
        options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options))
