"""The renderer against closed-form geometry."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recon.synth import raycast
from recon.synth.dataset import look_at, make_room, random_view
from recon.synth.render import Lens, SynthView, render_depth, render_view
from recon.synth.world import Kind, Light, World, WorldBuilder, plain
from recon.types import Camera

CAMERA = Camera.pinhole(64, 48, 50.0, 52.0, 31.3, 24.9)
GREY = ((0.5, 0.5, 0.5), (0.4, 0.4, 0.4), (0.6, 0.6, 0.6))


def _world(*solids: tuple[Kind, tuple[float, float, float], tuple[float, float, float], float]) -> World:
    """A 6 x 6 x 3 m room with solids (kind, centre, size, yaw)."""
    builder = WorldBuilder()
    grey = builder.material(plain("plaster", 0, 1.0, *GREY))
    builder.place("room", 0, 0)
    builder.add(Kind.ROOM, (0, 0, 1.5), (6, 6, 3), grey)
    for kind, centre, size, yaw in solids:
        builder.place("solid", 0, 0)
        builder.add(kind, centre, size, grey, yaw)
    return builder.build((Light((0, 0, 2.8), (1, 1, 1)),), (0.3, 0.3, 0.3), seed=0)


def _rays_world(view: SynthView) -> np.ndarray:
    """Directions with z_cam = 1 through all pixel centres, [H, W, 3]."""
    fx, fy, cx, cy = view.camera.fx_fy_cx_cy
    column, row = np.meshgrid(np.arange(view.camera.width_px) + 0.5, np.arange(view.camera.height_px) + 0.5)
    rays = np.stack([(column - cx) / fx, (row - cy) / fy, np.ones_like(row)], -1)
    return rays @ view.cam_from_world[:, :3]


def _points(view: SynthView) -> np.ndarray:
    return view.centre_world_m + view.depth_m[..., None].astype(np.float64) * _rays_world(view)


def test_depth_of_an_empty_room_is_the_distance_to_its_walls():
    eye = np.array([-1.2, 0.4, 1.5])
    view = render_view(_world(), CAMERA, look_at(eye, np.array([2.0, 1.0, 1.0]), 0.1))
    rays = _rays_world(view)
    with np.errstate(divide="ignore"):
        to_walls = np.where(rays > 0, (np.array([3, 3, 3]) - eye) / rays, (np.array([-3, -3, 0]) - eye) / rays)
    # Measured worst relative error 3e-7: float32.
    np.testing.assert_allclose(view.depth_m, to_walls.min(-1), rtol=2e-6)
    assert view.depth_m.dtype == np.float32


def test_an_axis_aligned_camera_divides_by_no_zero():
    square = Camera.pinhole(5, 5, 5.0, 5.0, 2.5, 2.5)  # the middle pixel looks exactly along +x
    view = render_view(_world(), square, look_at(np.array([0.0, 0.0, 1.5]), np.array([1.0, 0.0, 1.5])))
    np.testing.assert_allclose(view.depth_m, 3.0, rtol=1e-6)
    np.testing.assert_allclose(view.normals_world.reshape(-1, 3), [[-1.0, 0.0, 0.0]] * 25, atol=1e-6)


def test_sphere_cylinder_and_turned_box_have_their_closed_form_surfaces():
    world = _world(
        (Kind.ELLIPSOID, (1.0, 1.0, 1.2), (0.8, 0.8, 0.8), 0.0),
        (Kind.CYLINDER, (1.0, -0.2, 1.0), (0.6, 0.6, 1.4), 0.0),
        (Kind.BOX, (1.0, -1.2, 1.0), (0.5, 0.7, 0.9), 0.5),
    )
    view = render_view(world, CAMERA, look_at(np.array([-2.0, 0.0, 1.9]), np.array([1.0, -0.1, 1.1])))
    points, ids = _points(view), view.object_id
    sphere = points[ids == 1] - [1.0, 1.0, 1.2]
    assert len(sphere) > 30
    np.testing.assert_allclose(np.linalg.norm(sphere, axis=1), 0.4, atol=1e-5)
    np.testing.assert_allclose(view.normals_world[ids == 1], sphere / 0.4, atol=1e-4)
    cylinder = points[ids == 2] - [1.0, -0.2, 1.0]
    side = np.abs(np.hypot(cylinder[:, 0], cylinder[:, 1]) - 0.3) < 1e-5
    cap = np.abs(cylinder[:, 2] - 0.7) < 1e-5
    assert np.all(side | cap)
    assert side.sum() > 30
    assert cap.sum() > 3
    turn = np.array([[np.cos(0.5), np.sin(0.5)], [-np.sin(0.5), np.cos(0.5)]])
    box = points[ids == 3] - [1.0, -1.2, 1.0]
    box[:, :2] = box[:, :2] @ turn.T
    assert len(box) > 30
    np.testing.assert_allclose(np.max(np.abs(box) / [0.25, 0.35, 0.45], axis=1), 1.0, atol=3e-5)


@pytest.mark.parametrize("seed", [0, 3, 11])
def test_normals_are_unit_face_the_camera_and_agree_with_neighbouring_depths(seed: int):
    view = random_view(seed, 96, 72, 75.0)
    length = np.linalg.norm(view.normals_world, axis=-1)
    np.testing.assert_allclose(length, 1.0, atol=1e-4)
    assert np.all((view.normals_world * _rays_world(view)).sum(-1) < 1e-6)
    points = _points(view)
    cross = np.cross(points[1:, :-1] - points[:-1, :-1], points[:-1, 1:] - points[:-1, :-1])
    cross /= np.linalg.norm(cross, axis=-1, keepdims=True)
    agreement = np.abs((cross * view.normals_world[:-1, :-1]).sum(-1))
    assert np.mean(agreement > 0.99) > 0.6  # all but edges between surfaces and round things


def test_culling_and_windows_change_nothing():
    """A pixel rendered alone (its own rectangles, its own cull decisions) equals the same pixel of the full view."""
    world = make_room(4)
    pose = look_at(np.array([0.1, -0.2, 1.5]), np.array([1.0, 0.7, 0.9]), 0.05)
    whole = render_depth(world, CAMERA, pose)
    fx, fy, cx, cy = CAMERA.fx_fy_cx_cy
    rng = np.random.default_rng(0)
    for column, row in zip(rng.integers(0, 64, 40), rng.integers(0, 48, 40)):
        one = Camera.pinhole(1, 1, fx, fy, cx - column, cy - row)
        np.testing.assert_allclose(render_depth(world, one, pose)[0, 0], whole[row, column], rtol=1e-6)


def test_supersampling_smooths_the_picture_and_leaves_geometry_alone():
    world = make_room(6)
    pose = look_at(np.array([0.3, 0.2, 1.5]), np.array([-1.0, -0.8, 0.9]))
    once, more = render_view(world, CAMERA, pose), render_view(world, CAMERA, pose, supersample=3)
    np.testing.assert_array_equal(once.depth_m, more.depth_m)
    np.testing.assert_array_equal(once.object_id, more.object_id)
    assert np.abs(once.image.astype(int) - more.image).max() > 10

    def steps(image: np.ndarray) -> float:
        return float(np.abs(np.diff(image.astype(float), axis=1)).mean())

    assert steps(more.image) < steps(once.image)


def test_texture_level_keeps_far_surfaces_from_aliasing():
    """A far, finely patterned wall seen with few pixels looks like the average of a finely sampled picture."""
    pose = look_at(np.array([-2.5, 0.1, 1.4]), np.array([3.0, 0.0, 1.5]))
    coarse = Camera.pinhole(40, 30, 30.0, 30.0, 20.0, 15.0)
    filtered = render_view(_world(), coarse, pose).image.astype(float)
    truth = render_view(_world(), coarse, pose, supersample=8).image.astype(float)
    assert np.abs(filtered - truth).mean() < 2.5  # grey levels; 1.0 measured


def test_shadows_darken_only_what_the_light_does_not_reach():
    table = (Kind.BOX, (0.0, 0.0, 0.7), (1.2, 1.2, 0.05), 0.0)
    pose = look_at(np.array([-2.2, 0.0, 1.6]), np.array([0.0, 0.0, 0.2]))
    lit, shaded = (render_view(_world(table), CAMERA, pose, shadows=on) for on in (False, True))
    points = _points(lit)
    floor = points[..., 2] < 1e-3
    # The lamp at 2.8 m throws the table's edge at 0.6 m (top at 0.725 m) to 0.6 * 2.8 / 2.075 = 0.81 m on the floor.
    reach = np.abs(points[..., :2]).max(-1)
    darker = lit.image.astype(int).sum(-1) - shaded.image.astype(int).sum(-1)
    assert np.all(darker[floor & (reach < 0.78)] > 20)
    assert np.all(np.abs(darker[floor & (reach > 0.85)]) <= 3)


def test_lens_changes_light_not_geometry():
    world, pose = make_room(2), look_at(np.array([0.0, 0.1, 1.5]), np.array([1.0, 0.6, 1.0]))
    plain_view = render_view(world, CAMERA, pose)
    bright = render_view(world, CAMERA, pose, lens=Lens(exposure=1.6))
    noisy = render_view(world, CAMERA, pose, lens=Lens(noise=4.0, seed=1))
    assert bright.image.mean() > plain_view.image.mean() + 5
    difference = noisy.image.astype(float) - plain_view.image
    middle = (plain_view.image > 30) & (plain_view.image < 225)
    assert difference[middle].std() == pytest.approx(4.0, rel=0.1)
    np.testing.assert_array_equal(plain_view.depth_m, noisy.depth_m)


def test_other_camera_models_are_refused():
    camera = Camera("SIMPLE_RADIAL", 64, 48, (50.0, 32.0, 24.0, 0.1))
    with pytest.raises(ValueError, match="PINHOLE"):
        render_view(_world(), camera, look_at(np.zeros(3) + 1.0, np.array([2.0, 1.0, 1.0])))
    with pytest.raises(ValueError, match="supersample"):
        render_view(_world(), CAMERA, look_at(np.zeros(3) + 1.0, np.array([2.0, 1.0, 1.0])), supersample=0)


def test_the_path_for_gpus_sees_what_the_path_for_cpus_sees(monkeypatch: pytest.MonkeyPatch):
    """All primitives against all pixels in chunks: the same hits as each within its rectangle."""
    monkeypatch.setattr(raycast, "_CHUNK_ELEMENTS", 7 * 64 * 48)
    world = make_room(5)
    pose = random_view(5, 64, 48, 50.0).cam_from_world
    rays = raycast.camera_rays(world, CAMERA, pose)
    depth, owner = raycast.visibility(world, CAMERA, pose, rays)
    other_depth, other_owner = raycast._by_chunk(world, rays)
    np.testing.assert_allclose(other_depth.numpy(), depth.numpy(), rtol=1e-5)  # measured: 3e-6
    assert (owner == other_owner).float().mean() > 0.999
    assert len(owner.unique()) > 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_renders_the_same_picture():
    one, other = (
        render_view(make_room(5), CAMERA, random_view(5, 64, 48, 50.0).cam_from_world, device=device)
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(other.depth_m, one.depth_m, rtol=1e-4)
    assert np.mean(np.abs(other.image.astype(int) - one.image) > 2) < 0.002
    assert np.mean(other.object_id != one.object_id) < 0.002
