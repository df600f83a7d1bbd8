"""Fillings of several photos become one surface; confirmed depth decides, other surfaces stay out of it."""

import dataclasses

import numpy as np

from recon.surface.consensus import agreed, is_filled
from recon.surface.types import DepthMap
from recon.types import Camera

FILL = 0.2
CAMERA = Camera.pinhole(160, 120, 150.0, 150.0, 80.0, 60.0)


def wall(right_m: float, factor: float = 1.0, confidence: float = FILL, distance_m: float = 3.0) -> DepthMap:
    """A wall that leans back (z = 3 + 0.3 y), seen from ``right_m`` metres to the right; its depth times ``factor``."""
    pose = np.eye(3, 4)
    pose[0, 3] = -right_m
    y = (np.arange(120) + 0.5 - 60) / 150
    depth = np.broadcast_to((distance_m / (1 - 0.3 * y))[:, None] * factor, (120, 160)).astype(np.float32)
    color = np.zeros((120, 160, 3), np.uint8)
    return DepthMap(f"{right_m}", depth, np.full((120, 160), confidence, np.float32), CAMERA, pose, color)


def test_fillings_meet_at_their_mean_and_confirmed_depth_decides() -> None:
    truth = wall(0.0).depth_m
    near, far = wall(0.0, 0.97), wall(0.3, 1.03)
    inner = np.s_[10:110, 30:130]  # what both see
    assert np.abs(agreed(near, [far], FILL) / truth - 1)[inner].max() < 0.003
    assert np.abs(agreed(near, [wall(0.3, confidence=0.9)], FILL) / truth - 1)[inner].max() < 0.004
    # one that is far off does not count beside those that agree
    others = [wall(0.2), wall(0.3), wall(0.4, 1.12)]
    assert np.abs(agreed(wall(0.0), others, FILL) / truth - 1)[inner].max() < 0.004


def test_other_surfaces_and_confirmed_pixels_are_left_alone() -> None:
    own = wall(0.0)
    np.testing.assert_array_equal(agreed(own, [wall(0.3, distance_m=2.0)], FILL), own.depth_m)
    np.testing.assert_array_equal(agreed(own, [], FILL), own.depth_m)
    sure = wall(0.0, 0.97, confidence=0.9)
    np.testing.assert_array_equal(agreed(sure, [wall(0.3)], FILL), sure.depth_m)
    unknown = dataclasses.replace(own, depth_m=np.full_like(own.depth_m, np.nan))
    assert not is_filled(unknown, FILL).any()
    assert np.isnan(agreed(unknown, [wall(0.3)], FILL)).all()
    np.testing.assert_array_equal(agreed(own, [unknown], FILL), own.depth_m)
