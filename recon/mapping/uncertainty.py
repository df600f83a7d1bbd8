"""How well each point of a map is known: the spread of its depth, from the angles between its rays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.cameras.pinhole import project
from recon.types import Scene

Float64Array = NDArray[np.float64]

_FLOOR_PX = 0.1  # no keypoint is better than this
_PRIOR_COUNT = 4.0  # residuals that the map's common noise is worth beside a point's own
_UNKNOWN = 1e3  # ln spread of a point that its rays leave open


def depth_log_sigmas(scene: Scene) -> dict[str, Float64Array]:
    """Standard deviation of ln(z-depth) of every observed point, by photo name: ``[M]`` beside ``point_ids``.

    A point's spread follows from the angles between its rays and from the noise of its pixels: that of the whole map
    (from the median reprojection error), and the point's own residuals beside it. Errors that points share (poses,
    focal length, the scale) are not in it.
    """
    information, noise = np.zeros((len(scene.points_world), 3, 3)), _noise_px(scene)
    for view in scene.views:
        ray = scene.points_world[view.point_ids] - view.centre_world  # [M, 3]
        z = ray @ view.cam_from_world[2, :3]
        unit = ray / np.maximum(np.linalg.norm(ray, axis=1), 1e-300)[:, None]
        pixels_per_unit = view.camera.focal_px / np.maximum(z, 1e-300)
        across = np.eye(3) - unit[:, :, None] * unit[:, None]  # a pixel says nothing of its point's distance
        weight = np.where(z > 0, (pixels_per_unit / noise[view.point_ids]) ** 2, 0.0)
        np.add.at(information, view.point_ids, across * weight[:, None, None])
    size = np.trace(information, axis1=1, axis2=2)
    size = np.where(size > 0, size, 1.0)
    covariance = np.linalg.inv(information / size[:, None, None] + 1e-12 * np.eye(3)) / size[:, None, None]
    result = {}
    for view in scene.views:
        axis = view.cam_from_world[2, :3]
        z = (scene.points_world[view.point_ids] - view.centre_world) @ axis
        variance = np.einsum("i,mij,j->m", axis, covariance[view.point_ids], axis)
        spread = np.sqrt(np.maximum(variance, 0.0)) / np.maximum(z, 1e-300)
        result[view.name] = np.where(z > 0, np.minimum(spread, _UNKNOWN), _UNKNOWN)
    return result


def _noise_px(scene: Scene) -> Float64Array:
    """Standard deviation [P] of one coordinate of each point's pixels."""
    count, squares = np.zeros(len(scene.points_world)), np.zeros(len(scene.points_world))
    errors = []
    for view in scene.views:
        here = scene.points_world[view.point_ids] @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
        squared = ((project(view.camera, here) - view.pixels) ** 2).sum(axis=1)
        squared = np.where(np.isfinite(squared), squared, 0.0)
        np.add.at(count, view.point_ids, 1.0)
        np.add.at(squares, view.point_ids, squared)
        errors.append(np.sqrt(squared))
    if not count.any():
        return np.full(len(count), _FLOOR_PX)
    free = np.maximum(2.0 * count - 3.0, 0.0)  # a point's residuals beyond its three unknowns
    # from the median of a Rayleigh distribution; the points have taken their share of the noise
    left = max(float(free.sum() / (2.0 * count.sum())), 0.1)
    common = float(np.median(np.concatenate(errors))) / 1.1774 / np.sqrt(left)
    variance = (_PRIOR_COUNT * common**2 + squares) / (_PRIOR_COUNT + free)
    return np.maximum(np.sqrt(variance), _FLOOR_PX)
