"""How well a map's photos tell its lenses: spreads of the intrinsics, with errors that a photo's pixels share.

Normal equations take all pixel errors for independent. A rolling shutter, motion blur, or a lens that its model does
not fit errs alike in thousands of pixels of one photo, so what they seem to tell is told a few times over. The sums of
each photo's parts in the gradient show it: they are larger than independent errors would make them (the sandwich
estimator with photos as clusters, Liang and Zeger 1986; the ratio is Kish's design effect).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from recon.mapping.bundle_state import BundleState
from recon.mapping.problem import Problem

Float64Array = NDArray[np.float64]


def intrinsics_spread(
    problem: Problem, state: BundleState
) -> tuple[tuple[Float64Array, ...], tuple[Float64Array, ...]]:
    """Standard deviations of each camera's parameters at ``state`` (0 where fixed): if all pixel errors are
    independent, and widened by what the errors of a photo have in common.
    """
    nothing = tuple(np.zeros(len(camera.params)) for camera in state.cameras)
    first, last = 6 * problem.num_views, problem.num_columns
    if first == last:
        return nothing, nothing
    rows = problem.rows(state)
    _, normal = problem.normal_equations(state, rows)
    reduced, _, inverse = normal.schur(1e-9)  # gauge freedoms do not touch intrinsics: a tiny damping settles those
    try:
        motion = cho_solve(cho_factor(reduced[:first, :first]), reduced[:first, first:])
        # what is left of an intrinsic's effect when poses and points follow it as well as they can
        follow = np.vstack([-motion, np.eye(last - first), np.zeros((1, last - first))])  # [C + 1, K]
        information = reduced[first:, first:] - reduced[:first, first:].T @ motion
        covariance = np.linalg.inv(information)
    except np.linalg.LinAlgError:
        unknown = tuple(np.where(_refined(problem, c), np.inf, 0.0) for c in range(len(state.cameras)))
        return unknown, unknown
    point, columns = problem.obs.point, problem.structure.columns
    scores = np.empty((last - first, len(point)))  # each observation's part in the gradient of each intrinsic
    for k in range(last - first):
        step = follow[:, k][columns]  # [B, M]
        coupled = (normal.hcp * step[:, None]).sum(axis=0)  # [3, M]
        by_point = np.stack([np.bincount(point, row, minlength=len(inverse)) for row in coupled], axis=1)
        by_point = -np.einsum("pij,pj->pi", inverse, by_point)[point]  # [M, 3]
        change = (rows.by_camera * step).sum(axis=1) + (rows.by_point * by_point.T).sum(axis=1)  # [R, M]
        scores[k] = (change * rows.residual).sum(axis=0)
    parts = covariance @ scores  # each observation's part in each intrinsic
    of_photo = np.stack([np.bincount(problem.obs.view, row, minlength=problem.num_views) for row in parts])
    alike = (of_photo**2).sum(axis=1) / np.maximum((parts**2).sum(axis=1), 1e-300)  # 1 where errors are independent
    sigma = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return _by_camera(problem, sigma), _by_camera(problem, sigma * np.sqrt(np.maximum(alike, 1.0)))


def _by_camera(problem: Problem, sigma: Float64Array) -> tuple[Float64Array, ...]:
    result = []
    for c, (camera, refined) in enumerate(zip(problem.start.cameras, problem.refined, strict=True)):
        mine = np.zeros(len(camera.params))
        first = problem.offset[c] - 6 * problem.num_views
        mine[refined] = sigma[first : first + len(refined)]
        result.append(mine)
    return tuple(result)


def _refined(problem: Problem, camera: int) -> NDArray[np.bool_]:
    free = np.zeros(len(problem.start.cameras[camera].params), dtype=bool)
    free[problem.refined[camera]] = True
    return free
