"""COLMAP models out and in again, ground-truth files, undistortion; features and pairs that feed them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from recon.errors import BadInputError
from recon.interop.colmap import read_ground_truth, read_model, undistort_workspace
from recon.mapping.model import UNKNOWN_SCALE, write_model
from recon.types import PosedView, Scene
from tests.mapping.scenes import HEIGHT, WIDTH, make_scene


def _scene() -> Scene:
    synthetic = make_scene(num_views=3, num_points=40)
    views = []
    for i, view in enumerate(synthetic.capture.views):
        seen = np.flatnonzero(np.isfinite(synthetic.pixels[i]).all(axis=1))
        views.append(PosedView(view.name, synthetic.camera, synthetic.poses[i], seen, synthetic.pixels[i][seen]))
    colors = np.random.default_rng(0).integers(0, 255, (40, 3)).astype(np.uint8)
    return Scene(tuple(views), synthetic.points, colors, np.full(40, 0.25), (), UNKNOWN_SCALE)


def test_model_survives_the_round_trip(tmp_path: Path) -> None:
    scene = _scene()
    write_model(scene, tmp_path / "sparse" / "0", {v.name: 10 + i for i, v in enumerate(scene.views)})

    result = read_model(tmp_path / "sparse" / "0")

    assert [v.name for v in result.views] == [v.name for v in scene.views]
    for ours, read in zip(scene.views, result.views, strict=True):
        np.testing.assert_allclose(read.cam_from_world, ours.cam_from_world, atol=1e-12)
        assert read.camera.params == pytest.approx(ours.camera.params)
        order = np.argsort(read.point_ids)
        np.testing.assert_allclose(read.pixels[order], ours.pixels[np.argsort(ours.point_ids)], atol=1e-9)
    np.testing.assert_allclose(result.points_world, scene.points_world)
    np.testing.assert_array_equal(result.point_colors, scene.point_colors)
    reconstruction = pycolmap.Reconstruction(str(tmp_path / "sparse" / "0"))
    assert sorted(reconstruction.reg_image_ids()) == [10, 11, 12]
    # the convention is COLMAP's own: its projection of a point lands on the keypoint (0.3 px noise)
    image = reconstruction.image(10)
    errors = [
        np.linalg.norm(image.project_point(reconstruction.point3D(p.point3D_id).xyz) - p.xy)
        for p in image.points2D
        if p.has_point3D()
    ]
    assert max(errors) < 2.0


def test_undistorted_workspace(tmp_path: Path) -> None:
    scene = _scene()
    write_model(scene, tmp_path / "sparse" / "0")
    (tmp_path / "images").mkdir()
    for view in scene.views:
        Image.new("RGB", (WIDTH, HEIGHT), (10, 200, 30)).save(tmp_path / "images" / view.name)

    dense = undistort_workspace(tmp_path)

    result = read_model(dense / "sparse")
    assert {view.camera.model for view in result.views} == {"PINHOLE"}
    assert all((dense / "images" / view.name).is_file() for view in result.views)
    assert undistort_workspace(tmp_path) == dense  # again, over what is there
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dense", "images", "sparse"]


def test_unreadable_models(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no readable COLMAP model"):
        read_model(tmp_path)
    scene = dataclasses.replace(_scene(), views=_scene().views[:1])
    write_model(scene, tmp_path / "one")
    (tmp_path / "one" / "images.bin").write_bytes(b"\x01")
    with pytest.raises(BadInputError):
        read_model(tmp_path / "one")


def test_ground_truth_principal_points_move_by_half_a_pixel(tmp_path: Path) -> None:
    entry = {
        "file": "images/a.jpg", "width": 100, "height": 80, "fx": 90.0, "fy": 91.0, "cx": 49.5, "cy": 39.5,
        "distortion": {"model": "OPENCV", "k1": 0.1, "k2": 0.2, "p1": 0.3, "p2": 0.4}, "metric": True,
        "R_cw": np.eye(3).tolist(), "t_cw": [1, 2, 3],
    }  # fmt: skip
    path = tmp_path / "cameras.json"
    path.write_text(json.dumps({"images": [entry], "metric": True}))

    cameras, poses, metric = read_ground_truth(path)

    assert metric
    assert cameras["a.jpg"].params == pytest.approx((90, 91, 50, 40, 0.1, 0.2, 0.3, 0.4))
    np.testing.assert_array_equal(poses["a.jpg"][:, 3], [1, 2, 3])
    path.write_text('{"images": [{"file": "a"}]}')
    with pytest.raises(BadInputError, match=r"cameras\.json"):
        read_ground_truth(path)
