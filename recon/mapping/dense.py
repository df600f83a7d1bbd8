"""Refines the poses of RGB-D photos on their whole depth maps, all pairs at once.

Point-to-plane alignment with projective association (Chen and Medioni 1992; KinectFusion, ISMAR 2011) between every
pair of photos that see common surface, in one Gauss-Newton system over all poses, with the motions found from
keypoints as further terms: those hold where surfaces can slide along themselves (walls, table tops).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from recon.cameras.pinhole import rays
from recon.mapping.factors import RigidFactors, cauchy, moved, skew
from recon.mapping.schur import accumulate
from recon.types import Camera

Float64Array = NDArray[np.float64]


@dataclass(frozen=True)
class DenseOptions:
    """Limits of dense alignment.

    Attributes:
        grid_px: one surface point every so many pixels.
        samples: points of a photo that are compared with each other photo.
        max_distance: largest gap of a pair of points as a fraction of depth, at the first and at the last iteration.
        min_overlap: pairs that share a smaller part of their points are not compared.
        sigma: spread of a gap as a fraction of depth.
        independent: how many of a photo's points count as independent readings (neighbours share their errors).
        iterations: Gauss-Newton steps.
    """

    grid_px: int = 4
    samples: int = 1500
    max_distance: tuple[float, float] = (0.08, 0.03)
    min_overlap: float = 0.25
    sigma: float = 0.01
    independent: int = 100
    iterations: int = 12


@dataclass(frozen=True)
class SurfaceMap:
    """Points and normals of a depth map on a coarse grid, in the camera frame: [h, w, 3] each, NaN where unknown."""

    points: Float64Array
    normals: Float64Array


def surface_map(depth_m: NDArray[np.float32], camera: Camera, grid_px: int, max_bend: float = 0.005) -> SurfaceMap:
    """The surface of a depth map [H, W] at every ``grid_px``-th pixel; normals from central differences.

    Where a neighbour lies further off the tangent plane than ``max_bend`` (a fraction of depth) there is no normal.
    """
    height, width = depth_m.shape
    rows, columns = np.arange(grid_px // 2, height, grid_px), np.arange(grid_px // 2, width, grid_px)
    grid = np.stack(np.meshgrid(columns + 0.5, rows + 0.5), axis=-1)  # [h, w, 2]
    depth = depth_m[np.ix_(rows, columns)].astype(np.float64)
    points = rays(camera, grid.reshape(-1, 2)).reshape(*depth.shape, 3) * depth[..., None]
    normals = np.full_like(points, np.nan)
    right, left = points[1:-1, 2:], points[1:-1, :-2]
    below, above = points[2:, 1:-1], points[:-2, 1:-1]
    normal = np.cross(below - above, right - left)
    with np.errstate(all="ignore"):
        normal /= np.linalg.norm(normal, axis=2, keepdims=True)
        centre = points[1:-1, 1:-1]
        # neighbours off the plane tell of an edge, whose mixed normal would pull surfaces along themselves
        off = [np.abs(((p - centre) * normal).sum(axis=2)) for p in (right, left, below, above)]
        smooth = np.max(off, axis=0) < max_bend * centre[..., 2]
    normals[1:-1, 1:-1] = np.where(smooth[..., None], normal, np.nan)
    return SurfaceMap(points, normals)


def align_surfaces(
    poses: Float64Array,
    surfaces: Sequence[SurfaceMap],
    cameras: Sequence[Camera],
    edges: RigidFactors | None = None,
    options: DenseOptions | None = None,
) -> Float64Array:
    """Poses [N, 3, 4] ``cam_from_world`` after dense alignment (the first stays); ``cameras`` by photo, [N]."""
    options = options or DenseOptions()
    rng = np.random.default_rng(0)
    samples = [_sample(surface, options.samples, rng) for surface in surfaces]
    pairs = [
        (i, j)
        for i in range(len(poses))
        for j in range(len(poses))
        if i != j and _overlap(poses, i, j, surfaces, samples, cameras, options) >= options.min_overlap
    ]
    n = len(poses)
    for iteration in range(options.iterations):
        progress = iteration / max(options.iterations - 1, 1)
        reach = options.max_distance[0] * (1 - progress) + options.max_distance[1] * progress
        h, b = np.zeros((6 * n, 6 * n)), np.zeros(6 * n)
        for i, j in pairs:
            _add_pair(h, b, poses, i, j, surfaces[i], samples[j], cameras[i], reach, options)
        if edges is not None:
            r, j1, j2 = edges.residuals(poses)
            _, weight = cauchy((r**2).sum(axis=1), 3.0)
            columns = np.concatenate(
                [6 * edges.view1[:, None] + np.arange(6), 6 * edges.view2[:, None] + np.arange(6)], axis=1
            )
            accumulate(h, b, columns, np.concatenate([j1, j2], axis=2), r, weight)
        h, b = h[6:, 6:], b[6:]
        h[np.diag_indices(len(h))] += 1e-6 * np.diag(h) + 1e-9
        step = np.concatenate([np.zeros(6), cho_solve(cho_factor(h), b)]).reshape(n, 6)
        poses = moved(poses, step)
        if np.abs(step).max() < 1e-5:
            break
    return poses


def _sample(surface: SurfaceMap, count: int, rng: np.random.Generator) -> tuple[Float64Array, Float64Array]:
    known = np.isfinite(surface.points).all(axis=2) & np.isfinite(surface.normals).all(axis=2)
    points, normals = surface.points[known], surface.normals[known]
    chosen = rng.permutation(len(points))[:count]
    return points[chosen], normals[chosen]


def _associate(
    poses: Float64Array,
    i: int,
    j: int,
    surface: SurfaceMap,
    points_j: Float64Array,
    normals_j: Float64Array,
    camera: Camera,
    reach: float,
    options: DenseOptions,
) -> tuple[Float64Array, Float64Array, Float64Array, Float64Array]:
    """Points of j in camera i [K, 3], in camera j, and their partners' points and normals on i's surface."""
    rotation = poses[i, :, :3] @ poses[j, :, :3].T
    shift = poses[i, :, 3] - rotation @ poses[j, :, 3]
    moved_j, turned = points_j @ rotation.T + shift, normals_j @ rotation.T
    fx, fy, cx, cy = camera.fx_fy_cx_cy  # distortion of depth cameras is far below the grid's step
    z = np.maximum(moved_j[:, 2], 1e-6)
    column = np.floor((fx * moved_j[:, 0] / z + cx) / options.grid_px)
    row = np.floor((fy * moved_j[:, 1] / z + cy) / options.grid_px)
    height, width = surface.points.shape[:2]
    inside = (moved_j[:, 2] > 1e-6) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = np.where(inside, column, 0).astype(int), np.where(inside, row, 0).astype(int)
    target, normal = surface.points[row, column], surface.normals[row, column]
    with np.errstate(invalid="ignore"):
        good = inside & (np.linalg.norm(moved_j - target, axis=1) < reach * z) & ((normal * turned).sum(axis=1) > 0.7)
    return moved_j[good], points_j[good], target[good], normal[good]


def _overlap(
    poses: Float64Array,
    i: int,
    j: int,
    surfaces: Sequence[SurfaceMap],
    samples: Sequence[tuple[Float64Array, Float64Array]],
    cameras: Sequence[Camera],
    options: DenseOptions,
) -> float:
    points, normals = samples[j]
    if len(points) == 0:
        return 0.0
    found = _associate(poses, i, j, surfaces[i], points, normals, cameras[i], options.max_distance[0], options)
    return len(found[0]) / len(points)


def _add_pair(
    h: Float64Array,
    b: Float64Array,
    poses: Float64Array,
    i: int,
    j: int,
    surface: SurfaceMap,
    sample: tuple[Float64Array, Float64Array],
    camera: Camera,
    reach: float,
    options: DenseOptions,
) -> None:
    in_i, in_j, target, normal = _associate(poses, i, j, surface, *sample, camera, reach, options)
    if len(in_i) < 30:
        return
    sigma = options.sigma * in_i[:, 2]
    residual = ((in_i - target) * normal).sum(axis=1) / sigma
    _, weight = cauchy(residual**2, 2.0)
    weight = weight * min(1.0, options.independent / len(sample[0]))
    row = (normal / sigma[:, None])[:, None, :]  # [K, 1, 3] d residual / d point in i
    # X_i = T_i T_j^-1 X_j. Increment of i: dX_i = w x X_i + v; of j: dX_i = -R_ij (w x X_j + v).
    by_i = np.concatenate([-row @ skew(in_i), row], axis=2)[:, 0]
    turned = row @ (poses[i, :, :3] @ poses[j, :, :3].T)
    by_j = -np.concatenate([-turned @ skew(in_j), turned], axis=2)[:, 0]
    jacobian = np.concatenate([by_i, by_j], axis=1)  # [K, 12]
    columns = np.concatenate([6 * i + np.arange(6), 6 * j + np.arange(6)])
    weighted = jacobian * weight[:, None]
    h[np.ix_(columns, columns)] += weighted.T @ jacobian
    b[columns] -= weighted.T @ residual
