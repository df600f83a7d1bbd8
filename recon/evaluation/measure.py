"""Measuring in a result: where a line of sight meets the surface, and how far two such places are from each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recon.types import MetricScale

_CONE = 0.004  # half opening of a click among points, in radians: about 4 pixels of a screen 1000 px wide


@dataclass(frozen=True)
class Measurement:
    """A distance, in metres when ``metric``, with the 95 % interval that the scale alone leaves (equal to the distance
    when not ``metric``: how long a unit is isn't known). Errors of the surface itself come on top.
    """

    distance: float
    low: float
    high: float
    metric: bool

    def text(self) -> str:
        """One line for people."""
        if not self.metric:
            return f"{self.distance:.4g} units (the scale is unknown)"
        if self.high < 1:
            return f"{100 * self.distance:.4g} cm (95 %: {100 * self.low:.4g} to {100 * self.high:.4g} cm)"
        return f"{self.distance:.4g} m (95 %: {self.low:.4g} to {self.high:.4g} m)"


def measure(first: ArrayLike, second: ArrayLike, scale: MetricScale) -> Measurement:
    """The distance of two places [3] of a map to which ``scale`` has been applied."""
    distance = float(np.linalg.norm(np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)))
    if not scale.is_known:
        return Measurement(distance, distance, distance, False)
    low, high = (distance * bound / scale.metres_per_unit for bound in (scale.low, scale.high))
    return Measurement(distance, low, high, True)


def hit_mesh(
    origin: ArrayLike, direction: ArrayLike, vertices: NDArray[np.floating], faces: NDArray[np.integer]
) -> NDArray[np.float64] | None:
    """The first place [3] where a ray meets a triangle, from either side; None where it meets none.

    ``vertices`` [V, 3], ``faces`` [F, 3]. Möller and Trumbore (1997).
    """
    start, ray = np.asarray(origin, dtype=np.float64), np.asarray(direction, dtype=np.float64)
    corner = vertices[faces[:, 0]]
    edge1, edge2 = vertices[faces[:, 1]] - corner, vertices[faces[:, 2]] - corner
    p = np.cross(ray, edge2)
    determinant = np.einsum("fc,fc->f", edge1, p)
    to_start = start - corner
    q = np.cross(to_start, edge1)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.einsum("fc,fc->f", to_start, p) / determinant
        v = (q @ ray) / determinant
        t = np.einsum("fc,fc->f", edge2, q) / determinant
        t = np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0), t, np.inf)  # [F]; NaN fails every test
    nearest = float(t.min(initial=math.inf))
    return start + nearest * ray if math.isfinite(nearest) else None


def hit_points(origin: ArrayLike, direction: ArrayLike, points: NDArray[np.floating]) -> NDArray[np.float64] | None:
    """The nearest of ``points`` [N, 3] that lies within a few pixels of a line of sight; None where none does."""
    start, ray = np.asarray(origin, dtype=np.float64), np.asarray(direction, dtype=np.float64)
    ray = ray / np.linalg.norm(ray)
    offset = points - start
    along = offset @ ray  # [N]
    aside = np.linalg.norm(offset - along[:, None] * ray, axis=1)
    distance = np.where((along > 0) & (aside <= _CONE * along), along, np.inf)
    nearest = int(distance.argmin()) if len(distance) else 0
    found = len(distance) > 0 and math.isfinite(float(distance[nearest]))
    return np.asarray(points[nearest], dtype=np.float64) if found else None
