"""Alignment of a model's depth to the map: a robust factor that may vary smoothly over the image.

There is no term in the depth itself: the asked depth is noisy, and a regression on a noisy variable is biased towards
less contrast (attenuation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon.cameras import pinhole
from recon.surface.frames import Frame
from recon.types import DepthSamples

_VARIATION_SIGMA = 0.05  # prior on the change of ln(factor) from the centre to a border of the image
_MIN_LOG_SIGMA = 0.01
_ANSWER_SIGMA = 0.1  # of ln(depth), before it is measured
_TUKEY = 4.685  # standard constant: 95 % efficiency on normal errors


@dataclass(frozen=True)
class FrameSamples:
    """Samples in a frame: ``pixels`` [N, 2] of the undistorted image, ``depth_m`` [N] z-depth, ``log_sigma`` [N]."""

    pixels: NDArray[np.float64]
    depth_m: NDArray[np.float64]
    log_sigma: NDArray[np.float64]


@dataclass(frozen=True)
class Alignment:
    """ln(true / asked depth) = a + b x + c y, x and y in [-1, 1] over the image.

    ``log_sigma`` is the robust standard deviation of what remains: the measured error of the aligned samples.
    ``num_points`` triangulated points it rests on, ``inlier_share`` of them within 3 standard deviations.
    """

    coefficients: tuple[float, float, float]
    log_sigma: float
    num_points: int
    inlier_share: float

    def apply(self, frame: Frame, samples: FrameSamples) -> FrameSamples:
        features = _features(frame, samples.pixels)
        depth_m = samples.depth_m * np.exp(features @ np.array(self.coefficients))
        # Relative trust among the samples stays; its level is the measured one.
        relative = samples.log_sigma / np.median(samples.log_sigma)
        return FrameSamples(samples.pixels, depth_m, np.maximum(relative * self.log_sigma, _MIN_LOG_SIGMA))


def together(parts: Sequence[FrameSamples]) -> FrameSamples:
    """Samples of several sources as one."""
    return FrameSamples(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.depth_m for part in parts]),
        np.concatenate([part.log_sigma for part in parts]),
    )


def samples_in_frame(frame: Frame, samples: DepthSamples) -> FrameSamples:
    """Samples taken in the photo as z-depths in the frame's undistorted image; those outside it are left out.

    A metric answer scales with the focal length it assumes (a photo taken from twice as far with twice the focal length
    looks the same), so it is converted to the refined one.
    """
    pixels = np.asarray(samples.pixels, dtype=np.float64).reshape(-1, 2)
    depth_m = np.asarray(samples.depth_m, dtype=np.float64)
    rays = pinhole.rays(frame.photo_camera, pixels) if len(pixels) else np.empty((0, 3))
    if samples.depth_kind == "ray":
        depth_m = depth_m / np.linalg.norm(rays, axis=1)
    if np.isfinite(samples.focal_px) and samples.focal_px > 0 and samples.source != "sensor":
        depth_m = depth_m * (frame.photo_camera.focal_px / samples.focal_px)
    placed = pinhole.project(frame.camera, rays) if len(rays) else np.empty((0, 2))
    log_sigma = np.asarray(samples.log_sigma, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        good = (
            (placed[:, 0] >= 0) & (placed[:, 0] < frame.camera.width_px)
            & (placed[:, 1] >= 0) & (placed[:, 1] < frame.camera.height_px)
            & np.isfinite(depth_m) & (depth_m > 0) & np.isfinite(log_sigma)
        )  # fmt: skip
    return FrameSamples(placed[good], depth_m[good], np.maximum(log_sigma[good], _MIN_LOG_SIGMA))


def align(frame: Frame, samples: FrameSamples, min_points: int) -> Alignment | None:
    """Fit the samples to the triangulated points in view.

    The asked depth at a point is interpolated from the four samples around it. The factor starts at the median and is
    refined by reweighted least squares (Tukey's biweight), its smooth variation held back by a prior, so few or badly
    spread points change the factor only.

    Returns:
        None where fewer than ``min_points`` points lie between the samples.
    """
    if len(samples.depth_m) < 4 or len(frame.point_depth_m) < min_points:
        return None
    spacing = np.sqrt(frame.camera.width_px * frame.camera.height_px / len(samples.depth_m))
    distance, nearest = cKDTree(samples.pixels).query(frame.point_pixels, k=4)
    close = distance[:, 0] <= 2 * spacing
    if close.sum() < min_points:
        return None
    weights = 1.0 / (distance[close] + 0.1 * spacing) ** 2
    logs = np.log(samples.depth_m)[nearest[close]]
    log_asked = (weights * logs).sum(axis=1) / weights.sum(axis=1)
    # Where the samples around a point disagree, an edge runs between them: which side the point is on is unknown.
    spread = logs.max(axis=1) - logs.min(axis=1)
    trust = 1.0 / (1.0 + (spread / 0.3) ** 2)
    # Points that are compared with the same answers share those answers' errors.
    independent = min(1.0, len(np.unique(nearest[close, 0])) / close.sum())
    point_variance = 0.0 if frame.point_log_sigma is None else np.asarray(frame.point_log_sigma)[close] ** 2
    target = np.log(frame.point_depth_m[close]) - log_asked
    features = _features(frame, np.asarray(frame.point_pixels)[close])
    start = trust / (_ANSWER_SIGMA**2 + point_variance)
    coefficients = np.array([_weighted_median(target, start), 0.0, 0.0])
    sigma = _robust_sigma(target - coefficients[0])
    for _ in range(10):
        residual = target - features @ coefficients
        sigma = _robust_sigma(residual)
        variance = sigma**2 + point_variance
        weight = independent * trust * np.clip(1 - residual**2 / (_TUKEY**2 * variance), 0, None) ** 2 / variance
        ridge = np.diag([0.0, 1.0 / _VARIATION_SIGMA**2, 1.0 / _VARIATION_SIGMA**2])
        normal = features.T @ (weight[:, None] * features) + ridge
        coefficients = np.linalg.solve(normal, features.T @ (weight * target))
    residual = target - features @ coefficients
    a, b, c = (float(value) for value in coefficients)
    return Alignment((a, b, c), sigma, int(close.sum()), float((np.abs(residual) < 3 * sigma).mean()))


def _features(frame: Frame, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    x = 2 * pixels[:, 0] / frame.camera.width_px - 1
    y = 2 * pixels[:, 1] / frame.camera.height_px - 1
    return np.stack([np.ones(len(pixels)), x, y], axis=-1)  # [N, 3]


def _robust_sigma(residual: NDArray[np.float64]) -> float:
    return max(_MIN_LOG_SIGMA, 1.4826 * float(np.median(np.abs(residual - np.median(residual)))))


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulative, 0.5 * cumulative[-1])])
