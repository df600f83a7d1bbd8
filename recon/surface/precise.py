"""Poses as exact as the photos have them, to match photos in: the map's own need not be.

A map that other evidence holds together (answers about poses, GPS) may lie a pixel off its photos, and half the surface
is then not found: windows are compared beside the epipolar line, and depths that are right do not lead back to where
they came from. So the photos are matched in a map of their own, adjusted to nothing but its pixels, and what they show
is brought back to the map's poses at the depth that the map's points have there.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from recon.mapping.bundle import BundleOptions, BundleState, Observations, adjust, reprojection_errors
from recon.mapping.model import from_scene
from recon.surface.types import DepthMap
from recon.types import PosedView, Scene

_LEAST_POINTS = 50  # in every photo: with fewer a photo may follow its pixels anywhere
_MOST_OBSERVATIONS = 400_000  # beyond, the map stays as it is: the adjustment would take minutes
_ROUNDS = 3  # each with the spread of the pixels that the one before has left
_ENOUGH_PX = 0.2  # median error of a map in which photos can be matched as it is
_GAIN = 0.8  # of the pixels' errors: what may be left of them if matching in another map is worth it
_LARGEST_CHANGE = 0.15  # of ln(depth) of a photo's points: more is no correction but another map
_RAYLEIGH_MEDIAN = 1.1774
_FLOOR_PX = 0.05  # no keypoint is better than this


def precise_scene(scene: Scene) -> Scene | None:
    """The scene with poses and points as its pixels alone have them, laid on the given one; lenses stay.

    None where that brings nothing (the pixels already fit nearly as well as they can), where a photo has too few points
    to be placed by them, or where the map would become another.
    """
    counts = [len(view.point_ids) for view in scene.views]
    if len(counts) < 2 or min(counts) < _LEAST_POINTS or sum(counts) > _MOST_OBSERVATIONS:
        return None
    model = from_scene(scene)
    observations, state = model.observations, model.state
    errors = before = reprojection_errors(state, observations)
    if np.median(before) < _ENOUGH_PX:
        return None
    for _ in range(_ROUNDS):
        sigma = max(float(np.median(errors)) / _RAYLEIGH_MEDIAN, _FLOOR_PX)
        options = BundleOptions(refine_focal=False, refine_distortion=False, pixel_sigma=sigma, tolerance=1e-4)
        result = adjust(state, observations, options)
        state, errors = result.state, result.errors_px
        if not np.median(errors) < _GAIN * np.median(before):
            return None
    change = np.log(_depths(model.state, observations) / _depths(state, observations))  # [M]
    of_photo = [np.median(change[observations.view == i]) for i in range(len(counts))]
    if not (np.isfinite(of_photo).all() and np.ptp(of_photo) < _LARGEST_CHANGE):
        return None
    laid = _laid_on(state, scene.points_world, float(np.exp(np.median(change))))
    views = tuple(
        dataclasses.replace(view, cam_from_world=pose) for view, pose in zip(scene.views, laid.poses, strict=True)
    )
    return dataclasses.replace(scene, views=views, points_world=laid.points)


def at_view(depth_map: DepthMap, scene: Scene, precise: Scene) -> DepthMap:
    """A map of ``precise`` at the pose that ``scene`` has for the photo, at the depth of that scene's points there."""
    view = scene.view(depth_map.name)
    ratio = _view_depths(scene, view) / _view_depths(precise, precise.view(depth_map.name))
    factor = float(np.median(ratio))
    return dataclasses.replace(
        depth_map,
        depth_m=(factor * depth_map.depth_m).astype(np.float32),
        cam_from_world=view.cam_from_world,
        stats=depth_map.stats | {"depth_factor": factor},
    )


def _laid_on(state: BundleState, points: NDArray[np.float64], scale: float) -> BundleState:
    """The map scaled, turned and moved so that its points lie near those given, [P, 3]."""
    here, there = np.median(state.points, axis=0), np.median(points, axis=0)
    turn = Rotation.align_vectors(points - there, state.points - here)[0].as_matrix()
    moved = scale * (state.points - here) @ turn.T + there
    rotation = state.poses[:, :, :3] @ turn.T  # [N, 3, 3]
    # A point that was at R X + t in a photo is at the scaled place there now.
    translation = scale * (state.poses[:, :, :3] @ here + state.poses[:, :, 3]) - rotation @ there
    return dataclasses.replace(state, poses=np.concatenate([rotation, translation[:, :, None]], axis=2), points=moved)


def _depths(state: BundleState, observations: Observations) -> NDArray[np.float64]:
    """z-depth [M] of every observed point, NaN behind the camera."""
    pose, point = state.poses[observations.view], state.points[observations.point]
    z = np.einsum("mi,mi->m", pose[:, 2, :3], point) + pose[:, 2, 3]
    return np.where(z > 0, z, np.nan)


def _view_depths(scene: Scene, view: PosedView) -> NDArray[np.float64]:
    return scene.points_world[view.point_ids] @ view.cam_from_world[2, :3] + view.cam_from_world[2, 3]
