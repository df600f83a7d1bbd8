"""Dense depth of one photo from samples: a checkpoint's answers aligned to the map, map points, sensor depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recon.cameras import pinhole
from recon.surface.align import Alignment, FrameSamples, align, samples_in_frame, together
from recon.surface.borrow import borrow
from recon.surface.frames import Frame
from recon.surface.join import join
from recon.surface.options import DensifyOptions
from recon.surface.planes import Plane
from recon.surface.regions import on_planes
from recon.surface.rims import rims
from recon.surface.smooth import interpolate
from recon.surface.types import DepthMap
from recon.types import DepthSamples

_POINT_LOG_SIGMA = 0.01  # of triangulated points at best, as seen by the interpolation
_VAGUE_LOG_SIGMA = 0.1  # of points that say no more than answers do
_HALF_CONFIDENCE_SIGMA = 0.05  # relative depth error at which a prior is worth half
_MIN_SAMPLES = 16
_ANCHOR_LOG_SIGMAS = (0.005, 0.05)  # of confirmed pixels where holes are filled: taken as exact, and as good samples
_MAX_ANCHORS = 4000
_AGREEMENT = 0.07  # ln(depth) up to which the two fillings count as one surface
_AGREEMENT_POWER = 8  # how sharply that ends


def dense_depth(
    frame: Frame, samples: Sequence[DepthSamples], scale_known: bool, options: DensifyOptions
) -> DepthMap | None:
    """Dense z-depth of a frame from a checkpoint's samples and the map points in view.

    Each source is aligned to the triangulated points first. Where there are too few of them it's taken as it is when
    the scene is metric, and left out when the scene's unit is arbitrary.

    Returns:
        the map (``stats``: ``log_sigma`` of the aligned samples, ``num_samples``, ``num_points``, ``factor``), or None
        where fewer than 16 usable samples remain.
    """
    used, stats = _aligned(frame, samples, scale_known, options)
    num_samples = sum(len(part.depth_m) for part in used)
    if num_samples < _MIN_SAMPLES:
        return None
    log_sigma = float(np.median(np.concatenate([part.log_sigma for part in used])))
    if len(frame.point_depth_m):
        used.append(_points(frame))
    depth_m = _interpolate(frame, used, options)
    confidence = np.full(depth_m.shape, prior_confidence(log_sigma), dtype=np.float32)
    stats |= {"log_sigma": log_sigma, "num_samples": float(num_samples)}
    name = "+".join(dict.fromkeys(source.source for source in samples))
    return DepthMap(frame.name, depth_m, confidence, frame.camera, frame.cam_from_world, frame.color, name, stats)


def complete(
    frame: Frame,
    confirmed: DepthMap,
    samples: Sequence[DepthSamples],
    scale_known: bool,
    options: DensifyOptions,
    rim_px: float = 0.0,
    lenders: Sequence[DepthMap] = (),
    planes: Sequence[Plane] = (),
) -> NDArray[np.float32] | None:
    """Depth [H, W] for the holes of a photometric map: the samples' surface, tied to the confirmed depth around.

    The confirmed pixels enter the alignment (as points) and the interpolation. As exact ones, of which there are
    thousands, they hold the surface beside them best, but outvote the few samples on an object of which no pixel is
    confirmed; with the weight of good samples it is the other way round. So both are solved: the first stands where
    the second agrees with it, the second elsewhere. What step remains beside confirmed pixels is carried on
    (:mod:`recon.surface.join`). Confirmed pixels within ``rim_px`` of where their surface ends hold nothing: they may
    be the object's depth on the wall behind it, and would pull that wall forward (:mod:`recon.surface.rims`).
    What other photos (``lenders``) have confirmed in the holes counts as confirmed (:mod:`recon.surface.borrow`), and
    so do the scene's ``planes`` where the photo shows one (:mod:`recon.surface.regions`). None where there are too few
    samples.
    """
    sure = np.isfinite(confirmed.depth_m) & ~rims(confirmed.depth_m, rim_px)
    known_m = np.where(sure, confirmed.depth_m, np.nan).astype(np.float32)
    confirmed = dataclasses.replace(confirmed, depth_m=known_m)
    used, _ = _aligned(_with_depth_as_points(frame, known_m), samples, scale_known, options)
    if used and lenders:
        borrowed_m = borrow(confirmed, lenders, together(used))
        known_m = np.where(sure, known_m, borrowed_m)
        used, _ = _aligned(_with_depth_as_points(frame, known_m), samples, scale_known, options)
    plane_m = np.full_like(known_m, np.nan)
    if used and planes:
        plane_m = on_planes(confirmed, known_m, together(used), planes, lenders)
        known_m = np.where(np.isfinite(known_m), known_m, plane_m)
        used, _ = _aligned(_with_depth_as_points(frame, known_m), samples, scale_known, options)
    rows, columns = np.nonzero(np.isfinite(known_m))
    if len(rows) == 0:
        prior = dense_depth(frame, samples, scale_known, options)
        return None if prior is None else prior.depth_m
    if sum(len(part.depth_m) for part in used) < _MIN_SAMPLES:
        return None
    keep = np.random.default_rng(0).permutation(len(rows))[:_MAX_ANCHORS]
    pixels = np.stack([columns[keep] + 0.5, rows[keep] + 0.5], axis=-1)
    depth_m = known_m[rows[keep], columns[keep]].astype(np.float64)
    exact_m, loose_m = (
        join(_interpolate(frame, [*used, FrameSamples(pixels, depth_m, np.full(len(keep), sigma))], options), known_m)
        for sigma in _ANCHOR_LOG_SIGMAS
    )
    return np.where(np.isfinite(plane_m), plane_m, _where_agreed(exact_m, loose_m))


def aligned_answers(
    frame: Frame,
    known_m: NDArray[np.float32],
    samples: Sequence[DepthSamples],
    scale_known: bool,
    options: DensifyOptions,
) -> FrameSamples | None:
    """The sources' samples in the frame, aligned to its points and to known depth [H, W] (NaN unknown) together."""
    used, _ = _aligned(_with_depth_as_points(frame, known_m), samples, scale_known, options)
    return together(used) if used else None


def sensor_depth(frame: Frame, depth_m: NDArray[np.float32], scale_known: bool, options: DensifyOptions) -> DepthMap:
    """Sensor depth of the photo ([H, W] z-depth, NaN unknown, pixels as taken) in the frame's undistorted image.

    Nearest pixel: interpolated depth at an edge would lie between two surfaces. When the scene's unit is arbitrary, the
    depth is brought to it by its median ratio to the map points (kept as it is where there are too few).
    """
    dense = photo_to_frame(frame, depth_m, np.float32(np.nan))
    dense[~(dense > 0)] = np.nan
    stats: dict[str, float] = {}
    if len(frame.point_depth_m) >= options.min_align_points:
        column, row = np.asarray(frame.point_pixels).astype(np.int64).T
        ratio = frame.point_depth_m / dense[row, column]
        ratio = ratio[np.isfinite(ratio)]
        if len(ratio) >= options.min_align_points:
            stats["factor"] = float(np.median(ratio))
            if not scale_known:
                dense = (dense * stats["factor"]).astype(np.float32)
    confidence = np.isfinite(dense).astype(np.float32)
    return DepthMap(frame.name, dense, confidence, frame.camera, frame.cam_from_world, frame.color, "sensor", stats)


def photo_to_frame(frame: Frame, values: NDArray, outside: object) -> NDArray:
    """Values given per pixel of the photo as taken ([h, w]) at the nearest pixels of the frame's image, [H, W].

    ``values`` may have another resolution than the photo, over the same field of view (sensor depth often has).
    """
    height, width = frame.camera.height_px, frame.camera.width_px
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = pinhole.rays(frame.camera, np.stack([x.ravel(), y.ravel()], axis=-1))
    size = np.array([values.shape[1], values.shape[0]])
    position = (
        pinhole.project(frame.photo_camera, rays) * size / [frame.photo_camera.width_px, frame.photo_camera.height_px]
    )
    with np.errstate(invalid="ignore"):
        inside = (position >= 0).all(axis=1) & (position < size).all(axis=1)
    placed = np.full(height * width, outside, dtype=values.dtype)
    column, row = position[inside].astype(np.int64).T
    placed[inside] = values[row, column]
    return placed.reshape(height, width)


def prior_confidence(log_sigma: float) -> float:
    """Confidence in [0, 1] of a depth with this relative error."""
    return 1.0 / (1.0 + (log_sigma / _HALF_CONFIDENCE_SIGMA) ** 2)


def _where_agreed(first_m: NDArray[np.float32], second_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first depth [H, W] where it agrees with the second, the second elsewhere, without a step in between."""
    difference = np.log(first_m.astype(np.float64) / second_m)
    share = 1.0 / (1.0 + np.abs(difference / _AGREEMENT) ** _AGREEMENT_POWER)
    return (second_m * np.exp(share * difference)).astype(np.float32)


def _aligned(
    frame: Frame, samples: Sequence[DepthSamples], scale_known: bool, options: DensifyOptions
) -> tuple[list[FrameSamples], dict[str, float]]:
    """The sources' samples in the frame, each aligned to the frame's points, and figures of the last alignment."""
    used: list[FrameSamples] = []
    stats: dict[str, float] = {}
    for source in samples:
        placed = samples_in_frame(frame, source)
        if len(placed.depth_m) < 4:
            continue
        alignment = align(frame, placed, options.min_align_points)
        if alignment is not None:
            stats |= _alignment_stats(alignment)
            placed = alignment.apply(frame, placed)
        elif not scale_known:
            continue
        used.append(placed)
    return used, stats


def _with_depth_as_points(frame: Frame, depth_m: NDArray[np.float32]) -> Frame:
    """The frame with known pixels of ``depth_m`` [H, W] (an even choice of them) as further points."""
    rows, columns = np.nonzero(np.isfinite(depth_m))
    keep = np.random.default_rng(0).permutation(len(rows))[:_MAX_ANCHORS]
    rows, columns = rows[keep], columns[keep]
    points = _points(frame)
    number = len(points.depth_m) + len(keep)
    return dataclasses.replace(
        frame,
        point_ids=np.arange(number),
        point_pixels=np.concatenate([points.pixels, np.stack([columns + 0.5, rows + 0.5], axis=-1)]),
        point_depth_m=np.concatenate([points.depth_m, depth_m[rows, columns].astype(np.float64)]),
        point_log_sigma=np.concatenate([points.log_sigma, np.full(len(keep), _POINT_LOG_SIGMA)]),
    )


def _points(frame: Frame) -> FrameSamples:
    pixels = np.asarray(frame.point_pixels, dtype=np.float64)
    depth_m = np.asarray(frame.point_depth_m, dtype=np.float64)
    known = np.zeros(len(depth_m)) if frame.point_log_sigma is None else np.asarray(frame.point_log_sigma)
    use = known < _VAGUE_LOG_SIGMA
    return FrameSamples(pixels[use], depth_m[use], np.maximum(known[use], _POINT_LOG_SIGMA))


def _interpolate(frame: Frame, parts: Sequence[FrameSamples], options: DensifyOptions) -> NDArray[np.float32]:
    return interpolate(
        frame.color, parts, options.solve_px, options.edge_sigma, options.smoothing, options.robust_sigmas
    )


def _alignment_stats(alignment: Alignment) -> dict[str, float]:
    return {
        "factor": float(np.exp(alignment.coefficients[0])),
        "num_points": float(alignment.num_points),
        "inlier_share": alignment.inlier_share,
    }
