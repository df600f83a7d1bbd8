"""Filled depth of several photos made one surface: where their fillings nearly agree, their robust mean stands.

The fillings of two photos rest on different answers, so their errors are mostly independent; left as they are, every
photo adds a sheet of its own to the fused surface. Where a neighbour's depth is confirmed, it decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recon.surface.consistency import sample_depth, to_pixels, to_world
from recon.surface.types import DepthMap

_STEPS = 3  # of the search along a ray: each brings the point onto the depth that the neighbour sees there
_ON_SURFACE = 0.01  # ln(depth) up to which a point lies on the neighbour's surface
_ONE_SURFACE = 0.15  # ln(depth) beyond which the neighbour shows something else
_FILLED_SIGMA, _CONFIRMED_SIGMA = 0.04, 0.01  # of ln(depth)
_BIWEIGHT = 0.1  # ln(depth) from the mean from which a neighbour counts for nothing
_ROUNDS = 4


def is_filled(depth_map: DepthMap, fill_confidence: float) -> NDArray[np.bool_]:
    """Pixels [H, W] that have their depth from the answers (by their confidence, which stores round)."""
    return np.isfinite(depth_map.depth_m) & np.isclose(depth_map.confidence, fill_confidence, atol=2e-3)


def agreed(depth_map: DepthMap, neighbours: Sequence[DepthMap], fill_confidence: float) -> NDArray[np.float32]:
    """Depth [H, W] with filled pixels moved to the robust mean of what this photo and its neighbours have there."""
    filled = is_filled(depth_map, fill_confidence)
    rows, columns = np.nonzero(filled)
    if len(rows) == 0 or len(neighbours) == 0:
        return depth_map.depth_m
    x, y = columns.astype(np.float64) + 0.5, rows.astype(np.float64) + 0.5
    own = np.log(depth_map.depth_m[rows, columns].astype(np.float64))  # [N]
    offsets, weights = [np.zeros(len(own))], [np.full(len(own), _FILLED_SIGMA**-2)]
    for other in neighbours:
        depth, at = _along_rays(depth_map, other, x, y, np.exp(own))
        with np.errstate(invalid="ignore", divide="ignore"):
            offset = np.log(depth) - own
            near = np.abs(offset) < _ONE_SURFACE
        sigma = np.where(is_filled(other, fill_confidence)[at], _FILLED_SIGMA, _CONFIRMED_SIGMA)
        offsets.append(np.where(near, offset, 0.0))
        weights.append(np.where(near, sigma**-2, 0.0))
    offset, weight = np.array(offsets), np.array(weights)  # [1 + n, N]
    mean = (weight * offset).sum(axis=0) / weight.sum(axis=0)
    for _ in range(_ROUNDS):
        robust = weight * np.clip(1 - ((offset - mean) / _BIWEIGHT) ** 2, 0, None) ** 2
        total = robust.sum(axis=0)
        mean = np.where(total > 0, (robust * offset).sum(axis=0) / np.maximum(total, 1e-12), 0.0)
    result = depth_map.depth_m.copy()
    result[rows, columns] = np.exp(own + mean)
    return result


def _along_rays(
    depth_map: DepthMap, other: DepthMap, x: NDArray[np.float64], y: NDArray[np.float64], depth: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Where the rays of pixels [N] meet the neighbour's surface near ``depth`` [N]: z-depth [N], NaN where they do not,
    and the row and column there (0 where none)."""
    height, width = other.depth_m.shape
    for step in range(_STEPS + 1):
        u, v, z = to_pixels(other, to_world(depth_map, x, y, depth))
        with np.errstate(invalid="ignore"):
            inside = (u >= 0) & (v >= 0) & (u < width) & (v < height)
        seen = np.full(len(x), np.nan)
        seen[inside] = sample_depth(other.depth_m, u[inside], v[inside])
        with np.errstate(invalid="ignore", divide="ignore"):
            off = np.log(seen / z)
            if step < _STEPS:
                depth = np.where(np.abs(off) < 2 * _ONE_SURFACE, depth * np.exp(off), np.nan)
    at = (np.where(inside, v, 0).astype(np.int64), np.where(inside, u, 0).astype(np.int64))
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(off) < _ON_SURFACE, depth, np.nan), at
