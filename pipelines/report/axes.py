"""Which way is up in a scene, and from where to look at it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from recon.types import Scene

Float64Array = NDArray[np.float64]

_ONE_WAY = 0.5  # length of the mean of the photos' viewing directions
_LEVEL = 0.2  # of the photos' right vectors in the second direction, relative to the first: they span a plane


@dataclass(frozen=True)
class Axes:
    """Unit vectors of a right-handed frame for looking at a scene, and how sure ``up`` is, in words."""

    right: Float64Array
    ahead: Float64Array
    up: Float64Array
    up_from: str

    @property
    def matrix(self) -> Float64Array:
        """[3, 3]: ``map_from_world``; x to the right and y up on a map seen from above, z the height."""
        return np.stack([self.right, self.ahead, self.up])


@dataclass(frozen=True)
class Viewpoint:
    """Where the view starts: it looks at ``target`` from the side of ``direction`` (unit vector), as far away as it
    takes to have the ``corners`` [8, 3] of the scene's middle in sight; ``size`` is their largest distance.
    """

    target: Float64Array
    direction: Float64Array
    corners: Float64Array
    size: float


def find_axes(scene: Scene, points: Float64Array) -> Axes:
    """East, north and up where the map is georeferenced; otherwise up from how the photos were held.

    People hold cameras level: the direction at right angles to all photos' right sides is up. Photos that were all
    turned the same way leave that open; then it's the mean of the photos' own up. ``points`` [N, 3] of the surface
    decide what lies across the map: their longest extent.
    """
    if scene.georeference is not None:
        x, y, z = np.eye(3)
        return Axes(x, y, z, "GPS")
    rotations = np.array([view.cam_from_world[:, :3] for view in scene.views]).reshape(-1, 3, 3)
    mean_up = -rotations[:, 1].sum(axis=0)
    _, spread, directions = np.linalg.svd(rotations[:, 0])
    up, up_from = mean_up, "the photos' mean up"
    if len(spread) == 3 and spread[1] > _LEVEL * spread[0]:
        level = directions[2] * (np.sign(directions[2] @ mean_up) or 1.0)
        if level @ mean_up > 0.3 * np.linalg.norm(mean_up) or np.linalg.norm(mean_up) < 0.3 * len(rotations):
            up, up_from = level, "the photos' horizon"
    length = np.linalg.norm(up)
    up = up / length if length > 1e-9 else np.array([0.0, -1.0, 0.0])
    spots = points if len(points) >= 3 else np.array([view.centre_world for view in scene.views]).reshape(-1, 3)
    right = _along(spots, up)
    ahead = np.cross(up, right)
    if ahead @ rotations[:, 2].sum(axis=0) < 0:  # photos mostly look up the map
        right, ahead = -right, -ahead
    return Axes(right, ahead, up, up_from)


def _along(points: Float64Array, up: Float64Array) -> Float64Array:
    """The longer side of the least rectangle around the middle of the points as seen from above."""
    first = np.cross(up, [0.0, 0.0, 1.0] if abs(up[2]) < 0.9 else [1.0, 0.0, 0.0])
    first = first / np.linalg.norm(first)
    second = np.cross(up, first)
    flat = (points - np.median(points, axis=0)) @ np.stack([first, second], axis=1)  # [N, 2]
    away = np.linalg.norm(flat, axis=1)
    flat = flat[away <= np.percentile(away, 97)]
    _, (width, height), angle_deg = cv2.minAreaRect(flat.astype(np.float32))
    angle = np.radians(angle_deg + (0.0 if width >= height else 90.0))
    return np.cos(angle) * first + np.sin(angle) * second


def extents(points: Float64Array, axes: Axes) -> Float64Array:
    """Width, depth and height [3] of the middle 96 % of the points in each direction of the map."""
    placed = points @ axes.matrix.T
    low, high = np.percentile(placed, [2, 98], axis=0)
    return high - low


def find_viewpoint(scene: Scene, points: Float64Array, axes: Axes) -> Viewpoint:
    """From where the photos were taken when most look the same way; from high up when they look all around."""
    placed = points @ axes.matrix.T
    low, high = np.percentile(placed, [8, 92], axis=0)
    middle, half = (low + high) / 2, (high - low) / 2 / 0.94
    signs = np.stack(np.meshgrid(*[[-1, 1]] * 3, indexing="ij"), axis=-1).reshape(8, 3)
    looks = np.array([view.cam_from_world[2, :3] for view in scene.views]).reshape(-1, 3)
    look = looks.mean(axis=0) if len(looks) else np.zeros(3)
    level = look - (look @ axes.up) * axes.up
    strength = float(np.linalg.norm(level))
    one_way = strength > _ONE_WAY
    sideways = -level / strength if one_way else (-0.85 * axes.ahead + 0.5 * axes.right) / np.hypot(0.85, 0.5)
    height = np.radians(20.0 if one_way else 48.0)
    direction = np.cos(height) * sideways + np.sin(height) * axes.up
    size = 2 * float(np.linalg.norm(half)) or 1.0
    return Viewpoint(middle @ axes.matrix, direction, (middle + signs * half) @ axes.matrix, size)
