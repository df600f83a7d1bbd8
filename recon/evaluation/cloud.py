"""How well a surface agrees with ground truth: accuracy, completeness, F-score at distances, scale error.

Definitions as in Tanks and Temples (Knapitsch et al. 2017) and ETH3D (Schöps et al. 2017): *precision* (accuracy) at t
is the share of the reconstruction within t of the ground truth, *recall* (completeness) at t the share of the ground
truth within t of the reconstruction, F their harmonic mean. The ground truth is first reduced to what the photos see.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon.errors import BadInputError
from recon.surface.types import DepthMap, Mesh, PointCloud
from recon.types import Camera


@dataclass(frozen=True)
class CloudScores:
    """``precision``, ``recall`` and ``f_score`` at each of ``thresholds_m``; mean and median distances in metres."""

    thresholds_m: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f_score: tuple[float, ...]
    accuracy_mean_m: float
    accuracy_median_m: float
    completeness_mean_m: float
    completeness_median_m: float
    num_points: int
    num_truth_points: int


def sample_surface(surface: Mesh | PointCloud, num_points: int, seed: int = 0) -> NDArray[np.float64]:
    """Points spread evenly over a mesh's area ([num_points, 3]), or a cloud's points (at most ``num_points``)."""
    generator = np.random.default_rng(seed)
    if isinstance(surface, PointCloud):
        points = np.asarray(surface.points_world_m, dtype=np.float64)
        if len(points) <= num_points:
            return points
        return points[generator.choice(len(points), num_points, replace=False)]
    corners = np.asarray(surface.vertices_world_m, dtype=np.float64)[surface.faces]  # [F, 3, 3]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    if len(area) == 0 or area.sum() <= 0:
        raise BadInputError("the mesh has no area to sample")
    # Systematic sampling along the cumulative area: even, and no two runs differ.
    positions = (np.arange(num_points) + generator.random(num_points)) / num_points
    face = np.searchsorted(np.cumsum(area) / area.sum(), positions).clip(max=len(area) - 1)
    root, other = np.sqrt(generator.random(num_points)), generator.random(num_points)
    weights = np.stack([1 - root, root * (1 - other), root * other], axis=-1)  # [N, 3]
    return np.einsum("nc,ncd->nd", weights, corners[face])


def transformed(surface: Mesh | PointCloud, similarity: NDArray[np.float64]) -> Mesh | PointCloud:
    """The surface moved by ``similarity`` [4, 4] (rotation times scale, and translation): truth_from_world."""
    linear, offset = similarity[:3, :3], similarity[:3, 3]
    if isinstance(surface, PointCloud):
        return PointCloud(np.asarray(surface.points_world_m) @ linear.T + offset, surface.colors)
    return Mesh(np.asarray(surface.vertices_world_m) @ linear.T + offset, surface.faces, surface.colors)


def seen_by(
    points: NDArray[np.float64], depth_maps: Iterable[DepthMap], relative_tolerance: float = 0.03
) -> NDArray[np.bool_]:
    """Which points [N, 3] at least one of the (ground-truth) depth maps sees: its depth there agrees."""
    seen = np.zeros(len(points), dtype=bool)
    for depth_map in depth_maps:
        index, row, column, z = _visible_pixels(points, depth_map.camera, depth_map.cam_from_world)
        depth = depth_map.depth_m[row, column]
        with np.errstate(invalid="ignore"):
            seen[index[np.abs(depth - z) <= relative_tolerance * z]] = True
    return seen


def in_frame(
    points: NDArray[np.float64], cameras: Sequence[tuple[Camera, NDArray[np.float64]]], max_depth_m: float = np.inf
) -> NDArray[np.bool_]:
    """Which points [N, 3] lie in front of and inside the frame of at least one (pinhole camera, cam_from_world)."""
    inside = np.zeros(len(points), dtype=bool)
    for camera, cam_from_world in cameras:
        index, _, _, z = _visible_pixels(points, camera, cam_from_world)
        inside[index[z <= max_depth_m]] = True
    return inside


def _visible_pixels(
    points: NDArray[np.float64], camera: Camera, cam_from_world: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    fx, fy, cx, cy = camera.fx_fy_cx_cy
    points_cam = points @ cam_from_world[:, :3].T + cam_from_world[:, 3]
    z = points_cam[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = fx * points_cam[:, 0] / z + cx, fy * points_cam[:, 1] / z + cy
        index = np.nonzero((z > 0) & (x >= 0) & (x < camera.width_px) & (y >= 0) & (y < camera.height_px))[0]
    return index, y[index].astype(np.int64), x[index].astype(np.int64), z[index]


def compare_points(
    points: NDArray[np.float64], truth: NDArray[np.float64], thresholds_m: Sequence[float] = (0.01, 0.02, 0.05, 0.1)
) -> CloudScores:
    """Scores of reconstructed points [N, 3] against ground-truth points [M, 3], both in the ground truth's frame.

    Raises:
        BadInputError: one of the sets is empty.
    """
    if len(points) == 0 or len(truth) == 0:
        raise BadInputError(f"nothing to compare: {len(points)} reconstructed and {len(truth)} ground-truth points")
    to_truth, _ = cKDTree(truth).query(points, workers=-1)
    to_points, _ = cKDTree(points).query(truth, workers=-1)
    precision = tuple(float((to_truth <= t).mean()) for t in thresholds_m)
    recall = tuple(float((to_points <= t).mean()) for t in thresholds_m)
    f_score = tuple(2 * p * r / (p + r) if p + r > 0 else 0.0 for p, r in zip(precision, recall))
    return CloudScores(
        tuple(float(t) for t in thresholds_m),
        precision,
        recall,
        f_score,
        float(to_truth.mean()),
        float(np.median(to_truth)),
        float(to_points.mean()),
        float(np.median(to_points)),
        len(points),
        len(truth),
    )


def compare_surfaces(
    surface: Mesh | PointCloud,
    truth: Mesh | PointCloud,
    truth_depth_maps: Iterable[DepthMap] | None = None,
    truth_from_world: NDArray[np.float64] | None = None,
    thresholds_m: Sequence[float] = (0.01, 0.02, 0.05, 0.1),
    num_points: int = 200_000,
    seed: int = 0,
) -> CloudScores:
    """Scores of a surface against ground truth.

    Args:
        surface: the reconstruction in its own frame.
        truth: ground truth in its frame.
        truth_depth_maps: ground-truth views; the truth is reduced to what they see. None: all of it counts.
        truth_from_world: [4, 4] similarity (or rigid motion) into the truth's frame; None: they share a frame.
        thresholds_m: distances at which precision, recall and F are given.
        num_points: samples drawn on each surface.

    Raises:
        BadInputError: an empty surface, or none of the truth is seen.
    """
    moved = surface if truth_from_world is None else transformed(surface, truth_from_world)
    truth_points = sample_surface(truth, num_points, seed)
    if truth_depth_maps is not None:
        truth_points = truth_points[seen_by(truth_points, truth_depth_maps)]
    return compare_points(sample_surface(moved, num_points, seed + 1), truth_points, thresholds_m)


def median_scale_error(depth_maps: Sequence[DepthMap], truth_maps: Sequence[DepthMap]) -> float:
    """Median over all pixels of ln(depth / true depth): 0.03 means 3 % too large. Maps are paired by name.

    Raises:
        BadInputError: no pixel is known in both.
    """
    truth_by_name = {depth_map.name: depth_map for depth_map in truth_maps}
    ratios = []
    for depth_map in depth_maps:
        truth = truth_by_name.get(depth_map.name)
        if truth is None:
            continue
        height, width = depth_map.depth_m.shape
        rows = ((np.arange(height) + 0.5) * truth.depth_m.shape[0] / height).astype(np.int64)
        columns = ((np.arange(width) + 0.5) * truth.depth_m.shape[1] / width).astype(np.int64)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.log(depth_map.depth_m / truth.depth_m[np.ix_(rows, columns)])
        ratios.append(ratio[np.isfinite(ratio)])
    if not ratios or sum(len(r) for r in ratios) == 0:
        raise BadInputError("no pixel has both a depth and a true depth")
    return float(np.median(np.concatenate(ratios)))
