"""Focal lengths that photos hardly tell: what was known before decides; where they do tell, it changes nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recon.mapping.bundle import BundleState, Observations, adjust
from recon.mapping.focal_priors import FocalPriors, focal_priors
from recon.mapping.model import MapModel
from recon.mapping.refine import refine
from recon.types import Camera, FocalSource
from tests.mapping.scenes import make_scene

FOCAL_PX = 600.0


def _camera(focal_px: float, source: FocalSource) -> Camera:
    return Camera("SIMPLE_RADIAL", 640, 480, (focal_px, 320.0, 240.0, 0.0), source)


def _straight_down(start_focal_px: float) -> MapModel:
    """Nine photos of flat ground from 40 m, straight down: the map of a focal length that is off and a height to match.

    With the image planes parallel to the ground, a longer focal length and a greater height give the same pixels.
    """
    rng = np.random.default_rng(3)
    ground = np.column_stack([rng.uniform(-40, 40, (500, 2)), np.full(500, 40.0)])
    shifts = np.array([(x, y) for x in (-12.0, 0.0, 12.0) for y in (-12.0, 0.0, 12.0)])
    poses = np.concatenate(
        [np.broadcast_to(np.eye(3), (9, 3, 3)), np.column_stack([shifts, np.zeros(9)])[:, :, None]], axis=2
    )
    rows = []
    for view, pose in enumerate(poses):
        in_camera = ground + pose[:, 3]
        pixel = FOCAL_PX * in_camera[:, :2] / in_camera[:, 2:] + (320, 240)
        inside = np.flatnonzero(((pixel > 0) & (pixel < (640, 480))).all(axis=1))
        rows += [(view, point, *(pixel[point] + rng.normal(0, 0.3, 2))) for point in inside]
    table = np.array(rows)
    nothing = np.full(len(table), np.nan)
    observations = Observations(
        table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2:], nothing, nothing.copy()
    )
    higher = ground * (1, 1, start_focal_px / FOCAL_PX)
    state = BundleState(poses, (_camera(start_focal_px, "refined"),), np.zeros(9, dtype=np.int64), higher)
    return MapModel(tuple(f"{i}.jpg" for i in range(9)), state, observations, np.zeros((500, 3), dtype=np.uint8))


@pytest.mark.parametrize("told_by", ["exif", "given"])
def test_photos_of_flat_ground_keep_the_focal_length_that_was_known(told_by: FocalSource) -> None:
    model = _straight_down(1.15 * FOCAL_PX)
    cameras = dict.fromkeys(model.names, _camera(FOCAL_PX, told_by))
    priors = focal_priors(model.names, model.state.camera_of_view, cameras)

    free, _ = refine(model)
    held, _ = refine(model, focal_priors=priors)

    assert abs(free.state.cameras[0].focal_px / FOCAL_PX - 1) > 0.1  # nothing pulls it back
    assert held.state.cameras[0].focal_px == pytest.approx(FOCAL_PX, rel=0.01)


def test_photos_that_tell_the_focal_length_do_not_believe_a_wrong_one() -> None:
    scene = make_scene(num_views=10, num_points=400)  # its focal length is 560 px
    view, point = np.nonzero(np.isfinite(scene.pixels).all(axis=2))
    nothing = np.full(len(view), np.nan)
    observations = Observations(view, point, scene.pixels[view, point], nothing, nothing.copy())
    start = BundleState(
        scene.poses, (_camera(560.0, "refined"),), np.zeros(len(scene.poses), dtype=np.int64), scene.points
    )
    priors = FocalPriors.of([_camera(1.2 * 560.0, "exif")])

    result = adjust(start, observations, focal_priors=priors)

    assert result.state.cameras[0].focal_px == pytest.approx(560.0, rel=0.005)


def test_guesses_and_refined_focal_lengths_are_no_priors() -> None:
    priors = FocalPriors.of([_camera(500.0, "prior"), _camera(500.0, "refined")])
    residual, derivative = priors.residuals(np.array([400.0, 900.0]))
    assert not residual.any()
    assert not derivative.any()
    assert priors.joined(np.array([400.0, 900.0]), np.array([50.0, 50.0])) is None


def test_known_and_found_focal_lengths_join_by_their_spreads() -> None:
    priors = FocalPriors.of([_camera(500.0, "exif"), _camera(700.0, "prior")])
    joined = priors.joined(np.array([550.0, 650.0]), np.array([0.03 * 550.0, 30.0]))  # half and half; nothing known
    assert joined == pytest.approx([np.sqrt(500.0 * 550.0), 650.0])
    assert priors.joined(np.array([550.0, 650.0]), np.array([0.5, 30.0])) is None


def test_derivatives_are_those_of_the_residuals() -> None:
    priors = FocalPriors.of([_camera(500.0, "exif"), _camera(700.0, "given")])
    focal, step = np.array([520.0, 640.0]), 1e-3
    difference = priors.residuals(focal + step)[0] - priors.residuals(focal - step)[0]
    np.testing.assert_allclose(priors.residuals(focal)[1], difference / (2 * step), rtol=1e-6)
    assert priors.residuals(np.array([500.0 * np.exp(0.03), 700.0]))[0] == pytest.approx([1.0, 0.0])


def test_priors_belong_to_the_cameras_of_the_map() -> None:
    cameras = {
        "a": _camera(500.0, "exif"),
        "b": _camera(800.0, "given"),
        "c": dataclasses.replace(_camera(500.0, "exif")),
    }
    priors = focal_priors(("a", "b", "c"), np.array([0, 1, 0]), cameras)
    np.testing.assert_array_equal(priors.focal_px, [500.0, 800.0])
    np.testing.assert_array_equal(priors.log_sigma, [0.03, 0.01])
