"""Sky in outdoor photos, without a network: what is smooth, bright or blue, hangs on the top border, and has no depth.

Sky has no surface, but depth maps often have something there: the prior's answer, or clouds that seem to match. The
rule is for upright photos taken outdoors: a white ceiling looks the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from recon.surface.lazy import LazyDepthMaps
from recon.surface.types import DepthMap
from recon.types import ImageArray

_SMOOTH_LEVELS = 6.0  # grey levels of 255 that a window of sky varies by at most (standard deviation)
_WINDOW_PX = 7
_BLUE_EXCESS = 12.0  # levels by which blue exceeds red
_LEAST_BLUE = 80.0  # level of blue from which it may be daylight
_LEAST_BRIGHT, _MOST_COLOR = 190.0, 30.0  # clouds: all channels bright, and alike
_LEAST_SHARE = 0.01  # of the picture
_MOST_CONFIRMED = 0.3  # of its pixels with depth that other photos confirm: more is a wall
_CONFIRMED = 0.3  # confidence above that of filled pixels
_RIM_PX = 3  # pixels around it are blends


def sky_mask(color: ImageArray, confidence: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Sky pixels [H, W] of an upright photo [H, W, 3], given the confidence [H, W] of its depth.

    Regions of smooth bright or blue pixels that touch the top border, cover 1 % of the picture, and of which less than
    30 % have depth that other photos confirm; with a rim of 3 pixels.
    """
    image = color.astype(np.float32)
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    grey = image @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    size = (_WINDOW_PX, _WINDOW_PX)
    mean = cv2.blur(grey, size, borderType=cv2.BORDER_REPLICATE)
    square = cv2.blur(grey * grey, size, borderType=cv2.BORDER_REPLICATE)
    smooth = np.sqrt(np.maximum(square - mean * mean, 0)) < _SMOOTH_LEVELS
    is_blue = (blue > red + _BLUE_EXCESS) & (blue >= green) & (blue > _LEAST_BLUE)
    low, high = image.min(axis=-1), image.max(axis=-1)
    is_cloud = (low > _LEAST_BRIGHT) & (high - low < _MOST_COLOR)
    candidate = (smooth & (is_blue | is_cloud)).astype(np.uint8)
    count, labels = cv2.connectedComponents(candidate, connectivity=4)
    sizes = np.bincount(labels.ravel(), minlength=count)
    confirmed = np.bincount(labels.ravel(), (confidence > _CONFIRMED).ravel(), minlength=count)
    on_top = np.zeros(count, dtype=bool)
    on_top[np.unique(labels[0])] = True
    is_sky = on_top & (sizes >= _LEAST_SHARE * labels.size) & (confirmed < _MOST_CONFIRMED * sizes)
    is_sky[0] = False  # what is no candidate
    sky = is_sky[labels].astype(np.uint8)
    side = 2 * (_RIM_PX + _WINDOW_PX // 2) + 1  # windows across the skyline are not smooth
    return cv2.dilate(sky, np.ones((side, side), dtype=np.uint8)).astype(bool)


def without_sky(depth_map: DepthMap) -> DepthMap:
    """The map with no depth where its photo shows sky; ``stats`` gets ``sky``, the share of the picture."""
    sky = sky_mask(depth_map.color, depth_map.confidence)
    return dataclasses.replace(
        depth_map,
        depth_m=np.where(sky, np.float32(np.nan), depth_map.depth_m),
        confidence=np.where(sky, np.float32(0), depth_map.confidence),
        stats=depth_map.stats | {"sky": float(sky.mean())},
    )


class WithoutSky(LazyDepthMaps):
    """Depth maps whose sky is taken out when they are read."""

    def __init__(self, depth_maps: Sequence[DepthMap]) -> None:
        super().__init__(range(len(depth_maps)))
        self._depth_maps = depth_maps

    def _at(self, index: int) -> DepthMap:
        return without_sky(self._depth_maps[index])
