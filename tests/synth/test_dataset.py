"""Random views and pairs: determinism, splits, metric plausibility, correspondence."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from recon.synth.dataset import (
    MIN_OVERLAP,
    look_at,
    make_room,
    random_pair,
    random_view,
    render_view,
    split_of,
    split_seed,
    true_correspondence,
)
from recon.synth.render import SynthView
from recon.types import Camera


def _centres(view: SynthView, step: int) -> np.ndarray:
    """Pixel centres on a grid, [N, 2]."""
    x, y = np.meshgrid(np.arange(0, view.camera.width_px, step) + 0.5, np.arange(0, view.camera.height_px, step) + 0.5)
    return np.stack([x.ravel(), y.ravel()], -1)


def test_splits_are_disjoint_and_fixed_for_good():
    seeds = {split: [split_seed(split, k) for k in range(500)] for split in ("train", "validation", "test")}
    for split, numbers in seeds.items():
        assert len(set(numbers)) == 500
        assert {split_of(seed) for seed in numbers} == {split}
    assert set(seeds["train"]).isdisjoint(seeds["validation"])
    assert set(seeds["test"]).isdisjoint(seeds["train"] + seeds["validation"])
    assert sorted(seeds["train"])[:19] == [*range(18), 20]
    assert (seeds["validation"][:2], seeds["test"][:2]) == ([18, 38], [19, 39])
    with pytest.raises(ValueError, match="train, validation or test"):
        split_seed("tests", 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        split_seed("train", -1)


def test_a_seed_gives_the_same_view_again_and_another_seed_another():
    one, again, other = random_view(12, 80, 60, 60.0), random_view(12, 80, 60, 60.0), random_view(13, 80, 60, 60.0)
    for name in ("image", "depth_m", "normals_world", "object_id", "cam_from_world"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert one.camera == again.camera
    assert not np.array_equal(one.depth_m, other.depth_m)
    digests = {hashlib.sha256(make_room(seed).centre_world_m.tobytes()).hexdigest() for seed in range(30)}
    assert len(digests) == 30


def test_rooms_have_things_of_true_size():
    heights, doors = [], []
    for seed in range(40):
        world = make_room(seed)
        names = np.array(world.object_names)[world.object_id]
        tops = world.centre_world_m[:, 2] + world.half_m[:, 2]
        for thing in np.unique(world.object_id[names == "table"]):
            flat = (world.object_id == thing) & (world.half_m[:, 2] < 0.03)
            heights.extend(tops[flat & (tops > 0.5)])
        doors.extend(2 * world.half_m[(names == "door") & (world.half_m[:, 2] == 1.0), 2])
        assert 2.4 <= world.room_size_m[2] <= 3.4
    assert len(heights) >= 8
    assert 0.72 <= min(heights) < max(heights) <= 0.76
    assert len(doors) > 30
    assert set(doors) == {2.0}


def test_views_vary_in_size_and_keep_the_asked_focal():
    views = [random_view(seed, focal_px=60.0) for seed in range(12)]
    assert {view.camera.focal_px for view in views} == {60.0}
    assert len({view.image.shape for view in views}) > 5
    depths = np.concatenate([view.depth_m.ravel() for view in views])
    assert np.all(np.isfinite(depths))
    assert depths.min() > 0.05
    assert depths.max() < 15
    heights = [view.centre_world_m[2] for view in views]
    assert 0.3 < min(heights) < max(heights) < 2.2


@pytest.mark.parametrize("seed", range(6))
def test_pairs_overlap_and_their_points_agree_in_space(seed: int):
    view1, view2 = random_pair(seed, 120, 90, 95.0)
    for first, second in ((view1, view2), (view2, view1)):
        pixels = _centres(first, 3)
        other, visible = true_correspondence(first, second, pixels)
        assert visible.mean() > MIN_OVERLAP
        inside = (other[visible] >= 0) & (other[visible] <= [second.camera.width_px, second.camera.height_px])
        assert inside.all()
        # Back again: the round trip ends where it began, for all that the first view sees through its pixel's centre.
        back, seen = true_correspondence(second, first, np.clip(other[visible], 0, [119.999, 89.999]))
        error = np.linalg.norm(back - pixels[visible], axis=1)
        assert np.mean(error < 0.05) > 0.88  # the rest lies on edges within a pixel; 0.93 is the worst of the six
        assert seen.mean() > 0.88


def _world_points(view: SynthView, pixels: np.ndarray) -> np.ndarray:
    fx, fy, cx, cy = view.camera.fx_fy_cx_cy
    rays = np.stack([(pixels[:, 0] - cx) / fx, (pixels[:, 1] - cy) / fy, np.ones(len(pixels))], -1)
    column, row = np.floor(pixels).astype(int).T
    points = rays * view.depth_m[row, column, None]
    return (points - view.cam_from_world[:, 3]) @ view.cam_from_world[:, :3]


def test_visibility_equals_an_occlusion_test_by_ray_casting():
    """The claimed second view's pixel, rendered alone at exactly the claimed position, shows the same space point."""
    view1, view2 = random_pair(8, 120, 90, 95.0)
    world = make_room(8)
    pixels = _centres(view1, 7)
    other, visible = true_correspondence(view1, view2, pixels)
    points = _world_points(view1, pixels)
    fx, fy, cx, cy = view2.camera.fx_fy_cx_cy
    agree = []
    for (x, y), point, claimed in zip(other, points, visible):
        z = (view2.cam_from_world @ np.append(point, 1.0))[2]
        if not (z > 0 and 0 <= x < 120 and 0 <= y < 90):
            assert not claimed
            continue
        single = Camera.pinhole(1, 1, fx, fy, cx - x + 0.5, cy - y + 0.5)
        hit = render_view(world, single, view2.cam_from_world).depth_m[0, 0]
        agree.append(claimed == (abs(hit - z) < 0.005 * z))
    assert len(agree) > 80
    assert np.mean(agree) > 0.97


def test_correspondence_under_identity_is_identity():
    view = random_view(21, 96, 72, 75.0)
    pixels = np.random.default_rng(0).uniform(0, [96, 72], (200, 2))
    other, visible = true_correspondence(view, view, pixels)
    np.testing.assert_allclose(other, pixels, atol=1e-6)
    assert visible.all()


def test_correspondence_refuses_other_worlds_and_outside_pixels():
    one, other = random_view(1, 48, 36, 40.0), random_view(2, 48, 36, 40.0)
    with pytest.raises(ValueError, match="different worlds"):
        true_correspondence(one, other, np.array([[1.0, 1.0]]))
    with pytest.raises(ValueError, match="inside"):
        true_correspondence(one, one, np.array([[49.0, 1.0]]))
    with pytest.raises(ValueError, match="vertical"):
        look_at(np.zeros(3), np.array([0.0, 0.0, 1.0]))
