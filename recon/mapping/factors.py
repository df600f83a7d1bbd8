"""Bundle adjustment's terms that involve poses only: relative poses of pairs and positions of cameras.

Pose increments are ``(w, v)``: ``cam_from_world' = [exp(w) R | exp(w) t + v]``. Jacobians are central differences of a
few smooth functions, which keeps one formula per factor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Float64Array = NDArray[np.float64]
_STEP = 1e-6


@dataclass(frozen=True)
class PoseFactors:
    """Measured relative poses ``cam1_from_cam2`` of F pairs of views.

    ``view1``, ``view2`` [F] view indices; ``rotation`` [F, 3, 3]; ``direction`` [F, 3] unit vector to camera 2's centre
    in camera 1's frame; ``distance`` [F] in the map's unit, NaN where unknown or where the map has no metric unit;
    sigmas [F]: ``rotation_sigma`` and ``direction_sigma`` in radians, ``distance_sigma`` of ln(distance).
    """

    view1: NDArray[np.int64]
    view2: NDArray[np.int64]
    rotation: Float64Array
    direction: Float64Array
    distance: Float64Array
    rotation_sigma: Float64Array
    direction_sigma: Float64Array
    distance_sigma: Float64Array

    def residuals(self, poses: Float64Array) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Whitened residuals [F, 7] and Jacobians [F, 7, 6] for both views' increments; ``poses`` [N, 3, 4]."""
        return _with_jacobians(self._evaluate, poses[self.view1], poses[self.view2])

    def _evaluate(self, pose1: Float64Array, pose2: Float64Array) -> Float64Array:
        rotation = pose1[:, :, :3] @ pose2[:, :, :3].transpose(0, 2, 1)  # cam1_from_cam2, [F, 3, 3]
        offset = pose1[:, :, 3] - np.einsum("fij,fj->fi", rotation, pose2[:, :, 3])  # centre 2 in camera 1's frame
        length = np.maximum(np.linalg.norm(offset, axis=1), 1e-12)
        turn = Rotation.from_matrix(rotation @ self.rotation.transpose(0, 2, 1)).as_rotvec()
        heading = offset / length[:, None] - self.direction
        stretch = np.where(np.isfinite(self.distance), np.log(length) - np.log(self.distance), 0.0)
        return np.concatenate(
            [
                turn / self.rotation_sigma[:, None],
                heading / self.direction_sigma[:, None],
                (stretch / np.where(np.isfinite(self.distance), self.distance_sigma, 1.0))[:, None],
            ],
            axis=1,
        )  # [F, 7]


@dataclass(frozen=True)
class PositionFactors:
    """Known camera centres: ``view`` [G]; ``position`` and ``sigma`` [G, 3] in the map's world frame and unit."""

    view: NDArray[np.int64]
    position: Float64Array
    sigma: Float64Array

    def residuals(self, poses: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Whitened residuals [G, 3] and Jacobians [G, 3, 6]."""
        pose = poses[self.view]
        back = -pose[:, :, :3].transpose(0, 2, 1)  # [G, 3, 3]
        centre = np.einsum("gij,gj->gi", back, pose[:, :, 3])
        # A rotation increment turns the camera about its own centre's image: R' = exp(w) R and t' = exp(w) t + v, so
        # only v moves the centre.
        jacobian = np.concatenate([np.zeros_like(back), back], axis=2) / self.sigma[:, :, None]
        return (centre - self.position) / self.sigma, jacobian


@dataclass(frozen=True)
class RigidFactors:
    """Measured rigid motions ``cam1_from_cam2`` [F, 3, 4] in metres, as RGB-D pairs give them.

    ``rotation_sigma`` [F] in radians, ``translation_sigma`` [F] in metres.
    """

    view1: NDArray[np.int64]
    view2: NDArray[np.int64]
    cam1_from_cam2: Float64Array
    rotation_sigma: Float64Array
    translation_sigma: Float64Array

    def residuals(self, poses: Float64Array) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Whitened residuals [F, 6] and Jacobians [F, 6, 6] for both views' increments; ``poses`` [N, 3, 4]."""
        return _with_jacobians(self._evaluate, poses[self.view1], poses[self.view2])

    def _evaluate(self, pose1: Float64Array, pose2: Float64Array) -> Float64Array:
        rotation = pose1[:, :, :3] @ pose2[:, :, :3].transpose(0, 2, 1)
        offset = pose1[:, :, 3] - np.einsum("fij,fj->fi", rotation, pose2[:, :, 3])
        turn = Rotation.from_matrix(rotation @ self.cam1_from_cam2[:, :, :3].transpose(0, 2, 1)).as_rotvec()
        return np.concatenate(
            [
                turn / self.rotation_sigma[:, None],
                (offset - self.cam1_from_cam2[:, :, 3]) / self.translation_sigma[:, None],
            ],
            axis=1,
        )  # [F, 6]


def moved(poses: Float64Array, increments: Float64Array) -> Float64Array:
    """Poses [N, 3, 4] after increments [N, 6]."""
    turn = Rotation.from_rotvec(increments[:, :3]).as_matrix()
    result = turn @ poses
    result[:, :, 3] += increments[:, 3:]
    return result


def cauchy(squared: Float64Array, scale: float) -> tuple[Float64Array, Float64Array]:
    """Cauchy loss of squared residual norms and the weights of iteratively reweighted least squares."""
    ratio = squared / scale**2
    return scale**2 * np.log1p(ratio), 1.0 / (1.0 + ratio)


def _with_jacobians(
    evaluate: Callable[[Float64Array, Float64Array], Float64Array], pose1: Float64Array, pose2: Float64Array
) -> tuple[Float64Array, Float64Array, Float64Array]:
    value = evaluate(pose1, pose2)
    jacobian1 = np.empty((*value.shape, 6))
    jacobian2 = np.empty((*value.shape, 6))
    for k in range(6):
        step = np.zeros((len(pose1), 6))
        step[:, k] = _STEP
        jacobian1[:, :, k] = (evaluate(moved(pose1, step), pose2) - evaluate(moved(pose1, -step), pose2)) / (2 * _STEP)
        jacobian2[:, :, k] = (evaluate(pose1, moved(pose2, step)) - evaluate(pose1, moved(pose2, -step))) / (2 * _STEP)
    return value, jacobian1, jacobian2
