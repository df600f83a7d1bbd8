"""Which camera a photo starts with."""

from __future__ import annotations

from pathlib import Path

import pytest

from recon.cameras.intrinsics import CameraOptions, initial_cameras
from recon.cameras.pinhole import MODELS, check_camera
from recon.errors import BadInputError
from recon.types import Camera, Capture, View


def view(name: str, key: str = "k", size: tuple[int, int] = (640, 480), **fields) -> View:
    return View(name, Path(name), name, *size, camera_key=key, **fields)


def test_given_before_exif_before_prior():
    given = Camera.pinhole(640, 480, 500.0, 501.0, 320.0, 240.0)
    capture = Capture(
        (view("a", "1", camera=given, exif_focal_px=600.0), view("b", "2", exif_focal_px=600.0), view("c"))
    )
    cameras = initial_cameras(capture)
    assert cameras["a"] == given
    assert cameras["b"] == Camera("SIMPLE_RADIAL", 640, 480, (600.0, 320.0, 240.0, 0.0), "exif")
    assert cameras["c"] == Camera("SIMPLE_RADIAL", 640, 480, (768.0, 320.0, 240.0, 0.0), "prior")


def test_a_given_focal_length_overrides_exif():
    cameras = initial_cameras(Capture((view("a", exif_focal_px=600.0),)), CameraOptions(focal_px=555.0))
    assert cameras["a"].focal_px == 555.0
    assert cameras["a"].focal_source == "given"


def test_same_key_same_camera_but_sizes_stay_apart():
    views = (view("a"), view("b"), view("c", size=(480, 640)))
    cameras = initial_cameras(Capture(views))
    assert cameras["a"] is cameras["b"]
    assert (cameras["c"].width_px, cameras["c"].height_px) == (480, 640)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_starts_centred_and_straight(model):
    camera = initial_cameras(Capture((view("a"),)), CameraOptions(camera_model=model))["a"]
    check_camera(camera)
    assert camera.fx_fy_cx_cy == (768.0, 768.0, 320.0, 240.0)
    assert not any(camera.distortion)


def test_a_given_camera_of_another_size_is_refused():
    given = Camera.pinhole(320, 240, 500.0, 501.0, 160.0, 120.0)
    with pytest.raises(BadInputError, match=r"a: the given camera is for 320x240, the photo is 640x480"):
        initial_cameras(Capture((view("a", camera=given),)))


@pytest.mark.parametrize(
    "fields",
    [{"camera_model": "PINHOLLE"}, {"focal_px": -1.0}, {"focal_px": float("inf")}, {"prior_focal_factor": 0.0}],
)
def test_senseless_options_are_refused(fields):
    with pytest.raises(BadInputError, match=r"accepted|positive"):
        CameraOptions(**fields)
