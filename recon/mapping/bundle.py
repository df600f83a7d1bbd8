"""Bundle adjustment with every kind of evidence: pixels, measured depth, relative poses, positions, priors on lenses.

Levenberg-Marquardt on the Schur complement of the points (Triggs et al., "Bundle Adjustment: A Modern Synthesis",
1999), robust by Cauchy weights. pycolmap's own adjuster, which the mappers use, knows no depth residuals and no priors
on the principal point; this one also returns the covariance of the intrinsics, which decides what data support.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.errors import MappingError
from recon.mapping.bundle_state import BundleOptions, BundleState, Observations
from recon.mapping.factors import PoseFactors, PositionFactors, RigidFactors
from recon.mapping.focal_priors import FocalPriors
from recon.mapping.problem import Problem
from recon.mapping.spread import intrinsics_spread

__all__ = ["BundleOptions", "BundleResult", "BundleState", "Observations", "adjust", "reprojection_errors"]

Float64Array = NDArray[np.float64]


@dataclass(frozen=True)
class BundleResult:
    """The adjusted state, the reprojection errors [M] in pixels, and the standard deviations of each camera's
    parameters (0 where fixed): ``intrinsics_sigma`` if all pixel errors are independent, ``intrinsics_spread`` as the
    photos themselves show them (:mod:`recon.mapping.spread`).
    """

    state: BundleState
    errors_px: Float64Array
    intrinsics_sigma: tuple[Float64Array, ...]
    intrinsics_spread: tuple[Float64Array, ...]
    cost: float


def adjust(
    state: BundleState,
    observations: Observations,
    options: BundleOptions | None = None,
    pose_factors: PoseFactors | None = None,
    position_factors: PositionFactors | None = None,
    rigid_factors: RigidFactors | None = None,
    focal_priors: FocalPriors | None = None,
) -> BundleResult:
    """Minimises all terms from ``state``; raises MappingError when there is nothing to adjust.

    ``focal_priors`` default to what the cameras of ``state`` say of themselves: nothing, once they are refined.
    Gauge freedoms (all seven without depth or positions) are left to the damping: the result stays near the start.
    """
    options = options or BundleOptions()
    if len(observations.view) == 0 or len(state.poses) < 2:
        raise MappingError(f"bundle adjustment: {len(state.poses)} views and {len(observations.view)} observations")
    problem = Problem(state, observations, options, pose_factors, position_factors, rigid_factors, focal_priors)
    damping, growth = 1e-4, 2.0
    cost, normal = problem.linearise(state)
    for _ in range(options.max_iterations):
        step = normal.solve(damping)
        candidate = problem.step(state, step) if step is not None else state
        new_cost = problem.cost(candidate) if step is not None else np.inf
        if not new_cost < cost:
            damping, growth = damping * growth, growth * 2
            if damping > 1e12:
                break
            continue
        decrease = (cost - new_cost) / cost
        state = candidate
        damping, growth = max(damping / 5, 1e-12), 2.0
        cost, normal = problem.linearise(state)
        if decrease < options.tolerance:
            break
    sigma, spread = intrinsics_spread(problem, state)
    return BundleResult(state, problem.errors_px(state), sigma, spread, cost)


def reprojection_errors(state: BundleState, observations: Observations) -> Float64Array:
    """Reprojection errors [M] in pixels as the state is; infinite behind the camera."""
    return Problem(state, observations, BundleOptions(), None, None, None, None).errors_px(state)
