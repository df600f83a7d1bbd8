"""Maps made with sensor depth: an exact synthetic scene, readings at depth edges, and the real RGB-D sequence."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recon.cameras.intrinsics import initial_cameras
from recon.capture.folder import read_capture
from recon.capture.options import CaptureOptions
from recon.evaluation.pose import evaluate_poses
from recon.interop.colmap import read_ground_truth
from recon.mapping.map import build_map
from recon.mapping.rgbd import map_with_depth
from recon.mapping.rgbd_pairs import RgbdOptions, depth_at
from recon.mapping.scale import estimate_scale
from recon.types import Camera
from tests.helpers import shared_data
from tests.mapping.scenes import HEIGHT, WIDTH, make_scene, write_workspace


def test_depth_is_read_between_edges_only() -> None:
    depth = np.full((10, 10), 2.0, dtype=np.float32)
    depth[:, 5:] = 3.0
    depth[8:, :] = np.nan
    readings = depth_at(depth, np.array([[2.5, 2.5], [5.0, 2.5], [7.5, 2.5], [2.5, 9.5], [0.2, 0.2]]), max_step=0.05)
    np.testing.assert_allclose(readings, [2.0, np.nan, 3.0, np.nan, np.nan])


def test_exact_scene_with_a_guessed_focal_length_is_metric(tmp_path: Path) -> None:
    """Every keypoint has a small patch of true depth; the focal length is 20 % wrong at the start."""
    scene = make_scene(num_views=6, num_points=150, noise_px=0.2)
    views = []
    for i, view in enumerate(scene.capture.views):
        (tmp_path / "images").mkdir(exist_ok=True)
        z = scene.points @ scene.poses[i, 2, :3] + scene.poses[i, 2, 3]
        depth = np.zeros((HEIGHT, WIDTH), dtype=np.uint16)
        for k in np.argsort(-z):  # nearer patches cover farther ones
            if np.isfinite(scene.pixels[i, k]).all():
                column, row = scene.pixels[i, k].astype(int)
                depth[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3] = round(1000 * z[k])
        path = tmp_path / f"{i}.png"
        Image.fromarray(depth).save(path)
        views.append(dataclasses.replace(view, path=tmp_path / "images" / view.name, depth_path=path))
    scene = dataclasses.replace(scene, capture=dataclasses.replace(scene.capture, views=tuple(views)))
    guess = Camera("SIMPLE_RADIAL", WIDTH, HEIGHT, (672.0, 320.0, 240.0, 0.0), "prior")
    cameras = write_workspace(scene, tmp_path, guess)

    model = map_with_depth(tmp_path / "database.db", scene.capture, cameras, RgbdOptions())

    assert model is not None
    report = evaluate_poses(dict(zip(model.names, model.state.poses, strict=True)), scene.truth())
    assert report.num_registered == 6
    # the focal length is one of a list (0.88 of the guess is 591, the truth is 560), so the scene is not exact
    assert report.auc_exact[10] > 0.6
    assert report.scale == pytest.approx(1.0, abs=0.06)


@pytest.mark.slow
def test_real_rgbd_sequence(tmp_path: Path) -> None:
    folder = shared_data("redkitchen-a")
    (tmp_path / "scene").mkdir()
    shutil.copytree(folder / "images", tmp_path / "scene" / "images")
    shutil.copytree(folder / "gt" / "depth", tmp_path / "scene" / "depth")
    capture = read_capture(tmp_path / "scene", tmp_path / "images", CaptureOptions())
    assert all(view.depth_path is not None for view in capture.views)

    scene = build_map(tmp_path, capture, initial_cameras(capture))

    _, truth, _ = read_ground_truth(folder / "gt" / "cameras.json")
    report = evaluate_poses({v.name: v.cam_from_world for v in scene.views}, truth)
    assert report.num_registered == 30
    assert report.auc_exact[10] > 0.62  # measured 0.67; photos alone: 0.50
    assert report.ate_rigid_rmse < 0.05  # metres, measured 0.03
    scale = estimate_scale(scene, capture=capture)
    assert scale.metres_per_unit == pytest.approx(1.0, abs=0.01)
    assert report.scale == pytest.approx(1.0, abs=0.03)
