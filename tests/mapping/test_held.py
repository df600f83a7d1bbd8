"""When keypoints hold a map and answers about poses confirm it."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

import recon.mapping.map
from recon.mapping.bundle import BundleState, Observations
from recon.mapping.held import is_confirmed
from recon.mapping.incremental import MapperOptions
from recon.mapping.map import _most_agreed
from recon.mapping.model import MapModel, prune
from recon.mapping.pose_graph import compose, inverse
from recon.types import RelativePose
from tests.mapping.scenes import Synthetic, make_scene


def model_of(scene: Synthetic, poses: NDArray[np.float64]) -> MapModel:
    view, point = np.nonzero(np.isfinite(scene.pixels).all(axis=2))
    nothing = np.full(len(view), np.nan)
    observations = Observations(view, point, scene.pixels[view, point], nothing, nothing.copy())
    state = BundleState(poses, (scene.camera,), np.zeros(len(poses), dtype=np.int64), scene.points)
    names = tuple(v.name for v in scene.capture.views)
    return MapModel(names, state, observations, np.zeros((len(scene.points), 3), dtype=np.uint8))


def answers_of(scene: Synthetic) -> list[RelativePose]:
    """Answers about all pairs, a degree off."""
    rng, result = np.random.default_rng(0), []
    for i, j in combinations(range(len(scene.poses)), 2):
        motion = compose(scene.poses[i], inverse(scene.poses[j]))
        turn = Rotation.from_rotvec(np.radians(rng.normal(0, 0.6, 3))).as_matrix()
        length = float(np.linalg.norm(motion[:, 3]))
        names = (scene.capture.views[k].name for k in (i, j))
        result.append(
            RelativePose(*names, turn @ motion[:, :3], motion[:, 3] / length, length, 2.0, 4.0, 0.2, "vlm:test")
        )
    return result


def test_a_map_is_confirmed_photo_by_photo() -> None:
    scene = make_scene(num_views=8, num_points=300)
    names, answers = [v.name for v in scene.capture.views], answers_of(scene)
    good = model_of(scene, scene.poses)
    assert is_confirmed(good, names, answers, [])
    assert not is_confirmed(None, names, answers, [])
    assert not is_confirmed(good, [*names, "left-out.jpg"], answers, [])
    assert not is_confirmed(good, names, [], [])

    bent = scene.poses.copy()  # one photo of eight turned away: seven of its answers object, one of each other's
    bent[3, :, :3] = Rotation.from_euler("y", 25, degrees=True).as_matrix() @ bent[3, :, :3]
    assert not is_confirmed(model_of(scene, bent), names, answers, [])


def test_a_photo_that_few_keypoints_hold_is_not() -> None:
    scene = make_scene(num_views=8, num_points=300)
    full = model_of(scene, scene.poses)
    keep = np.ones(len(full.observations.view), dtype=bool)
    keep[np.flatnonzero(full.observations.view == 2)[40:]] = False
    names = [v.name for v in scene.capture.views]
    assert not is_confirmed(prune(full, keep), names, answers_of(scene), [])
    untrusted = [dataclasses.replace(a, trusted=False) for a in answers_of(scene)]
    assert not is_confirmed(full, names, untrusted, [])


def test_a_map_that_answers_contradict_gives_way_to_one_that_starts_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(num_views=8, num_points=300)
    bent = scene.poses.copy()
    bent[:3, :, :3] = Rotation.from_euler("y", 40, degrees=True).as_matrix() @ bent[:3, :, :3]
    starts = {1: bent, 2: scene.poses}
    tried = []

    def run(database: Path, images: Path, options: MapperOptions, *more: object, **others: object) -> object:
        tried.append(options.seed)
        return model_of(scene, starts[options.seed]), []

    monkeypatch.setattr(recon.mapping.map, "run_mappers", run)
    first, answers = model_of(scene, bent), answers_of(scene)
    paths = tmp_path / "database.db", tmp_path
    chosen = _most_agreed(first, *paths, answers, MapperOptions(), {})
    np.testing.assert_array_equal(chosen.state.poses, scene.poses)
    assert tried == [1, 2]  # and no more: this one agrees
    assert _most_agreed(chosen, *paths, answers, MapperOptions(), {}) is chosen
    assert tried == [1, 2]
