"""Outdoor blocks: sizes, sky, splits of pairs; and the paths of captures."""

from __future__ import annotations

import numpy as np
import pytest

from recon.synth.block import make_block
from recon.synth.capture import SynthCaptureOptions, capture_views
from recon.synth.correspondence import covisible_share, true_correspondence
from recon.synth.dataset import Scenery, make_world, random_pair, random_view
from recon.synth.gt_mesh import visible_mesh
from recon.synth.render import render_depth
from recon.synth.trajectories import PATHS, PathKind
from recon.types import Camera

CAMERA = Camera.pinhole(64, 48, 52.0, 52.0, 32.0, 24.0)


def test_a_seed_gives_the_same_block_again() -> None:
    one, again, other = make_block(4), make_block(4), make_block(5)
    np.testing.assert_array_equal(one.centre_world_m, again.centre_world_m)
    assert one.materials == again.materials
    assert one.centre_world_m.shape != other.centre_world_m.shape or (one.centre_world_m != other.centre_world_m).any()


def test_blocks_have_things_of_true_size() -> None:
    names: set[str] = set()
    for seed in range(6):
        world = make_block(seed)
        own = np.array(world.object_names)[world.object_id]
        names |= set(own)
        doors = world.half_m[(own == "door") & (world.half_m[:, 2] > 1.0)]
        np.testing.assert_allclose(doors * 2, np.tile([0.95, 0.06, 2.1], (len(doors), 1)))
        bricks = [m.cell_m for m in world.materials if m.cell_m == (0.25, 0.075)]
        assert len(bricks) > 0 or seed != 0
        cars = world.half_m[(own == "car") & (world.half_m[:, 0] > 1.9)] * 2
        assert ((cars[:, 0] >= 3.9) & (cars[:, 0] <= 4.7)).all()
        # facades stand on both sides of the street, none in it
        facades = world.centre_world_m[(own == "building") & (world.half_m[:, 2] > 1.5)]
        assert (facades[:, 0] > 0).any()
        assert (facades[:, 0] < 0).any()
        assert (np.abs(facades[:, 0]) > world.walk_m[0] / 2).all()
    assert {"building", "door", "window", "car", "tree", "lamp post", "sky", "ground", "pavement"} <= names


def test_the_sky_has_no_depth_and_the_ground_has_its_own() -> None:
    world = make_block(2)
    flat = np.array([[1.0, 0, 0, 0], [0, 0, -1.0, 1.6], [0, 1.0, 0, 0]])  # level, along +y, 1.6 m up
    depth = render_depth(world, Camera.pinhole(9, 90, 40.0, 40.0, 4.5, 45.0), flat)
    unknown = np.isnan(depth)
    assert unknown[:5].any()
    assert not unknown[50:].any()
    lowest = depth[-1, 4]  # 1.6 m down at a slope of 44.5 / 40: street (4 mm thick), or a marking on it
    assert lowest == pytest.approx(1.6 / (44.5 / 40), abs=0.02)


def test_views_and_pairs_outdoors_are_usable() -> None:
    for seed in range(3):
        view = random_view(seed, 64, 48, 52.0, scenery="block")
        assert np.isfinite(view.depth_m).mean() > 0.4
        known = view.depth_m[np.isfinite(view.depth_m)]
        assert known.min() > 0.05
        assert 1.0 < np.median(known) < 60
    one, other = random_pair(1, 64, 48, 52.0, scenery="block")
    pixels = np.random.default_rng(0).uniform(0, [64, 48], (400, 2))
    found, visible = true_correspondence(one, other, pixels)
    assert visible.mean() > 0.25
    assert np.isfinite(found[visible]).all()
    sky = np.isnan(one.depth_m[pixels[:, 1].astype(int), pixels[:, 0].astype(int)])
    assert not visible[sky].any()


@pytest.mark.parametrize(
    ("kind", "scenery"),
    [("walk", "room"), ("drone", "room"), ("orbit", "block"), ("walk", "block"), ("drone", "block")],
)
def test_neighbours_on_a_path_share_what_they_see(kind: PathKind, scenery: Scenery) -> None:
    world = make_world(104 if scenery == "room" else 3, scenery)
    poses = PATHS[kind](world, CAMERA, 16, 104)
    assert len(poses) == 16
    np.testing.assert_array_equal(poses, PATHS[kind](world, CAMERA, 16, 104))
    centres = np.array([-pose[:, :3].T @ pose[:, 3] for pose in poses])
    assert world.is_free(centres, 0.1).all()
    depths = [render_depth(world, CAMERA, pose) for pose in poses]
    shares = [covisible_share(depths[k], CAMERA, poses[k], depths[k + 1], CAMERA, poses[k + 1]) for k in range(15)]
    assert min(shares) > 0.25  # measured: 0.27 (walk along a street) to 0.70
    assert np.linalg.norm(centres[8] - centres[0]) > 0.5


def test_a_block_is_captured_with_a_mesh_of_what_is_seen() -> None:
    options = SynthCaptureOptions(
        num_views=3, path="drone", scenery="block", width_px=64, height_px=48, focal_px=52.0, supersample=1,
        shadows=False, mesh_cell_m=0.0,
    )  # fmt: skip
    world, views = capture_views(7, options)
    mesh = visible_mesh(world, views, 2.0)
    assert len(mesh.faces) > 50
    assert np.abs(mesh.vertices_world_m[:, 2]).max() < 30  # no sky
