"""Spreads of map points' depths against formulas and against drawn noise."""

from __future__ import annotations

import numpy as np
import pytest

from recon.cameras.pinhole import project
from recon.mapping.bundle import BundleState
from recon.mapping.model import UNKNOWN_SCALE
from recon.mapping.triangulate import triangulate
from recon.mapping.uncertainty import depth_log_sigmas
from recon.types import Camera, PosedView, Scene

CAMERA = Camera.pinhole(640, 480, 500, 500, 320, 240)


def scene_of(baselines: list[float], points: np.ndarray, pixels: np.ndarray | None = None) -> Scene:
    """Parallel cameras at ``baselines`` along x that all see ``points`` [P, 3]; ``pixels`` [N, P, 2]."""
    views = []
    for i, x in enumerate(baselines):
        pose = np.column_stack([np.eye(3), [-x, 0.0, 0.0]])
        seen = project(CAMERA, points + pose[:, 3]) if pixels is None else pixels[i]
        views.append(PosedView(f"{i}.jpg", CAMERA, pose, np.arange(len(points)), seen))
    return Scene(tuple(views), points, np.zeros((len(points), 3), np.uint8), np.zeros(len(points)), (), UNKNOWN_SCALE)


def test_stereo_follows_the_textbook() -> None:
    """sigma_z / z = sqrt(2) sigma z / (f b) of two parallel cameras; exact pixels count as good to a tenth."""
    points = np.array([[0.5, 0.0, 2.0], [0.5, 0.0, 4.0]])
    sigmas = depth_log_sigmas(scene_of([0.0, 1.0], points))
    expected = np.sqrt(2) * 0.1 * points[:, 2] / 500
    for name in ("0.jpg", "1.jpg"):
        np.testing.assert_allclose(sigmas[name], expected, rtol=0.05)


def test_no_baseline_leaves_depth_open() -> None:
    sigmas = depth_log_sigmas(scene_of([0.0, 0.0], np.array([[0.1, 0.2, 3.0]])))
    assert sigmas["0.jpg"][0] > 10


def test_spread_is_that_of_triangulation_with_noise() -> None:
    """Points drawn with half a pixel of noise: errors over spreads have a standard deviation of one."""
    rng = np.random.default_rng(0)
    truth = np.column_stack([rng.uniform(-1, 2, 3000), rng.uniform(-1, 1, 3000), rng.uniform(3, 12, 3000)])
    baselines = [0.0, 0.4, 0.9]
    exact = scene_of(baselines, truth)
    pixels = np.stack([view.pixels + rng.normal(0, 0.5, view.pixels.shape) for view in exact.views])
    state = BundleState(
        np.array([v.cam_from_world for v in exact.views]), (CAMERA,), np.zeros(3, np.int64), np.zeros((0, 3))
    )
    view, point = np.repeat(np.arange(3), 3000), np.tile(np.arange(3000), 3)
    points, _ = triangulate(state, view, point, pixels.reshape(-1, 2), 3000)
    sigmas = depth_log_sigmas(scene_of(baselines, points, pixels))["1.jpg"]
    error = np.log(points[:, 2] / truth[:, 2]) / sigmas
    assert 1.4826 * np.median(np.abs(error)) == pytest.approx(1.0, abs=0.12)


def test_points_that_fit_badly_are_less_certain() -> None:
    points = np.tile([[0.5, 0.0, 4.0]], (40, 1))
    exact = scene_of([0.0, 0.5, 1.0], points)
    rng = np.random.default_rng(1)
    pixels = np.stack([view.pixels + rng.normal(0, 0.3, view.pixels.shape) for view in exact.views])
    pixels[1, 7] += [0.0, 6.0]
    sigmas = depth_log_sigmas(scene_of([0.0, 0.5, 1.0], points, pixels))["0.jpg"]
    assert sigmas[7] > 3 * np.median(sigmas)
