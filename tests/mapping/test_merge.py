"""Models that a mapper could not connect, joined by what their photos have matched with one another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from recon.evaluation.pose import evaluate_poses
from recon.evidence.features import to_colmap_camera
from recon.mapping.incremental import _merge, _sensible
from recon.mapping.model import from_reconstruction
from tests.mapping.scenes import Synthetic, make_scene, write_workspace
from tests.mapping.test_answers import GIVEN


def part(scene: Synthetic, photos: range, similarity: pycolmap.Sim3d) -> pycolmap.Reconstruction:
    """The true model of some photos, as the mapper leaves it (no other image in it), in another frame and scale."""
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(to_colmap_camera(scene.camera, 1))
    seen = np.isfinite(scene.pixels).all(axis=2)
    for i in photos:
        name = scene.capture.views[i].name
        image = pycolmap.Image(name=name, keypoints=np.nan_to_num(scene.pixels[i]), camera_id=1, image_id=i + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(scene.poses[i]))
    for point, xyz in enumerate(scene.points):
        elements = [pycolmap.TrackElement(i + 1, point) for i in photos if seen[i, point]]
        if len(elements) >= 2:
            model.add_point3D(xyz, pycolmap.Track(elements), np.zeros(3, dtype=np.uint8))
    model.transform(similarity)
    return model


def test_two_models_become_one(tmp_path: Path) -> None:
    scene = make_scene(num_views=6, num_points=200)
    write_workspace(scene, tmp_path, GIVEN)
    turn = pycolmap.Rotation3d(Rotation.from_euler("xyz", [0.3, -1.0, 2.0]).as_quat())
    first = part(scene, range(3), pycolmap.Sim3d())
    second = part(scene, range(3, 6), pycolmap.Sim3d(0.4, turn, np.array([3.0, -1.0, 2.0])))
    points = first.num_points3D()

    assert _merge(first, second, tmp_path / "database.db")

    joined = from_reconstruction(first)
    assert joined.names == tuple(view.name for view in scene.capture.views)
    assert len(joined.state.points) > points
    report = evaluate_poses(dict(zip(joined.names, joined.state.poses, strict=True)), scene.truth())
    assert report.auc_exact[5] == pytest.approx(1.0, abs=0.01)


def test_models_that_share_no_matches_stay_apart(tmp_path: Path) -> None:
    scene = make_scene(num_views=6, num_points=200)
    pixels = scene.pixels.copy()
    pixels[:3, :100] = np.nan
    pixels[3:, 100:] = np.nan
    write_workspace(Synthetic(scene.capture, scene.camera, scene.poses, scene.points, pixels), tmp_path, GIVEN)
    first, second = (part(scene, photos, pycolmap.Sim3d()) for photos in (range(3), range(3, 6)))

    assert not _merge(first, second, tmp_path / "database.db")
    assert first.num_reg_images() == 3


@pytest.mark.parametrize("focal_px", [-560.0, 0.0, np.nan, np.inf])
def test_a_model_with_a_lens_that_can_not_be_is_none(focal_px: float) -> None:
    scene = make_scene(num_views=3, num_points=50)
    model = part(scene, range(3), pycolmap.Sim3d())
    assert _sensible(model)
    model.camera(1).params = [focal_px, 320.0, 240.0, 0.0]
    assert not _sensible(model)
