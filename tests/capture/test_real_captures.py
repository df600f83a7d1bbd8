"""The import of real captures: EXIF of several makers, GPS, sensor depth."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recon.cameras.intrinsics import initial_cameras
from recon.capture.folder import load_pixels, load_sensor_depth, read_capture
from tests.helpers import shared_data


@pytest.mark.parametrize(
    ("scene", "count", "focal_px", "source"),
    [
        ("brighton-beach-drone", 18, 568.9, "exif"),  # DJI: 20 mm equivalent, 16:9
        ("banana", 16, 1706.7, "exif"),  # Nikon: 60 mm equivalent, 3:2
        ("sceaux-castle", 11, 1035.9, "exif"),  # Kodak: 35 mm equivalent, 4:3; calibrated 1050
        ("lund-street", 16, 1035.4, "exif"),  # Apple: 35 mm equivalent, 4:3
        ("fountain-P11", 11, 1228.8, "prior"),  # no EXIF
        ("fox", 25, 1228.8, "prior"),
        ("dino", 24, 768.0, "prior"),
    ],
)
def test_all_photos_share_one_camera(tmp_path, scene, count, focal_px, source):
    capture = read_capture(shared_data(scene), tmp_path / "images")
    assert len(capture.views) == count
    assert not capture.rejected
    cameras = set(initial_cameras(capture).values())
    assert len(cameras) == 1
    camera = cameras.pop()
    assert camera.focal_px == pytest.approx(focal_px, abs=0.1)
    assert camera.focal_source == source
    pixels = load_pixels(capture.views[0])
    assert pixels.shape == (camera.height_px, camera.width_px, 3)


@pytest.mark.parametrize("scene", ["brighton-beach-drone", "lund-street"])
def test_gps_is_what_the_metadata_says(tmp_path, scene):
    folder = shared_data(scene)
    entries = json.loads((folder / "gt" / "metadata.json").read_text())["images"]
    expected = {entry["file"].removeprefix("images/"): entry for entry in entries}
    for view in read_capture(folder, tmp_path / "images").views:
        assert view.gps is not None
        entry = expected[view.name]
        # the metadata is rounded to eight digits
        assert view.gps.latitude_deg == pytest.approx(entry["gps_lat"], abs=1e-8)
        assert view.gps.longitude_deg == pytest.approx(entry["gps_lon"], abs=1e-8)
        assert view.gps.altitude_m == pytest.approx(entry["gps_alt"], abs=1e-3)


def test_sensor_depth_of_an_rgbd_capture(tmp_path):
    folder = shared_data("redkitchen-a")
    scene = tmp_path / "scene"
    scene.mkdir()
    (scene / "images").symlink_to(folder / "images")
    (scene / "depth").symlink_to(folder / "gt" / "depth")
    capture = read_capture(scene, tmp_path / "w" / "images")
    assert len(capture.views) == 30
    for view in capture.views:
        depth_m = load_sensor_depth(view)
        assert depth_m is not None
        assert depth_m.shape == (480, 640)
        assert 0.4 < np.nanmin(depth_m) < np.nanmax(depth_m) < 10.0  # a kitchen, measured by a Kinect
        assert np.isfinite(depth_m).mean() > 0.5
