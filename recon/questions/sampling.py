"""Which pixels to ask about: first spread evenly, then where the first answers leave most open."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay, QhullError

Planning = Literal["coarse-to-fine", "uniform"]

_GAP = 1.5  # steps between neighbours, in those usual in the image, from which something lies between them
_STRAY = 2.5  # steps to its neighbours from which an answer is a stray one (or a small thing) ...
_CALM = 1.2  # ... if they vary by no more than this among themselves
_UNSURE = 1.5  # standard deviations, in those usual in the image, from which an answer is unsure
_MOST_STEPS = 4.0  # a larger step is as worth asking about as this one: a jump is a jump
_STRAY_PRIORITY = 6.0
_LEAST_SPACING = 0.3  # between an asked pixel and those before, in spacings of the pixels asked so far
_LEAST_PX = 4.0


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


def finer(
    width: int,
    height: int,
    asked: NDArray[np.floating],
    log_depth: NDArray[np.floating],
    log_sigma: NDArray[np.floating],
    budget: int,
    mask: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """At most ``budget`` further pixels where the answers so far leave most open.

    Neighbours are those of the Delaunay triangulation. In order of worth: beside an answer that differs from neighbours
    who agree with one another (a mistake, or a small thing); half way between neighbours whose answers differ by more
    than is usual in this image, or of whom one is unsure; and with what then remains of the budget the middles of the
    largest triangles. What is usual is measured, so that noise and slopes alone draw no questions.

    Args:
        width, height: image size in pixels.
        asked: pixels ``[N, 2]`` with answers.
        log_depth: ln of the answered depths, ``[N]``.
        log_sigma: their standard deviations, ``[N]``.
        budget: the most pixels to return.
        mask: ``[height, width]``, True where asking makes sense.

    Returns:
        ``[M, 2]`` corner-based pixels, M <= budget, in order of worth; none where fewer than 4 answers (or answers on
        one line only) tell nothing about neighbours.

    Raises:
        ValueError: shapes differ.
    """
    points = np.asarray(asked, dtype=np.float64).reshape(-1, 2)
    if not len(points) == len(log_depth) == len(log_sigma):
        raise ValueError(f"got {len(points)} pixels, {len(log_depth)} depths and {len(log_sigma)} deviations")
    if mask is not None and mask.shape != (height, width):
        raise ValueError(f"the mask must have shape {(height, width)}, got {mask.shape}")
    if budget <= 0 or len(points) < 4:
        return np.empty((0, 2))
    try:
        edges = _edges(Delaunay(points).simplices)
    except QhullError:
        return np.empty((0, 2))
    spacing = math.sqrt(width * height * (1.0 if mask is None else float(mask.mean())) / len(points))
    worth = _worth_asking(points, edges, np.asarray(log_depth), np.asarray(log_sigma), spacing)
    chosen = _spread_out(worth, points, budget, max(_LEAST_PX, _LEAST_SPACING * spacing), width, height, mask)
    if len(chosen) < budget:
        every = np.concatenate([points, chosen])
        middles = _largest_triangles(every)
        more = _spread_out(middles, every, budget - len(chosen), 0.5 * spacing, width, height, mask)
        chosen = np.concatenate([chosen, more])
    return chosen


def _edges(simplices: NDArray[np.integer]) -> NDArray[np.integer]:
    """Each edge of a triangulation once, [E, 2]."""
    pairs = np.concatenate([simplices[:, [0, 1]], simplices[:, [1, 2]], simplices[:, [2, 0]]])
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _worth_asking(
    points: NDArray[np.float64],
    edges: NDArray[np.integer],
    log_depth: NDArray[np.floating],
    log_sigma: NDArray[np.floating],
    spacing: float,
) -> NDArray[np.float64]:
    """Pixels [K, 2] that would settle a doubt, those that settle most first."""
    i, j = edges.T
    gap = np.abs(log_depth[i] - log_depth[j])
    usual = max(1.4826 * float(np.median(gap)), 1e-3)
    stray, nearest = _strays(points, edges, log_depth, usual)
    unsure = log_sigma / np.median(log_sigma)
    doubt = np.clip(gap / usual - _GAP, 0, _MOST_STEPS)
    doubt = doubt + 0.5 * np.maximum(np.maximum(unsure[i], unsure[j]) - _UNSURE, 0)
    open_ = (doubt > 0) & ~stray[i] & ~stray[j]
    length = np.linalg.norm(points[i] - points[j], axis=1)
    candidates = np.concatenate(
        [0.6 * points[stray] + 0.4 * points[nearest[stray]], ((points[i] + points[j]) / 2)[open_]]
    )
    worth = np.concatenate([np.full(int(stray.sum()), _STRAY_PRIORITY), (doubt * length / spacing)[open_]])
    return candidates[np.argsort(-worth, kind="stable")]


def _strays(
    points: NDArray[np.float64], edges: NDArray[np.integer], log_depth: NDArray[np.floating], usual: float
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which answers differ from neighbours who agree with one another [N], and each one's nearest neighbour [N]."""
    both = np.concatenate([edges, edges[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    starts = np.searchsorted(both[:, 0], np.arange(len(points) + 1))
    stray = np.zeros(len(points), dtype=bool)
    nearest = np.zeros(len(points), dtype=np.int64)
    for k in range(len(points)):
        around = both[starts[k] : starts[k + 1], 1]
        if len(around) == 0:  # Qhull left out a point that coincides with another
            continue
        nearest[k] = around[np.argmin(np.linalg.norm(points[around] - points[k], axis=1))]
        middle = float(np.median(log_depth[around]))
        spread = 1.4826 * float(np.median(np.abs(log_depth[around] - middle)))
        differs = abs(float(log_depth[k]) - middle) > _STRAY * usual
        stray[k] = len(around) >= 3 and differs and spread < _CALM * usual
    return stray, nearest


def _largest_triangles(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Middles [T, 2] of the triangles between the points, the largest first."""
    corners = points[Delaunay(points).simplices]  # [T, 3, 2]
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = np.abs(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0])
    return corners.mean(axis=1)[np.argsort(-area, kind="stable")]


def _spread_out(
    candidates: NDArray[np.float64],
    others: NDArray[np.float64],
    budget: int,
    least_px: float,
    width: int,
    height: int,
    mask: NDArray[np.bool_] | None,
) -> NDArray[np.float64]:
    """The first ``budget`` candidates that may be asked and keep their distance from the others and each other."""
    taken = np.array(others, dtype=np.float64)
    chosen: list[NDArray[np.float64]] = []
    for point in candidates:
        if len(chosen) == budget:
            break
        point = np.clip(point, 0.0, np.nextafter([float(width), float(height)], 0.0))
        if mask is not None and not mask[int(point[1]), int(point[0])]:
            continue
        if np.linalg.norm(taken - point, axis=1).min() < least_px:
            continue
        chosen.append(point)
        taken = np.concatenate([taken, point[None]])
    return np.array(chosen).reshape(-1, 2)
