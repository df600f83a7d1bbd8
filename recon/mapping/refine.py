"""The last adjustment of a map, and the decision how much of the lens the data can tell."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap
from numpy.typing import NDArray

from recon.mapping.answers import with_own_spread
from recon.mapping.bundle import BundleOptions, BundleResult, BundleState, adjust, reprojection_errors
from recon.mapping.factors import PoseFactors, PositionFactors
from recon.mapping.focal_priors import FocalPriors
from recon.mapping.incremental import bundle_with_colmap
from recon.mapping.model import MapModel, prune, to_reconstruction
from recon.mapping.valley import num_focals, with_known_focals
from recon.types import Camera

_log = logging.getLogger(__name__)

_MIN_BALANCE = 3.0  # relative poses per photo below which they don't judge the pixels
_MAX_STRAIN = 6.0  # median squared residual of a relative pose (five numbers: 4.4 when all is as stated)
_EASED = 0.9  # of the contradiction: what is left of it at most if believing the pixels less was right
_MAX_DOUBLINGS = 4  # each follows the answers further, and costs accuracy of depth where the answers are wrong
_ROUGH = 1e-4  # relative decrease of the cost at which a round that another one follows ends
_FINE = 3e-5  # in the last round: 1e-7 moves no lens by more than 0.03 px and takes three times as long
_MIN_EVIDENCE = 20.0  # squared spreads between the principal point and the centre from which it is refined


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
    free = not constant_intrinsics
    bundle = BundleOptions(refine_focal=free, refine_distortion=free, tolerance=_FINE)

    def solve(current: MapModel, settings: BundleOptions, known: FocalPriors | None = None) -> BundleResult:
        if not with_extras and known is None:
            return _colmap_adjust(current, settings, options.num_threads)
        return adjust(current.state, current.observations, settings, pose_factors, position_factors, None, known)

    # What the first rounds find is adjusted again: they need not converge to the last digit. Without further evidence
    # the first only asks for errors: the mapper has just adjusted the same pixels.
    result = solve(model, _rough(bundle)) if with_extras else None
    for round_ in range(options.rounds):
        model = _settled(model, result)
        errors = reprojection_errors(model.state, model.observations) if result is None else result.errors_px
        model = prune(model, errors <= options.max_error_px)
        noise_px = float(np.median(errors[np.isfinite(errors)])) / 1.1774  # of one coordinate: median of a Rayleigh
        bundle = dataclasses.replace(bundle, pixel_sigma=max(noise_px, 0.05))
        last, result = round_ == options.rounds - 1, None
        if with_extras or not last:
            result = solve(model, bundle if last and pose_factors is None else _rough(bundle))
    noise_px = bundle.pixel_sigma
    if pose_factors is not None and result is not None:
        result, bundle = _balanced(model, result, bundle, pose_factors, solve)
    model = _settled(model, result)
    may_be_free = options.principal_point != "fixed" and bundle.refine_focal and small
    moved = _with_principal_point(model, bundle, options, solve) if may_be_free else None
    if moved is not None:
        result, bundle = moved, dataclasses.replace(bundle, refine_principal_point=True)
    elif result is None:
        result = solve(model, bundle)
    if focal_priors is not None and small and bundle.refine_focal:
        result = with_known_focals(model, result, focal_priors, bundle, noise_px, solve)
    model = dataclasses.replace(model, state=result.state)
    keep = result.errors_px <= options.max_error_px
    alive = np.bincount(model.observations.point[keep], minlength=len(model.state.points)) >= 2
    return prune(model, keep), result.errors_px[keep & alive[model.observations.point]]


def _rough(bundle: BundleOptions) -> BundleOptions:
    return dataclasses.replace(bundle, tolerance=_ROUGH)


def _settled(model: MapModel, result: BundleResult | None) -> MapModel:
    return model if result is None else dataclasses.replace(model, state=result.state)


def _balanced(
    model: MapModel,
    result: BundleResult,
    bundle: BundleOptions,
    factors: PoseFactors,
    solve: Callable[[MapModel, BundleOptions], BundleResult],
) -> tuple[BundleResult, BundleOptions]:
    """Believes the pixels less where many relative poses say that their errors are not independent.

    Thousands of pixels with a third of a pixel of noise outvote any relative pose, if their errors are independent.
    A rolling shutter or a lens that the model does not fit errs alike in all pixels of a photo, which the pixels do
    not show: they fit, and the map bends. Many relative poses that close cycles and contradict the map as one do show
    it. The pixels' spread is then doubled until the contradiction is gone (variance components, Foerstner 1979). The
    lens stays as the pixels alone have it: relative poses say nothing of it, and a free one bends to please both.
    Answers that contradict the map as much afterwards are wrong themselves, and the pixels keep their weight.
    """
    sigmas = (factors.rotation_sigma, factors.direction_sigma)
    if len(factors.view1) < _MIN_BALANCE * len(model.names) or not all(np.isfinite(s).all() for s in sigmas):
        return result, bundle

    def strain(current: BundleResult) -> float:
        residual = factors.values(current.state.poses)[:, :6]
        return float(np.median((residual**2).sum(axis=1)))

    start, alone, trusted = strain(result), result, bundle
    for _ in range(_MAX_DOUBLINGS):
        if strain(result) <= _MAX_STRAIN:
            break
        doubled = 2 * bundle.pixel_sigma
        bundle = dataclasses.replace(bundle, pixel_sigma=doubled, refine_focal=False, refine_distortion=False)
        result = solve(_settled(model, result), _rough(bundle))
    result = solve(_settled(model, result), bundle)
    if bundle is trusted:
        return result, bundle
    end = strain(result)
    _log.info("relative poses: median squared residual %.1f -> %.1f at %.1f px", start, end, bundle.pixel_sigma)
    return (result, bundle) if end <= _EASED * start else (alone, trusted)


def _with_principal_point(
    model: MapModel,
    bundle: BundleOptions,
    options: RefineOptions,
    solve: Callable[[MapModel, BundleOptions], BundleResult],
) -> BundleResult | None:
    """The adjustment with a free principal point; None where it is not well determined for every camera, or the data
    say nothing against the centre.

    Photos that look at one plane or never turn about the optical axis do not tell the principal point from a small
    rotation; its posterior spread then stays near the prior's. That is seen before anything is adjusted.
    """
    free = dataclasses.replace(bundle, refine_principal_point=True)
    if options.principal_point == "free":
        return solve(model, free)
    guess = adjust(model.state, model.observations, dataclasses.replace(free, max_iterations=0))
    if _widest_principal_point(guess.state.cameras, guess.intrinsics_sigma) > options.max_principal_sigma:
        return None
    result = solve(model, free)
    cameras = result.state.cameras
    if _widest_principal_point(cameras, result.intrinsics_spread) > options.max_principal_sigma:
        return None
    evidence = 0.0
    for before, camera, spread in zip(model.state.cameras, cameras, result.intrinsics_spread, strict=True):
        mine = _principal_point(camera)
        shift = np.array(camera.params[mine]) - np.array(before.params[mine])
        evidence = max(evidence, float(np.max(np.abs(shift) / spread[mine])))
    _log.info("principal point: %.1f spreads from where it was", evidence)
    return result if evidence**2 > _MIN_EVIDENCE else None


def _principal_point(camera: Camera) -> slice:
    return slice(num_focals(camera), num_focals(camera) + 2)


def _widest_principal_point(cameras: Sequence[Camera], sigmas: Sequence[NDArray[np.float64]]) -> float:
    """The largest spread of a principal point, as a fraction of the photo's longer side."""
    return max(
        float(sigma[_principal_point(camera)].max()) / max(camera.width_px, camera.height_px)
        for camera, sigma in zip(cameras, sigmas, strict=True)
    )


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
    settings.ceres.solver_options.function_tolerance = bundle.tolerance
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
