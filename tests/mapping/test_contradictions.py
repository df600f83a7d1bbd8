"""What a map makes of all the matches between its photos: right maps explain them, maps bent by look-alikes do not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from recon.mapping.contradictions import explained, explained_matches
from recon.mapping.model import from_scene
from recon.types import MetricScale, PosedView, Scene
from tests.mapping.scenes import Synthetic, make_scene, write_workspace
from tests.mapping.test_answers import GIVEN, answers

UNKNOWN = MetricScale(float("nan"), float("nan"), float("nan"), (), (), ())
NONE = np.zeros(0, dtype=np.int64), np.zeros((0, 2))


def true_map(scene: Synthetic) -> Scene:
    views = tuple(PosedView(name, scene.camera, pose, *NONE) for name, pose in scene.truth().items())
    return Scene(views, np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros(0), (), UNKNOWN)


def turned(scene: Scene, photo: int, degrees: float) -> Scene:
    """The map with one photo carried around the scene, as the twin of a wall would carry it."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    views = list(scene.views)
    views[photo] = dataclasses.replace(views[photo], cam_from_world=views[photo].cam_from_world @ turn)
    return dataclasses.replace(scene, views=tuple(views))


def test_a_right_map_explains_its_matches_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    scene = make_scene(num_views=5, num_points=200)
    write_workspace(scene, tmp_path, GIVEN)
    database = tmp_path / "database.db"
    right, wrong = true_map(scene), turned(true_map(scene), 4, 90.0)

    found = explained(right, database, database)
    assert found.share == pytest.approx(1.0, abs=0.01)

    found = explained(wrong, database, database)
    assert found.share < 0.75  # four of ten pairs are the turned photo's
    assert found.worst is not None
    assert wrong.views[4].name in found.worst
    assert found.worst_matches >= 30


def test_pairs_that_the_map_gave_up_as_look_alikes_do_not_count(tmp_path: Path) -> None:
    scene = make_scene(num_views=3, num_points=200)
    write_workspace(scene, tmp_path, GIVEN)
    features, database = tmp_path / "features.db", tmp_path / "database.db"
    features.write_bytes(database.read_bytes())
    with pycolmap.Database.open(database) as opened:
        for first in (1, 2):
            opened.delete_two_view_geometry(first, 3)
    assert explained(turned(true_map(scene), 2, 90.0), features, database).share == pytest.approx(1.0, abs=0.01)


def test_matches_with_photos_that_were_left_out_do_not_fit(tmp_path: Path) -> None:
    scene = make_scene(num_views=3, num_points=200)
    write_workspace(scene, tmp_path, GIVEN)
    two = dataclasses.replace(true_map(scene), views=true_map(scene).views[:2])
    database = tmp_path / "database.db"
    assert explained(two, database, database).share == pytest.approx(1 / 3, abs=0.01)


def test_answers_that_confirm_a_map_outweigh_its_matches(tmp_path: Path) -> None:
    scene = make_scene(num_views=5, num_points=200)
    wrong = turned(true_map(scene), 4, 90.0)
    poses = np.array([view.cam_from_world for view in wrong.views])
    write_workspace(scene, tmp_path, GIVEN)
    database = tmp_path / "database.db"
    confirming = answers(dataclasses.replace(scene, poses=poses))
    assert explained(wrong, database, database, confirming).share == 1.0
    assert explained(wrong, database, database, answers(scene)).share < 0.75


def test_photos_in_the_wrong_place_make_a_model_no_better(tmp_path: Path) -> None:
    scene = make_scene(num_views=5, num_points=200)
    write_workspace(scene, tmp_path, GIVEN)
    right = true_map(scene)
    four = dataclasses.replace(right, views=right.views[:4])
    told = [
        explained_matches(from_scene(result), tmp_path / "database.db")
        for result in (right, turned(right, 4, 90.0), four, turned(four, 0, 90.0))
    ]
    assert told[0] == pytest.approx(10 * 100, rel=0.01)  # each of ten pairs counts for a hundred
    assert told[2] == pytest.approx(6 * 100, rel=0.01)
    assert told[1] == pytest.approx(told[2], abs=20)  # chance
    assert told[3] == pytest.approx(3 * 100, abs=20)
