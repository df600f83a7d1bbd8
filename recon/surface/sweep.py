"""Where a plane that only answers know lies, by all photos of all of it at once.

A window on a plain floor says nothing, a hundred thousand of them do: the photos of the whole region agree at one
offset of the plane, and hardly at others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recon.surface.frames import Frame
from recon.surface.photometric import Matcher, grey_view
from recon.surface.planes import Plane, depth_on
from recon.surface.types import DepthMap

_REDUCTION = 2
_WINDOW_PX = 7
_NEIGHBOURS = 4
_ITS_OWN = 0.01  # relative difference of depth up to which a pixel is this plane's (half a pixel, on a slant)
_STEP = 0.008  # between offsets, relative to the cameras' distance from the plane
_STEPS = 14  # to both sides
_LEAST_PX = 400  # of the reduced photo that show the plane
_PEAK_STEPS = 3  # that the best offset must lie from the ends
_SLOPE_STEPS = 6  # to both sides of the best offset that are its own slopes, and no rivals
_CLEAR = 5.0  # times the spread of the other offsets' scores, by which the best stands out of them
_SAME_STEPS, _SAME_SHARE = 2.5, 0.5  # photos' own best offsets: how near they are to the best, and how many of them


@dataclass(frozen=True)
class Shown:
    """A photo, those it is compared with, and the depth [H, W] of planes that it shows (NaN elsewhere)."""

    frame: Frame
    neighbours: Sequence[Frame]
    depth_m: NDArray[np.float32]


def placed_by_photos(
    planes: Sequence[Plane], centres: NDArray[np.float64], photos: Iterable[Shown], device: torch.device
) -> list[Plane]:
    """The planes; of those that only answers know, the ones on whose offset photos agree, there.

    Args:
        planes: of the scene.
        centres: of the cameras, [N, 3].
        photos: those that show planes, read one at a time.
        device: to compare on.
    """
    placed = [plane for plane in planes if plane.share > 0]
    found = [plane for plane in planes if plane.share == 0]
    if not found:
        return placed
    steps = _STEP * np.arange(-_STEPS, _STEPS + 1, dtype=np.float64)
    tried = [p.offset + float(np.median(np.abs(p.offset - centres @ p.normal))) * steps for p in found]
    curves: list[list[NDArray[np.float64]]] = [[] for _ in found]
    for photo in photos:
        for plane, offsets, its in zip(found, tried, curves):
            curve = _agreement(plane, offsets, photo, device)
            if curve is not None:
                its.append(curve)
    for plane, offsets, its in zip(found, tried, curves):
        offset = clear_offset(offsets, its)
        if offset is not None:
            placed.append(dataclasses.replace(plane, offset=offset))
    return placed


def _agreement(
    plane: Plane, offsets: NDArray[np.float64], photo: Shown, device: torch.device
) -> NDArray[np.float64] | None:
    """Summed agreement [S] of the neighbours with a photo over its pixels of the plane, None where these are few."""
    frame = photo.frame
    size = frame.color.shape[0] // _REDUCTION, frame.color.shape[1] // _REDUCTION
    x, y = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
    camera = frame.camera.resized(size[1], size[0])
    empty = np.full(size, np.nan, dtype=np.float32)
    here = DepthMap(frame.name, empty, empty, camera, frame.cam_from_world, frame.color)
    depth_m = photo.depth_m[_REDUCTION // 2 :: _REDUCTION, _REDUCTION // 2 :: _REDUCTION][: size[0], : size[1]]
    with np.errstate(invalid="ignore"):
        inside = np.abs(depth_m / depth_on(plane, here, x, y) - 1) < _ITS_OWN
    if inside.sum() < _LEAST_PX or not photo.neighbours:
        return None
    views = [
        grey_view(f.color, f.camera, f.cam_from_world, _REDUCTION, device)
        for f in (frame, *photo.neighbours[:_NEIGHBOURS])
    ]
    use = torch.from_numpy(inside).to(device)
    scores = []
    with torch.inference_mode():
        matcher = Matcher(views[0], views[1:], _WINDOW_PX)
        for offset in offsets:
            depth = depth_on(dataclasses.replace(plane, offset=float(offset)), here, x, y)
            inverse = torch.from_numpy(np.nan_to_num(1.0 / depth, nan=1e-6).astype(np.float32)).to(device)
            scores.append(float(matcher.best_half(inverse)[use].sum()))
    return np.array(scores)


def clear_offset(offsets: NDArray[np.float64], curves: Sequence[NDArray[np.float64]]) -> float | None:
    """The offset at which the photos (``curves`` [photos, S]) agree best, None where others are nearly as good.

    The best has to stand out of what is more than a few steps away, not lie at the end, and be the best of half the
    photos by themselves.
    """
    if len(curves) < 2:
        return None
    total = np.sum(curves, axis=0)
    best = int(total.argmax())
    if not _PEAK_STEPS <= best < len(offsets) - _PEAK_STEPS:
        return None
    others = np.abs(np.arange(len(offsets)) - best) > _SLOPE_STEPS
    middle = float(np.median(total[others]))
    spread = 1.4826 * float(np.median(np.abs(total[others] - middle)))
    if total[best] - middle < _CLEAR * spread or total[best] - total[others].max() < spread:
        return None
    own = np.array([int(curve.argmax()) for curve in curves])
    if (np.abs(own - best) <= _SAME_STEPS).mean() < _SAME_SHARE:
        return None
    left, peak, right = total[best - 1 : best + 2]
    curvature = left - 2 * peak + right
    part = 0.5 * (left - right) / curvature if curvature < 0 else 0.0
    return float(offsets[best] + np.clip(part, -0.5, 0.5) * (offsets[1] - offsets[0]))
