"""The last adjustment of a map, and the decision how much of the lens the data can tell."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pycolmap
from numpy.typing import NDArray

from recon.mapping.answers import with_own_spread
from recon.mapping.bundle import BundleOptions, BundleResult, BundleState, adjust
from recon.mapping.factors import PoseFactors, PositionFactors
from recon.mapping.focal_priors import FocalPriors
from recon.mapping.incremental import bundle_with_colmap
from recon.mapping.model import MapModel, prune, to_reconstruction
from recon.types import Camera

_log = logging.getLogger(__name__)

_MIN_BALANCE = 3.0  # relative poses per photo below which they don't judge the pixels
_MAX_STRAIN = 6.0  # median squared residual of a relative pose (five numbers: 4.4 when all is as stated)
_MAX_DOUBLINGS = 5
_IN_A_VALLEY = 100  # iterations where photos leave a focal length open
_ROUGH = 1e-4  # relative decrease of the cost at which a round that another one follows ends


@dataclass(frozen=True)
class RefineOptions:
    """Limits of the last adjustment.

    Attributes:
        max_error_px: observations with larger reprojection errors are dropped between rounds.
        rounds: adjustments after dropping.
        principal_point: ``auto`` refines it where the data support it, ``fixed`` never, ``free`` always.
        max_principal_sigma: ``auto``: largest standard deviation of the principal point, as a fraction of the longer
            side, at which it counts as supported by the data.
        max_observations: larger maps keep the principal point fixed and go without priors on focal lengths.
        num_threads: threads of pycolmap's adjuster; 1 makes runs repeat to the last bit.
    """

    max_error_px: float = 4.0
    rounds: int = 1
    principal_point: str = "auto"
    max_principal_sigma: float = 0.002
    max_observations: int = 400_000
    num_threads: int = 1


def refine(
    model: MapModel,
    options: RefineOptions | None = None,
    pose_factors: PoseFactors | None = None,
    position_factors: PositionFactors | None = None,
    constant_intrinsics: bool = False,
    focal_priors: FocalPriors | None = None,
) -> tuple[MapModel, NDArray[np.float64]]:
    """Adjusts the map with all evidence; returns it with the reprojection errors [M] of its observations in pixels."""
    options = options or RefineOptions()
    if pose_factors is not None:
        pose_factors = with_own_spread(pose_factors, model.state.poses)
    with_extras = (
        pose_factors is not None or position_factors is not None or bool(np.isfinite(model.observations.depth).any())
    )
    small = len(model.observations.view) <= options.max_observations
    priors = focal_priors if small and not constant_intrinsics else None
    bundle = BundleOptions(refine_focal=not constant_intrinsics, refine_distortion=not constant_intrinsics)

    def run(current: MapModel, settings: BundleOptions) -> BundleResult:
        if with_extras:
            return adjust(current.state, current.observations, settings, pose_factors, position_factors, None, priors)
        result = _colmap_adjust(current, settings, options.num_threads)
        return result if priors is None else _with_priors(current, result, priors, settings, options.num_threads)

    # What the first rounds find is adjusted again: they need not converge to the last digit. Without further evidence
    # the first only asks for errors: the mapper has just adjusted the same pixels.
    first = dataclasses.replace(bundle, tolerance=_ROUGH)
    result = (
        run(model, first)
        if with_extras
        else adjust(model.state, model.observations, dataclasses.replace(first, max_iterations=0))
    )
    for round_ in range(options.rounds):
        model = dataclasses.replace(model, state=result.state)
        keep = result.errors_px <= options.max_error_px
        model = prune(model, keep)
        errors = result.errors_px[np.isfinite(result.errors_px)]
        noise_px = float(np.median(errors)) / 1.1774  # of one coordinate, from the median of a Rayleigh distribution
        bundle = dataclasses.replace(bundle, pixel_sigma=max(noise_px, 0.05))
        judged = pose_factors is not None or round_ < options.rounds - 1
        result = run(model, dataclasses.replace(bundle, tolerance=_ROUGH) if judged else bundle)
    if pose_factors is not None:
        result, bundle = _balanced(model, result, bundle, pose_factors, run)
    if options.principal_point != "fixed" and not constant_intrinsics and small:
        free = run(
            dataclasses.replace(model, state=result.state), dataclasses.replace(bundle, refine_principal_point=True)
        )
        if options.principal_point == "free" or _is_supported(free, result, options):
            result = free
    model = dataclasses.replace(model, state=result.state)
    keep = result.errors_px <= options.max_error_px
    alive = np.bincount(model.observations.point[keep], minlength=len(model.state.points)) >= 2
    return prune(model, keep), result.errors_px[keep & alive[model.observations.point]]


def _balanced(
    model: MapModel,
    result: BundleResult,
    bundle: BundleOptions,
    factors: PoseFactors,
    run: Callable[[MapModel, BundleOptions], BundleResult],
) -> tuple[BundleResult, BundleOptions]:
    """Believes the pixels less where many relative poses say that their errors are not independent.

    Thousands of pixels with a third of a pixel of noise outvote any relative pose, if their errors are independent.
    A rolling shutter or a lens that the model does not fit errs alike in all pixels of a photo, which the pixels do
    not show: they fit, and the map bends. Many relative poses that close cycles and contradict the map as one do show
    it. The pixels' spread is then doubled until the contradiction is gone (variance components, Foerstner 1979).
    """
    sigmas = (factors.rotation_sigma, factors.direction_sigma)
    if len(factors.view1) < _MIN_BALANCE * len(model.names) or not all(np.isfinite(s).all() for s in sigmas):
        return result, bundle

    def strain(current: BundleResult) -> float:
        residual = factors.values(current.state.poses)[:, :6]
        return float(np.median((residual**2).sum(axis=1)))

    start = strain(result)
    for _ in range(_MAX_DOUBLINGS):
        if strain(result) <= _MAX_STRAIN:
            break
        bundle = dataclasses.replace(bundle, pixel_sigma=2 * bundle.pixel_sigma)
        rough = dataclasses.replace(bundle, tolerance=_ROUGH)
        result = run(dataclasses.replace(model, state=result.state), rough)
    result = run(dataclasses.replace(model, state=result.state), bundle)
    if strain(result) < start:
        _log.info(
            "relative poses: median squared residual %.1f -> %.1f at %.1f px", start, strain(result), bundle.pixel_sigma
        )
    return result, bundle


def _is_supported(free: BundleResult, fixed: BundleResult, options: RefineOptions) -> bool:
    """Whether a free principal point is well determined for every camera and lowers the cost clearly.

    Photos that look at one plane or never turn about the optical axis do not tell the principal point from a small
    rotation; its posterior spread then stays near the prior's, and it is left at the centre.
    """
    for camera, sigma in zip(free.state.cameras, free.intrinsics_sigma, strict=True):
        first = 1 if len(camera.params) - len(camera.distortion) == 3 else 2
        spread = float(sigma[first : first + 2].max()) / max(camera.width_px, camera.height_px)
        _log.info("principal point spread %.2e of the longer side, cost %.1f -> %.1f", spread, fixed.cost, free.cost)
        if spread > options.max_principal_sigma:
            return False
    return free.cost < fixed.cost - 20.0


def _with_priors(
    model: MapModel, result: BundleResult, priors: FocalPriors, bundle: BundleOptions, num_threads: int
) -> BundleResult:
    """The result of the photos alone, or what known focal lengths make of it where the photos leave them open.

    Photos that leave a focal length open leave a long valley, along which an adjustment creeps: so the focal lengths
    are set first, to what was known and to what both say together, the rest is fitted to them, and the last steps move
    all of it. The better of both ends is the result.
    """
    cameras, sigmas = result.state.cameras, []
    for camera, sigma in zip(cameras, result.intrinsics_sigma, strict=True):
        num_focals = len(camera.params) - len(camera.distortion) - 2
        sigmas.append(float(sigma[:num_focals].max()))
    focal = np.array([camera.focal_px for camera in cameras])
    joined = priors.joined(focal, np.array(sigmas))
    if joined is None:
        return result
    known = np.where(np.isfinite(priors.log_sigma), priors.focal_px, focal)
    rest = dataclasses.replace(bundle, refine_focal=False, refine_distortion=False, refine_principal_point=False)
    ends = []
    for start in (known, joined):
        set_to = tuple(_with_focal(camera, factor) for camera, factor in zip(cameras, start / focal, strict=True))
        begun = dataclasses.replace(model, state=dataclasses.replace(result.state, cameras=set_to))
        fitted = _colmap_adjust(begun, rest, num_threads).state
        patient = dataclasses.replace(bundle, max_iterations=_IN_A_VALLEY)
        ends.append(adjust(fitted, model.observations, patient, focal_priors=priors))
    return min(ends, key=lambda end: end.cost)


def _with_focal(camera: Camera, factor: float) -> Camera:
    num_focals = len(camera.params) - len(camera.distortion) - 2
    params = tuple(p * factor if i < num_focals else p for i, p in enumerate(camera.params))
    return dataclasses.replace(camera, params=params)


def _colmap_adjust(model: MapModel, bundle: BundleOptions, num_threads: int) -> BundleResult:
    """Photos alone: pycolmap's adjuster, and our normal equations once at its optimum for spreads and errors."""
    reconstruction = to_reconstruction(model)
    settings = pycolmap.BundleAdjustmentOptions()
    settings.print_summary = False
    settings.refine_focal_length = bundle.refine_focal
    settings.refine_extra_params = bundle.refine_distortion
    settings.refine_principal_point = bundle.refine_principal_point
    settings.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    settings.ceres.loss_function_scale = bundle.loss_scale * bundle.pixel_sigma
    settings.ceres.solver_options.num_threads = num_threads
    settings.ceres.solver_options.function_tolerance = 1e-7
    bundle_with_colmap(reconstruction, settings)
    state = BundleState(
        poses=np.array([reconstruction.image(i + 1).cam_from_world().matrix() for i in range(len(model.names))]),
        cameras=tuple(
            dataclasses.replace(
                camera,
                params=tuple(float(p) for p in reconstruction.camera(i).params),
                focal_source="refined" if bundle.refine_focal else camera.focal_source,
            )
            for i, camera in enumerate(model.state.cameras, start=1)
        ),
        camera_of_view=model.state.camera_of_view,
        points=np.array([reconstruction.point3D(i + 1).xyz for i in range(len(model.state.points))]).reshape(-1, 3),
    )
    return adjust(state, model.observations, dataclasses.replace(bundle, max_iterations=0))
