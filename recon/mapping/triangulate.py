"""Points of tracks seen by posed cameras."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.cameras.pinhole import rays
from recon.mapping.bundle import BundleState
from recon.mapping.schur import sum_by

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


def triangulate(
    state: BundleState, view: IntArray, track: IntArray, pixels: Float64Array, num_tracks: int
) -> tuple[Float64Array, Float64Array]:
    """Linear triangulation (Hartley and Zisserman 12.2) of all tracks at once.

    Args:
        state: poses and cameras; its points are not looked at.
        view, track, pixels: observations ``[M]``, ``[M]``, ``[M, 2]``.
        num_tracks: T.

    Returns:
        points ``[T, 3]``, NaN where a track has fewer than two rays or lies behind one of its cameras; the largest
        angle in degrees ``[T]`` between a track's mean ray and its rays, doubled.
    """
    camera = state.camera_of_view[view]
    direction = np.empty((len(view), 3))
    for k, lens in enumerate(state.cameras):
        mine = camera == k
        direction[mine] = rays(lens, pixels[mine])
    poses = state.poses[view]  # [M, 3, 4]
    rows = direction[:, :2, None] * poses[:, 2:3] - poses[:, :2]  # [M, 2, 4]
    normal = sum_by(track, (rows.transpose(0, 2, 1) @ rows).reshape(-1, 16).T, num_tracks).reshape(-1, 4, 4)
    count = np.bincount(track, minlength=num_tracks)
    known = np.isfinite(normal).all(axis=(1, 2)) & (count >= 2)
    points = np.full((num_tracks, 3), np.nan)
    if not known.any():
        return points, np.zeros(num_tracks)
    homogeneous = np.linalg.eigh(normal[known])[1][:, :, 0]
    with np.errstate(all="ignore"):
        points[known] = homogeneous[:, :3] / homogeneous[:, 3:]
    depth = np.einsum("mj,mj->m", poses[:, 2, :3], points[track]) + poses[:, 2, 3]
    behind = np.bincount(track, ~(depth > 0), minlength=num_tracks) > 0
    points[behind | ~np.isfinite(points).all(axis=1)] = np.nan
    world = np.einsum("mji,mj->mi", poses[:, :, :3], direction)
    world /= np.linalg.norm(world, axis=1, keepdims=True)
    mean = sum_by(track, np.nan_to_num(world).T, num_tracks)
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    cosine = np.clip((world * mean[track]).sum(axis=1), -1, 1)
    angle = np.zeros(num_tracks)
    np.maximum.at(angle, track, np.nan_to_num(np.degrees(np.arccos(cosine))))
    return points, 2.0 * angle
