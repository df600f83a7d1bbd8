"""Known focal lengths where photos leave them open: a long valley of maps with nearly the same reprojection errors."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable

import numpy as np

from recon.mapping.bundle import BundleOptions, BundleResult
from recon.mapping.focal_priors import FocalPriors
from recon.mapping.model import MapModel
from recon.types import Camera

_log = logging.getLogger(__name__)

_IN_A_VALLEY = 100  # iterations at most: an adjustment creeps along it
_CREEPING = 1e-6  # relative decrease of the cost at which it ends there
_ROUGH = 1e-4  # the same of the steps that only fit the rest to a focal length

Solve = Callable[[MapModel, BundleOptions, FocalPriors | None], BundleResult]


def with_known_focals(
    model: MapModel, result: BundleResult, priors: FocalPriors, bundle: BundleOptions, noise_px: float, solve: Solve
) -> BundleResult:
    """The result without priors, or what known focal lengths make of it where the photos leave them open.

    An adjustment creeps along the valley: so the focal lengths are set first, to what was known and to what both say
    together, the rest is fitted to them, and the last steps move all of it. The better of both ends is the result.
    A photo's pixels err alike, so they count for as many beside the priors as they are worth
    (:mod:`recon.mapping.spread`); which of them are outliers does not change.

    Args:
        model: what ``result`` was adjusted from.
        result: the adjustment without priors.
        priors: by camera.
        bundle: the options of ``result``.
        noise_px: standard deviation of one coordinate of a pixel.
        solve: adjusts a model with options and priors.
    """
    cameras = result.state.cameras
    focal = np.array([camera.focal_px for camera in cameras])
    sigma, spread = (
        np.array([float(of[: num_focals(camera)].max()) for camera, of in zip(cameras, all_, strict=True)])
        for all_ in (result.intrinsics_sigma, result.intrinsics_spread)
    )
    held = np.isfinite(priors.log_sigma)
    if not held.any():
        return result
    with np.errstate(invalid="ignore"):
        alike = float(np.nan_to_num(np.max((spread / np.maximum(sigma, 1e-12))[held]), nan=1.0, posinf=1.0))
    wide = max(1.0, noise_px * alike / bundle.pixel_sigma)
    joined = priors.joined(focal, sigma * wide)
    if joined is None:
        return result
    known = np.where(held, priors.focal_px, focal)
    _log.info("focal lengths: %s from photos, %s known, %s together", focal.round(1), known.round(1), joined.round(1))
    last = dataclasses.replace(
        bundle,
        max_iterations=_IN_A_VALLEY,
        tolerance=_CREEPING,
        pixel_sigma=bundle.pixel_sigma * wide,
        loss_scale=bundle.loss_scale / wide,
    )
    rest = dataclasses.replace(
        last, refine_focal=False, refine_distortion=False, refine_principal_point=False, tolerance=_ROUGH
    )
    ends = []
    for start in (known, joined):
        set_to = tuple(_with_focal(camera, factor) for camera, factor in zip(cameras, start / focal, strict=True))
        begun = dataclasses.replace(model, state=dataclasses.replace(result.state, cameras=set_to))
        fitted = solve(begun, rest, None).state
        ends.append(solve(dataclasses.replace(begun, state=fitted), last, priors))
    return min(ends, key=lambda end: end.cost)


def num_focals(camera: Camera) -> int:
    """How many of the camera's first parameters are focal lengths."""
    return len(camera.params) - len(camera.distortion) - 2


def _with_focal(camera: Camera, factor: float) -> Camera:
    params = tuple(p * factor if i < num_focals(camera) else p for i, p in enumerate(camera.params))
    return dataclasses.replace(camera, params=params)
