"""Depth of photos that two results both have, compared pixel by pixel whatever size or undistortion each uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.cameras import pinhole
from recon.cameras.pixels import containing_pixels
from recon.evaluation.depth import DepthScores, score_depth
from recon.evaluation.intrinsics import same_aspect
from recon.interop.result import Reconstructed
from recon.surface.types import DepthMap
from recon.types import Camera

MAX_PHOTOS = 100
PIXELS_PER_PHOTO = 2000


@dataclass(frozen=True)
class SharedDepth:
    """Depth scores over ``num_pixels`` random pixels of ``num_photos`` photos where the reference has depth.

    ``as_is``: both are metric and taken as they are, else None. ``by_cameras``: scaled by the alignment of the cameras.
    ``by_median``: scaled by the one factor (``median_factor``) that makes the median ratio 1. ``num_skipped`` photos
    are cropped differently or have a camera model that can't be evaluated.
    """

    num_photos: int
    num_candidates: int
    num_skipped: int
    num_pixels: int
    as_is: DepthScores | None
    by_cameras: DepthScores | None
    by_median: DepthScores | None
    median_factor: float


def score_shared_depth(
    result: Reconstructed, reference: Reconstructed, camera_scale: float | None, seed: int = 0
) -> SharedDepth | None:
    """Compares depth maps of the photos that both have (names already matched); None when there are none.

    ``camera_scale`` takes the result's lengths to the reference's; None where no alignment of cameras is known.
    """
    if result.load_depth is None or reference.load_depth is None:
        return None
    mine = set(result.depth_names)
    names = sorted(name for name in reference.depth_names if name in mine)
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, min(MAX_PHOTOS, len(names))).round().astype(int)]
    predicted, truth, skipped = [], [], 0
    for index, name in enumerate(chosen):
        theirs, ours = reference.load_depth(name), result.load_depth(name)
        sampled = _sample(theirs, np.random.default_rng((seed, index)))
        cameras = (reference.cameras.get(name, theirs.camera), result.cameras.get(name, ours.camera))
        pixels = _other_pixels(sampled, theirs, ours, *cameras)
        if pixels is None:
            skipped += 1
            continue
        predicted.append(_look_up(ours, pixels))
        truth.append(_look_up(theirs, sampled))
    if not truth or sum(map(len, truth)) == 0:
        return None
    estimate, target = np.concatenate(predicted).astype(np.float64), np.concatenate(truth).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = target / estimate
    known = np.isfinite(ratio)
    factor = float(np.median(ratio[known])) if known.any() else float("nan")
    return SharedDepth(
        len(truth), len(names), skipped, len(target),
        score_depth(estimate, target) if result.metric and reference.metric else None,
        None if camera_scale is None else score_depth(estimate * camera_scale, target),
        score_depth(estimate * factor, target) if known.any() else None,
        factor,
    )  # fmt: skip


def _sample(depth_map: DepthMap, generator: np.random.Generator) -> NDArray[np.float64]:
    """Centres of random pixels with depth, [N, 2]."""
    row, column = np.nonzero(np.isfinite(depth_map.depth_m) & (depth_map.depth_m > 0))
    if len(row) > PIXELS_PER_PHOTO:
        chosen = generator.choice(len(row), PIXELS_PER_PHOTO, replace=False)
        row, column = row[chosen], column[chosen]
    return np.stack([column + 0.5, row + 0.5], axis=1)


def _other_pixels(
    pixels: NDArray[np.float64], theirs: DepthMap, ours: DepthMap, their_photo: Camera, our_photo: Camera
) -> NDArray[np.float64] | None:
    """The same places of the photo in our depth map; None when the photos can't be laid on each other.

    The way leads through the photo as it was taken: depth maps may belong to undistorted versions of it.
    """
    models = {theirs.camera.model, ours.camera.model, their_photo.model, our_photo.model}
    if models - set(pinhole.MODELS) or not same_aspect(our_photo, their_photo):
        return None
    in_photo = _between(theirs.camera, their_photo, pixels)
    scale = np.array([our_photo.width_px / their_photo.width_px, our_photo.height_px / their_photo.height_px])
    return _between(our_photo, ours.camera, in_photo * scale)


def _between(source: Camera, target: Camera, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    if source == target:
        return pixels
    known: NDArray[np.bool_] = np.asarray(np.isfinite(pixels).all(axis=1))  # [N]
    rays = pinhole.rays(source, np.where(known[:, None], pixels, 0.0))
    rays[~known] = np.nan
    return pinhole.project(target, rays)


def _look_up(depth_map: DepthMap, pixels: NDArray[np.float64]) -> NDArray[np.float32]:
    height, width = depth_map.depth_m.shape
    with np.errstate(invalid="ignore"):
        x, y = pixels[:, 0], pixels[:, 1]
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)  # [N]; NaN is outside
    index = containing_pixels(np.where(inside[:, None], pixels, 0.0), width, height)
    return np.where(inside, depth_map.depth_m[index[:, 1], index[:, 0]], np.float32(np.nan))
