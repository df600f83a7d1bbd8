"""Surface interpolation from scattered samples that bends at image edges only.

The unknown is the inverse depth on a small grid, because planes are linear in it, so a second-order smoothness term
(thin plate, Terzopoulos 1986) costs a slanted wall or floor nothing. Every term is weighed by the colour affinity of
the pixels it ties together (as in weighted least squares filtering, Farbman et al. 2008). Samples count by their
variance and with Huber's robust weight; the sparse normal equations are solved directly.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix, diags, identity
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from recon.surface.align import FrameSamples, together
from recon.types import ImageArray

_LEAST_AFFINITY = 1e-4  # even across the sharpest edge something is passed on, so that no region is undetermined
_LEAST_PART = 0.15  # of the difference over three cells that a step must have to count as a part of one border
_FIRST_ORDER = 2e-3  # share of a membrane in the smoothness: keeps regions without samples from tilting away
_TEXTURE_CELLS = 5  # details smaller than this are texture (a median takes them away), no borders of objects
_IRLS_STEPS = 4
_CREASE = 0.001  # bend (second difference of normalised inverse depth) from which it's taken for a crease or a jump


def interpolate(
    image: ImageArray,
    parts: Sequence[FrameSamples],
    solve_px: int,
    edge_sigma: float,
    smoothing: float,
    robust_sigmas: float,
) -> NDArray[np.float32]:
    """Dense z-depth [H, W] of an image [H, W, 3] from samples in it.

    Args:
        parts: the sources' samples: pixels in the image, depths and their log standard deviations. The smoothness is
            set by the source that needs least of it, so exact points don't stiffen what noisy ones have to shape.
        solve_px: long side of the grid of unknowns.
        edge_sigma: colour difference (CIELAB) at which the tie between neighbours falls to 1/e.
        smoothing: radius in sample spacings over which samples are averaged.
        robust_sigmas: residual from which a sample loses weight.
    """
    height, width = image.shape[:2]
    scale = min(1.0, solve_px / max(height, width))
    grid_h, grid_w = max(4, round(height * scale)), max(4, round(width * scale))
    small = cv2.resize(image, (grid_w, grid_h), interpolation=cv2.INTER_AREA)
    lab = to_lab(small)
    samples = together(parts)
    reference = float(np.median(samples.depth_m))
    inverse = reference / samples.depth_m  # [N], about 1
    place = _bilinear(samples.pixels * [grid_w / width, grid_h / height], grid_h, grid_w)  # [N, cells]
    strength = min(_strength(part, grid_h * grid_w, smoothing) for part in parts if len(part.depth_m))
    terms = _smoothness_terms(to_lab(cv2.medianBlur(small, _TEXTURE_CELLS)), edge_sigma)
    # The error of an inverse depth is its log error times its true value, of which the sample itself is a bad estimate
    # just when it's an outlier: the median of the samples around stands in for it at first, then the solution.
    _, around = cKDTree(samples.pixels).query(samples.pixels, k=min(9, len(inverse)))
    expected = np.median(inverse[around.reshape(len(inverse), -1)], axis=1)
    solution = np.zeros(grid_h * grid_w)
    for step in range(_IRLS_STEPS):
        sigma = samples.log_sigma * expected
        residual = np.abs(inverse - expected) / sigma
        weight = robust_sigmas / np.maximum(residual, robust_sigmas) / sigma**2
        weighted = place.T @ diags(weight)
        system = weighted @ place + 1e-9 * identity(grid_h * grid_w)
        for stencil, affinity in terms:
            # From the second round on bends cost their size, not its square: a fold or a jump that the samples ask
            # for stays where it is instead of being spread out.
            bend = np.abs(stencil @ solution)
            factor = strength * affinity * (_CREASE / np.maximum(bend, _CREASE) if step else 1.0)
            system = system + stencil.T @ diags(factor) @ stencil
        solution = solve(system.tocsc(), weighted @ inverse)
        expected = np.maximum(place @ solution, 0.5 * expected)
    low, high = np.percentile(inverse, [0.5, 99.5]) * [0.7, 1.4]  # a thin plate overshoots where it has no samples
    dense = np.clip(solution, low, high).reshape(grid_h, grid_w)
    return (reference / upsample(dense, lab, image, edge_sigma)).astype(np.float32)


def upsample(
    values: NDArray[np.float64], lab: NDArray[np.float32], image: ImageArray, edge_sigma: float
) -> NDArray[np.float64]:
    """Joint bilateral upsampling (Kopf et al. 2007) of ``values`` [h, w] (colours ``lab`` [h, w, 3]) to the image."""
    height, width = image.shape[:2]
    grid_h, grid_w = values.shape
    if (height, width) == (grid_h, grid_w):
        return values
    fine = to_lab(image)
    x = (np.arange(width) + 0.5) * grid_w / width - 0.5
    y = (np.arange(height) + 0.5) * grid_h / height - 0.5
    total = np.zeros((height, width))
    weight_sum = np.zeros((height, width))
    for dy in (-1, 0, 1):
        row = np.clip(np.rint(y).astype(int) + dy, 0, grid_h - 1)
        near_y = np.exp(-0.5 * ((np.rint(y) + dy - y) / 0.6) ** 2)
        for dx in (-1, 0, 1):
            column = np.clip(np.rint(x).astype(int) + dx, 0, grid_w - 1)
            near_x = np.exp(-0.5 * ((np.rint(x) + dx - x) / 0.6) ** 2)
            difference = np.abs(lab[np.ix_(row, column)] - fine).sum(axis=-1)
            weight = np.exp(-difference / edge_sigma) * near_y[:, None] * near_x[None, :] + 1e-9
            total += weight * values[np.ix_(row, column)]
            weight_sum += weight
    return total / weight_sum


def _strength(part: FrameSamples, num_cells: int, smoothing: float) -> float:
    """Weight of smoothness that averages over ``smoothing`` spacings (a plate bends over (strength / data)^1/4)."""
    spacing = np.sqrt(num_cells / len(part.depth_m))
    return float((smoothing * spacing) ** 4 / spacing**2 / np.median(part.log_sigma) ** 2)


def to_lab(image: ImageArray) -> NDArray[np.float32]:
    return cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)


def _bilinear(points: NDArray[np.float64], grid_h: int, grid_w: int) -> csr_matrix:
    """Rows of bilinear weights of grid cells (centres at +0.5) at ``points`` [N, 2], [N, grid_h * grid_w]."""
    x = np.clip(points[:, 0] - 0.5, 0, grid_w - 1)
    y = np.clip(points[:, 1] - 0.5, 0, grid_h - 1)
    column = np.minimum(x.astype(int), grid_w - 2)
    row = np.minimum(y.astype(int), grid_h - 2)
    a, b = x - column, y - row
    cells = np.stack([row * grid_w + column + offset for offset in (0, 1, grid_w, grid_w + 1)], axis=-1)
    values = np.stack([(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b], axis=-1)
    rows = np.repeat(np.arange(len(points)), 4)
    return csr_matrix((values.ravel(), (rows, cells.ravel())), shape=(len(points), grid_h * grid_w))


def _smoothness_terms(lab: NDArray[np.float32], edge_sigma: float) -> list[tuple[csr_matrix, NDArray[np.float64]]]:
    """Thin-plate and membrane energies: stencils [K, cells] and the affinity [K] of the pixels they tie."""
    height, width = lab.shape[:2]
    size = height * width
    index = np.arange(size).reshape(height, width)
    across = affinity(colour_steps(lab), edge_sigma)  # [H, W - 1]
    down = affinity(colour_steps(lab.swapaxes(0, 1)).swapaxes(0, 1), edge_sigma)  # [H - 1, W]
    square = np.minimum(np.minimum(across[:-1], across[1:]), np.minimum(down[:, :-1], down[:, 1:]))
    terms = [
        ((index[:, :-2], index[:, 1:-1], index[:, 2:]), (1, -2, 1), np.minimum(across[:, :-1], across[:, 1:])),
        ((index[:-2], index[1:-1], index[2:]), (1, -2, 1), np.minimum(down[:-1], down[1:])),
        ((index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]), (1, -1, -1, 1), 2 * square),
        ((index[:, :-1], index[:, 1:]), (1, -1), _FIRST_ORDER * across),
        ((index[:-1], index[1:]), (1, -1), _FIRST_ORDER * down),
    ]
    stencils = []
    for cells, factors, weight in terms:
        number = weight.size
        rows = np.tile(np.arange(number), len(cells))
        values = np.repeat(np.asarray(factors, dtype=np.float64), number)
        columns = np.concatenate([c.ravel() for c in cells])
        stencils.append(
            (csr_matrix((values, (rows, columns)), shape=(number, size)), weight.ravel().astype(np.float64))
        )
    return stencils


def colour_steps(lab: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colour differences [H, W - 1, 3] between neighbours in a row, or between the cells beyond them where larger.

    A reduced image spreads a border over two or three cells; each step of it alone would let depth pass. A cell
    beside a sharp border takes no part in the step and stays tied to its own side.
    """
    single = np.diff(lab, axis=1)
    around = np.pad(single, ((0, 0), (1, 1), (0, 0)))
    spanning = around[:, :-2] + single + around[:, 2:]
    length = (spanning**2).sum(axis=-1, keepdims=True)
    takes_part = (single * spanning).sum(axis=-1, keepdims=True) > _LEAST_PART * length
    return np.where(takes_part & (length > (single**2).sum(axis=-1, keepdims=True)), spanning, single)


def affinity(difference: NDArray[np.float32], edge_sigma: float) -> NDArray[np.float32]:
    squared = (difference**2).sum(axis=-1) / edge_sigma**2
    return np.exp(-squared).clip(min=_LEAST_AFFINITY)


def solve(system: csc_matrix, right: NDArray[np.float64]) -> NDArray[np.float64]:
    # Symmetric positive definite: no pivoting, ordering for A^T + A.
    factor = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return factor.solve(right)
