"""Figures of one reconstruction against the truth: scale, poses, depth by kind of pixel, surface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.options import Options
from pipelines.summary import Summary
from recon.evaluation.cloud import CloudScores, compare_points, sample_surface, seen_by
from recon.evaluation.pose import align, evaluate_poses
from recon.evaluation.surfaces import refine_by_icp
from recon.interop.meshes import read_mesh
from recon.interop.result import Reconstructed
from recon.surface.densify import photo_to_frame
from recon.surface.frames import Frame
from recon.surface.store import FolderDepthStore
from recon.surface.types import DepthMap
from recon.types import Scene

TEXTURED_LEVELS = 4.0  # standard deviation of grey over 9 x 9 pixels from which a pixel counts as textured
THRESHOLDS_M = (0.01, 0.03, 0.05)
SURFACE_POINTS = 200_000


def score_run(summary: Summary, mesh_path: Path, options: Options, truth: Reconstructed) -> dict[str, Any]:
    """All figures of a finished run."""
    scene = summary.scene
    assert scene is not None
    poses = {view.name: view.cam_from_world for view in scene.views}
    report = evaluate_poses(poses, truth.poses)
    figures: dict[str, Any] = {
        "registered": report.num_registered,
        "poses": {
            "auc_exact": {str(k): _round(v) for k, v in report.auc_exact.items()},
            "median_rotation_deg": _round(report.median_rotation_deg),
            "centres_rmse_m": _round(report.ate_rmse),
        },
        "scale": _scale(scene, truth),
    }
    figures["depth"] = _depth(scene, options, truth)
    figures["surface"] = _surface(scene, mesh_path, truth)
    return figures


def true_depth_in_frame(scene: Scene, depth_map: DepthMap, truth: Reconstructed) -> NDArray[np.float32] | None:
    """The true z-depth at the map's pixels, NaN where unknown."""
    if truth.load_depth is None or depth_map.name not in truth.depth_names:
        return None
    view = scene.view(depth_map.name)
    nothing = np.empty(0)
    frame = Frame(
        depth_map.name, depth_map.color, depth_map.camera, view.camera, view.cam_from_world,
        nothing.astype(np.int64), nothing.reshape(0, 2), nothing,
    )  # fmt: skip
    return photo_to_frame(frame, truth.load_depth(depth_map.name).depth_m, np.float32(np.nan))


def textured(depth_map: DepthMap) -> NDArray[np.bool_]:
    """Pixels [H, W] whose 9 x 9 surroundings vary in grey."""
    grey = cv2.cvtColor(depth_map.color, cv2.COLOR_RGB2GRAY).astype(np.float32)
    mean, square = cv2.blur(grey, (9, 9)), cv2.blur(grey**2, (9, 9))
    return np.sqrt(np.maximum(square - mean**2, 0)) >= TEXTURED_LEVELS


def dense_maps(scene: Scene, options: Options, stage: str = "final") -> list[DepthMap]:
    """The dense depth maps that the run left in its workspace."""
    folder = next(iter(sorted((options.workspace_folder / "dense").iterdir())))
    store = FolderDepthStore(folder)
    maps = [store.load(stage, view.name) for view in scene.views]  # type: ignore[arg-type]
    return [depth_map for depth_map in maps if depth_map is not None]


def _scale(scene: Scene, truth: Reconstructed) -> dict[str, Any]:
    """``error``: how much too large the map is, from its camera centres; whether the interval holds the truth."""
    scale = scene.scale
    if not scale.is_known:
        return {"known": False}
    names = [view.name for view in scene.views if view.name in truth.poses]
    centres = np.array([scene.view(name).centre_world for name in names])
    true_centres = np.array([-truth.poses[n][:, :3].T @ truth.poses[n][:, 3] for n in names])
    factor = align(centres, true_centres).scale  # true metres per metre of the map
    low, high = scale.low / scale.metres_per_unit, scale.high / scale.metres_per_unit
    return {
        "known": True,
        "error": _round(1 / factor - 1),
        "interval": [_round(low), _round(high)],
        "holds_truth": bool(low <= factor <= high),
        "used": list(scale.used),
    }


def _depth(scene: Scene, options: Options, truth: Reconstructed) -> dict[str, Any]:
    """AbsRel of final depth where textured and elsewhere, confirmed and filled, and the share of pixels with depth.

    ``shape`` divides by the median ratio over all maps first: what remains is not the scale's error.
    """
    maps = dense_maps(scene, options)
    fill = options.surface.fill_confidence
    ratios: dict[str, list[NDArray]] = {"textured": [], "elsewhere": [], "confirmed": [], "filled": []}
    asked = dict.fromkeys(("textured", "elsewhere"), 0)
    for depth_map in maps:
        true_depth = true_depth_in_frame(scene, depth_map, truth)
        if true_depth is None:
            continue
        known_truth = np.isfinite(true_depth)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = depth_map.depth_m / true_depth
        has = np.isfinite(ratio)
        texture = textured(depth_map)
        filled = np.isclose(depth_map.confidence, fill, atol=2e-3)
        for name, mask in (
            ("textured", texture), ("elsewhere", ~texture), ("confirmed", ~filled), ("filled", filled)
        ):  # fmt: skip
            ratios[name].append(ratio[has & mask])
        asked["textured"] += int((known_truth & texture).sum())
        asked["elsewhere"] += int((known_truth & ~texture).sum())
    together = {name: np.concatenate(parts) if parts else np.empty(0) for name, parts in ratios.items()}
    everything = np.concatenate([together["textured"], together["elsewhere"]])
    if len(everything) == 0:
        return {"maps": len(maps)}
    middle = float(np.median(everything))
    figures: dict[str, Any] = {"maps": len(maps), "median_ratio": _round(middle)}
    for name, values in together.items():
        if len(values):
            figures[name] = {
                "abs_rel": _round(float(np.abs(values - 1).mean())),
                "abs_rel_shape": _round(float(np.abs(values / middle - 1).mean())),
                "median_shape": _round(float(np.median(np.abs(values / middle - 1)))),
            }
            if name in asked:
                figures[name]["covered"] = _round(len(values) / max(asked[name], 1))
    return figures


def _surface(scene: Scene, mesh_path: Path, truth: Reconstructed) -> dict[str, Any]:
    """F-scores, in metres as they are (rigid alignment: cameras, then ICP) and of the shape (scale aligned, too)."""
    mesh = read_mesh(mesh_path)
    true_points = sample_surface(read_mesh(truth.source / "gt" / "mesh.ply"), SURFACE_POINTS, 0)
    if truth.load_depth is not None:
        true_points = true_points[seen_by(true_points, (truth.load_depth(name) for name in truth.depth_names))]
    points = sample_surface(mesh, SURFACE_POINTS, 1)
    names = [view.name for view in scene.views if view.name in truth.poses]
    centres = np.array([scene.view(name).centre_world for name in names])
    true_centres = np.array([-truth.poses[n][:, :3].T @ truth.poses[n][:, 3] for n in names])
    figures: dict[str, Any] = {"vertices": len(mesh.vertices_world_m), "faces": len(mesh.faces)}
    kinds = (("metric", False), ("shape", True)) if scene.scale.is_known else (("shape", True),)
    for name, with_scale in kinds:
        placed = align(centres, true_centres, with_scale)
        near = placed.apply(points)
        moved = refine_by_icp(near, true_points, with_scale)[0].apply(near)
        figures[name] = _scores(compare_points(moved, true_points, THRESHOLDS_M))
    return figures


def _scores(scores: CloudScores) -> dict[str, Any]:
    return {
        **{
            f"within_{100 * t:.0f}_cm": {"precision": _round(p), "recall": _round(r), "f": _round(f)}
            for t, p, r, f in zip(scores.thresholds_m, scores.precision, scores.recall, scores.f_score)
        },
        "accuracy_median_m": _round(scores.accuracy_median_m),
        "completeness_median_m": _round(scores.completeness_median_m),
    }


def _round(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
