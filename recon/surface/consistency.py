"""Which depths the neighbours' own depth maps confirm; patches too small to be surface are dropped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from recon.surface.options import MultiviewOptions
from recon.surface.types import DepthMap


def count_consistent(
    depth_map: DepthMap, neighbours: Sequence[DepthMap], options: MultiviewOptions
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """How many neighbours confirm each pixel [H, W], and the mean depth over the pixel and those neighbours [H, W].

    A neighbour confirms when the point lands on a depth of its own that leads back to within
    ``max_reprojection_px`` and ``max_relative_depth`` (as in COLMAP and MVSNet).
    """
    depth = depth_map.depth_m.astype(np.float64)
    height, width = depth.shape
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    count = np.zeros((height, width), dtype=np.int32)
    total = np.nan_to_num(depth)
    world = to_world(depth_map, x, y, depth)
    for other in neighbours:
        u, v, _ = to_pixels(other, world)
        with np.errstate(invalid="ignore"):
            inside = (u >= 0) & (v >= 0) & (u < other.camera.width_px) & (v < other.camera.height_px)
        sampled = np.full((height, width), np.nan)
        sampled[inside] = sample_depth(other.depth_m, u[inside], v[inside])
        back_x, back_y, back_z = to_pixels(depth_map, to_world(other, u, v, sampled))
        with np.errstate(invalid="ignore"):
            agrees = (np.hypot(back_x - x, back_y - y) < options.max_reprojection_px) & (
                np.abs(back_z - depth) < options.max_relative_depth * depth
            )
        count += agrees
        total[agrees] += back_z[agrees]
    return count, (total / (count + 1)).astype(np.float32)


def contradicted(
    depth_map: DepthMap, neighbours: Sequence[DepthMap], min_confidence: float, margin: float = 0.05
) -> NDArray[np.bool_]:
    """Pixels [H, W] whose point a neighbour looks through: it confidently sees something farther away in that place."""
    depth = depth_map.depth_m.astype(np.float64)
    height, width = depth.shape
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    world = to_world(depth_map, x, y, depth)
    result = np.zeros((height, width), dtype=bool)
    for other in neighbours:
        u, v, z = to_pixels(other, world)
        with np.errstate(invalid="ignore"):
            inside = (u >= 0) & (v >= 0) & (u < other.camera.width_px) & (v < other.camera.height_px)
        row, column = v[inside].astype(np.int64), u[inside].astype(np.int64)
        with np.errstate(invalid="ignore"):
            result[inside] |= (other.depth_m[row, column] > (1 + margin) * z[inside]) & (
                other.confidence[row, column] >= min_confidence
            )
    return result


def sample_depth(depth: NDArray[np.float32], u: NDArray, v: NDArray) -> NDArray[np.float64]:
    """Bilinear depth at pixels where the four around lie on one surface, the nearest pixel's otherwise."""
    nearest = depth[v.astype(np.int64), u.astype(np.int64)]
    smooth = map_coordinates(depth, [v - 0.5, u - 0.5], order=1, mode="nearest")
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(smooth - nearest) < 0.02 * nearest, smooth, nearest)


def remove_speckles(depth_m: NDArray[np.float32], min_px: int, relative_jump: float = 0.02) -> NDArray[np.bool_]:
    """Pixels [H, W] in connected patches (depth steps below ``relative_jump``) of at least ``min_px`` pixels."""
    height, width = depth_m.shape
    index = np.arange(height * width).reshape(height, width)
    starts, ends = [], []
    for a, b in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1, :], np.s_[1:, :])):
        with np.errstate(invalid="ignore"):
            joined = np.abs(depth_m[a] - depth_m[b]) < relative_jump * np.minimum(depth_m[a], depth_m[b])
        starts.append(index[a][joined])
        ends.append(index[b][joined])
    start, end = np.concatenate(starts), np.concatenate(ends)
    graph = coo_matrix((np.ones(len(start), dtype=np.int8), (start, end)), shape=(index.size, index.size))
    _, labels = connected_components(graph, directed=False)
    sizes = np.bincount(labels)
    return (sizes[labels] >= min_px).reshape(height, width) & np.isfinite(depth_m)


def to_world(depth_map: DepthMap, x: NDArray, y: NDArray, depth: NDArray) -> NDArray[np.float64]:
    fx, fy, cx, cy = depth_map.camera.fx_fy_cx_cy
    points = np.stack([(x - cx) / fx * depth, (y - cy) / fy * depth, depth], axis=-1)
    return (points - depth_map.cam_from_world[:, 3]) @ depth_map.cam_from_world[:, :3]


def to_pixels(depth_map: DepthMap, world: NDArray[np.float64]) -> tuple[NDArray, NDArray, NDArray]:
    fx, fy, cx, cy = depth_map.camera.fx_fy_cx_cy
    points = world @ depth_map.cam_from_world[:, :3].T + depth_map.cam_from_world[:, 3]
    z = np.where(points[..., 2] > 0, points[..., 2], np.nan)
    return points[..., 0] / z * fx + cx, points[..., 1] / z * fy + cy, points[..., 2]
