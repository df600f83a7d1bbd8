"""The terms of a bundle adjustment at one state: whitened residuals, Jacobians, normal equations, and steps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recon.evidence.features import to_colmap_camera
from recon.mapping.bundle_state import BundleOptions, BundleState, Observations
from recon.mapping.factors import PoseFactors, PositionFactors, RigidFactors, cauchy, moved
from recon.mapping.focal_priors import FocalPriors
from recon.mapping.schur import NormalEquations, Structure, accumulate, sum_by
from recon.types import Camera

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """The observations' weighted residuals [R, M] and their derivatives by what each touches of the cameras [R, B, M]
    and by its point [R, 3, M]; ``cost`` is the sum of their losses.
    """

    cost: float
    residual: Float64Array
    by_camera: Float64Array
    by_point: Float64Array


class Problem:
    """Residuals, Jacobians and parameter bookkeeping of one adjustment."""

    def __init__(
        self,
        state: BundleState,
        observations: Observations,
        options: BundleOptions,
        pose_factors: PoseFactors | None,
        position_factors: PositionFactors | None,
        rigid_factors: RigidFactors | None,
        focal_priors: FocalPriors | None,
    ) -> None:
        # All inner arrays stand photo by photo, so that what a photo's observations share is one product of matrices.
        self.order = np.argsort(observations.view, kind="stable")
        self.obs = obs = observations.select(self.order)
        self.options, self.start = options, state
        self.pair_factors = [f for f in (pose_factors, rigid_factors) if f is not None]
        self.position_factors = position_factors
        self.focal_priors = focal_priors or FocalPriors.of(state.cameras)
        self.refined = [self._refined(camera) for camera in state.cameras]  # parameter indices by camera
        self.num_views = len(state.poses)
        offsets = np.cumsum([6 * self.num_views] + [len(r) for r in self.refined])
        self.offset, self.num_columns = offsets[:-1], int(offsets[-1])
        bounds = np.searchsorted(obs.view, np.arange(self.num_views + 1))
        seen = np.flatnonzero(np.diff(bounds))
        self.slices = [(int(v), slice(bounds[v], bounds[v + 1])) for v in seen]  # of every photo's observations
        camera = state.camera_of_view[obs.view]
        self.rows_of_camera = [np.flatnonzero(camera == c) for c in range(len(state.cameras))]
        self.has_depth = np.isfinite(obs.depth)
        self.num_rows = 3 if self.has_depth.any() else 2  # residuals of an observation: x, y, depth

    @cached_property
    def structure(self) -> Structure:
        """What every observation touches; only adjusting needs it."""
        width = max((len(r) for r in self.refined), default=0)
        columns = np.full((6 + width, len(self.obs.view)), self.num_columns, dtype=np.int64)
        columns[:6] = 6 * self.obs.view + np.arange(6)[:, None]
        for c, rows in enumerate(self.rows_of_camera):
            columns[6 : 6 + len(self.refined[c]), rows] = self.offset[c] + np.arange(len(self.refined[c]))[:, None]
        return Structure(columns, self.obs.point, self.num_columns, len(self.start.points))

    def _refined(self, camera: Camera) -> IntArray:
        info = to_colmap_camera(camera, 1)
        chosen: list[int] = []
        if self.options.refine_focal:
            chosen += info.focal_length_idxs()
        if self.options.refine_principal_point:
            chosen += info.principal_point_idxs()
        if self.options.refine_distortion:
            chosen += info.extra_params_idxs()
        return np.array(sorted(chosen), dtype=np.int64)

    def _project(
        self, state: BundleState, points_cam: Float64Array, params: list[Float64Array] | None = None
    ) -> Float64Array:
        """Pixels [..., M, 2] of points [..., M, 3]."""
        pixels = np.empty((*points_cam.shape[:-1], 2))
        for c, rows in enumerate(self.rows_of_camera):
            camera = state.cameras[c]
            if params is not None:
                camera = dataclasses.replace(camera, params=tuple(params[c]))
            mine = points_cam if len(self.rows_of_camera) == 1 else points_cam[..., rows, :]
            seen = to_colmap_camera(camera, 1).img_from_cam(mine.reshape(-1, 3), check_cheirality=False)
            if len(self.rows_of_camera) == 1:
                return np.asarray(seen, dtype=np.float64).reshape(pixels.shape)
            pixels[..., rows, :] = seen.reshape(*mine.shape[:-1], 2)
        return pixels

    def _in_camera(self, state: BundleState) -> Float64Array:
        points_cam = state.points[self.obs.point]
        for view, mine in self.slices:
            points_cam[mine] = points_cam[mine] @ state.poses[view, :, :3].T + state.poses[view, :, 3]
        return points_cam

    def errors_px(self, state: BundleState) -> Float64Array:
        """Reprojection errors [M] in pixels, in the observations' own order; infinite behind the camera."""
        points_cam = self._in_camera(state)
        error = np.linalg.norm(self._project(state, points_cam) - self.obs.pixels, axis=1)
        result = np.empty(len(error))
        result[self.order] = np.where((points_cam[:, 2] > 0) & np.isfinite(error), error, np.inf)
        return result

    def _residuals(self, state: BundleState) -> tuple[Float64Array, Float64Array]:
        """Whitened residuals [R, M] (x, y, and depth if any) and points in the camera frame [M, 3]."""
        points_cam = self._in_camera(state)
        residual = np.empty((self.num_rows, len(points_cam)))
        residual[:2] = (self._project(state, points_cam) - self.obs.pixels).T / self.options.pixel_sigma
        residual[:2, points_cam[:, 2] <= 0] = 1e3  # behind the camera: a large cost that does not change with the step
        if self.num_rows == 3:
            z = np.maximum(points_cam[:, 2], 1e-9)
            off = (np.log(z) - np.log(self.obs.depth)) / self.obs.depth_log_sigma
            residual[2] = np.where(self.has_depth, off, 0.0)
        return residual, points_cam

    def _weights(self, residual: Float64Array) -> tuple[float, Float64Array]:
        """The sum of the losses, and the weights [R, M] of the residuals."""
        loss, weight = cauchy(residual[0] ** 2 + residual[1] ** 2, self.options.loss_scale)
        total, weights = float(loss.sum()), np.broadcast_to(weight, residual.shape)
        if self.num_rows == 3:
            loss, depth_weight = cauchy(residual[2] ** 2, self.options.loss_scale)
            total, weights = total + float(loss.sum()), np.stack([weight, weight, depth_weight])
        return total, weights

    def cost(self, state: BundleState) -> float:
        """Sum of all losses; infinite where a focal length is not positive."""
        if any(min(camera.fx_fy_cx_cy[:2]) <= 0 for camera in state.cameras):
            return float("inf")
        total, _ = self._weights(self._residuals(state)[0])
        for factors in self.pair_factors:
            total += float(cauchy((factors.values(state.poses) ** 2).sum(axis=1), 3.0)[0].sum())
        if self.position_factors is not None:
            total += float(cauchy((self.position_factors.residuals(state.poses)[0] ** 2).sum(axis=1), 3.0)[0].sum())
        total += sum(float((r**2).sum()) for _, r, _ in self._priors(state))
        return total if np.isfinite(total) else float("inf")

    def _priors(self, state: BundleState) -> list[tuple[IntArray, Float64Array, Float64Array]]:
        """Whitened pulls of refined intrinsics towards what is known of them (the focal length) and towards the start
        (the others): columns, residuals, inverse sigmas, by camera.
        """
        result = []
        focal = np.array([camera.focal_px for camera in state.cameras])
        focal_residual, focal_inverse = self.focal_priors.residuals(focal)
        for c, (camera, start) in enumerate(zip(state.cameras, self.start.cameras, strict=True)):
            info, refined = to_colmap_camera(camera, 1), self.refined[c]
            sigma = np.full(len(camera.params), np.inf)
            longer = max(camera.width_px, camera.height_px)
            sigma[info.principal_point_idxs()] = self.options.principal_point_sigma * longer
            sigma[info.extra_params_idxs()] = self.options.distortion_sigma
            residual = (np.array(camera.params) - np.array(start.params)) / sigma
            inverse = 1.0 / sigma
            for index in info.focal_length_idxs():
                residual[index], inverse[index] = focal_residual[c], focal_inverse[c]
            result.append((self.offset[c] + np.arange(len(refined)), residual[refined], inverse[refined]))
        return result

    def rows(self, state: BundleState) -> Rows:
        """The observations' weighted residuals and Jacobians at ``state``."""
        residual, points_cam = self._residuals(state)
        total, weights = self._weights(residual)
        by_camera_point, by_intrinsics = self._jacobians(state, points_cam)
        root = np.sqrt(weights)
        j_cam = by_camera_point * root[:, None]  # d residual / d point in camera, [R, 3, M]
        # cam point' = exp(w) X_c + v: d/dw = X_c x j, d/dv = j
        j_c = np.empty((self.num_rows, len(self.structure.columns), len(self.obs.view)))
        (x, y, z), (jx, jy, jz) = points_cam.T, j_cam.transpose(1, 0, 2)
        j_c[:, 0], j_c[:, 1], j_c[:, 2] = y * jz - z * jy, z * jx - x * jz, x * jy - y * jx
        j_c[:, 3:6] = j_cam
        j_c[:, 6:] = by_intrinsics * root[:, None]
        j_point = np.empty_like(j_cam)
        for view, mine in self.slices:
            j_point[:, :, mine] = state.poses[view, :, :3].T @ j_cam[:, :, mine]
        return Rows(total, residual * root, j_c, j_point)

    def linearise(self, state: BundleState) -> tuple[float, NormalEquations]:
        """Cost and normal equations at ``state``."""
        return self.normal_equations(state, self.rows(state))

    def normal_equations(self, state: BundleState, rows: Rows) -> tuple[float, NormalEquations]:
        """Cost and normal equations of the observations' ``rows`` at ``state`` and of all factors."""
        obs, structure, r, j_c, j_point = self.obs, self.structure, rows.residual, rows.by_camera, rows.by_point
        c, p = self.num_columns, len(state.points)
        hcc, bc = np.zeros((c + 1, c + 1)), np.zeros(c + 1)
        for _, mine in self.slices:
            block, columns = j_c[:, :, mine], structure.columns[:, mine.start]
            hcc[np.ix_(columns, columns)] += (block @ block.transpose(0, 2, 1)).sum(axis=0)
            bc[columns] -= (block @ r[:, mine, None])[:, :, 0].sum(axis=0)
        hpp = np.empty((p, 3, 3))
        for i, k in ((0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)):
            product = (j_point[:, i] * j_point[:, k]).sum(axis=0)
            hpp[:, i, k] = hpp[:, k, i] = np.bincount(obs.point, product, minlength=p)
        bp = -sum_by(obs.point, (j_point * r[:, None]).sum(axis=0), p)
        hcp = j_c[0, :, None] * j_point[0]  # [B, 3, M]
        for k in range(1, self.num_rows):
            hcp += j_c[k, :, None] * j_point[k]
        total = rows.cost + self._add_factors(state, hcc, bc)
        return total, NormalEquations(hcc[:c, :c], bc[:c], hpp, bp, hcp, structure)

    def _jacobians(self, state: BundleState, points_cam: Float64Array) -> tuple[Float64Array, Float64Array]:
        """d residual / d point in the camera [R, 3, M] and / d refined intrinsics [R, K, M]."""
        params = [np.array(camera.params) for camera in state.cameras]
        by_point = np.zeros((self.num_rows, 3, len(points_cam)))
        size = 1e-6 * np.maximum(np.abs(points_cam[:, 2]), 1e-6)
        moved_points = np.repeat(points_cam[None], 4, axis=0)  # [4, M, 3]
        for k in range(2):
            moved_points[2 * k, :, k] += size
            moved_points[2 * k + 1, :, k] -= size
        pixels = self._project(state, moved_points)
        behind = points_cam[:, 2] <= 0
        z = np.where(behind, 1.0, points_cam[:, 2])
        for k in range(2):
            by_point[:2, k] = (pixels[2 * k] - pixels[2 * k + 1]).T / (2 * size * self.options.pixel_sigma)
        # a pixel stays when its point moves along its ray
        by_point[:2, 2] = -(points_cam[:, 0] * by_point[:2, 0] + points_cam[:, 1] * by_point[:2, 1]) / z
        if self.num_rows == 3:
            z = np.maximum(points_cam[:, 2], 1e-9)
            by_point[2, 2] = np.where(self.has_depth, 1.0 / (z * self.obs.depth_log_sigma), 0.0)
        width = len(self.structure.columns) - 6
        by_intrinsics = np.zeros((self.num_rows, width, len(points_cam)))
        for k in range(width):
            plus, minus, step = [p.copy() for p in params], [p.copy() for p in params], np.ones(len(params))
            for c, refined in enumerate(self.refined):
                if k < len(refined):
                    step[c] = 1e-6 * max(abs(params[c][refined[k]]), 1.0)
                    plus[c][refined[k]] += step[c]
                    minus[c][refined[k]] -= step[c]
            difference = self._project(state, points_cam, plus) - self._project(state, points_cam, minus)
            step_of_row = step[state.camera_of_view[self.obs.view]]
            by_intrinsics[:2, k] = difference.T / (2 * step_of_row * self.options.pixel_sigma)
        by_point[:, :, behind], by_intrinsics[:, :, behind] = 0.0, 0.0
        return by_point, by_intrinsics

    def _add_factors(self, state: BundleState, hcc: Float64Array, bc: Float64Array) -> float:
        total = 0.0
        for factors in self.pair_factors:
            r, j1, j2 = factors.residuals(state.poses)
            loss, weight = cauchy((r**2).sum(axis=1), 3.0)
            total += float(loss.sum())
            columns = np.concatenate(
                [6 * factors.view1[:, None] + np.arange(6), 6 * factors.view2[:, None] + np.arange(6)], axis=1
            )
            accumulate(hcc, bc, columns, np.concatenate([j1, j2], axis=2), r, weight)
        if self.position_factors is not None:
            r, j = self.position_factors.residuals(state.poses)
            loss, weight = cauchy((r**2).sum(axis=1), 3.0)
            total += float(loss.sum())
            accumulate(hcc, bc, 6 * self.position_factors.view[:, None] + np.arange(6), j, r, weight)
        for columns, r, inverse in self._priors(state):
            total += float((r**2).sum())
            hcc[columns, columns] += inverse**2
            bc[columns] -= inverse * r
        return total

    def step(self, state: BundleState, step: tuple[Float64Array, Float64Array]) -> BundleState:
        camera_step, point_step = step
        cameras = []
        for c, camera in enumerate(state.cameras):
            params = np.array(camera.params)
            params[self.refined[c]] += camera_step[self.offset[c] : self.offset[c] + len(self.refined[c])]
            cameras.append(dataclasses.replace(camera, params=tuple(float(v) for v in params)))
        poses = moved(state.poses, camera_step[: 6 * self.num_views].reshape(-1, 6))
        return BundleState(poses, tuple(cameras), state.camera_of_view, state.points + point_step)
