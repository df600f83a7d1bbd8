"""Maps of exact scenes: poses, intrinsics and reasons; and captures of which no map can be made."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from recon.cameras.intrinsics import initial_cameras
from recon.capture.folder import read_capture
from recon.capture.options import CaptureOptions
from recon.errors import MappingError
from recon.evaluation.pose import evaluate_poses
from recon.interop.colmap import read_ground_truth, read_model
from recon.mapping.map import MapOptions, build_map
from recon.types import Camera, RelativePose
from tests.helpers import shared_data
from tests.mapping.scenes import HEIGHT, WIDTH, make_scene, write_workspace

GUESS = Camera("SIMPLE_RADIAL", WIDTH, HEIGHT, (700.0, 320.0, 240.0, 0.0), "prior")


def test_exact_scene_with_a_wrong_focal_guess(tmp_path: Path) -> None:
    scene = make_scene()
    cameras = write_workspace(scene, tmp_path, GUESS, outliers=0.1)

    result = build_map(tmp_path, scene.capture, cameras)

    report = evaluate_poses({v.name: v.cam_from_world for v in result.views}, scene.truth())
    assert report.num_registered == 8
    assert not result.unregistered
    assert report.auc_exact[5] > 0.98  # measured 0.994: the noise is 0.3 px
    assert result.views[0].camera.focal_px == pytest.approx(560, rel=0.01)
    assert result.views[0].camera.focal_source == "refined"
    assert not result.scale.is_known
    written = read_model(tmp_path / "sparse" / "0")
    assert [v.name for v in written.views] == [v.name for v in result.views]
    np.testing.assert_allclose(written.views[3].cam_from_world, result.views[3].cam_from_world, atol=1e-9)


def test_a_shifted_principal_point_is_found_where_cameras_roll(tmp_path: Path) -> None:
    scene = make_scene(num_views=10, num_points=500, noise_px=0.2, centre=(327.0, 236.0))
    cameras = write_workspace(scene, tmp_path, GUESS)

    result = build_map(tmp_path, scene.capture, cameras)

    assert result.views[0].camera.fx_fy_cx_cy[2:] == pytest.approx((327.0, 236.0), abs=1.0)


def test_given_intrinsics_stay(tmp_path: Path) -> None:
    scene = make_scene()
    views = tuple(dataclasses.replace(view, camera=scene.camera) for view in scene.capture.views)
    scene = dataclasses.replace(scene, capture=dataclasses.replace(scene.capture, views=views))
    cameras = write_workspace(scene, tmp_path, scene.camera)

    result = build_map(tmp_path, scene.capture, cameras)

    assert result.views[0].camera.params == pytest.approx(scene.camera.params, abs=1e-9)


def test_runs_repeat_exactly(tmp_path: Path) -> None:
    scene = make_scene(num_views=5)
    results = []
    for run in ("a", "b"):
        cameras = write_workspace(scene, tmp_path / run, GUESS, outliers=0.1)
        results.append(build_map(tmp_path / run, scene.capture, cameras))

    np.testing.assert_array_equal(results[0].points_world, results[1].points_world)
    np.testing.assert_array_equal(results[0].views[4].cam_from_world, results[1].views[4].cam_from_world)


def test_a_photo_of_something_else_is_left_out_with_its_reason(tmp_path: Path) -> None:
    scene = make_scene(num_views=6, num_points=60)
    pixels = scene.pixels.copy()
    pixels[4] = np.random.default_rng(5).uniform(0, HEIGHT, pixels[4].shape)
    scene = dataclasses.replace(scene, pixels=pixels)
    cameras = write_workspace(scene, tmp_path, GUESS)

    result = build_map(tmp_path, scene.capture, cameras)

    assert [view.name for view in result.views] == [f"photo {i:02d}.png" for i in (0, 1, 2, 3, 5)]
    (rejected,) = result.unregistered
    assert rejected.name == "photo 04.png"
    assert "no verified matches" in rejected.reason or "too few or too contradictory" in rejected.reason


def test_wrong_relative_poses_do_no_harm(tmp_path: Path) -> None:
    scene = make_scene()
    cameras = write_workspace(scene, tmp_path, GUESS)
    lie = RelativePose(
        "photo 00.png", "photo 03.png", np.eye(3), np.array([0.0, 0.0, 1.0]), 1.0, 3.0, 5.0, 0.2, "vlm:test"
    )

    result = build_map(tmp_path, scene.capture, cameras, relative_poses=[lie])

    report = evaluate_poses({v.name: v.cam_from_world for v in result.views}, scene.truth())
    assert report.auc_exact[5] > 0.98


def test_scenes_without_any_geometry_say_why(tmp_path: Path) -> None:
    scene = make_scene(num_views=2, num_points=60)
    pixels = np.random.default_rng(0).uniform(0, HEIGHT, scene.pixels.shape)
    scene = dataclasses.replace(scene, pixels=pixels)
    cameras = write_workspace(scene, tmp_path, GUESS)

    with pytest.raises(MappingError, match="no verified matches with any other photo") as caught:
        build_map(tmp_path, scene.capture, cameras)
    assert "\n" not in str(caught.value)


def test_two_equal_photos_make_no_map(tmp_path: Path) -> None:
    scene = make_scene(num_views=2, noise_px=0.0)
    views = tuple(dataclasses.replace(view, content_hash="same") for view in scene.capture.views)
    capture = dataclasses.replace(scene.capture, views=views)
    scene = dataclasses.replace(scene, capture=capture, pixels=np.repeat(scene.pixels[:1], 2, axis=0))
    cameras = write_workspace(scene, tmp_path, GUESS)

    with pytest.raises(MappingError, match="its pixels equal those of"):
        build_map(tmp_path, capture, cameras)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_photos(tmp_path: Path, count: int) -> None:
    scene = make_scene(num_views=2)
    capture = dataclasses.replace(scene.capture, views=scene.capture.views[:count])
    with pytest.raises(MappingError, match="at least 2 photos"):
        build_map(tmp_path, capture, {})


def test_database_of_other_photos_is_refused(tmp_path: Path) -> None:
    scene = make_scene(num_views=3)
    cameras = write_workspace(scene, tmp_path, GUESS)
    fewer = dataclasses.replace(scene.capture, views=scene.capture.views[1:])
    with pytest.raises(Exception, match="made from other photos"):
        build_map(tmp_path, fewer, cameras)


@pytest.mark.slow
def test_fountain_from_photos_alone(tmp_path: Path) -> None:
    folder = shared_data("fountain-P11")
    capture = read_capture(folder / "images", tmp_path / "images", CaptureOptions())
    truth_cameras, truth, metric = read_ground_truth(folder / "gt" / "cameras.json")
    assert metric

    result = build_map(tmp_path, capture, initial_cameras(capture), options=MapOptions())

    report = evaluate_poses({v.name: v.cam_from_world for v in result.views}, truth)
    assert report.num_registered == 11
    assert report.auc_exact[5] >= 0.97  # measured 0.982
    assert report.ate_rmse / report.extent < 1e-3  # measured 1.7e-4
    focal = truth_cameras["0000.jpg"].focal_px
    assert result.views[0].camera.focal_px == pytest.approx(focal, rel=0.01)
    assert pycolmap.Reconstruction(str(tmp_path / "sparse" / "0")).num_reg_images() == 11
