"""How the picture deforms around each match, told by its neighbours: one affine map per match."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon.types import FloatArray

Float64Array = NDArray[np.float64]

_ROUNDS = 4  # of reweighting


def global_affine(pixels1: FloatArray, pixels2: FloatArray, sigma_px: float) -> Float64Array:
    """The affine map [2, 3] that takes most of ``pixels1`` [N, 2] near ``pixels2``, robustly; N >= 3."""
    weight = np.ones(len(pixels1))
    design = np.column_stack([pixels1, np.ones(len(pixels1))])  # [N, 3]
    for _ in range(4 * _ROUNDS):
        solution, *_ = np.linalg.lstsq(design * weight[:, None], pixels2 * weight[:, None], rcond=None)
        error = np.linalg.norm(design @ solution - pixels2, axis=1)
        reach = max(float(np.median(error)), sigma_px)
        weight = np.sqrt(1.0 / (1.0 + (error / (2.0 * reach)) ** 2))
    return np.asarray(solution.T, dtype=np.float64)


def local_affines(
    pixels1: FloatArray, pixels2: FloatArray, sigma_px: float, neighbours: int = 12
) -> tuple[Float64Array, Float64Array]:
    """Affine maps around every match, and how far each match lies off its neighbours' map.

    The map of a match is fitted to its nearest neighbours (itself left out, so that a wrong match does not speak for
    itself) with Cauchy weights, and drawn towards the global map where they are few or in a line.

    Args:
        pixels1, pixels2: matched pixels, ``[N, 2]``.
        sigma_px: standard deviation of ``pixels2`` per axis.
        neighbours: how many speak for each match.

    Returns:
        ``linear`` ``[N, 2, 2]``: d pixel 2 / d pixel 1; ``gap_px`` ``[N]``: distance of ``pixels2`` from where the
        neighbours' map puts it (infinite below 4 matches).
    """
    n = len(pixels1)
    if n < 4:
        return np.tile(np.eye(2), (n, 1, 1)), np.full(n, np.inf)
    common = global_affine(pixels1, pixels2, sigma_px)
    k = min(neighbours, n - 1)
    _, near = cKDTree(pixels1).query(pixels1, k=k + 1)
    near = near[:, 1:]  # [N, k]
    offset = pixels1[near] - pixels1[:, None]  # [N, k, 2]
    design = np.concatenate([offset, np.ones((n, k, 1))], axis=2)  # [N, k, 3]
    # what the global map leaves over
    rest = pixels2[near] - pixels1[near] @ common[:, :2].T - common[:, 2]  # [N, k, 2]
    spread = np.sqrt((offset**2).mean(axis=(1, 2)))  # [N] typical distance of a neighbour per axis
    # A map may differ from the global one by 30 % in its slopes and by any shift.
    prior = np.zeros((n, 3, 3))
    prior[:, 0, 0] = prior[:, 1, 1] = (sigma_px / 0.3) ** 2
    prior[:, 2, 2] = 1e-9 + 1e-6 * spread**2
    weight = np.ones((n, k))
    for _ in range(_ROUNDS):
        weighted = design * weight[..., None]
        normal = np.einsum("nki,nkj->nij", weighted, design) + prior
        solution = np.linalg.solve(normal, np.einsum("nki,nkc->nic", weighted, rest))  # [N, 3, 2]
        error = np.linalg.norm(design @ solution - rest, axis=2)
        weight = 1.0 / (1.0 + (error / (2.5 * sigma_px)) ** 2)
    linear = common[:, :2] + solution[:, :2].transpose(0, 2, 1)
    expected = pixels1 @ common[:, :2].T + common[:, 2] + solution[:, 2]
    return linear, np.linalg.norm(pixels2 - expected, axis=1)
