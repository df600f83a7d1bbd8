"""A checkpoint's pose answers: wrong ones drop out by their cycles, the others place photos that keypoints do not."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from recon.errors import MappingError
from recon.evaluation.pose import evaluate_poses
from recon.mapping.answers import answered_scale, in_answered_metres, place, pose_factors
from recon.mapping.bundle import BundleOptions, BundleResult, BundleState, Observations
from recon.mapping.map import build_map
from recon.mapping.model import MapModel
from recon.mapping.pose_graph import compose, inverse
from recon.mapping.refine import _balanced
from recon.mapping.triangulate import triangulate
from recon.types import Camera, RelativePose
from tests.mapping.scenes import HEIGHT, WIDTH, Synthetic, make_scene, write_workspace

GIVEN = Camera("SIMPLE_RADIAL", WIDTH, HEIGHT, (560.0, 320.0, 240.0, 0.02), "exif")


def answers(
    scene: Synthetic, seed: int = 0, wrong: tuple[tuple[int, int], ...] = (), trusted: bool = True
) -> list[RelativePose]:
    """All pairs at the published error (0.8 and 1.6 degrees, 10 % of distance); ``wrong`` ones are half a turn off."""
    rng = np.random.default_rng(seed)
    names = [view.name for view in scene.capture.views]
    result = []
    for i, j in combinations(range(len(names)), 2):
        motion = compose(scene.poses[i], inverse(scene.poses[j]))
        length = float(np.linalg.norm(motion[:, 3]))
        turn = Rotation.from_rotvec(rng.normal(0, np.radians(0.8) / np.sqrt(3), 3)).as_matrix()
        direction = motion[:, 3] / length + rng.normal(0, np.radians(1.6) / np.sqrt(2), 3)
        if (i, j) in wrong:
            turn = Rotation.from_rotvec([0, np.pi / 2, 0]).as_matrix()
        result.append(
            RelativePose(
                names[i], names[j], turn @ motion[:, :3], direction / np.linalg.norm(direction),
                length * float(np.exp(rng.normal(0, 0.1))), 0.8, 1.6, 0.1, "vlm:test", trusted,
            )
        )  # fmt: skip
    return result


def model_of(scene: Synthetic, views: list[int], unit: float) -> MapModel:
    """The truth of some photos in another unit, without points."""
    poses = scene.poses[views].copy()
    poses[:, :, 3] /= unit
    none = np.zeros(0, dtype=np.int64)
    state = BundleState(poses, (scene.camera,), np.zeros(len(views), dtype=np.int64), np.zeros((0, 3)))
    observations = Observations(none, none, np.zeros((0, 2)), np.zeros(0), np.zeros(0))
    names = tuple(scene.capture.views[i].name for i in views)
    return MapModel(names, state, observations, np.zeros((0, 3), dtype=np.uint8))


def report(scene: Synthetic, poses: dict[str, NDArray[np.float64]]):
    return evaluate_poses(poses, scene.truth())


def test_answers_alone_place_all_photos_in_metres() -> None:
    scene = make_scene(num_views=6)
    placed = place([v.name for v in scene.capture.views], None, answers(scene, wrong=((0, 1), (2, 5))))
    assert placed is not None
    figures = report(scene, dict(zip(placed.names, placed.poses, strict=True)))
    assert figures.num_registered == 6
    assert figures.auc_exact[5] > 0.5  # measured 0.58: errors of half a degree after averaging
    assert figures.scale == pytest.approx(1.0, abs=0.08)
    assert placed.support.min() >= 2


def test_missing_photos_join_a_model_which_stays_as_it_is() -> None:
    scene = make_scene(num_views=7)
    model = model_of(scene, [0, 2, 3, 5], unit=4.2)
    said = answers(scene, seed=1)
    metres, agreement = answered_scale(model, said)
    assert metres == pytest.approx(4.2, rel=0.1)
    assert agreement == 1.0

    placed = place([v.name for v in scene.capture.views], model, said)

    assert placed is not None
    assert placed.names[:4] == model.names
    np.testing.assert_allclose(placed.poses[:4], in_answered_metres(model, metres).state.poses)
    figures = report(scene, dict(zip(placed.names, placed.poses, strict=True)))
    assert figures.num_registered == 7
    assert figures.median_rotation_deg < 1.0


def test_one_answer_alone_places_nothing() -> None:
    scene = make_scene(num_views=5)
    model = model_of(scene, [0, 1, 2, 3], unit=1.0)
    last = scene.capture.views[4].name
    said = [p for p in answers(scene) if p.name2 != last] + [p for p in answers(scene) if p.name2 == last][:1]
    assert place([v.name for v in scene.capture.views], model, said) is None
    assert place([v.name for v in scene.capture.views], model, []) is None


def test_untrusted_answers_place_and_hold_nothing() -> None:
    scene = make_scene(num_views=4)
    said = answers(scene, trusted=False)
    names = [v.name for v in scene.capture.views]
    assert place(names, None, said) is None
    assert pose_factors(said, {name: i for i, name in enumerate(names)}, scene.poses) is None


def test_factors_are_the_answers_that_close_cycles() -> None:
    scene = make_scene(num_views=6)
    index = {view.name: i for i, view in enumerate(scene.capture.views)}
    bent = scene.poses.copy()  # a map that disagrees with all answers as one does not silence them
    bent[3:, :, :3] = Rotation.from_rotvec([0, 0.3, 0]).as_matrix() @ bent[3:, :, :3]
    factors = pose_factors(answers(scene, wrong=((1, 4),)), index, bent)
    assert factors is not None
    pairs = set(zip(factors.view1.tolist(), factors.view2.tolist(), strict=True))
    assert (1, 4) not in pairs
    assert len(pairs) == 14


def test_triangulation_is_exact_and_refuses_what_lies_behind() -> None:
    scene = make_scene(num_views=4, num_points=50, noise_px=0.0)
    seen = np.isfinite(scene.pixels).all(axis=2)
    view, track = np.nonzero(seen)
    state = BundleState(scene.poses, (scene.camera,), np.zeros(4, dtype=np.int64), np.zeros((0, 3)))
    points, angle = triangulate(state, view, track, scene.pixels[view, track], 51)
    known = np.isfinite(points).all(axis=1)
    assert known[:50].sum() >= 45
    assert not known[50]
    np.testing.assert_allclose(points[:50][known[:50]], scene.points[known[:50]], atol=1e-6)
    assert angle[:50][known[:50]].min() > 5
    turned = scene.poses.copy()
    turned[0, :, :3] = np.diag([1.0, -1.0, -1.0]) @ turned[0, :, :3]
    behind, _ = triangulate(dataclasses.replace(state, poses=turned), view, track, scene.pixels[view, track], 51)
    both = np.bincount(track[view == 0], minlength=51) > 0
    assert np.isnan(behind[both]).any()


def few_matches(scene: Synthetic, tmp_path: Path) -> dict[str, Camera]:
    """A workspace in which every pair shares 9 keypoints at most: too few for COLMAP to verify or to register."""
    cameras = write_workspace(scene, tmp_path, GIVEN)
    rng = np.random.default_rng(0)
    with pycolmap.Database.open(tmp_path / "database.db") as database:
        for pair_id, links in zip(*database.read_all_matches(), strict=True):
            i, j = pycolmap.pair_id_to_image_pair(pair_id)
            database.delete_matches(i, j)
            database.delete_two_view_geometry(i, j)
            database.write_matches(i, j, np.asarray(links)[np.sort(rng.permutation(len(links))[:9])])
    pycolmap.geometric_verification(tmp_path / "database.db")
    return cameras


def test_a_map_where_colmap_finds_none(tmp_path: Path) -> None:
    scene = make_scene(num_views=4, num_points=400, arc_deg=80.0)
    views = tuple(dataclasses.replace(v, path=tmp_path / "images" / v.name) for v in scene.capture.views)
    scene = dataclasses.replace(scene, capture=dataclasses.replace(scene.capture, views=views))
    cameras = few_matches(scene, tmp_path)
    with pytest.raises(MappingError, match="no two photos could be placed"):
        build_map(tmp_path, scene.capture, cameras)

    result = build_map(tmp_path, scene.capture, cameras, relative_poses=answers(scene))

    figures = report(scene, {v.name: v.cam_from_world for v in result.views})
    assert figures.num_registered == 4
    assert figures.auc_exact[5] > 0.5


def test_answers_at_published_error_do_not_hurt_an_exact_map(tmp_path: Path) -> None:
    scene = make_scene(num_views=6)
    cameras = write_workspace(scene, tmp_path, GIVEN)
    result = build_map(tmp_path, scene.capture, cameras, relative_poses=answers(scene))
    figures = report(scene, {v.name: v.cam_from_world for v in result.views})
    assert figures.auc_exact[5] > 0.98
    assert figures.scale == pytest.approx(1.0, abs=0.08)  # the answers' metres


def test_answers_too_coarse_for_maps_are_no_reason_to_give_up_a_map() -> None:
    """A small checkpoint's answers agreed with one another and not with a perfect map, which was thrown away."""
    scene = make_scene(num_views=8)
    names, model = [v.name for v in scene.capture.views], model_of(scene, list(range(8)), unit=2.0)
    others = answers(dataclasses.replace(scene, poses=scene.poses[[0, 5, 2, 7, 4, 1, 6, 3]]))
    coarse = [dataclasses.replace(a, rotation_sigma_deg=16.0, direction_sigma_deg=54.0) for a in others]
    assert answered_scale(model, others)[1] < 0.5
    assert answered_scale(model, coarse)[1] == 1.0
    assert place(names, model, others) is not None
    assert place(names, model, coarse) is None


def test_answers_that_stay_in_contradiction_take_no_weight_from_the_pixels() -> None:
    """Answers of another scene: however little the pixels count, the map does not come nearer to them."""
    scene = make_scene(num_views=8)
    names, model = [v.name for v in scene.capture.views], model_of(scene, list(range(8)), unit=1.0)
    others = answers(dataclasses.replace(scene, poses=scene.poses[[0, 5, 2, 7, 4, 1, 6, 3]]))
    factors = pose_factors(others, {name: i for i, name in enumerate(names)}, model.state.poses)
    assert factors is not None
    before = BundleResult(model.state, np.zeros(0), (), (), 0.0)
    tried = []

    def solve(_: MapModel, options: BundleOptions) -> BundleResult:
        tried.append(options.pixel_sigma)
        return dataclasses.replace(before)

    result, options = _balanced(model, before, BundleOptions(), factors, solve)
    assert max(tried) > BundleOptions().pixel_sigma
    assert result is before
    assert options == BundleOptions()
