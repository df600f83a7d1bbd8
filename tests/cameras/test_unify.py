"""Focal length unification: the published sizes and intrinsics, exact pixel maps, true image content."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.cameras import pinhole
from recon.cameras.unify import ImageProfile, to_source_pixels, to_unified_pixels, unified_camera, unify
from recon.errors import BadInputError
from recon.types import Camera, UnifiedImage
from tests.cameras.strategies import cameras


def test_published_object_case_keeps_the_pixel_shape():
    camera = Camera("PINHOLE", 1024, 768, (902.4662475585938, 901.3929443359375, 511.38848876953125, 383.7367858886719))
    result = unified_camera(camera, ImageProfile("focal", 1000.0, square_pixels=False))
    assert (result.width_px, result.height_px) == (1134, 851)
    np.testing.assert_allclose(
        result.params, [1000.0, 998.8106998731977, 566.6566369135359, 425.2090168765644], rtol=1e-14
    )


def test_published_pose_case_squares_the_pixels():
    # The published case gives sizes and results only (1752x1168 to 2830x1884 at 750 px); these focal lengths are of
    # the small range that leads to them, and no single focal length does.
    camera = Camera("PINHOLE", 1752, 1168, (464.25, 464.85, 875.94, 583.9))
    result = unified_camera(camera, ImageProfile("focal", 750.0))
    assert (result.width_px, result.height_px) == (2830, 1884)
    assert result.params[:2] == (750.0, 750.0)


def test_published_match_case_is_by_the_long_edge():
    camera = Camera.pinhole(600, 400, 700.0, 700.0, 300.0, 200.0)
    result = unified_camera(camera, ImageProfile("long_edge", 1024))
    assert (result.width_px, result.height_px) == (1024, 683)
    unified = unify(np.zeros((400, 600, 3), np.uint8), camera, ImageProfile("long_edge", 1024))
    np.testing.assert_allclose(to_unified_pixels(unified, [[264.0, 24.0]]), [[450.56, 40.96]], rtol=1e-12)


profiles = st.one_of(
    st.builds(ImageProfile, st.just("focal"), st.floats(150, 900), st.booleans()),
    st.builds(ImageProfile, st.just("long_edge"), st.integers(150, 700)),
)


@settings(max_examples=100, deadline=None)
@given(camera=cameras(), profile=profiles)
def test_pixels_map_to_the_photo_and_back(camera, profile):
    target = unified_camera(camera, profile)
    unified = UnifiedImage(np.zeros((target.height_px, target.width_px, 3), np.uint8), target, camera)
    fractions = np.random.default_rng(3).uniform(0, 1, (40, 2))
    points = fractions * [target.width_px, target.height_px]
    there = to_source_pixels(unified, points)
    seen = np.isfinite(there).all(axis=1)
    assert seen.mean() > 0.9
    np.testing.assert_allclose(to_unified_pixels(unified, there[seen]), points[seen], atol=1e-6)
    # the same ray, whichever image names it
    np.testing.assert_allclose(pinhole.rays(camera, there[seen]), pinhole.rays(target, points[seen]), atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(camera=cameras(models=("PINHOLE", "SIMPLE_PINHOLE")), target_px=st.floats(150, 900))
def test_the_whole_photo_is_kept_but_a_fraction_of_a_pixel(camera, target_px):
    result = unified_camera(camera, ImageProfile("focal", target_px))
    fx, fy, cx, cy = result.fx_fy_cx_cy
    assert fx == fy == target_px
    fx0, fy0, cx0, cy0 = camera.fx_fy_cx_cy
    np.testing.assert_allclose([cx / fx, cy / fy], [cx0 / fx0, cy0 / fy0], rtol=1e-12)
    assert 0 <= camera.width_px * target_px / fx0 - result.width_px < 1
    assert 0 <= camera.height_px * target_px / fy0 - result.height_px < 1


def smooth_photo(camera: Camera) -> np.ndarray:
    """A photo of a scene whose colour is a smooth function of the ray."""
    x, y = np.meshgrid(np.arange(camera.width_px) + 0.5, np.arange(camera.height_px) + 0.5)
    rays = pinhole.rays(camera, np.stack([x, y], axis=-1).reshape(-1, 2))[:, :2]
    return ray_colour(rays).reshape(camera.height_px, camera.width_px, 3).round().astype(np.uint8)


def ray_colour(rays: np.ndarray) -> np.ndarray:
    u, v = rays[:, 0], rays[:, 1]
    return 128 + 100 * np.stack([np.sin(3 * u), np.sin(3 * v), np.cos(2 * u + 2 * v)], axis=1)


@pytest.mark.parametrize(
    "mode_target", [("focal", 150.0), ("focal", 401.5), ("long_edge", 200.0), ("long_edge", 333.0)]
)
@pytest.mark.parametrize(
    "camera",
    [
        Camera("PINHOLE", 301, 205, (260.0, 252.0, 149.0, 105.0)),
        Camera("SIMPLE_RADIAL", 301, 205, (260.0, 149.0, 105.0, -0.12)),
        Camera("OPENCV_FISHEYE", 301, 205, (180.0, 180.0, 149.0, 105.0, 0.02, 0.0, 0.0, 0.0)),
    ],
    ids=lambda camera: camera.model,
)
def test_unified_content_is_what_its_camera_says(camera, mode_target):
    unified = unify(smooth_photo(camera), camera, ImageProfile(*mode_target))
    height, width = unified.pixels.shape[:2]
    assert (width, height) == (unified.camera.width_px, unified.camera.height_px)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    points = np.stack([x, y], axis=-1).reshape(-1, 2)
    expected = ray_colour(pinhole.rays(unified.camera, points)[:, :2])
    source = to_source_pixels(unified, points)
    with np.errstate(invalid="ignore"):
        inner = ((source > 4) & (source < [camera.width_px - 4, camera.height_px - 4])).all(axis=1)
    assert inner.mean() > 0.7
    error = np.abs(unified.pixels.reshape(-1, 3) - expected)[inner]
    # measured 1.6 grey levels at most; half a pixel of shift would give 2 to 5 in the mean
    assert error.max() < 2.5
    assert error.mean() < 0.5


def test_reduction_antialiases():
    board = (np.indices((400, 400)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    for model, params in (("PINHOLE", (400.0, 400.0, 200.0, 200.0)), ("SIMPLE_RADIAL", (400.0, 200.0, 200.0, 0.05))):
        unified = unify(board, Camera(model, 400, 400, params), ImageProfile("focal", 90.0))
        inner = unified.pixels[8:-8, 8:-8].astype(int)
        assert abs(inner.mean() - 127.5) < 2
        assert inner.std() < 6, model  # without a filter it would be 127


def test_unseen_areas_are_black():
    camera = Camera("SIMPLE_RADIAL", 200, 200, (150.0, 100.0, 100.0, 0.3))  # pincushion: corners come from outside
    unified = unify(np.full((200, 200, 3), 255, np.uint8), camera, ImageProfile("focal", 150.0))
    assert (unified.pixels[100, 100] == 255).all()
    assert (unified.pixels[0, 0] == 0).all()


def test_an_image_that_needs_nothing_is_not_touched():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    unified = unify(pixels, Camera.pinhole(80, 60, 100.0, 100.0, 40.0, 30.0), ImageProfile("focal", 100.0))
    np.testing.assert_array_equal(unified.pixels, pixels)


@pytest.mark.parametrize("focal_px", [1.0, 1e7])
def test_absurd_focal_lengths_are_refused(focal_px):
    camera = Camera.pinhole(640, 480, focal_px, focal_px, 320.0, 240.0)
    with pytest.raises(BadInputError, match="check the photo's intrinsics"):
        unify(np.zeros((480, 640, 3), np.uint8), camera, ImageProfile("focal", 1000.0))


def test_pixels_must_be_of_the_cameras_size():
    camera = Camera.pinhole(640, 480, 500.0, 500.0, 320.0, 240.0)
    with pytest.raises(BadInputError, match="640x480"):
        unify(np.zeros((640, 480, 3), np.uint8), camera, ImageProfile("focal", 300.0))


@pytest.mark.parametrize("arguments", [("edge", 100.0), ("focal", 0.0), ("focal", float("nan"))])
def test_senseless_profiles_are_refused(arguments):
    with pytest.raises(BadInputError, match=r"accepted|positive"):
        ImageProfile(*arguments)
