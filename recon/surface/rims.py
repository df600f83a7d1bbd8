"""Rims of photometric depth: what a matching window carries of an object's depth past the object's border."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, distance_transform_edt

_JUMP = 0.03  # relative step of depth that ends a surface
_SAME = 0.03  # relative difference up to which neighbours are of one surface


def rims(depth_m: NDArray[np.floating], radius_px: float) -> NDArray[np.bool_]:
    """Known pixels [H, W] of ``depth_m`` [H, W] (NaN unknown) that may lie on the surface behind instead.

    A window of correlation that holds an object's border finds the object's depth on both sides of it (foreground
    fattening), as far out as ``radius_px``, half a window. Such pixels are those within that distance of where the
    surface ends: of unknown pixels or a step to something farther. Only what hangs on a core of the same depth counts;
    a thing too thin to have a core is left alone, as are the surroundings of single unknown pixels.
    """
    known = np.isfinite(depth_m)
    if not known.any():
        return known
    whole = binary_closing(np.pad(known, 2, mode="edge"), np.ones((3, 3), bool))[2:-2, 2:-2] | known
    near_end = np.zeros_like(known)
    if not whole.all():
        near_end |= np.asarray(distance_transform_edt(whole)) <= radius_px
    steps = _before_farther(depth_m)
    if steps.any():
        away, (row, column) = distance_transform_edt(~steps, return_indices=True)
        with np.errstate(invalid="ignore"):  # the wall behind an object does not end there
            near_end |= (away + 1 <= radius_px) & (np.abs(depth_m / depth_m[row, column] - 1) < _SAME)
    core = known & ~near_end
    if not (near_end.any() and core.any()):
        return np.zeros_like(known)
    grown = core
    for _ in range(round(2 * radius_px)):
        grown = grown | (near_end & known & _beside(grown, depth_m))
    return grown & ~core


def _beside(region: NDArray[np.bool_], depth_m: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Pixels [H, W] with a neighbour in ``region`` on the same surface."""
    result = np.zeros_like(region)
    with np.errstate(invalid="ignore"):
        for a, b in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
            same = np.abs(depth_m[a] / depth_m[b] - 1) < _SAME
            result[a] |= region[b] & same
            result[b] |= region[a] & same
    return result


def _before_farther(depth_m: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Pixels [H, W] beside one that is farther by more than a step."""
    result = np.zeros(depth_m.shape, dtype=bool)
    with np.errstate(invalid="ignore"):
        for a, b in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
            ratio = depth_m[b] / depth_m[a]
            result[a] |= ratio > 1 + _JUMP
            result[b] |= ratio < 1 / (1 + _JUMP)
    return result
