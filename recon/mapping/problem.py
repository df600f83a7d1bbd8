"""The terms of a bundle adjustment at one state: whitened residuals, Jacobians, normal equations, and steps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from recon.evidence.features import to_colmap_camera
from recon.mapping.factors import PoseFactors, PositionFactors, RigidFactors, cauchy, moved
from recon.mapping.schur import NormalEquations, accumulate, skew, sum_by
from recon.types import Camera

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Observations:
    """M observations: ``view`` [M], ``point`` [M], ``pixels`` [M, 2]; ``depth`` [M] measured z-depth in the map's unit
    (NaN where none) with ``depth_log_sigma`` [M].
    """

    view: IntArray
    point: IntArray
    pixels: Float64Array
    depth: Float64Array
    depth_log_sigma: Float64Array

    def select(self, keep: NDArray[np.bool_]) -> Observations:
        return Observations(*(getattr(self, f.name)[keep] for f in dataclasses.fields(self)))


@dataclass(frozen=True)
class BundleState:
    """Adjusted: ``poses`` [N, 3, 4] cam_from_world, ``cameras`` with ``camera_of_view`` [N], ``points`` [P, 3]."""

    poses: Float64Array
    cameras: tuple[Camera, ...]
    camera_of_view: IntArray
    points: Float64Array


@dataclass(frozen=True)
class BundleOptions:
    """What is refined and how much is believed.

    ``pixel_sigma`` is the standard deviation of a good keypoint, ``loss_scale`` the Cauchy scale in sigmas.
    ``principal_point_sigma`` is the prior's spread as a fraction of the image's longer side, ``exif_focal_sigma`` that
    of a focal length from EXIF as a fraction of it (whole millimetres); a guessed focal length has no prior.
    """

    refine_focal: bool = True
    refine_distortion: bool = True
    refine_principal_point: bool = False
    principal_point_sigma: float = 0.02
    exif_focal_sigma: float = 0.03
    distortion_sigma: float = 0.5
    pixel_sigma: float = 0.5
    loss_scale: float = 2.0
    max_iterations: int = 40
    tolerance: float = 1e-6


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
    ) -> None:
        self.obs, self.options, self.start = observations, options, state
        self.pair_factors = [f for f in (pose_factors, rigid_factors) if f is not None]
        self.position_factors = position_factors
        self.refined = [self._refined(camera) for camera in state.cameras]  # parameter indices by camera
        self.num_views = len(state.poses)
        offsets = np.cumsum([6 * self.num_views] + [len(r) for r in self.refined])
        self.offset, self.num_columns = offsets[:-1], int(offsets[-1])
        width = max((len(r) for r in self.refined), default=0)
        camera = state.camera_of_view[observations.view]
        self.rows_of_camera = [np.flatnonzero(camera == c) for c in range(len(state.cameras))]
        columns = np.full((len(camera), 6 + width), self.num_columns, dtype=np.int64)
        columns[:, :6] = 6 * observations.view[:, None] + np.arange(6)
        for c, rows in enumerate(self.rows_of_camera):
            columns[rows, 6 : 6 + len(self.refined[c])] = self.offset[c] + np.arange(len(self.refined[c]))
        self.columns = columns
        self.has_depth = np.isfinite(observations.depth)

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

    def _project(self, state: BundleState, points_cam: Float64Array, params: list[Float64Array]) -> Float64Array:
        pixels = np.empty((len(points_cam), 2))
        for c, rows in enumerate(self.rows_of_camera):
            camera = to_colmap_camera(dataclasses.replace(state.cameras[c], params=tuple(params[c])), 1)
            pixels[rows] = camera.img_from_cam(points_cam[rows], check_cheirality=False)
        return pixels

    def _in_camera(self, state: BundleState) -> Float64Array:
        pose = state.poses[self.obs.view]
        return np.einsum("mij,mj->mi", pose[:, :, :3], state.points[self.obs.point]) + pose[:, :, 3]

    def errors_px(self, state: BundleState) -> Float64Array:
        """Reprojection errors [M] in pixels; infinite behind the camera."""
        points_cam = self._in_camera(state)
        pixels = self._project(state, points_cam, [np.array(c.params) for c in state.cameras])
        error = np.linalg.norm(pixels - self.obs.pixels, axis=1)
        return np.where((points_cam[:, 2] > 0) & np.isfinite(error), error, np.inf)

    def _residuals(self, state: BundleState) -> tuple[Float64Array, Float64Array]:
        """Whitened residuals [M, 3] (x, y, depth) and points in the camera frame [M, 3]."""
        points_cam = self._in_camera(state)
        pixels = self._project(state, points_cam, [np.array(c.params) for c in state.cameras])
        residual = np.empty((len(pixels), 3))
        residual[:, :2] = (pixels - self.obs.pixels) / self.options.pixel_sigma
        z = np.maximum(points_cam[:, 2], 1e-9)
        residual[:, 2] = np.where(self.has_depth, (np.log(z) - np.log(self.obs.depth)) / self.obs.depth_log_sigma, 0.0)
        residual[points_cam[:, 2] <= 0, :2] = 1e3  # behind the camera: a large cost that does not change with the step
        return residual, points_cam

    def _weights(self, residual: Float64Array) -> tuple[float, Float64Array]:
        scale = self.options.loss_scale
        pixel_loss, pixel_weight = cauchy((residual[:, :2] ** 2).sum(axis=1), scale)
        depth_loss, depth_weight = cauchy(residual[:, 2] ** 2, scale)
        return float(pixel_loss.sum() + depth_loss.sum()), np.stack([pixel_weight, pixel_weight, depth_weight], axis=1)

    def cost(self, state: BundleState) -> float:
        """Sum of all losses; infinite where a focal length is not positive."""
        if any(min(camera.fx_fy_cx_cy[:2]) <= 0 for camera in state.cameras):
            return float("inf")
        total, _ = self._weights(self._residuals(state)[0])
        for factors in self.pair_factors:
            total += float(cauchy((factors._evaluate(state.poses[factors.view1], state.poses[factors.view2]) ** 2)
                                  .sum(axis=1), 3.0)[0].sum())  # fmt: skip
        if self.position_factors is not None:
            total += float(cauchy((self.position_factors.residuals(state.poses)[0] ** 2).sum(axis=1), 3.0)[0].sum())
        total += sum(float((r**2).sum()) for _, r, _ in self._priors(state))
        return total if np.isfinite(total) else float("inf")

    def _priors(self, state: BundleState) -> list[tuple[IntArray, Float64Array, Float64Array]]:
        """Whitened pulls of refined intrinsics towards the start: columns, residuals, inverse sigmas, by camera."""
        result = []
        for c, (camera, start) in enumerate(zip(state.cameras, self.start.cameras, strict=True)):
            info, refined = to_colmap_camera(camera, 1), self.refined[c]
            sigma = np.full(len(camera.params), np.inf)
            longer = max(camera.width_px, camera.height_px)
            sigma[info.principal_point_idxs()] = self.options.principal_point_sigma * longer
            sigma[info.extra_params_idxs()] = self.options.distortion_sigma
            if start.focal_source == "exif":
                sigma[info.focal_length_idxs()] = self.options.exif_focal_sigma * start.focal_px
            inverse = 1.0 / sigma[refined]
            delta = (np.array(camera.params) - np.array(start.params))[refined]
            result.append((self.offset[c] + np.arange(len(refined)), delta * inverse, inverse))
        return result

    def linearise(self, state: BundleState) -> tuple[float, NormalEquations]:
        """Cost and normal equations at ``state``."""
        obs = self.obs
        residual, points_cam = self._residuals(state)
        total, weights = self._weights(residual)
        by_camera_point, by_intrinsics = self._jacobians(state, points_cam)
        root = np.sqrt(weights)
        j_cam = by_camera_point * root[:, :, None]  # d residual / d point in camera, [M, 3, 3]
        rotation = state.poses[obs.view][:, :, :3]
        j_point = j_cam @ rotation
        # cam point' = exp(w) X_c + v: d/dw = -[X_c]x, d/dv = I
        j_pose = np.concatenate([-j_cam @ skew(points_cam), j_cam], axis=2)
        j_c = np.concatenate([j_pose, by_intrinsics * root[:, :, None]], axis=2)  # [M, 3, B]
        r = residual * root
        c, p = self.num_columns, len(state.points)
        hcc, bc = np.zeros((c + 1, c + 1)), np.zeros(c + 1)
        block = j_c.transpose(0, 2, 1) @ j_c  # [M, B, B]
        flat = (self.columns[:, :, None] * (c + 1) + self.columns[:, None, :]).ravel()
        hcc += np.bincount(flat, block.ravel(), minlength=(c + 1) ** 2).reshape(c + 1, c + 1)
        bc -= np.bincount(self.columns.ravel(), np.einsum("mrb,mr->mb", j_c, r).ravel(), minlength=c + 1)
        hpp = sum_by(obs.point, (j_point.transpose(0, 2, 1) @ j_point).reshape(-1, 9), p).reshape(p, 3, 3)
        bp = -sum_by(obs.point, np.einsum("mrk,mr->mk", j_point, r), p)
        total += self._add_factors(state, hcc, bc)
        normal = NormalEquations(
            hcc[:c, :c], bc[:c], hpp, bp, j_c.transpose(0, 2, 1) @ j_point, self.columns, obs.point
        )
        return total, normal

    def _jacobians(self, state: BundleState, points_cam: Float64Array) -> tuple[Float64Array, Float64Array]:
        """d residual / d point in the camera [M, 3, 3] and / d refined intrinsics [M, 3, K]."""
        params = [np.array(camera.params) for camera in state.cameras]
        by_point = np.zeros((len(points_cam), 3, 3))
        for k in range(3):
            step = np.zeros_like(points_cam)
            step[:, k] = 1e-6 * np.maximum(np.abs(points_cam[:, 2]), 1e-6)
            difference = self._project(state, points_cam + step, params) - self._project(
                state, points_cam - step, params
            )
            by_point[:, :2, k] = difference / (2 * step[:, k : k + 1])
        by_point /= self.options.pixel_sigma
        z = np.maximum(points_cam[:, 2], 1e-9)
        by_point[:, 2, 2] = np.where(self.has_depth, 1.0 / (z * self.obs.depth_log_sigma), 0.0)
        width = self.columns.shape[1] - 6
        by_intrinsics = np.zeros((len(points_cam), 3, width))
        for k in range(width):
            plus, minus, size = [p.copy() for p in params], [p.copy() for p in params], np.ones(len(params))
            for c, refined in enumerate(self.refined):
                if k < len(refined):
                    size[c] = 1e-6 * max(abs(params[c][refined[k]]), 1.0)
                    plus[c][refined[k]] += size[c]
                    minus[c][refined[k]] -= size[c]
            difference = self._project(state, points_cam, plus) - self._project(state, points_cam, minus)
            step_of_row = size[state.camera_of_view[self.obs.view]]
            by_intrinsics[:, :2, k] = difference / (2 * step_of_row[:, None] * self.options.pixel_sigma)
        behind = points_cam[:, 2] <= 0
        by_point[behind], by_intrinsics[behind] = 0.0, 0.0
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

    def intrinsics_sigma(self, normal: NormalEquations) -> tuple[Float64Array, ...]:
        """Standard deviations of the intrinsics; gauge freedoms do not touch them, so a tiny damping settles those."""
        result = [np.zeros(len(camera.params)) for camera in self.start.cameras]
        count = self.num_columns - 6 * self.num_views
        if count:
            s, _, _ = normal.schur(1e-9)
            try:
                unit = np.eye(self.num_columns)[:, -count:]
                variance = np.diag(cho_solve(cho_factor(s), unit)[-count:])
            except np.linalg.LinAlgError:
                variance = np.full(count, np.inf)
            for c, refined in enumerate(self.refined):
                first = self.offset[c] - 6 * self.num_views
                result[c][refined] = np.sqrt(np.maximum(variance[first : first + len(refined)], 0.0))
        return tuple(result)
