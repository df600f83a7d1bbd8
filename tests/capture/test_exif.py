"""Focal length and GPS from EXIF, and nonsense in both."""

from __future__ import annotations

import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from recon.capture.exif import PhotoExif, read_exif, sensor_width_mm
from recon.capture.folder import CaptureOptions, read_capture
from tests.capture.photos import gps_tags, make_exif, picture, save_photo

FOCAL_MM, FOCAL_35MM, WIDTH, HEIGHT, PLANE_X, PLANE_UNIT = 0x920A, 0xA405, 0xA002, 0xA003, 0xA20E, 0xA210
NIKON = {0x010F: "NIKON CORPORATION", 0x0110: "NIKON D3200"}


def exif_of(tmp_path, width: int = 400, height: int = 300, **directories) -> PhotoExif:
    """What is read of a JPEG with these directories."""
    path = save_photo(tmp_path / "photo.jpg", picture(0, width, height), exif=make_exif(**directories))
    with Image.open(path) as image:
        return read_exif(image)


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (450, 300), (300, 300)])
def test_35mm_equivalent_is_by_the_diagonal_as_in_colmap(tmp_path, size):
    result = exif_of(tmp_path, *size, photo={FOCAL_35MM: 28})
    colmap = pycolmap.Bitmap.read(str(tmp_path / "photo.jpg"), True).exif_focal_length()
    expected = 28 * np.hypot(*size) / np.hypot(36, 24)
    assert result.focal_px == pytest.approx(expected)
    assert result.focal_px == pytest.approx(colmap, rel=1e-3)  # COLMAP rounds the diagonal to 43.3 mm
    assert result.notes == ()


def test_35mm_equivalent_of_a_wide_crop_is_by_the_width(tmp_path):
    # a 16:9 drone photo of a 3:2 or 4:3 sensor: the crop takes rows away, not columns
    assert exif_of(tmp_path, 1024, 576, photo={FOCAL_35MM: 20}).focal_px == pytest.approx(20 / 36 * 1024)


def test_focal_plane_resolution_belongs_to_the_original_size(tmp_path):
    plane = {FOCAL_MM: 10, PLANE_X: IFDRational(4000, 2), PLANE_UNIT: 3, WIDTH: 4000, HEIGHT: 3000}  # 20 mm wide
    assert exif_of(tmp_path, photo=plane).focal_px == pytest.approx(10 / 20 * 400)
    assert exif_of(tmp_path, 300, 400, photo={**plane, WIDTH: 3000, HEIGHT: 4000}).focal_px == pytest.approx(200)
    inches = {**plane, PLANE_X: 4000 / 20 * 25.4, PLANE_UNIT: 2}
    assert exif_of(tmp_path, photo=inches).focal_px == pytest.approx(200)
    cropped = {**plane, WIDTH: 4000, HEIGHT: 2000}
    assert exif_of(tmp_path, photo=cropped).focal_px is None


@pytest.mark.parametrize(
    ("make", "model", "width_mm"),
    [
        ("NIKON CORPORATION", "NIKON D3200", 23.2),
        ("Nikon", "D3200", 23.2),
        ("Apple", "iPhone 6", 4.89),
        ("DJI", "FC300S", 6.16),
        ("EASTMAN KODAK COMPANY", "KODAK Z612", 5.75),
        ("Nobody", "No such camera", None),
        ("", "", None),
    ],
)
def test_sensor_database(make, model, width_mm):
    assert sensor_width_mm(make, model) == (pytest.approx(width_mm, abs=0.01) if width_mm else None)


def test_focal_length_in_millimetres_needs_the_sensor(tmp_path):
    assert exif_of(tmp_path, main=NIKON, photo={FOCAL_MM: 40.0}).focal_px == pytest.approx(40 / 23.2 * 400)
    assert exif_of(tmp_path, photo={FOCAL_MM: 40.0}).focal_px is None


@pytest.mark.parametrize(
    ("photo", "note"),
    [
        ({FOCAL_35MM: 1}, "FocalLengthIn35mmFilm gives a focal length of 11.5"),
        ({FOCAL_35MM: 65535}, "accepted: 0.2 to 25 times the longer side"),
        ({FOCAL_35MM: 0}, None),  # EXIF's own word for unknown
        ({FOCAL_MM: IFDRational(0, 0)}, "FocalLength is not a positive number"),
        ({FOCAL_MM: IFDRational(1, 0)}, "FocalLength is not a positive number"),
        ({FOCAL_MM: 0.0}, None),
        ({FOCAL_MM: 1e9, PLANE_X: 3000.0}, "FocalLength with FocalPlaneXResolution gives"),
        ({FOCAL_MM: 10.0, PLANE_X: IFDRational(0, 0)}, None),
        ({FOCAL_MM: 10.0, PLANE_X: 3000.0, PLANE_UNIT: 99}, None),
    ],
)
def test_nonsense_focal_lengths_are_left_out(tmp_path, photo, note):
    result = exif_of(tmp_path, photo=photo)
    assert result.focal_px is None
    assert (note in " ".join(result.notes)) if note else result.notes == ()


def test_a_good_focal_length_replaces_a_nonsense_one(tmp_path):
    result = exif_of(tmp_path, main=NIKON, photo={FOCAL_35MM: 60000, FOCAL_MM: 40.0})
    assert result.focal_px == pytest.approx(40 / 23.2 * 400)
    assert "ignored" in result.notes[0]


# ---------------------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    latitude=st.floats(-89.9, 89.9).filter(lambda value: abs(value) > 1e-3),
    longitude=st.floats(-179.9, 179.9),
    altitude=st.floats(-400, 8000),
)
def test_gps_positions_are_read_back(tmp_path_factory, latitude, longitude, altitude):
    def triple(angle: float) -> tuple:
        angle = abs(angle)
        minutes = (angle - int(angle)) * 60
        return int(angle), int(minutes), (round((minutes - int(minutes)) * 60 * 10_000), 10_000)

    tags = gps_tags(triple(latitude), triple(longitude), "NS"[latitude < 0], "EW"[longitude < 0])
    tags |= {5: b"\x01" if altitude < 0 else b"\x00", 6: IFDRational(round(abs(altitude) * 1000), 1000)}
    result = exif_of(tmp_path_factory.mktemp("gps"), gps=tags)
    assert result.gps is not None
    assert result.gps.latitude_deg == pytest.approx(latitude, abs=1e-7)
    assert result.gps.longitude_deg == pytest.approx(longitude, abs=1e-7)
    assert result.gps.altitude_m == pytest.approx(altitude, abs=1e-3)
    assert result.gps.accuracy_m is None


def test_gps_accuracy(tmp_path):
    tags = gps_tags((55, 41, 53.4), (13, 11, 43.4))
    for value, accuracy_m in ((4.5, 4.5), (IFDRational(0, 0), None)):
        gps = exif_of(tmp_path, gps={**tags, 31: value}).gps
        assert gps is not None
        assert gps.accuracy_m == accuracy_m


@pytest.mark.parametrize(
    ("tags", "note"),
    [
        (gps_tags((91, 0, 0), (10, 0, 0)), "91, 10 is out of range"),
        (gps_tags((45, 0, 0), (181, 0, 0)), "45, 181 is out of range"),
        (gps_tags((45, 99, 0), (10, 0, 0)), "not a number"),
        (gps_tags(((0, 0), (0, 0), (0, 0)), (10, 0, 0)), "not a number"),
        (gps_tags((45, 0, (1, 0)), (10, 0, 0)), "not a number"),
        (gps_tags((45, 0, 0), (10, 0, 0), north="Q"), "not a number"),
        (gps_tags((0, 0, 0), (0, 0, 0)), "exactly 0, 0 (no fix)"),
        ({1: "N", 2: (45.0, 0.0, 0.0)}, "not a number"),
    ],
)
def test_nonsense_positions_are_left_out(tmp_path, tags, note):
    result = exif_of(tmp_path, gps=tags)
    assert result.gps is None
    assert note in " ".join(result.notes)


@pytest.mark.parametrize("altitude", [IFDRational(0, 0), IFDRational(1, 0), 4.0e9])
def test_nonsense_altitudes_keep_the_position(tmp_path, altitude):
    result = exif_of(tmp_path, gps={**gps_tags((45, 0, 0), (10, 0, 0)), 6: altitude})
    assert result.gps is not None
    assert result.gps.altitude_m is None
    assert result.gps.latitude_deg == 45
    assert "altitude" in " ".join(result.notes)


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200), keep=st.integers(0, 60))
def test_damaged_exif_never_fails(data, keep):
    good = make_exif(NIKON, {FOCAL_35MM: 50, FOCAL_MM: 10.0}, gps_tags((45, 0, 0), (10, 0, 0))).tobytes()
    image = Image.fromarray(picture())
    image.info["exif"] = good[: keep * 4] + data
    result = read_exif(image)
    assert result.focal_px is None or 12 <= result.focal_px <= 1600
    assert result.gps is None or abs(result.gps.latitude_deg) <= 90


def test_the_import_notes_nonsense_and_goes_on(tmp_path):
    exif = make_exif(NIKON, {FOCAL_35MM: 65535}, gps_tags((99, 0, 0), (10, 0, 0)))
    save_photo(tmp_path / "scene" / "a.jpg", exif=exif)
    (view,) = read_capture(tmp_path / "scene", tmp_path / "w" / "images").views
    assert view.exif_focal_px is None
    assert view.gps is None
    assert len(view.notes) == 2
    assert "NIKON D3200" in view.camera_key


def test_exif_can_be_left_unread(tmp_path):
    exif = make_exif(
        NIKON,
        {
            FOCAL_35MM: 50,
        },
        gps_tags((45, 0, 0), (10, 0, 0)),
    )
    save_photo(tmp_path / "scene" / "a.jpg", exif=exif)
    (view,) = read_capture(tmp_path / "scene", tmp_path / "w" / "images", CaptureOptions(use_exif=False)).views
    assert view.exif_focal_px is None
    assert view.gps is None


def test_camera_keys_tell_lenses_and_zooms_apart(tmp_path):
    for name, focal in (("a", 50), ("b", 50), ("c", 70)):
        exif = make_exif(NIKON, {FOCAL_35MM: focal, 0xA434: "18-105mm"})
        save_photo(tmp_path / "scene" / f"{name}.jpg", picture(ord(name)), exif=exif)
    views = read_capture(tmp_path / "scene", tmp_path / "w" / "images").views
    assert views[0].camera_key == views[1].camera_key != views[2].camera_key
