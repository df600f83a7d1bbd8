"""Planes in a scene's confirmed points: floors, walls, tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon.surface.types import DepthMap

_AROUND = 32  # points that give a point its normal
_FLAT = 0.01  # standard deviation of those points across their plane, relative to the depth, up to which it is one
_ON_PLANE = 0.006  # distance from a plane relative to the depth
_SAME_NORMAL = np.cos(np.radians(25.0))
# Points across their plane that a quadric explains: from this standard deviation and share on the surface is curved.
_BEND, _BEND_SHARE = 0.35 * _ON_PLANE, 0.5
_LEAST_SHARE = 0.012  # of all points that a plane holds
_MOST_PLANES = 24
_TRIES, _TRIED_ON = 300, 3000  # hypotheses per plane, and points that each is tried on


@dataclass(frozen=True)
class Plane:
    """Points X of the world with ``normal`` [3] . X = ``offset``; ``share``: of the confirmed points that lie on it, 0
    where it is known by answers alone.
    """

    normal: NDArray[np.float64]
    offset: float
    share: float


def depth_on(plane: Plane, view: DepthMap, x: NDArray, y: NDArray) -> NDArray[np.float64]:
    """z-depth at which the rays of pixels ``x``, ``y`` meet the plane, NaN where they don't."""
    fx, fy, cx, cy = view.camera.fx_fy_cx_cy
    rotation, translation = view.cam_from_world[:, :3], view.cam_from_world[:, 3]
    normal = rotation @ plane.normal
    distance = plane.offset + float(normal @ translation)  # normal . centre = - normal_cam . translation
    slope = normal[0] * (x - cx) / fx + normal[1] * (y - cy) / fy + normal[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = distance / slope
        return np.where(depth > 0, depth, np.nan)


def planes_in(points: NDArray[np.float64], depths: NDArray[np.float64]) -> list[Plane]:
    """Planes on which many points [N, 3] lie, by consensus, largest first.

    A point's error grows with its depth [N] in its photo, and its normal comes from the points around it. What is a
    piece of something round is left out.
    """
    if len(points) < 20 * _AROUND:
        return []
    normals, flat = _normals(points, depths)
    number = len(points)
    left = np.nonzero(flat)[0]
    rng = np.random.default_rng(0)
    planes: list[Plane] = []
    for _ in range(2 * _MOST_PLANES):
        if len(left) < _LEAST_SHARE * number or len(planes) == _MOST_PLANES:
            break
        tried = left[rng.integers(len(left), size=_TRIES)]
        some = left[rng.permutation(len(left))[:_TRIED_ON]]
        off = np.abs(points[some] @ normals[tried].T - (points[tried] * normals[tried]).sum(axis=1))  # [some, tries]
        fits = (off < _ON_PLANE * depths[some, None]) & (np.abs(normals[some] @ normals[tried].T) > _SAME_NORMAL)
        best = tried[int(fits.sum(axis=0).argmax())]
        normal, offset = normals[best], float(points[best] @ normals[best])
        for _ in range(4):
            on = _on(points[left], depths[left], normals[left], normal, offset)
            if on.sum() < 3:
                break
            normal, offset = _fitted(points[left[on]], depths[left[on]])
        on = _on(points[left], depths[left], normals[left], normal, offset)
        if on.sum() < _LEAST_SHARE * number:
            break
        members = left[on]
        known = any(
            (np.abs(points[members] @ p.normal - p.offset) < 3 * _ON_PLANE * depths[members]).mean() > 0.7
            for p in planes
        )
        if not known and not _is_curved(points[members], depths[members], normal, offset):
            planes.append(Plane(normal, offset, float(on.sum()) / number))
        left = left[~on]
    return planes


def _normals(points: NDArray[np.float64], depths: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Normals [N, 3] from the points around, and where these lie in a plane [N]."""
    _, around = cKDTree(points).query(points, k=_AROUND)
    near = points[around] - points[around].mean(axis=1, keepdims=True)  # [N, k, 3]
    values, vectors = np.linalg.eigh(np.einsum("nki,nkj->nij", near, near) / _AROUND)
    flat = (np.sqrt(np.maximum(values[:, 0], 0)) < _FLAT * depths) & (values[:, 0] < 0.05 * values[:, 1])
    return vectors[:, :, 0], flat


def _on(
    points: NDArray[np.float64],
    depths: NDArray[np.float64],
    normals: NDArray[np.float64],
    normal: NDArray[np.float64],
    offset: float,
) -> NDArray[np.bool_]:
    return (np.abs(points @ normal - offset) < _ON_PLANE * depths) & (np.abs(normals @ normal) > _SAME_NORMAL)


def _is_curved(
    points: NDArray[np.float64], depths: NDArray[np.float64], normal: NDArray[np.float64], offset: float
) -> bool:
    """Whether what lies about a plane is a piece of something round: a quadric explains how far it is from it."""
    across = (points @ normal - offset) / depths
    first = np.linalg.svd(normal[None])[2][1:]  # [2, 3], along the plane
    u, v = first @ (points - points.mean(axis=0)).T
    terms = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)
    terms /= np.sqrt((terms**2).mean(axis=0))
    bend = terms @ np.linalg.lstsq(terms, across, rcond=None)[0]
    return bool(bend.std() > _BEND and bend.var() > _BEND_SHARE * across.var())


def _fitted(points: NDArray[np.float64], depths: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Least-squares plane of points [N, 3] whose errors grow with their depth."""
    weights = depths**-2.0
    centre = np.average(points, axis=0, weights=weights)
    near = (points - centre) * np.sqrt(weights)[:, None]
    normal = np.linalg.eigh(near.T @ near)[1][:, 0]
    return normal, float(normal @ centre)
