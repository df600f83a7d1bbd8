"""Warps an image from one camera to another with the same centre and orientation (undistortion)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from recon.cameras import pinhole
from recon.cameras.pixels import index_from_corner, pixel_centres, resize_pixels
from recon.errors import BadInputError
from recon.types import Camera

_BLOCK_PIXELS = 1 << 20  # maps are made for so many output pixels at a time, which bounds the memory
_MAX_SIDE_PX = 32_766  # OpenCV's remap counts in int16


def warp(
    pixels: NDArray[Any], camera: Camera, target: Camera, nearest: bool = False
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """What ``target`` would have seen, sampled from an image of ``camera``.

    Args:
        pixels: ``[H, W, 3]`` or ``[H, W]``, uint8, uint16 or float32; may be the camera's image resized to any size.
        camera: the camera of ``pixels`` (any model; for its own size).
        target: the camera of the result, PINHOLE or any other model.
        nearest: take the nearest pixel (depth, masks) instead of cubic interpolation.

    Returns:
        image ``[target.height_px, target.width_px(, 3)]`` (0 where unseen) and ``seen`` (bool, same height and width).
        Cubic interpolation does not antialias: reduce the image first when ``target`` is much coarser.
    """
    height, width = pixels.shape[:2]
    if max(width, height, target.width_px, target.height_px) > _MAX_SIDE_PX:
        raise BadInputError(f"image sides of at most {_MAX_SIDE_PX} px can be undistorted, found {width}x{height}")
    out = np.zeros((target.height_px, target.width_px, *pixels.shape[2:]), dtype=pixels.dtype)
    seen: NDArray[np.bool_] = np.zeros(out.shape[:2], dtype=np.bool_)
    interpolation = cv2.INTER_NEAREST if nearest else cv2.INTER_CUBIC
    rows_per_block = max(1, _BLOCK_PIXELS // target.width_px)
    for top in range(0, target.height_px, rows_per_block):
        rows = min(rows_per_block, target.height_px - top)
        centres = pixel_centres(target.width_px, rows) + np.array([0.0, top])  # [rows * W, 2]
        source = pinhole.project(camera, pinhole.rays(target, centres))
        source = resize_pixels(source, (camera.width_px, camera.height_px), (width, height))
        inside = np.all((source >= 0.0) & (source <= np.array([width, height])), axis=1)  # False for NaN
        index = np.where(inside[:, None], index_from_corner(source), -10.0).astype(np.float32)
        maps = index.reshape(rows, target.width_px, 2)
        block = cv2.remap(pixels, maps[..., 0], maps[..., 1], interpolation, borderMode=cv2.BORDER_REPLICATE)
        seen[top : top + rows] = inside.reshape(rows, target.width_px)
        out[top : top + rows] = block
    out[~seen] = 0
    return out, seen
