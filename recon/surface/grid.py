"""Which voxels a set of depth maps needs: voxel size from the data, blocks along the surface, memory bound."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.errors import SurfaceError
from recon.surface.options import FuseOptions
from recon.surface.types import DepthMap

logger = logging.getLogger(__name__)

BLOCK_SIDE = 8  # voxels along a block's edge: small blocks waste little memory beside a thin surface
BYTES_PER_VOXEL = 8  # signed distance and weight, float32 each
_SENSOR_BLUR = 1.4  # depth sensors resolve less than their images' pixels
_KEY_OFFSET = 1 << 20  # block coordinates fit into 21 bits each


@dataclass(frozen=True)
class GridPlan:
    """``voxel_m`` and ``truncation_m`` in the scene's unit; ``blocks`` [B, 3] integer coordinates of the blocks."""

    voxel_m: float
    truncation_m: float
    blocks: NDArray[np.int32]

    @property
    def memory_mb(self) -> float:
        return len(self.blocks) * BLOCK_SIDE**3 * BYTES_PER_VOXEL / 2**20


def usable(depth_map: DepthMap, options: FuseOptions) -> NDArray[np.bool_]:
    """Pixels that may enter the fusion, [H, W]."""
    depth_m = depth_map.depth_m
    with np.errstate(invalid="ignore"):
        mask = np.isfinite(depth_m) & (depth_m > 0) & (depth_map.confidence >= options.min_confidence)
        if options.max_depth_m is not None:
            mask &= depth_m <= options.max_depth_m
    return mask


def pixel_points(depth_map: DepthMap, rows: NDArray, columns: NDArray, depth_m: NDArray) -> NDArray[np.float64]:
    """World points [N, 3] of pixels (indices ``rows``, ``columns`` [N]) at z-depth ``depth_m`` [N]."""
    fx, fy, cx, cy = depth_map.camera.fx_fy_cx_cy
    z = depth_m.astype(np.float64)
    points_cam = np.stack([(columns + 0.5 - cx) / fx * z, (rows + 0.5 - cy) / fy * z, z], axis=-1)  # [N, 3]
    rotation, translation = depth_map.cam_from_world[:, :3], depth_map.cam_from_world[:, 3]
    return (points_cam - translation) @ rotation


def plan_grid(depth_maps: Sequence[DepthMap], options: FuseOptions) -> GridPlan:
    """Choose the voxel size and the blocks that hold the surface.

    The voxel covers ``options.voxel_pixels`` footprints (depth / focal length) of the median pixel, or
    1 / ``options.max_voxels_per_extent`` of the scene where that is larger. Where the blocks would exceed
    ``options.max_memory_mb`` the voxel grows (their number falls with its square).

    Raises:
        SurfaceError: no usable pixel in any map.
    """
    voxel = options.voxel_m if options.voxel_m is not None else _voxel_from_data(depth_maps, options)
    for _ in range(12):
        truncation = options.truncation_voxels * voxel
        blocks = _surface_blocks(depth_maps, voxel, truncation, options)
        if len(blocks) == 0:
            raise _no_depth(depth_maps, options)
        plan = GridPlan(voxel, truncation, blocks)
        if plan.memory_mb <= options.max_memory_mb:
            return plan
        larger = voxel * max(1.1, 1.05 * float(np.sqrt(plan.memory_mb / options.max_memory_mb)))
        logger.warning(
            "voxels of %.4g need %.0f MB, more than max_memory_mb=%d: enlarged to %.4g",
            voxel, plan.memory_mb, options.max_memory_mb, larger,
        )  # fmt: skip
        voxel = larger
    raise SurfaceError(f"the scene does not fit into {options.max_memory_mb} MB of voxels: raise max_memory_mb")


def _no_depth(depth_maps: Sequence[DepthMap], options: FuseOptions) -> SurfaceError:
    return SurfaceError(
        f"no depth to fuse: none of {len(depth_maps)} depth maps has a pixel with confidence of at least "
        f"{options.min_confidence:g}"
    )


def _voxel_from_data(depth_maps: Sequence[DepthMap], options: FuseOptions) -> float:
    """``voxel_pixels`` footprints of the median pixel, but no more than ``max_voxels_per_extent`` along the scene."""
    footprints, low, high = [], [], []
    for depth_map in depth_maps:
        rows, columns = np.nonzero(usable(depth_map, options))
        if len(rows):
            depth_m = depth_map.depth_m[rows, columns]
            blur = _SENSOR_BLUR if depth_map.source.startswith("sensor") else 1.0
            footprints.append(blur * float(np.median(depth_m)) / depth_map.camera.focal_px)
            inner = np.percentile(pixel_points(depth_map, rows, columns, depth_m), [5, 95], axis=0)
            low.append(inner[0])
            high.append(inner[1])
    if not footprints:
        raise _no_depth(depth_maps, options)
    extent = float((np.max(high, axis=0) - np.min(low, axis=0)).max())
    return max(options.voxel_pixels * float(np.median(footprints)), extent / options.max_voxels_per_extent)


def _surface_blocks(
    depth_maps: Sequence[DepthMap], voxel: float, truncation: float, options: FuseOptions
) -> NDArray[np.int32]:
    """Blocks touched by the truncation band of any usable pixel, [B, 3]."""
    side = voxel * BLOCK_SIDE
    keys: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    num_steps = int(np.ceil(2 * truncation / (0.5 * side))) + 1
    for depth_map in depth_maps:
        mask = usable(depth_map, options)
        if not mask.any():
            continue
        footprint = float(np.median(depth_map.depth_m[mask])) / depth_map.camera.focal_px
        stride = max(1, int(0.4 * side / footprint))  # neighbouring samples less than half a block apart
        rows, columns = np.nonzero(mask[::stride, ::stride])
        rows, columns = rows * stride, columns * stride
        depth_m = depth_map.depth_m[rows, columns]
        for step in np.linspace(-truncation, truncation, num_steps):
            near = depth_m + step > 0
            points = pixel_points(depth_map, rows[near], columns[near], depth_m[near] + step)
            coordinates = np.floor(points / side).astype(np.int64)
            coordinates = coordinates[(np.abs(coordinates) < _KEY_OFFSET).all(axis=1)]
            keys = np.union1d(keys, _pack(coordinates))
    return _unpack(keys)


def _pack(coordinates: NDArray[np.int64]) -> NDArray[np.int64]:
    shifted = coordinates + _KEY_OFFSET
    return (shifted[:, 0] << 42) | (shifted[:, 1] << 21) | shifted[:, 2]


def _unpack(keys: NDArray[np.int64]) -> NDArray[np.int32]:
    low = (1 << 21) - 1
    return (np.stack([keys >> 42, (keys >> 21) & low, keys & low], axis=-1) - _KEY_OFFSET).astype(np.int32)
