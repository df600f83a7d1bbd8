"""Photos of one surface that share nothing on a part of it show two places, if they were compared at all."""

from __future__ import annotations

import numpy as np

from recon.mapping.bundle import BundleState, Observations
from recon.mapping.lookalikes import look_alikes
from recon.mapping.model import MapModel
from recon.types import Camera

CAMERA = Camera.pinhole(640, 480, 500.0, 500.0, 320.0, 240.0)


def wall(common_everywhere: bool) -> MapModel:
    """Two photos of a wall at z = 4 from nearly one place: of 20 points per cell of 80 pixels both see all, or in the
    right half 10 other ones each."""
    rng = np.random.default_rng(0)
    pixels = np.concatenate(
        [rng.uniform(0, 80, (20, 2)) + np.array([80, 80]) * [x, y] for y in range(6) for x in range(8)]
    )
    points = np.column_stack([(pixels - [320, 240]) / 500 * 4, np.full(len(pixels), 4.0)])
    number = np.arange(len(points))
    seen = [number, number]
    if not common_everywhere:
        right = pixels[:, 0] > 320
        seen = [number[~right | (number % 2 == side)] for side in (0, 1)]
    poses = np.stack([np.eye(3, 4), np.eye(3, 4)])
    poses[1, 0, 3] = 0.05
    view = np.repeat([0, 1], [len(seen[0]), len(seen[1])])
    point = np.concatenate(seen)
    nothing = np.full(len(view), np.nan)
    observations = Observations(view, point, pixels[point], nothing, nothing.copy())
    state = BundleState(poses, (CAMERA,), np.zeros(2, dtype=np.int64), points)
    return MapModel(("a", "b"), state, observations, np.zeros((len(points), 3), dtype=np.uint8))


def test_missing_correspondences_tell_two_places() -> None:
    assert look_alikes(wall(common_everywhere=False), [("a", "b")]) == [(0, 1)]
    assert look_alikes(wall(common_everywhere=False), [("b", "a"), ("a", "not in the map")]) == [(0, 1)]
    assert look_alikes(wall(common_everywhere=True), [("a", "b")]) == []


def test_photos_that_were_not_compared_are_not_judged() -> None:
    """Half of a walk of 90 photos, of which a fifth of all pairs was compared, was once thrown out for such a pair."""
    assert look_alikes(wall(common_everywhere=False), []) == []
