"""A registered photo as the surface step works on it: undistorted, at working size, with its map points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recon.cameras import pinhole
from recon.cameras.unify import ImageProfile, unify
from recon.types import Camera, FloatArray, ImageArray, PosedView, Scene

_MIN_COMMON_POINTS = 8
_CANDIDATES_PER_NEIGHBOUR = 5


@dataclass(frozen=True)
class Frame:
    """``color`` [H, W, 3] undistorted; ``camera`` its PINHOLE camera; ``photo_camera`` that of the photo as taken.

    ``point_ids`` [M] rows of the scene's points seen here; ``point_pixels`` [M, 2] where they project to in this
    image; ``point_depth_m`` [M] their z-depth (positive); ``point_log_sigma`` [M] the standard deviation of its
    logarithm, None where it is not known.
    """

    name: str
    color: ImageArray
    camera: Camera
    photo_camera: Camera
    cam_from_world: NDArray[np.float64]
    point_ids: NDArray[np.int64]
    point_pixels: FloatArray
    point_depth_m: FloatArray
    point_log_sigma: FloatArray | None = None


def make_frame(
    scene: Scene, view: PosedView, photo: ImageArray, long_edge_px: int, log_sigmas: FloatArray | None = None
) -> Frame:
    """Undistort and reduce a photo ([H, W, 3], as taken) and find the map points in it. Photos are never enlarged.

    ``log_sigmas`` [M] of the depths of ``view.point_ids`` (:func:`recon.mapping.uncertainty.depth_log_sigmas`).
    """
    target = min(long_edge_px, max(view.camera.width_px, view.camera.height_px))
    unified = unify(photo, view.camera, ImageProfile("long_edge", float(target)))
    ids, pixels, depth = project_points(scene, view, unified.camera)
    sigmas = None
    if log_sigmas is not None:
        of_point = np.full(len(scene.points_world), np.inf)
        np.minimum.at(of_point, view.point_ids, log_sigmas)
        sigmas = of_point[ids]
    return Frame(
        view.name, unified.pixels, unified.camera, view.camera, view.cam_from_world, ids, pixels, depth, sigmas
    )


def project_points(
    scene: Scene, view: PosedView, camera: Camera
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Ids [M], pixels [M, 2] and z-depths [M] of the map points that ``view`` sees, in its undistorted image."""
    ids = np.unique(view.point_ids)
    ids = ids[(ids >= 0) & (ids < len(scene.points_world))]
    points = scene.points_world[ids].reshape(-1, 3)
    points_cam = points @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
    pixels = pinhole.project(camera, points_cam)
    inside = (
        (points_cam[:, 2] > 0)
        & (pixels[:, 0] >= 0)
        & (pixels[:, 1] >= 0)
        & (pixels[:, 0] < camera.width_px)
        & (pixels[:, 1] < camera.height_px)
    )
    return ids[inside], pixels[inside], points_cam[inside, 2]


def choose_neighbours(
    scene: Scene, num_neighbours: int, min_angle_deg: float, max_angle_deg: float
) -> dict[str, tuple[str, ...]]:
    """For every view the names of those to match it with, best first.

    Score of a pair: its common points, each counted by how useful its triangulation angle is (as in MVSNet, Yao et al.
    2018: full around 10 degrees, falling quickly below and slowly above; none outside the given range).
    """
    views, num_points = scene.views, len(scene.points_world)
    seen = [np.unique(view.point_ids[(view.point_ids >= 0) & (view.point_ids < num_points)]) for view in views]
    rows = np.repeat(np.arange(len(views)), [len(ids) for ids in seen])
    columns = np.concatenate(seen) if seen else np.empty(0, dtype=np.int64)
    sees = csr_matrix((np.ones(len(rows), dtype=np.int32), (rows, columns)), shape=(len(views), num_points))
    common_count = (sees @ sees.T).tocsr()  # [V, V], points in common
    chosen = {}
    for i, view in enumerate(views):
        others, counts = common_count[i].indices, common_count[i].data
        candidates = others[(counts >= _MIN_COMMON_POINTS) & (others != i)]
        counts = counts[(counts >= _MIN_COMMON_POINTS) & (others != i)]
        # Beyond several times the number wanted only pairs with few points in common are left.
        candidates = candidates[np.argsort(-counts, kind="stable")][: _CANDIDATES_PER_NEIGHBOUR * num_neighbours]
        scores = []
        for k in candidates:
            points = scene.points_world[np.intersect1d(seen[i], seen[k], assume_unique=True)]
            angle_deg = _angles_deg(points - view.centre_world, points - views[k].centre_world)
            width = np.where(angle_deg < 10.0, 4.0, 15.0)
            value = np.exp(-((angle_deg - 10.0) ** 2) / (2 * width**2))
            value[(angle_deg < min_angle_deg) | (angle_deg > max_angle_deg)] = 0.0
            if (value > 0).sum() >= _MIN_COMMON_POINTS:
                scores.append((-float(value.sum()), views[k].name))
        chosen[view.name] = tuple(name for _, name in sorted(scores)[:num_neighbours])
    return chosen


def _angles_deg(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    dot = np.einsum("nd,nd->n", first, second)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.degrees(np.arccos(np.clip(dot / np.maximum(lengths, 1e-12), -1.0, 1.0)))
