"""Bundle adjustment's terms that involve poses only: relative poses of pairs and positions of cameras.

Pose increments are ``(w, v)``: ``cam_from_world' = [exp(w) R | exp(w) t + v]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Float64Array = NDArray[np.float64]


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
        rotation, offset, turn = _relative(poses[self.view1], poses[self.view2], self.rotation)
        by_turn1, by_turn2, by_offset1, by_offset2 = _motion_jacobians(rotation, offset, turn)
        length = np.maximum(np.linalg.norm(offset, axis=1), 1e-12)
        unit = offset / length[:, None]
        across = (np.eye(3) - unit[:, :, None] * unit[:, None]) / length[:, None, None]  # d unit / d offset
        along = (unit / length[:, None])[:, None]  # d ln length / d offset
        known = np.isfinite(self.distance)
        stretch = np.where(known, 1.0 / np.where(known, self.distance_sigma, 1.0), 0.0)[:, None, None]
        jacobians = [
            np.concatenate(
                [
                    by_turn / self.rotation_sigma[:, None, None],
                    across @ by_offset / self.direction_sigma[:, None, None],
                    along @ by_offset * stretch,
                ],
                axis=1,
            )
            for by_turn, by_offset in ((by_turn1, by_offset1), (by_turn2, by_offset2))
        ]
        return self._whitened(offset, turn), jacobians[0], jacobians[1]

    def values(self, poses: Float64Array) -> Float64Array:
        """Whitened residuals [F, 7] alone."""
        return self._whitened(*_relative(poses[self.view1], poses[self.view2], self.rotation)[1:])

    def _whitened(self, offset: Float64Array, turn: Float64Array) -> Float64Array:
        length = np.maximum(np.linalg.norm(offset, axis=1), 1e-12)
        heading = offset / length[:, None] - self.direction
        known = np.isfinite(self.distance)
        stretch = np.where(known, np.log(length) - np.log(self.distance), 0.0)
        return np.concatenate(
            [
                turn / self.rotation_sigma[:, None],
                heading / self.direction_sigma[:, None],
                (stretch / np.where(known, self.distance_sigma, 1.0))[:, None],
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
        rotation, offset, turn = _relative(poses[self.view1], poses[self.view2], self.cam1_from_cam2[:, :, :3])
        by_turn1, by_turn2, by_offset1, by_offset2 = _motion_jacobians(rotation, offset, turn)
        turning, shifting = self.rotation_sigma[:, None, None], self.translation_sigma[:, None, None]
        first = np.concatenate([by_turn1 / turning, by_offset1 / shifting], axis=1)
        second = np.concatenate([by_turn2 / turning, by_offset2 / shifting], axis=1)
        return self._whitened(offset, turn), first, second

    def values(self, poses: Float64Array) -> Float64Array:
        """Whitened residuals [F, 6] alone."""
        pair = poses[self.view1], poses[self.view2]
        return self._whitened(*_relative(*pair, self.cam1_from_cam2[:, :, :3])[1:])

    def _whitened(self, offset: Float64Array, turn: Float64Array) -> Float64Array:
        shift = (offset - self.cam1_from_cam2[:, :, 3]) / self.translation_sigma[:, None]
        return np.concatenate([turn / self.rotation_sigma[:, None], shift], axis=1)


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


def _relative(
    pose1: Float64Array, pose2: Float64Array, measured: Float64Array
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """``cam1_from_cam2`` of pairs: rotation [F, 3, 3], offset [F, 3] (centre 2 in camera 1's frame), and the rotation
    vector [F, 3] from the measured rotation to it.
    """
    rotation = pose1[:, :, :3] @ pose2[:, :, :3].transpose(0, 2, 1)
    offset = pose1[:, :, 3] - np.einsum("fij,fj->fi", rotation, pose2[:, :, 3])
    turn = Rotation.from_matrix(rotation @ measured.transpose(0, 2, 1)).as_rotvec()
    return rotation, offset, turn


def _motion_jacobians(
    rotation: Float64Array, offset: Float64Array, turn: Float64Array
) -> tuple[Float64Array, Float64Array, Float64Array, Float64Array]:
    """Derivatives [F, 3, 6] of the turn by both increments, then of the offset by both.

    An increment ``w`` of camera 1 turns all by exp(w), one of camera 2 by exp(-R w); the logarithm's derivative is the
    inverse of SO(3)'s left Jacobian (Sola et al., "A micro Lie theory", 2018, equation 146).
    """
    angle = np.linalg.norm(turn, axis=1)
    half = np.maximum(angle, 1e-3) / 2
    bend = np.where(angle < 1e-3, 1 / 12, (1 - half / np.tan(half)) / (4 * half**2))
    cross = skew(turn)
    by_turn = np.eye(3) - 0.5 * cross + bend[:, None, None] * (cross @ cross)
    none = np.zeros_like(rotation)
    return (
        np.concatenate([by_turn, none], axis=2),
        np.concatenate([-by_turn @ rotation, none], axis=2),
        np.concatenate([-skew(offset), np.broadcast_to(np.eye(3), none.shape)], axis=2),
        np.concatenate([none, -rotation], axis=2),
    )


def skew(v: Float64Array) -> Float64Array:
    """Cross-product matrices [M, 3, 3] of vectors [M, 3]."""
    zero = np.zeros(len(v))
    rows = [zero, -v[:, 2], v[:, 1], v[:, 2], zero, -v[:, 0], -v[:, 1], v[:, 0], zero]
    return np.stack(rows, axis=1).reshape(-1, 3, 3)
