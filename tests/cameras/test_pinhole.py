"""Camera models against pycolmap's, and as inverse functions of each other."""

from __future__ import annotations

import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings

from recon.cameras import pinhole
from recon.cameras.remap import warp
from recon.errors import BadInputError
from recon.types import Camera
from tests.cameras.strategies import cameras


def image_points(camera: Camera, count: int = 60) -> np.ndarray:
    generator = np.random.default_rng(7)
    return generator.uniform([0, 0], [camera.width_px, camera.height_px], (count, 2))


@settings(max_examples=60, deadline=None)
@given(camera=cameras())
def test_rays_and_projection_are_colmaps(camera):
    theirs = pycolmap.Camera(
        model=camera.model, width=camera.width_px, height=camera.height_px, params=list(camera.params)
    )
    pixels = image_points(camera)
    rays = pinhole.rays(camera, pixels)
    np.testing.assert_allclose(rays[:, :2], theirs.cam_from_img(pixels), atol=1e-7)  # measured 2e-11, COLMAP's stop
    points = rays * np.linspace(0.5, 9.0, len(rays))[:, None]
    np.testing.assert_allclose(pinhole.project(camera, points), theirs.img_from_cam(points), atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(camera=cameras())
def test_projection_undoes_rays(camera):
    pixels = image_points(camera)
    np.testing.assert_allclose(pinhole.project(camera, pinhole.rays(camera, pixels)), pixels, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(camera=cameras())
def test_ray_depth_and_z_depth(camera):
    pixels = image_points(camera)
    z = np.linspace(0.3, 40.0, len(pixels))
    points = pinhole.unproject(camera, pixels, z)
    np.testing.assert_allclose(points[:, 2], z)
    distance = pinhole.ray_from_z(camera, pixels, z)
    np.testing.assert_allclose(distance, np.linalg.norm(points, axis=1))


def test_ray_depth_at_a_phones_corner_is_a_third_longer():
    camera = Camera.pinhole(1333, 1000, 1000.0, 1000.0, 666.5, 500.0)
    assert pinhole.ray_from_z(camera, [[0.0, 0.0]], [1.0])[0] == pytest.approx(1.302, abs=1e-3)


def test_points_behind_the_camera_have_no_pixel():
    camera = Camera.pinhole(100, 100, 100.0, 100.0, 50.0, 50.0)
    assert np.isnan(pinhole.project(camera, [[0.0, 0.0, -1.0], [0.0, 0.0, 0.0]])).all()
    assert pinhole.project(camera, [[0.0, 0.0, 2.0]]).tolist() == [[50.0, 50.0]]


def test_a_folding_lens_gives_nothing_beyond_its_reach():
    # r (1 - 0.3 r^2) grows up to r = 1.054, where it is 0.703: the corner pixel at 0.9 has no ray
    camera = Camera("SIMPLE_RADIAL", 1800, 1800, (1000.0, 900.0, 900.0, -0.3))
    inside, outside = pinhole.rays(camera, [[1500.0, 900.0], [1800.0, 900.0]])
    assert np.isfinite(inside).all()
    assert np.isnan(outside[:2]).all()
    assert np.isnan(pinhole.project(camera, [[1.5, 0.0, 1.0]])).all()  # COLMAP folds it to x = 1387 px


def test_a_fisheye_ends_at_ninety_degrees():
    camera = Camera("OPENCV_FISHEYE", 1000, 1000, (300.0, 300.0, 500.0, 500.0, 0.0, 0.0, 0.0, 0.0))
    almost, beyond = 500 + 300 * np.radians([89.0, 91.0])
    rays = pinhole.rays(camera, [[almost, 500.0], [beyond, 500.0]])
    assert rays[0, 0] == pytest.approx(np.tan(np.radians(89.0)))
    assert np.isnan(rays[1, 0])


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        (Camera("FOV", 10, 10, (1.0, 1.0, 5.0, 5.0, 0.1)), "not supported; accepted: SIMPLE_PINHOLE"),
        (Camera("PINHOLE", 10, 10, (1.0, 5.0, 5.0)), "takes 4 parameters, found 3"),
        (Camera("PINHOLE", 10, 10, (1.0, float("nan"), 5.0, 5.0)), "must be finite"),
        (Camera("SIMPLE_PINHOLE", 10, 10, (-3.0, 5.0, 5.0)), "positive focal"),
        (Camera("SIMPLE_PINHOLE", 0, 10, (3.0, 5.0, 5.0)), "size must be positive"),
    ],
)
def test_senseless_cameras_are_refused(camera, message):
    with pytest.raises(BadInputError, match=message):
        pinhole.check_camera(camera)


def test_undistorting_an_image_straightens_it():
    camera = Camera("SIMPLE_RADIAL", 320, 240, (300.0, 160.0, 120.0, -0.2))
    target = Camera.pinhole(320, 240, 300.0, 300.0, 160.0, 120.0)
    # a scene whose colour is the ray: photographed with the distorted lens, it must come out linear in x and y
    centres = np.stack(np.meshgrid(np.arange(320) + 0.5, np.arange(240) + 0.5), axis=-1).reshape(-1, 2)
    rays = pinhole.rays(camera, centres)[:, :2].reshape(240, 320, 2)
    photo = np.zeros((240, 320, 3), np.float32)
    photo[..., :2] = rays
    straight, seen = warp(photo, camera, target)
    expected = pinhole.rays(target, centres)[:, :2].reshape(240, 320, 2)
    inner = np.zeros_like(seen)
    inner[2:-2, 2:-2] = True
    assert seen.mean() > 0.85
    # measured 2.2e-4, that is 0.065 px: OpenCV's cubic (a = -0.75) does not keep a ramp exactly
    assert np.abs(straight[..., :2] - expected)[seen & inner].max() < 3e-4
    assert (straight[~seen] == 0).all()
