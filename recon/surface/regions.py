"""Which pixels of a photo lie on which of the scene's planes: a random walker (Grady 2006) from what is known.

Confirmed pixels and answers vote for planes or for none at their places; the votes pass along the image as far as its
colours are alike. A plane is out of the question where another photo has confirmed something behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csc_matrix, diags
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2

from recon.surface.align import FrameSamples
from recon.surface.consistency import to_pixels, to_world
from recon.surface.layout import FREE_DENSITY
from recon.surface.planes import Plane, depth_on
from recon.surface.smooth import affinity, colour_steps, solve, to_lab
from recon.surface.types import DepthMap

_LONG_SIDE = 160  # cells along the photo's longer side
_EDGE_SIGMA = 5.0  # colour difference (CIELAB) at which the tie between cells falls to 1/e
_ON_PLANE_SIGMA = 0.006  # of ln(confirmed depth / plane's)
_ELSEWHERE = 0.05  # how well something else than a plane explains a confirmed depth, at best 1
_CONFIRMED_VOTE, _ANSWER_VOTE = 10.0, 1.0
_BEHIND = 1.03  # confirmed depth over the plane's, from which the plane is looked through
_CLEAR = 0.6  # share of the votes that makes a pixel a plane's
_TEXTURE_CELLS = 5
_ONE_PART = 0.2  # tie between cells of one part
_OUTLIER_SIGMAS = 2.2  # beyond it an answer is of something else, or wrong ...
_LEAST_FITTING = 0.6  # ... and this share of those in a part must not be
_PLANE_SIGMA = 0.015  # by which a plane may be off, in ln(depth)
_SURE = 0.999  # that answers contradict a plane
_ROUNDS = 3


def on_planes(
    here: DepthMap,
    known_m: NDArray[np.float32],
    answers: FrameSamples,
    planes: Sequence[Plane],
    others: Sequence[DepthMap],
) -> NDArray[np.float32]:
    """Depth [H, W] of the planes that pixels of ``here`` lie on, NaN where that is not clear.

    Args:
        here: the photo (its colours, camera and pose).
        known_m: its confirmed depth [H, W] without rims, NaN elsewhere.
        answers: its aligned samples.
        planes: of the scene.
        others: what other photos have confirmed.
    """
    height, width = here.depth_m.shape
    nothing = np.full((height, width), np.nan, dtype=np.float32)
    scale = min(1.0, _LONG_SIDE / max(height, width))
    grid = max(4, round(height * scale)), max(4, round(width * scale))
    x, y = np.meshgrid((np.arange(grid[1]) + 0.5) * width / grid[1], (np.arange(grid[0]) + 0.5) * height / grid[0])
    depths = [depth_on(plane, here, x, y) for plane in planes]  # of cells [h, w]
    chosen = [k for k, depth in enumerate(depths) if _seen(depth, answers, (height, width))]
    if not chosen:
        return nothing
    depth = np.stack([depths[k] for k in chosen])  # [K, h, w]
    seen = [planes[k] for k in chosen]
    small = cv2.resize(here.color, grid[::-1], interpolation=cv2.INTER_AREA)
    ties = _tied(cv2.medianBlur(small, _TEXTURE_CELLS))
    sure = _confirmed_votes(here, known_m, seen, grid)  # [K + 1, h, w]
    share = np.ones_like(sure)
    for _ in range(_ROUNDS):  # an answer that could be either is what those around it are
        share = _walked(sure + _answer_votes(here, answers, seen, share), ties)
    for k in range(len(chosen)):
        share[k][~(depth[k] > 0) | _looked_through(here, x, y, depth[k], others)] = 0
    total = share.sum(axis=0)
    share /= np.maximum(total, 1e-9)
    best = share.argmax(axis=0)
    clear = (np.take_along_axis(share, best[None], 0)[0] > _CLEAR) & (best < len(chosen))
    label = np.where(clear, best, -1)
    label[_contradicted(label, _parts(label, ties), seen, here, answers)] = -1
    at = _nearest_alike(small, here.color)
    fine = label.ravel()[at]
    result = nothing
    px, py = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    for k, plane in enumerate(chosen):
        mask = fine == k
        if mask.any():
            result[mask] = depth_on(planes[plane], here, px[mask], py[mask])
    return result


def _seen(depth: NDArray[np.float64], answers: FrameSamples, size: tuple[int, int]) -> bool:
    """Whether several answers lie on the plane."""
    row = (answers.pixels[:, 1] * depth.shape[0] / size[0]).astype(np.int64)
    column = (answers.pixels[:, 0] * depth.shape[1] / size[1]).astype(np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.abs(np.log(answers.depth_m / depth[row, column])) / answers.log_sigma
    return int((off < 1.5).sum()) >= 4


def _confirmed_votes(
    here: DepthMap, known_m: NDArray[np.float32], planes: Sequence[Plane], grid: tuple[int, int]
) -> NDArray[np.float64]:
    """Votes [planes + 1, h, w] of the confirmed depth in each cell, the last for no plane."""
    height, width = known_m.shape
    rows, columns = np.nonzero(np.isfinite(known_m))
    cell = (rows * grid[0] // height) * grid[1] + columns * grid[1] // width
    logs = np.log(known_m[rows, columns].astype(np.float64))
    fits = [_likeness(logs, p, here, columns + 0.5, rows + 0.5, np.full(len(rows), _ON_PLANE_SIGMA)) for p in planes]
    fit = np.stack([*fits, np.full(len(rows), _ELSEWHERE)])
    fit *= _CONFIRMED_VOTE / fit.sum(axis=0)
    size = grid[0] * grid[1]
    count = np.maximum(np.bincount(cell, minlength=size), 1)
    return np.stack([np.bincount(cell, part, minlength=size) / count for part in fit]).reshape(-1, *grid)


def _answer_votes(
    here: DepthMap, answers: FrameSamples, planes: Sequence[Plane], share: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Votes [planes + 1, h, w] of the answers, given the shares that the planes have there."""
    _, rows, columns = share.shape
    height, width = here.depth_m.shape
    x, y = answers.pixels.T
    cell = (y * rows / height).astype(np.int64) * columns + (x * columns / width).astype(np.int64)
    logs, sigma = np.log(answers.depth_m), answers.log_sigma
    fits = [_likeness(logs, p, here, x, y, sigma) / (np.sqrt(2 * np.pi) * sigma) for p in planes]
    fit = np.stack([*fits, np.full(len(x), FREE_DENSITY)]) * share.reshape(len(share), -1)[:, cell]
    fit *= _ANSWER_VOTE / np.maximum(fit.sum(axis=0), 1e-12)
    counted = [np.bincount(cell, part, minlength=rows * columns) for part in fit]
    return np.stack(counted).astype(np.float64).reshape(share.shape)


def _likeness(
    logs: NDArray[np.float64], plane: Plane, here: DepthMap, x: NDArray, y: NDArray, sigma: NDArray[np.float64]
) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        off = (logs - np.log(depth_on(plane, here, x, y))) / sigma
    return np.exp(-0.5 * np.nan_to_num(off, nan=100.0) ** 2)


def _tied(guide: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Neighbouring cells [E], [E] of a picture [h, w, 3], and how much they belong together [E]."""
    lab = to_lab(guide)
    height, width = lab.shape[:2]
    index = np.arange(height * width).reshape(height, width)
    across = affinity(colour_steps(lab), _EDGE_SIGMA)
    down = affinity(colour_steps(lab.swapaxes(0, 1)).swapaxes(0, 1), _EDGE_SIGMA)
    start = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    end = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    return start, end, np.concatenate([across.ravel(), down.ravel()]).astype(np.float64)


def _walked(
    votes: NDArray[np.float64], ties: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Shares [K, h, w] of the votes [K, h, w] where they arrive."""
    start, end, weight = ties
    size = votes[0].size
    graph = csc_matrix((np.tile(-weight, 2), (np.r_[start, end], np.r_[end, start])), shape=(size, size))
    own = np.asarray(-graph.sum(axis=1)).ravel() + votes.sum(axis=0).ravel() + 1e-9
    return solve((graph + diags(own)).tocsc(), votes.reshape(len(votes), -1).T).T.reshape(votes.shape)


def _parts(
    label: NDArray[np.int64], ties: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
) -> NDArray[np.int32]:
    """Numbers [h, w] of the connected parts of one label and of one colour."""
    start, end, weight = ties
    joined = (weight > _ONE_PART) & (label.ravel()[start] == label.ravel()[end])
    graph = coo_matrix((np.ones(int(joined.sum()), np.int8), (start[joined], end[joined])), shape=(label.size,) * 2)
    return connected_components(graph, directed=False)[1].reshape(label.shape)


def _contradicted(
    label: NDArray[np.int64], parts: NDArray[np.int32], planes: Sequence[Plane], here: DepthMap, answers: FrameSamples
) -> NDArray[np.bool_]:
    """Cells [h, w] of parts whose answers, together, say that they are not on their plane.

    One answer says little. All of them fitted by a surface that is bent as a whole say whether that surface is the
    plane: the chi-squared of the fit, beyond what a plane that is off by a percent or two would have.
    """
    rows, columns = label.shape
    height, width = here.depth_m.shape
    x, y = answers.pixels.T
    at = (y * rows / height).astype(np.int64), (x * columns / width).astype(np.int64)
    on = label[at]
    off = np.full(len(x), np.inf)
    for k, plane in enumerate(planes):
        its = on == k
        off[its] = np.log(answers.depth_m[its] / depth_on(plane, here, x[its], y[its])) / answers.log_sigma[its]
    refused = np.zeros(int(parts.max()) + 1, dtype=bool)
    for part in np.unique(parts[at][on >= 0]):
        inside = parts[at] == part
        near = inside & (np.abs(off) < _OUTLIER_SIGMAS)
        count = int(near.sum())
        refused[part] = count < _LEAST_FITTING * inside.sum()
        if refused[part] or count == 0:
            continue
        px, py = 2 * x[near] / width - 1, 2 * y[near] / height - 1
        terms = [np.ones(count)] if count < 12 else [np.ones(count), px, py, px * px, px * py, py * py]
        bent = np.stack(terms, axis=-1)
        fitted = bent @ np.linalg.lstsq(bent, off[near], rcond=None)[0]
        allowed = float(((_PLANE_SIGMA / answers.log_sigma[near]) ** 2).sum())
        refused[part] = float((fitted**2).sum()) > chi2.ppf(_SURE, len(terms)) + allowed
    return refused[parts]


def _looked_through(
    here: DepthMap, x: NDArray, y: NDArray, depth: NDArray[np.float64], others: Sequence[DepthMap]
) -> NDArray[np.bool_]:
    """Cells [h, w] whose point on the plane another photo looks through."""
    world = to_world(here, x, y, depth)
    through = np.zeros(depth.shape, dtype=bool)
    for other in others:
        height, width = other.depth_m.shape
        u, v, z = to_pixels(other, world)
        with np.errstate(invalid="ignore"):
            inside = (u >= 0) & (v >= 0) & (u < width) & (v < height)
            through[inside] |= (
                other.depth_m[v[inside].astype(np.int64), u[inside].astype(np.int64)] > _BEHIND * z[inside]
            )
    return through


def _nearest_alike(small: NDArray[np.uint8], image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """For each pixel [H, W] the cell of those around it that has its colour most."""
    height, width = image.shape[:2]
    grid_h, grid_w = small.shape[:2]
    fine, lab = to_lab(image), to_lab(small)
    x = (np.arange(width) + 0.5) * grid_w / width - 0.5
    y = (np.arange(height) + 0.5) * grid_h / height - 0.5
    best = np.full((height, width), np.inf, dtype=np.float32)
    cell = np.zeros((height, width), dtype=np.int64)
    for dy in (-1, 0, 1):
        row = np.clip(np.rint(y).astype(int) + dy, 0, grid_h - 1)
        for dx in (-1, 0, 1):
            column = np.clip(np.rint(x).astype(int) + dx, 0, grid_w - 1)
            away = 3.0 * (np.abs(row - y)[:, None] + np.abs(column - x)[None, :])
            off = np.abs(lab[np.ix_(row, column)] - fine).sum(axis=-1) + away.astype(np.float32)
            nearer = off < best
            best = np.where(nearer, off, best)
            cell = np.where(nearer, row[:, None] * grid_w + column[None, :], cell)
    return cell
