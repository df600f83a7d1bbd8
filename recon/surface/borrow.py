"""Depth that other photos confirm, brought into a photo where it has none of its own.

A floor behind a table or a box too near to match may be confirmed from elsewhere. Such depth is worth more than any
answer, but where it is hidden here it would be wrong: it counts only where nothing confirmed stands before it, where
the photo's own answers allow it and where both photos show the same colour.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter
from scipy.spatial import cKDTree

from recon.surface.align import FrameSamples
from recon.surface.consistency import to_pixels, to_world
from recon.surface.types import DepthMap
from recon.types import ImageArray

_CELL_PX = 3  # cells in which what is nearest hides what lies behind, so that no point shines through between others
_EVERY = 2  # a quarter of a lender's pixels will do
_BEHIND = 1.05  # ... from this ratio of depths on
_SAME_COLOUR = 20.0  # CIELAB difference of blurred colours
_BLUR_PX = 5
_ANSWERS = 5  # nearest answers asked about a depth ...
_WITNESSES = 2  # ... and how many have to allow it
_ALLOWED_SIGMAS = 2.0


def borrow(here: DepthMap, lenders: Sequence[DepthMap], answers: FrameSamples) -> NDArray[np.float32]:
    """Depth [H, W] at pixels of ``here`` without depth that the ``lenders``' maps bring, NaN where none.

    Args:
        here: the photo's own confirmed depth (NaN elsewhere).
        lenders: confirmed depth of other photos, without rims.
        answers: the photo's aligned samples.
    """
    height, width = here.depth_m.shape
    own_colour = _blurred(here.color)
    pixels, depths = [], []
    for lender in lenders:
        rows, columns = _EVERY * np.array(np.nonzero(np.isfinite(lender.depth_m[::_EVERY, ::_EVERY])))
        world = to_world(lender, columns + 0.5, rows + 0.5, lender.depth_m[rows, columns].astype(np.float64))
        u, v, z = to_pixels(here, world)
        with np.errstate(invalid="ignore"):
            seen = np.nonzero((u >= 0) & (v >= 0) & (u < width) & (v < height))[0]
        row, column = v[seen].astype(np.int64), u[seen].astype(np.int64)
        colour = _blurred(lender.color)[rows[seen], columns[seen]]
        same = np.linalg.norm(colour - own_colour[row, column], axis=-1) < _SAME_COLOUR
        pixels.append((row * width + column)[same])
        depths.append(z[seen][same])
    nothing = np.full((height, width), np.nan, dtype=np.float32)
    if not pixels or len(answers.depth_m) < _ANSWERS:
        return nothing
    pixel, depth = np.concatenate(pixels), np.concatenate(depths)
    allowed = _allowed(pixel, depth, width, answers)
    pixel, depth = pixel[allowed], depth[allowed]
    nearest = np.where(np.isfinite(here.depth_m), here.depth_m, np.inf).astype(np.float64).ravel()
    np.minimum.at(nearest, pixel, depth)
    front = _front(nearest.reshape(height, width)).ravel()
    visible = depth <= _BEHIND * front[pixel]
    pixel, depth = pixel[visible], depth[visible]
    count = np.bincount(pixel, minlength=height * width)
    with np.errstate(invalid="ignore"):
        mean = np.exp(np.bincount(pixel, np.log(depth), minlength=height * width) / count).reshape(height, width)
    return np.where(np.isfinite(here.depth_m), np.nan, mean).astype(np.float32)


def _allowed(
    pixel: NDArray[np.int64], depth: NDArray[np.float64], width: int, answers: FrameSamples
) -> NDArray[np.bool_]:
    """Which points [N] lie within what several of the answers around say."""
    if len(pixel) == 0:
        return np.zeros(0, dtype=bool)
    places, index = np.unique(pixel, return_inverse=True)
    _, around = cKDTree(answers.pixels).query(
        np.stack([places % width + 0.5, places // width + 0.5], axis=-1), k=_ANSWERS
    )
    around = around[index]  # [N, answers]
    off = np.abs(np.log(answers.depth_m)[around] - np.log(depth)[:, None])
    return (off < _ALLOWED_SIGMAS * answers.log_sigma[around]).sum(axis=1) >= _WITNESSES


def _front(nearest: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest depth [H, W] in the cell of each pixel and those around it."""
    height, width = nearest.shape
    padded = np.pad(nearest, ((0, -height % _CELL_PX), (0, -width % _CELL_PX)), constant_values=np.inf)
    cells = padded.reshape(padded.shape[0] // _CELL_PX, _CELL_PX, -1, _CELL_PX).min(axis=(1, 3))
    cells = minimum_filter(cells, 3, mode="nearest")
    return cells.repeat(_CELL_PX, axis=0).repeat(_CELL_PX, axis=1)[:height, :width]


def _blurred(image: ImageArray) -> NDArray[np.float32]:
    small = cv2.blur(image.astype(np.float32) / 255.0, (_BLUR_PX, _BLUR_PX))
    return cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
