"""Charts: rectangles of photos with the triangles that lie in them, and their places in the pages of the atlas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.errors import SurfaceError

_TILE_PX = 512  # larger pieces are cut along a grid of their photo: less of their rectangles is empty
CELL_PX = 4  # side of the cell of a triangle that no photo shows
_CELLS = 16  # of those along a side of their block
_STEP = 0.97  # by which charts shrink until they fit


@dataclass(frozen=True)
class Charts:
    """N rectangles: ``photo`` [N] (-1: a block of cells), ``low_px`` and ``size_px`` [N, 2] in the photo, their
    ``page`` [N], and ``place`` and ``extent`` [N, 2] there, x before y; ``of_face`` [F] the chart of each triangle.

    ``pages`` are the heights and widths of the pages; ``scale`` the texels per pixel of a photo.
    """

    photo: NDArray[np.int64]
    low_px: NDArray[np.int64]
    size_px: NDArray[np.int64]
    page: NDArray[np.int32]
    place: NDArray[np.int64]
    extent: NDArray[np.int64]
    of_face: NDArray[np.int64]
    pages: tuple[tuple[int, int], ...]
    scale: float


def cut_charts(
    labels: NDArray[np.int32], piece: NDArray[np.int64], corners_px: NDArray[np.float32], padding: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Charts of triangles with a photo: ``photo`` [N], ``low_px`` and ``size_px`` [N, 2], chart ``of_face`` [F] (-1).

    Args:
        labels: photo of each triangle [F], -1 for none.
        piece: the connected piece of one photo each is in [F].
        corners_px: where its corners are in that photo [F, 3, 2].
        padding: pixels around a chart that are taken along.
    """
    seen = np.flatnonzero(labels >= 0)
    of_face = np.full(len(labels), -1, dtype=np.int64)
    if len(seen) == 0:
        return np.zeros(0, np.int64), np.zeros((0, 2), np.int64), np.zeros((0, 2), np.int64), of_face
    tile = (corners_px[seen].mean(axis=1) // _TILE_PX).astype(np.int64)
    key = (piece[seen] << 32) + (tile[:, 1] << 16) + tile[:, 0]
    _, first, chart = np.unique(key, return_index=True, return_inverse=True)
    of_face[seen] = chart
    low, high = np.full((len(first), 2), np.inf), np.full((len(first), 2), -np.inf)
    for k in range(3):
        np.minimum.at(low, chart, corners_px[seen, k])
        np.maximum.at(high, chart, corners_px[seen, k])
    low_px = np.floor(low).astype(np.int64) - padding
    return labels[seen[first]].astype(np.int64), low_px, np.ceil(high).astype(np.int64) + padding - low_px, of_face


def place_charts(
    photo: NDArray[np.int64],
    low_px: NDArray[np.int64],
    size_px: NDArray[np.int64],
    of_face: NDArray[np.int64],
    page_px: int,
    max_pages: int,
) -> Charts:
    """Finds all charts, and blocks of cells for triangles without one, a place; they shrink alike until they fit.

    Raises:
        SurfaceError: not even tiny ones fit.
    """
    of_face = of_face.copy()
    unseen = np.flatnonzero(of_face < 0)
    num_blocks = -(-len(unseen) // _CELLS**2)
    of_face[unseen] = len(photo) + np.arange(len(unseen)) // _CELLS**2
    block = np.full((num_blocks, 2), _CELLS * CELL_PX, dtype=np.int64)
    scale = 1.0
    while scale > 1e-3:
        extent = np.concatenate([np.maximum(np.ceil(size_px * scale), 2).astype(np.int64), block])
        packed = _pack(extent, page_px, max_pages)
        if packed is not None:
            break
        area = float(np.prod(extent, axis=1).sum()) / (max_pages * page_px**2)
        scale *= min(_STEP, area**-0.5) if area > 0 else _STEP
    else:
        raise SurfaceError(
            f"--texture-size {page_px}: {len(photo)} charts and {len(unseen)} triangles that no photo shows do not fit "
            f"on {max_pages} such pages; ask for larger pages or fewer triangles (--target-faces)"
        )
    page, place = packed
    heights = [int((place[page == p, 1] + extent[page == p, 1]).max()) for p in range(int(page.max(initial=-1)) + 1)]
    widths = [int((place[page == p, 0] + extent[page == p, 0]).max()) for p in range(len(heights))]
    return Charts(
        np.concatenate([photo, np.full(num_blocks, -1, dtype=np.int64)]),
        np.concatenate([low_px, np.zeros((num_blocks, 2), dtype=np.int64)]),
        np.concatenate([size_px, block]),
        page, place, extent, of_face,
        tuple((-(-h // 4) * 4, -(-w // 4) * 4) for h, w in zip(heights, widths)),
        scale,
    )  # fmt: skip


def _pack(
    extent: NDArray[np.int64], page_px: int, max_pages: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
    """Page [N] and left top corner [N, 2] of rectangles [N, 2] in shelves, high ones first; None if they don't fit."""
    if len(extent) and extent.max() > page_px:
        return None
    page, place = np.zeros(len(extent), dtype=np.int32), np.zeros((len(extent), 2), dtype=np.int64)
    at_page = left = top = shelf = 0
    for index in np.lexsort((-extent[:, 0], -extent[:, 1])):
        width, height = extent[index]
        if left + width > page_px:
            left, top, shelf = 0, top + shelf, 0
        if top + height > page_px:
            at_page, left, top, shelf = at_page + 1, 0, 0, 0
            if at_page == max_pages:
                return None
        page[index], place[index] = at_page, (left, top)
        left, shelf = left + width, max(shelf, height)
    return page, place


def texel_corners(charts: Charts, corners_px: NDArray[np.float32]) -> NDArray[np.float64]:
    """Where the corners of each triangle lie in its page, in texels from the left top corner, [F, 3, 2]."""
    chart = charts.of_face
    factor = charts.extent[chart] / charts.size_px[chart]  # [F, 2]
    corners = (corners_px - charts.low_px[chart][:, None]) * factor[:, None] + charts.place[chart][:, None]
    unseen = np.flatnonzero(charts.photo[chart] < 0)
    cell = np.arange(len(unseen)) % _CELLS**2
    low = charts.place[chart[unseen]] + CELL_PX * np.stack([cell % _CELLS, cell // _CELLS], axis=1)
    corners[unseen] = low[:, None] + CELL_CORNERS
    return corners


# Corners of the triangle in its cell. Linear colours are bilinear between the centres of texels, so nothing is lost.
CELL_CORNERS = np.array([[0.5, 0.5], [CELL_PX - 0.5, 0.5], [0.5, CELL_PX - 0.5]])


def cell_weights() -> NDArray[np.float64]:
    """Weights of a triangle's corners for each texel of its cell, [CELL_PX, CELL_PX, 3]; beyond it they go on."""
    step = np.arange(CELL_PX) / (CELL_PX - 1)
    x, y = np.meshgrid(step, step)
    return np.stack([1 - x - y, x, y], axis=-1)
