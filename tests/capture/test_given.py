"""Known intrinsics beside the photos: COLMAP text and binary, nerfstudio."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from recon.cameras.intrinsics import initial_cameras
from recon.capture.folder import read_capture
from recon.errors import BadInputError
from recon.types import Camera
from tests.capture.photos import make_exif, picture, save_photo

OPENCV = Camera("OPENCV", 64, 48, (60.0, 61.0, 32.5, 24.5, -0.1, 0.02, 0.001, -0.001), "given")
PINHOLE = Camera("PINHOLE", 64, 48, (70.0, 71.0, 31.5, 23.5), "given")


def scene_with_photos(tmp_path: Path, names=("a.jpg", "b.jpg")) -> Path:
    for seed, name in enumerate(names):
        save_photo(tmp_path / "scene" / "images" / name, picture(seed))
    return tmp_path / "scene"


def imported(tmp_path: Path):
    return read_capture(tmp_path / "scene", tmp_path / "w" / "images")


def colmap_model() -> pycolmap.Reconstruction:
    """A model made by pycolmap itself: a.jpg has the OPENCV camera and some points, b.jpg the PINHOLE one."""
    model = pycolmap.Reconstruction()
    for number, (camera, name) in enumerate([(OPENCV, "a.jpg"), (PINHOLE, "b.jpg")], start=1):
        theirs = pycolmap.Camera(camera_id=number, model=camera.model, width=64, height=48, params=list(camera.params))
        model.add_camera_with_trivial_rig(theirs)
        image = pycolmap.Image(name=name, camera_id=number, image_id=number)
        image.points2D = pycolmap.Point2DList([pycolmap.Point2D(np.array([1.0, 2.0]))] * (3 * (number == 1)))
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
    return model


@pytest.mark.parametrize("folder", ["sparse/0", "sparse", "."])
@pytest.mark.parametrize("kind", ["text", "binary"])
def test_colmap_models_are_read(tmp_path, folder, kind):
    scene = scene_with_photos(tmp_path)
    (scene / folder).mkdir(parents=True, exist_ok=True)
    getattr(colmap_model(), f"write_{kind}")(str(scene / folder))
    capture = imported(tmp_path)
    assert capture.view("a.jpg").camera == OPENCV
    assert capture.view("b.jpg").camera == PINHOLE
    assert initial_cameras(capture) == {"a.jpg": OPENCV, "b.jpg": PINHOLE}
    assert capture.view("a.jpg").camera_key != capture.view("b.jpg").camera_key


def test_a_single_camera_is_everyones(tmp_path):
    scene = scene_with_photos(tmp_path)
    (scene / "cameras.txt").write_text("# comment\n1 SIMPLE_RADIAL 64 48 60.5 32 24 -0.05\n")
    capture = imported(tmp_path)
    assert {view.camera for view in capture.views} == {Camera("SIMPLE_RADIAL", 64, 48, (60.5, 32, 24, -0.05), "given")}
    assert len({view.camera_key for view in capture.views}) == 1


def test_cameras_of_a_scaled_photo_are_scaled(tmp_path):
    scene = scene_with_photos(tmp_path)
    (scene / "cameras.txt").write_text("1 PINHOLE 640 480 600 610 320 240\n")
    assert imported(tmp_path).views[0].camera == Camera("PINHOLE", 64, 48, (60.0, 61.0, 32.0, 24.0), "given")


def test_cameras_of_another_shape_are_noted_and_left_out(tmp_path):
    scene = scene_with_photos(tmp_path)
    save_photo(scene / "images" / "tall.jpg", picture(5, 48, 64))
    save_photo(scene / "images" / "turned.jpg", picture(6, 48, 64), exif=make_exif({0x0112: 6}))
    (scene / "cameras.txt").write_text("1 PINHOLE 64 48 60 61 32 24\n")
    capture = imported(tmp_path)
    assert capture.view("tall.jpg").camera is None
    assert "they are for 64x48, the photo is 48x64" in capture.view("tall.jpg").notes[0]
    assert capture.view("turned.jpg").camera is None
    assert "before its EXIF orientation" in capture.view("turned.jpg").notes[0]
    assert capture.view("a.jpg").camera is not None


def nerfstudio(**more) -> dict:
    return {"w": 64, "h": 48, "fl_x": 60.0, "fl_y": 61.0, "cx": 32.5, "cy": 24.5, **more}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (nerfstudio(), Camera("PINHOLE", 64, 48, (60.0, 61.0, 32.5, 24.5), "given")),
        (
            nerfstudio(camera_model="OPENCV", k1=-0.1, k2=0.02, p1=0.001, p2=-0.001),
            OPENCV,
        ),
        (
            nerfstudio(camera_model="OPENCV_FISHEYE", k1=0.1, k2=0.2, k3=0.3, k4=0.4),
            Camera("OPENCV_FISHEYE", 64, 48, (60.0, 61.0, 32.5, 24.5, 0.1, 0.2, 0.3, 0.4), "given"),
        ),
        (
            nerfstudio(k1=0.1, k3=0.01),
            Camera("FULL_OPENCV", 64, 48, (60.0, 61.0, 32.5, 24.5, 0.1, 0, 0, 0, 0.01, 0, 0, 0), "given"),
        ),
        (
            {"w": 64, "h": 48, "camera_angle_x": float(2 * np.arctan(0.5))},
            Camera("PINHOLE", 64, 48, (64.0, 64.0, 32.0, 24.0), "given"),
        ),
    ],
)
def test_nerfstudio_models(tmp_path, entry, expected):
    scene = scene_with_photos(tmp_path)
    (scene / "transforms.json").write_text(json.dumps({**entry, "frames": []}))
    camera = imported(tmp_path).views[0].camera
    assert camera is not None
    assert (camera.model, camera.width_px, camera.height_px) == (expected.model, 64, 48)
    assert camera.params == pytest.approx(expected.params)


def test_nerfstudio_frames_have_their_own(tmp_path):
    scene = scene_with_photos(tmp_path)
    frames = [{"file_path": "./images/a.jpg", **nerfstudio(fl_x=50.0)}, {"file_path": "images/b.jpg"}]
    (scene / "transforms.json").write_text(json.dumps({**nerfstudio(), "frames": frames}))
    capture = imported(tmp_path)
    assert [view.camera.params[0] for view in capture.views] == [50.0, 60.0]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cameras.txt", "1 PINHOLE 64", "is not 'CAMERA_ID MODEL WIDTH HEIGHT PARAMS...'"),
        ("cameras.txt", "1 PINHOLE 64 48 60", "PINHOLE takes 4 parameters, found 1"),
        ("cameras.txt", "1 MAGIC 64 48 60", "camera model 'MAGIC' is not supported.* accepted: .*SIMPLE_PINHOLE"),
        ("cameras.txt", "1 PINHOLE 64 48 nan 60 32 24", "is not a camera"),
        ("cameras.txt", "# nothing", "holds no camera"),
        (
            "cameras.txt",
            "1 PINHOLE 64 48 60 60 32 24\n2 PINHOLE 64 48 60 60 32 24",
            "holds 2 cameras, but no images.txt",
        ),
        ("cameras.txt", "1 PINHOLE 99 48 60 60 32 24", "none of its cameras fits one of the 2 photos"),
        ("cameras.bin", "\x01\0\0\0\0\0\0\0abc", "not readable as COLMAP cameras"),
        ("cameras.bin", "\x7f" * 40, "a count of .* is not plausible"),
        ("transforms.json", "{", "not readable as nerfstudio transforms"),
        ("transforms.json", "[]", "not readable as nerfstudio transforms"),
        ("transforms.json", "{}", "holds no intrinsics"),
        (
            "transforms.json",
            json.dumps(nerfstudio(camera_model="EQUIRECTANGULAR")),
            "'EQUIRECTANGULAR' is not supported",
        ),
        ("transforms.json", json.dumps(nerfstudio(fl_x=-5)), "is not a camera"),
    ],
)
def test_unreadable_intrinsics_stop_with_the_file_named(tmp_path, name, text, message):
    scene = scene_with_photos(tmp_path)
    (scene / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInputError, match=message) as caught:
        imported(tmp_path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
