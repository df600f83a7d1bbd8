"""A dense point cloud from depth maps: one point per voxel, outliers removed, bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon.errors import SurfaceError
from recon.surface.fuse import view_weights
from recon.surface.grid import pixel_points
from recon.surface.options import FuseOptions
from recon.surface.types import DepthMap, PointCloud

_NUM_CHANNELS = 9  # position, colour, normal


def fuse_cloud(
    depth_maps: Sequence[DepthMap],
    options: FuseOptions,
    voxel_m: float,
    progress: Callable[[int, int], None] | None = None,
) -> PointCloud:
    """Average the depth maps' points (weights: confidence and viewing angle) in voxels of ``voxel_m``.

    Then points whose mean distance to their ``options.cloud_neighbours`` nearest lies more than
    ``options.cloud_outlier_sigmas`` standard deviations above the mean are removed (statistical outlier removal, Rusu
    2008). Memory holds one map and the averages so far.

    Raises:
        SurfaceError: no usable depth.
    """
    keys: NDArray[np.int64] = np.empty((0, 3), dtype=np.int64)
    sums: NDArray[np.float64] = np.empty((0, _NUM_CHANNELS))
    weights: NDArray[np.float64] = np.empty(0)
    for done, depth_map in enumerate(depth_maps, start=1):
        points, values, weight = _map_points(depth_map, options)
        keys = np.concatenate([keys, np.floor(points / voxel_m).astype(np.int64)])
        sums = np.concatenate([sums, values * weight[:, None]])
        weights = np.concatenate([weights, weight])
        keys, inverse = np.unique(keys, axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        columns = [np.bincount(inverse, sums[:, c], minlength=len(keys)) for c in range(_NUM_CHANNELS)]
        sums = np.asarray(np.stack(columns, axis=-1), dtype=np.float64)
        weights = np.asarray(np.bincount(inverse, weights, minlength=len(keys)), dtype=np.float64)
        if progress is not None:
            progress(done, len(depth_maps))
    strong = weights >= options.min_weight
    if not strong.any():
        raise SurfaceError(f"no depth to fuse: no point of {len(depth_maps)} depth maps is confident enough")
    means = sums[strong] / weights[strong, None]
    means = means[_inliers(means[:, :3], options)]
    lengths = np.linalg.norm(means[:, 6:], axis=1, keepdims=True)
    normals = np.divide(means[:, 6:], lengths, out=np.zeros_like(means[:, 6:]), where=lengths > 0)
    colors = np.clip(np.rint(means[:, 3:6]), 0, 255).astype(np.uint8)
    return PointCloud(means[:, :3], colors, normals.astype(np.float32))


def _map_points(depth_map: DepthMap, options: FuseOptions) -> tuple[NDArray, NDArray, NDArray]:
    """Points [N, 3], channels (position, colour, normal) [N, 9] and weights [N] of a map's usable pixels."""
    weights = view_weights(depth_map, options)
    height, width = weights.shape
    all_rows, all_columns = np.indices((height, width))
    dense = pixel_points(depth_map, all_rows, all_columns, depth_map.depth_m)  # [H, W, 3]
    across = np.gradient(dense, axis=1) if width > 1 else np.zeros_like(dense)
    down = np.gradient(dense, axis=0) if height > 1 else np.zeros_like(dense)
    normals = np.nan_to_num(np.cross(down, across))  # image x right, y down: down x right looks at the camera
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    rows, columns = np.nonzero(weights)
    points = dense[rows, columns]
    values = np.concatenate([points, depth_map.color[rows, columns], normals[rows, columns]], axis=1)
    return points, values, weights[rows, columns].astype(np.float64)


def _inliers(points: NDArray, options: FuseOptions) -> NDArray[np.bool_]:
    if len(points) <= options.cloud_neighbours:
        return np.ones(len(points), dtype=bool)
    distances, _ = cKDTree(points).query(points, k=options.cloud_neighbours + 1, workers=-1)
    mean = distances[:, 1:].mean(axis=1)
    return mean <= mean.mean() + options.cloud_outlier_sigmas * mean.std()
