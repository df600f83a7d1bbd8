"""What each part of mapping is worth: the same photos with and without a checkpoint's answers (an oracle's).

    python -m benchmarks.mapping rooms --keep FOLDER --out benchmarks/results/mapping_rooms.json
    python -m benchmarks.mapping redkitchen --data ../shared/data --keep FOLDER --out ...

``rooms``: a procedural room of the test split (12 photos on an orbit); of these all, every second (about 60 degrees
apart) and every third (four photos, about 90 degrees apart), and pairs of photos by the angle between them: what SIFT
verifies, and what refined matches of the oracle give. ``redkitchen``: 30 real frames, oracle answers from its ground
truth. Features are found once; every variant then makes its own map of them. Poses are scored by the exact AUC.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pycolmap
import tyro
from numpy.typing import NDArray

from benchmarks.oracle import Options as RoomOptions
from benchmarks.oracle import oracle_of, synthetic_scene
from benchmarks.provenance import provenance
from recon.cameras.intrinsics import initial_cameras
from recon.cameras.pinhole import project, unproject
from recon.capture.folder import load_pixels, read_capture
from recon.errors import ReconError
from recon.evaluation.pose import angle_deg, evaluate_poses
from recon.evidence.features import extract_features, match_features
from recon.evidence.matches import ask_matches
from recon.evidence.pairs import choose_pairs
from recon.evidence.poses import ask_pose
from recon.evidence.subpixel import SubpixelOptions
from recon.interop.groundtruth import read_folder
from recon.interop.result import Reconstructed
from recon.mapping.coarse import sharpen
from recon.mapping.map import build_map
from recon.mapping.pose_graph import compose, inverse
from recon.mapping.veto import epipolar_px
from recon.synth.oracle import Oracle
from recon.types import Camera, Capture, Matches, RelativePose

Variant = Literal["colmap-alone", "full", "no-subpixel", "no-matches", "no-poses", "sensor"]


@dataclass(frozen=True)
class Options:
    """Which captures, variants and seeds."""

    capture: tyro.conf.Positional[Literal["rooms", "redkitchen"]]
    """procedural rooms, or real frames"""
    rooms: tuple[int, ...] = (0,)
    """of the test split"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """of the oracle's errors"""
    steps: tuple[int, ...] = (3, 2, 1)
    """every how manieth photo of a room is used"""
    variants: tuple[Variant, ...] = ("colmap-alone", "full", "no-subpixel", "no-matches", "no-poses")
    match_budget: int = 128
    """match questions per pair"""
    data: Path = Path("../shared/data")
    """folder that holds redkitchen-a"""
    keep: Path | None = None
    """folder for captures and features (default: a temporary one)"""
    out: Path | None = None
    """JSON file to write"""


@dataclass(frozen=True)
class Case:
    """A capture in a workspace with its features found, and its truth."""

    name: str
    workspace: Path
    capture: Capture
    cameras: dict[str, Camera]
    truth: Reconstructed
    seconds_features: float = field(default=0.0)


def make_case(scene: Path, workspace: Path, step: int) -> Case:
    """Every ``step``-th photo of a scene; known intrinsics are not given, EXIF is."""
    photos = workspace / "photos"
    if not photos.is_dir():
        photos.mkdir(parents=True)
        for photo in sorted((scene / "images").iterdir())[::step]:
            shutil.copy(photo, photos / photo.name)
    capture = read_capture(photos, workspace / "images")
    cameras = initial_cameras(capture)
    started = time.process_time()
    database = workspace / "features.db"
    extract_features(database, capture, cameras)
    match_features(database, choose_pairs(capture))
    name = f"{scene.name}, {len(capture.views)} photos"
    return Case(name, workspace, capture, cameras, read_folder(scene), time.process_time() - started)


def ask(case: Case, oracle: Oracle, budget: int) -> tuple[list[Matches], list[RelativePose]]:
    """All pairs' matches and poses."""
    pixels = {view.name: load_pixels(view) for view in case.capture.views}
    matches, poses = [], []
    for name1, name2 in choose_pairs(case.capture):
        view1, view2 = case.capture.view(name1), case.capture.view(name2)
        pair = (view1, pixels[name1], case.cameras[name1], view2, pixels[name2], case.cameras[name2])
        matches.append(ask_matches(oracle, *pair, budget))
        pose = ask_pose(oracle, *pair)
        if pose is not None:
            poses.append(pose)
    return matches, poses


def run(
    case: Case, variant: Variant, matches: Sequence[Matches], poses: Sequence[RelativePose], seed: int
) -> dict[str, Any]:
    """One map and its scores."""
    if variant in ("colmap-alone", "sensor", "no-matches"):
        matches = []
    if variant in ("colmap-alone", "sensor", "no-poses"):
        poses = []
    if variant == "sensor":  # the truth's own depth maps, as a depth sensor's
        folder = case.truth.source / "gt" / "depth"
        views = [replace(v, depth_path=folder / f"{Path(v.name).stem}.png") for v in case.capture.views]
        case = replace(case, capture=replace(case.capture, views=tuple(views)))
    if variant == "no-subpixel":  # what is not known to be coarse is not refined
        matches = [replace(m, sigma_px=float("nan")) for m in matches]
    shutil.copy(case.workspace / "features.db", case.workspace / "database.db")
    row: dict[str, Any] = {"capture": case.name, "variant": variant, "seed": seed, "photos": len(case.capture.views)}
    started = time.process_time()
    names = {view.name for view in case.capture.views}
    truth = {name: pose for name, pose in case.truth.poses.items() if name in names}
    try:
        scene = build_map(case.workspace, case.capture, case.cameras, matches, poses)
    except ReconError as error:
        return row | {"registered": 0, "auc_5": 0.0, "auc_10": 0.0, "failed": str(error)[:200]}
    report = evaluate_poses({view.name: view.cam_from_world for view in scene.views}, truth)
    true_focal = case.truth.cameras[scene.views[0].name].focal_px
    return row | {
        "registered": report.num_registered,
        "auc_5": round(report.auc_exact[5], 3),
        "auc_10": round(report.auc_exact[10], 3),
        "median_rotation_deg": round(report.median_rotation_deg, 3),
        "median_direction_deg": round(report.median_direction_deg, 3),
        "focal_error_percent": round(100 * (scene.views[0].camera.focal_px / true_focal - 1), 2),
        "points": len(scene.points_world),
        "cpu_seconds": round(time.process_time() - started, 1),
        "epipolar_px": misfit(
            case, {v.name: v.cam_from_world for v in scene.views}, {v.name: v.camera for v in scene.views}
        ),
    }


def misfit(case: Case, poses: Mapping[str, NDArray[np.float64]], cameras: Mapping[str, Camera]) -> float | None:
    """Median over pairs of photos (40 verified SIFT matches or more, 15 cm or more apart if the unit is metres) of the
    median distance in pixels of matches from their epipolar lines."""
    found = []
    for pair in verified_matches(case):
        if len(pair.pixels1) < 40 or pair.name1 not in poses or pair.name2 not in poses:
            continue
        motion = compose(poses[pair.name1], inverse(poses[pair.name2]))
        if np.linalg.norm(motion[:, 3]) < 0.15:
            continue
        error = epipolar_px(motion, cameras[pair.name1], cameras[pair.name2], pair.pixels1, pair.pixels2)
        found.append(float(np.median(error)))
    return round(float(np.median(found)), 2) if found else None


def pairs(case: Case, matches: Sequence[Matches]) -> list[dict[str, Any]]:
    """What every pair gives: verified SIFT matches, and the oracle's before and after refinement against the truth."""
    sift = {(m.name1, m.name2): m for m in verified_matches(case)}
    options = SubpixelOptions(keep_coarse_below=0)
    refined = {(m.name1, m.name2): m for m in sharpen(case.capture, case.cameras, matches, options)}
    rows = []
    for coarse in matches:
        key = (coarse.name1, coarse.name2)
        pose1, pose2 = (case.truth.poses[name] for name in key)
        fine = refined.get(key, replace(coarse, pixels1=np.zeros((0, 2)), pixels2=np.zeros((0, 2))))
        error = _errors(case, fine)
        rows.append(
            {
                "angle_deg": round(float(angle_deg(pose1[:, :3] @ pose2[:, :3].T)), 1),
                "sift_verified": len(sift[key].pixels1) if key in sift else 0,
                "sift_within_5_px": round(float((_errors(case, sift[key]) < 5).mean()), 2) if key in sift else None,
                "coarse": len(coarse.pixels1),
                "coarse_median_px": _median(_errors(case, coarse)),
                "refined": len(error),
                "refined_median_px": _median(error),
                "refined_within_1_px": round(float((error < 1).mean()), 2) if len(error) else None,
            }
        )
    return rows


def verified_matches(case: Case) -> list[Matches]:
    """SIFT's matches that COLMAP's two-view geometry accepts."""
    found = []
    with pycolmap.Database.open(case.workspace / "features.db") as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        for pair_id, geometry in zip(*database.read_two_view_geometries(), strict=True):
            ids = pycolmap.pair_id_to_image_pair(pair_id)
            links = np.asarray(geometry.inlier_matches, dtype=np.int64).reshape(-1, 2)
            if len(links) == 0:
                continue
            first, second = (np.array(database.read_keypoints(i), dtype=np.float64)[:, :2] for i in ids)
            name1, name2 = (names[i] for i in ids)
            found.append(Matches(name1, name2, first[links[:, 0]], second[links[:, 1]], np.ones(len(links)), "sift"))
    return found


def _errors(case: Case, matches: Matches) -> NDArray[np.float64]:
    """Distance [N] of each match from where the true depth and poses put it; NaN depth leaves it out."""
    if len(matches.pixels1) == 0 or case.truth.load_depth is None:
        return np.zeros(0)
    depth = case.truth.load_depth(matches.name1).depth_m
    column, row = np.floor(matches.pixels1).astype(int).T
    inside = (row >= 0) & (row < depth.shape[0]) & (column >= 0) & (column < depth.shape[1])
    z = np.where(inside, depth[np.clip(row, 0, depth.shape[0] - 1), np.clip(column, 0, depth.shape[1] - 1)], np.nan)
    pose1, pose2 = (case.truth.poses[name] for name in (matches.name1, matches.name2))
    points = unproject(case.truth.cameras[matches.name1], matches.pixels1, z.astype(np.float64))
    world = (points - pose1[:, 3]) @ pose1[:, :3]
    known = np.isfinite(world).all(axis=1)
    seen = project(case.truth.cameras[matches.name2], world[known] @ pose2[:, :3].T + pose2[:, 3])
    error = np.linalg.norm(seen - matches.pixels2[known], axis=1)
    return np.asarray(error[np.isfinite(error)], dtype=np.float64)


def _median(values: NDArray[np.float64]) -> float | None:
    return round(float(np.median(values)), 3) if len(values) else None


def noise_ceiling(truth: Reconstructed, rotation_deg: float, shift_m: float) -> list[float]:
    """AUC@10 of poses that are exact but for errors of the given size per pair (its share per photo), ten draws."""
    from scipy.spatial.transform import Rotation

    rng, result = np.random.default_rng(0), []
    for _ in range(10):
        poses = {}
        for name, pose in truth.poses.items():
            turn = Rotation.from_rotvec(rng.normal(0, np.radians(rotation_deg) / np.sqrt(6), 3)).as_matrix()
            centre = -pose[:, :3].T @ pose[:, 3] + rng.normal(0, shift_m / np.sqrt(6), 3)
            poses[name] = np.column_stack([turn @ pose[:, :3], -turn @ pose[:, :3] @ centre])
        result.append(round(evaluate_poses(poses, dict(truth.poses)).auc_exact[10], 3))
    return result


def main(options: Options) -> None:
    """Runs everything that was asked for and writes it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result: dict[str, Any] = {"runs": [], "pairs": []}
        for scene, step in scenes(options, folder):
            case = make_case(scene, folder / f"{scene.name}-step{step}", step)
            print(f"{case.name}: features in {case.seconds_features:.1f} s", flush=True)
            oracle = oracle_of(scene, 0)
            for number, seed in enumerate(options.seeds):
                oracle.seed = seed
                matches, poses = ask(case, oracle, options.match_budget)
                if number == 0 and options.capture == "rooms" and step == min(options.steps):
                    result["pairs"] += pairs(case, matches)
                for variant in options.variants:
                    if variant in ("colmap-alone", "sensor") and number:
                        continue  # knows nothing of the seed
                    result["runs"].append(run(case, variant, matches, poses, seed))
                    print(json.dumps(result["runs"][-1]), flush=True)
                    _write(result, options)
        if options.capture == "redkitchen":
            result["epipolar_px_of_the_ground_truth"] = misfit(case, case.truth.poses, case.truth.cameras)
            truth = read_folder(options.data / "redkitchen-a")
            result["auc_10_of_the_ground_truth_with_its_own_error"] = noise_ceiling(truth, 0.7, 0.03)
        _write(result, options)


def scenes(options: Options, folder: Path) -> list[tuple[Path, int]]:
    """Ground-truth folders and every how manieth photo of each is used."""
    if options.capture == "redkitchen":
        return [(options.data / "redkitchen-a", 1)]
    rooms = [synthetic_scene(folder, room, RoomOptions("synthetic")) for room in options.rooms]
    return [(room, step) for room in rooms for step in options.steps]


def _write(result: dict[str, Any], options: Options) -> None:
    if options.out is not None:
        command = f"python -m benchmarks.mapping {' '.join(sys.argv[1:])}"
        content = {"measured": provenance(command), **result}
        options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options))
