"""Makes a filled surface join the confirmed one: its offset there is carried on along the same surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

_SCALES = ((40.0, 0.3), (16.0, 0.15), (6.0, 0.08))  # pixels and ln(depth) per cell, from coarse to fine
_LEAST_SHARE = 0.02  # confirmed share of a cell from which its offset is carried over in full
_LARGEST = 0.1  # of an offset in ln(depth): more is another surface, or a wrong depth on this one
_MARGIN = 2  # empty cells around, so that blurring has room


def join(depth_m: NDArray[np.floating], confirmed_m: NDArray[np.floating]) -> NDArray[np.float32]:
    """``depth_m`` [H, W] corrected by its offset from the confirmed depth [H, W] (NaN unknown) around.

    The offset ln(confirmed / depth) is averaged in a bilateral grid (Chen, Paris and Durand 2007) over position and
    ln(depth), so it passes along a surface and not over a jump in depth; where nothing near is confirmed on the same
    surface it fades to none. Works from coarse to fine cells, each on what the coarser ones left.
    """
    log_depth = np.log(depth_m.astype(np.float64))
    known = np.isfinite(confirmed_m)
    target = np.log(np.where(known, confirmed_m, 1.0).astype(np.float64))
    rows, columns = np.indices(depth_m.shape)
    for side, step in _SCALES:
        place = np.stack([rows / side, columns / side, (log_depth - log_depth.min()) / step]) + _MARGIN  # [3, H, W]
        cells = np.rint(place).astype(np.int64)
        shape = tuple(int(n) + _MARGIN + 1 for n in cells.max(axis=(1, 2)))
        near = known & (np.abs(target - log_depth) < _LARGEST)
        index = np.ravel_multi_index(tuple(cells[:, near]), shape)
        offset = (target - log_depth)[near]
        size = int(np.prod(shape))
        weight = np.bincount(index, minlength=size).reshape(shape) / side**2
        total = np.bincount(index, offset, minlength=size).reshape(shape) / side**2
        smooth = gaussian_filter(total, 1.0) / (gaussian_filter(weight, 1.0) + _LEAST_SHARE)
        log_depth = log_depth + map_coordinates(smooth, place, order=1)
    return np.exp(log_depth).astype(np.float32)
