"""Pixel conventions: the only place that shifts by half a pixel, rescales pixels or writes them as text coordinates.

Inside the project a pixel coordinate is *corner based*: continuous ``(x, y)``, the image's top-left corner at (0, 0)
and the first pixel's centre at (0.5, 0.5) (COLMAP's convention). Two foreign conventions are converted here:

* *index based*: the centre of the first pixel at (0, 0) (OpenCV, array indices, most data-set calibrations);
* *normalised text coordinates*: ``value / size * range``, where ``value`` follows either of the two conventions.

The public VLM3 checkpoints write **array indices**: their depth labels are read at ``depth[row, column]`` and the
text holds ``round(column / width * 2000)`` (the pixel of column 0 is written 0; the last of 1215 columns is 1998, not
2000), and their boxes run to ``width - 1``. So the ``vlm3-released`` dialect uses ``convention="index"``. Our own
dialect covers the image exactly, 0 its left edge and ``range_`` its right edge: ``convention="corner"``.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

PixelConvention = Literal["corner", "index"]

_OFFSET: dict[str, float] = {"corner": 0.0, "index": 0.5}


def corner_from_index(indices: ArrayLike) -> NDArray[np.float64]:
    """Corner-based pixel coordinates of index-based ones (the centre of pixel 0 is at 0.5). Any shape."""
    return np.asarray(indices, dtype=np.float64) + 0.5


def index_from_corner(pixels: ArrayLike) -> NDArray[np.float64]:
    """Index-based coordinates (as OpenCV's ``remap`` wants them) of corner-based pixels. Any shape."""
    return np.asarray(pixels, dtype=np.float64) - 0.5


def pixel_centres(width_px: int, height_px: int) -> NDArray[np.float64]:
    """Centres of all pixels in row-major order, ``[height_px * width_px, 2]``, ``(x, y)``."""
    x = np.arange(width_px, dtype=np.float64) + 0.5
    y = np.arange(height_px, dtype=np.float64) + 0.5
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)  # [H * W, 2]


def containing_pixels(pixels: ArrayLike, width_px: int, height_px: int) -> NDArray[np.int64]:
    """Integer ``(column, row)`` of the pixel that contains each point, ``[N, 2]``, clipped to the image."""
    points = _points(pixels)
    last = np.array([width_px - 1, height_px - 1])
    return np.clip(np.floor(points), 0, last).astype(np.int64)


def resize_pixels(pixels: ArrayLike, from_size: tuple[int, int], to_size: tuple[int, int]) -> NDArray[np.float64]:
    """Pixels ``[N, 2]`` of an image of ``from_size`` (width, height) in the same image resized to ``to_size``.

    Corner-based pixels scale without a shift: the image's edges map to its edges.
    """
    scale = np.array([to_size[0] / from_size[0], to_size[1] / from_size[1]])
    return _points(pixels) * scale


def to_normalised(
    pixels: ArrayLike, width_px: int, height_px: int, range_: float, convention: PixelConvention = "corner"
) -> NDArray[np.float64]:
    """Text coordinates, not rounded: ``value / size * range_`` of corner-based pixels.

    Args:
        pixels: ``[N, 2]`` or ``[2]`` corner-based pixels.
        width_px, height_px: size of the image that the checkpoint sees.
        range_: the dialect's range, e.g. 1000 or 2000.
        convention: what the dialect's text counts from (see the module's text).

    Returns:
        float64, the shape of ``pixels``; not clipped.
    """
    size = _size(width_px, height_px)
    return (_points(pixels) - _OFFSET[convention]) / size * range_


def from_normalised(
    values: ArrayLike, width_px: int, height_px: int, range_: float, convention: PixelConvention = "corner"
) -> NDArray[np.float64]:
    """Corner-based pixels of text coordinates: the inverse of :func:`to_normalised`. Same shape as ``values``."""
    size = _size(width_px, height_px)
    return _points(values) / range_ * size + _OFFSET[convention]


def to_integers(
    pixels: ArrayLike, width_px: int, height_px: int, range_: int, convention: PixelConvention = "corner"
) -> NDArray[np.int64]:
    """Text coordinates as the prompts write them: rounded half to even (Python's ``round``), clipped to [0, range_].

    Raises:
        ValueError: a pixel is not finite.
    """
    values = to_normalised(pixels, width_px, height_px, range_, convention)
    if not np.isfinite(values).all():
        raise ValueError("text coordinates of pixels that are not finite were asked for")
    return np.clip(np.rint(values), 0, range_).astype(np.int64)


def _points(pixels: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(pixels, dtype=np.float64)
    if points.ndim == 0 or points.shape[-1] != 2:
        raise ValueError(f"pixels must have shape [..., 2], got {points.shape}")
    return points


def _size(width_px: int, height_px: int) -> NDArray[np.float64]:
    if width_px <= 0 or height_px <= 0:
        raise ValueError(f"image size must be positive, got {width_px}x{height_px}")
    return np.array([width_px, height_px], dtype=np.float64)
