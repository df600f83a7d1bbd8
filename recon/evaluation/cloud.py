"""How well points agree with ground truth: accuracy, completeness, F-score at distances; samples of surfaces.

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
    return sample_mesh(surface, num_points, generator)[0]


def sample_mesh(
    mesh: Mesh, num_points: int, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points spread evenly over a mesh's area and the normals of their triangles, [num_points, 3] each.

    Raises:
        BadInputError: the mesh has no area.
    """
    corners = np.asarray(mesh.vertices_world_m, dtype=np.float64)[mesh.faces]  # [F, 3, 3]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1)
    if len(area) == 0 or not area.sum() > 0:
        raise BadInputError("the mesh has no area to sample")
    # Systematic sampling along the cumulative area: even, and no two runs differ.
    positions = (np.arange(num_points) + generator.random(num_points)) / num_points
    face = np.searchsorted(np.cumsum(area) / area.sum(), positions).clip(max=len(area) - 1)
    root, other = np.sqrt(generator.random(num_points)), generator.random(num_points)
    weights = np.stack([1 - root, root * (1 - other), root * other], axis=-1)  # [N, 3]
    normals = cross[face] / np.maximum(area[face], 1e-300)[:, None]
    return np.einsum("nc,ncd->nd", weights, corners[face]), normals


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
