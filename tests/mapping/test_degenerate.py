"""Captures that geometry can't fully solve: each ends in a right map of what can be known, or in a reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from recon.cameras.pinhole import project
from recon.errors import MappingError
from recon.evaluation.pose import evaluate_poses
from recon.evidence.features import verified_counts
from recon.mapping.map import build_map
from recon.mapping.veto import drop_contradicted_pairs
from recon.types import Camera, Scene
from tests.mapping.scenes import HEIGHT, WIDTH, Synthetic, make_scene, write_workspace
from tests.mapping.test_answers import GIVEN, answers


def seen_by(scene: Synthetic, view: int, camera: Camera, pose: np.ndarray, points: np.ndarray, seed: int) -> np.ndarray:
    """Noisy pixels [P, 2] of points [P, 3], NaN where they are out of the picture."""
    pixels = project(camera, points @ pose[:, :3].T + pose[:, 3])
    inside = (pixels >= 0).all(axis=1) & (pixels[:, 0] < WIDTH) & (pixels[:, 1] < HEIGHT)
    noise = np.random.default_rng([seed, view]).normal(0, 0.3, pixels.shape)
    return np.where(inside[:, None], pixels + noise, np.nan)


def with_pixels(scene: Synthetic, poses: np.ndarray, points: np.ndarray, cameras: list[Camera]) -> Synthetic:
    pixels = np.array([seen_by(scene, i, cameras[i], poses[i], points, 7) for i in range(len(poses))])
    return dataclasses.replace(scene, poses=poses, points=points, pixels=pixels)


def score(scene: Synthetic, result: Scene) -> tuple[int, float]:
    """Registered photos, and the AUC@5 among those alone."""
    truth = {v.name: scene.truth()[v.name] for v in result.views}
    return len(result.views), evaluate_poses({v.name: v.cam_from_world for v in result.views}, truth).auc_exact[5]


def test_a_camera_that_only_turns_gives_no_map_and_says_why(tmp_path: Path) -> None:
    scene = make_scene(num_views=5, num_points=300)
    turns = [Rotation.from_euler("yx", [0.08 * i - 0.16, 0.03 * i]).as_matrix() for i in range(5)]
    poses = np.array([np.column_stack([turn, turn @ [0.0, 0.0, 4.0]]) for turn in turns])
    scene = with_pixels(scene, poses, scene.points, [scene.camera] * 5)
    cameras = write_workspace(scene, tmp_path, GIVEN)

    with pytest.raises(MappingError, match="only turned in its place"):
        build_map(tmp_path, scene.capture, cameras)


def test_two_photos_are_a_map(tmp_path: Path) -> None:
    scene = make_scene(num_views=2, num_points=300, arc_deg=14.0)
    result = build_map(tmp_path, scene.capture, write_workspace(scene, tmp_path, GIVEN))
    assert score(scene, result)[0] == 2
    assert score(scene, result)[1] > 0.9
    assert len(result.points_world) > 200


def test_a_plane_is_mapped_right(tmp_path: Path) -> None:
    scene = make_scene(num_views=6, num_points=300)
    points = scene.points * [1.0, 1.0, 0.0]
    scene = with_pixels(scene, scene.poses, points, [scene.camera] * 6)
    views = tuple(dataclasses.replace(view, camera=scene.camera) for view in scene.capture.views)
    scene = dataclasses.replace(scene, capture=dataclasses.replace(scene.capture, views=views))

    result = build_map(tmp_path, scene.capture, write_workspace(scene, tmp_path, scene.camera))

    assert score(scene, result)[0] == 6
    assert score(scene, result)[1] > 0.9


def test_things_that_move_do_not_bend_the_map(tmp_path: Path) -> None:
    scene = make_scene(num_views=6, num_points=300)
    pixels = scene.pixels.copy()
    for i in range(6):  # a fifth of the points drives sideways, a tenth of a unit from photo to photo
        moving = scene.points[:60] + np.array([0.1 * i, 0.05 * i, 0.0])
        pixels[i, :60] = seen_by(scene, i, scene.camera, scene.poses[i], moving, 3)
    scene = dataclasses.replace(scene, pixels=pixels)

    result = build_map(tmp_path, scene.capture, write_workspace(scene, tmp_path, GIVEN))

    assert score(scene, result)[0] == 6
    assert score(scene, result)[1] > 0.95


def test_two_cameras_and_a_zoom(tmp_path: Path) -> None:
    """Photos of a second camera key have half the first one's focal length again; both are guessed alike."""
    scene = make_scene(num_views=8, num_points=400)
    zoomed = Camera("SIMPLE_RADIAL", WIDTH, HEIGHT, (840.0, 320.0, 240.0, 0.02), "given")
    scene = with_pixels(scene, scene.poses, scene.points, [scene.camera if i < 4 else zoomed for i in range(8)])
    views = tuple(
        dataclasses.replace(view, camera_key="wide" if i < 4 else "tele") for i, view in enumerate(scene.capture.views)
    )
    scene = dataclasses.replace(scene, capture=dataclasses.replace(scene.capture, views=views))
    guess = Camera("SIMPLE_RADIAL", WIDTH, HEIGHT, (700.0, 320.0, 240.0, 0.0), "prior")

    result = build_map(tmp_path, scene.capture, write_workspace(scene, tmp_path, guess))

    assert score(scene, result)[0] == 8
    assert score(scene, result)[1] > 0.95
    assert result.views[0].camera.focal_px == pytest.approx(560, rel=0.02)
    assert result.views[7].camera.focal_px == pytest.approx(840, rel=0.02)


def alike(num_views: int = 6) -> Synthetic:
    """A scene with a twin: the first and the last photo see look-alikes of one thing, matched as if they were it.

    Keypoints 0-119 are a thing that photos 0, 1, 2 see, and its copy at another height, which photos 3, 4, 5 see.
    """
    scene = make_scene(num_views=num_views, num_points=300, arc_deg=60.0)
    shifted = scene.points[:120] @ Rotation.from_euler("y", 1.2).as_matrix().T + [0.3, 0.7, 0.6]
    pixels = scene.pixels.copy()
    for i in range(num_views):
        pixels[i, 120:200] = np.nan if i in (0, num_views - 1) else pixels[i, 120:200]
        if i >= num_views // 2:
            pixels[i, :120] = seen_by(scene, i, scene.camera, scene.poses[i], shifted, 5)
    return dataclasses.replace(scene, pixels=pixels)


def test_look_alikes_that_answers_contradict_are_no_pairs(tmp_path: Path) -> None:
    scene = alike()
    first, last = scene.capture.views[0].name, scene.capture.views[5].name
    pixels = scene.pixels.copy()
    pixels[5, 120:] = np.nan  # the ends of the arc share nothing but the look-alike
    pixels[0, 120:200] = np.nan
    scene = dataclasses.replace(scene, pixels=pixels)
    cameras = write_workspace(scene, tmp_path, GIVEN)
    assert verified_counts(tmp_path / "database.db")[first, last] > 50

    dropped = drop_contradicted_pairs(tmp_path / "database.db", cameras, answers(scene))

    assert (first, last) in dropped
    assert (first, scene.capture.views[1].name) not in dropped
    assert (first, last) not in verified_counts(tmp_path / "database.db")
    # answers that nothing confirms, or that nobody trusts, object to nothing
    single = [p for p in answers(scene) if p.name1 == scene.capture.views[1].name][:1]
    assert drop_contradicted_pairs(tmp_path / "database.db", cameras, single) == []
    assert drop_contradicted_pairs(tmp_path / "database.db", cameras, answers(scene, trusted=False)) == []


def test_a_map_among_look_alikes_is_right_with_answers(tmp_path: Path) -> None:
    scene = alike()
    cameras = write_workspace(scene, tmp_path, GIVEN)
    result = build_map(tmp_path, scene.capture, cameras, relative_poses=answers(scene))
    count, auc = score(scene, result)
    assert count == 6
    assert auc > 0.9


def two_like_places(num_views: int = 5) -> Synthetic:
    """Two places with the same thing on the left (points 0-199) and different ones on the right, photographed alike."""
    scene = make_scene(num_views=num_views, num_points=600, arc_deg=40.0)
    beside = np.where(np.arange(600) < 200, -1.0, 1.0)
    points = np.column_stack([beside * np.abs(scene.points[:, 0]), scene.points[:, 1:]])
    scene = dataclasses.replace(scene, points=points)
    poses = np.concatenate([scene.poses, scene.poses])
    poses[num_views:, :, 3] += [0.05, 0.02, 0.0]
    pixels = np.array([seen_by(scene, i, scene.camera, poses[i], scene.points, 9) for i in range(2 * num_views)])
    pixels[:num_views, 400:] = np.nan
    pixels[num_views:, 200:400] = np.nan
    names = [f"{place}{i}.png" for place in "ab" for i in range(num_views)]
    view = scene.capture.views[0]
    views = tuple(dataclasses.replace(view, name=name, path=Path(name), content_hash=name) for name in names)
    return dataclasses.replace(
        scene, poses=poses, pixels=pixels, capture=dataclasses.replace(scene.capture, views=views)
    )


def test_places_that_look_alike_are_not_laid_on_each_other(tmp_path: Path) -> None:
    scene = two_like_places()
    result = build_map(tmp_path, scene.capture, write_workspace(scene, tmp_path, GIVEN))
    places = {view.name[0] for view in result.views}
    assert len(places) == 1
    assert score(scene, result)[0] == 5
    assert score(scene, result)[1] > 0.95
    assert len(result.unregistered) == 5
    assert all("its place looks like that of" in photo.reason for photo in result.unregistered)
