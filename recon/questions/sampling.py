"""Which pixels to ask about."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def grid(
    width: int,
    height: int,
    budget: int,
    mask: NDArray[np.bool_] | None = None,
    jitter_seed: int | None = None,
) -> NDArray[np.float64]:
    """At most ``budget`` pixels spread evenly: one in each of nearly square cells that tile the image.

    Args:
        width, height: image size in pixels.
        budget: the most pixels to return.
        mask: ``[height, width]``, True where asking makes sense. Cells become smaller so that the budget is spent
            inside the mask; a point stands for its cell, and is kept when the mask is True there.
        jitter_seed: None puts each point into the middle of its cell; a number places it at random within its cell
            (stratified sampling), the same for the same number.

    Returns:
        ``[N, 2]`` corner-based pixels ``(x, y)`` in row-major order of cells, N <= budget.

    Raises:
        ValueError: sizes or the budget are not positive, or the mask has another size.
    """
    if width <= 0 or height <= 0 or budget <= 0:
        raise ValueError(f"size and budget must be positive, got {width}x{height} and {budget}")
    if mask is None:
        return _cells(width, height, *_shape(width, height, budget), jitter_seed)
    if mask.shape != (height, width):
        raise ValueError(f"the mask must have shape {(height, width)}, got {mask.shape}")
    share = float(np.count_nonzero(mask)) / mask.size
    if share == 0:
        return np.empty((0, 2))
    # The share of cells whose point is inside is about the mask's share; shrink the cell count until it fits.
    cells = math.ceil(budget / share)
    while True:
        points = _cells(width, height, *_shape(width, height, cells), jitter_seed)
        column, row = np.floor(points).astype(np.int64).T
        kept = points[mask[row, column]]
        if len(kept) <= budget:
            return kept
        cells = min(cells - 1, math.floor(cells * budget / len(kept)))


def _shape(width: int, height: int, cells: int) -> tuple[int, int]:
    """Columns and rows with at most ``cells`` cells, as square as possible, never more than one per pixel."""
    ideal = math.sqrt(cells * width / height)
    best = (1, 1)
    best_cost = math.inf
    for columns in {max(1, math.floor(ideal)), max(1, math.ceil(ideal))}:
        columns = min(columns, width, cells)
        rows = min(max(1, cells // columns), height)
        # unsquareness counts as much as the share of the budget left unused
        cost = abs(math.log((width / columns) / (height / rows))) + math.log(cells / (columns * rows))
        if cost < best_cost:
            best, best_cost = (columns, rows), cost
    return best


def _cells(width: int, height: int, columns: int, rows: int, jitter_seed: int | None) -> NDArray[np.float64]:
    """One point in each cell, ``[rows * columns, 2]``, strictly inside the image."""
    column, row = np.meshgrid(np.arange(columns), np.arange(rows))
    cell = np.stack([column, row], axis=-1).reshape(-1, 2).astype(np.float64)  # [rows * columns, 2]
    offset: NDArray[np.float64] | float = 0.5
    if jitter_seed is not None:
        offset = np.random.default_rng(jitter_seed).random(cell.shape)
    points = (cell + offset) * [width / columns, height / rows]
    return np.minimum(points, np.nextafter([float(width), float(height)], 0.0))
