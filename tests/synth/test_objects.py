"""3D boxes of things against sampled surfaces and hand-computed cases."""

from __future__ import annotations

import numpy as np
import pytest

from recon.synth.dataset import look_at, make_world, random_view
from recon.synth.objects import extents_along, levelled_from_cam, view_objects
from recon.synth.render import render_geometry
from recon.synth.world import Kind, WorldBuilder, plain
from recon.types import Camera

CAMERA = Camera.pinhole(160, 120, 120.0, 120.0, 80.0, 60.0)


def test_the_levelled_frame_is_the_camera_s_without_its_tilt_and_roll() -> None:
    eye = np.array([1.0, 2.0, 1.5])
    pose = look_at(eye, eye + np.array([0.0, 1.0, -0.7]), 0.3)  # looks along +y, down, rolled
    axes_world = levelled_from_cam(pose) @ pose[:, :3]
    np.testing.assert_allclose(axes_world, [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-12)
    down = np.column_stack([np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]]), [0, 0, 5]])  # straight down, top is +y
    np.testing.assert_allclose(levelled_from_cam(down) @ down[:, :3], [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-12)


def test_extents_equal_those_of_sampled_surfaces() -> None:
    """Exact for turned and tilted solids: no sample lies outside, some lie close to the end."""
    builder = WorldBuilder()
    grey = builder.material(plain("plaster", 0, 1.0, (0.5,) * 3, (0.4,) * 3, (0.6,) * 3))
    builder.place("room", 0, 0)
    builder.add(Kind.ROOM, (0, 0, 1.5), (9, 9, 3), grey)
    for kind in (Kind.BOX, Kind.CYLINDER, Kind.ELLIPSOID):
        builder.place(kind.name.lower(), 0, 0, 0.4)
        builder.add(kind, (0.5, 1.0, 1.2), (0.8, 1.4, 0.6), grey, yaw_rad=0.9, tilt_rad=0.5)
    world = builder.build((), (1, 1, 1), 0)
    axes = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    low, high = extents_along(world, axes)
    rng = np.random.default_rng(0)
    for p, kind in enumerate((Kind.ROOM, Kind.BOX, Kind.CYLINDER, Kind.ELLIPSOID)):
        unit = rng.uniform(-1, 1, (40000, 3))
        if kind == Kind.CYLINDER:
            unit[:, :2] /= np.linalg.norm(unit[:, :2], axis=1, keepdims=True)
            unit[:, 2] = np.sign(unit[:, 2])
        elif kind == Kind.ELLIPSOID:
            unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        else:
            unit = np.sign(unit)
        points = ((unit * world.half_m[p]) @ world.local_from_world[p] + world.centre_world_m[p]) @ axes.T
        assert (points.min(0) >= low[p] - 1e-9).all()
        assert (points.max(0) <= high[p] + 1e-9).all()
        np.testing.assert_allclose([points.min(0), points.max(0)], [low[p], high[p]], atol=0.005)


def test_a_box_in_view_has_its_place_and_size() -> None:
    builder = WorldBuilder()
    grey = builder.material(plain("plaster", 0, 1.0, (0.5,) * 3, (0.4,) * 3, (0.6,) * 3))
    builder.place("room", 0, 0)
    builder.add(Kind.ROOM, (0, 0, 1.5), (9, 9, 3), grey)
    builder.place("crate", 0.5, 2.0)
    builder.box((0, 0, 0.4), (0.6, 0.5, 0.8), grey)
    world = builder.build((), (1, 1, 1), 0)
    pose = look_at(np.array([0.0, -1.0, 1.5]), np.array([0.0, 0.0, 1.1]))  # along +y, looking down
    ids = render_geometry(world, CAMERA, pose)[2]
    (crate,) = view_objects(world, CAMERA, pose, ids)
    assert crate.name == "crate"
    np.testing.assert_allclose(crate.low_m, [0.2, 0.7, 2.75], atol=1e-6)  # right, down from 1.5 m, forward
    np.testing.assert_allclose(crate.high_m, [0.8, 1.5, 3.25], atol=1e-6)
    rows, columns = np.nonzero(ids == 1)
    assert crate.box_px == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert crate.visible > 0.9  # 0.95 measured: the projected corners include those at its back
    assert crate.pixels == pytest.approx(np.mean(ids == 1))


@pytest.mark.parametrize("scenery", ["room", "block"])
def test_seen_points_lie_in_the_boxes_of_their_things(scenery: str) -> None:
    seen = 0
    for seed in range(3):
        view = random_view(seed, 120, 90, 95.0, scenery=scenery)  # type: ignore[arg-type]
        world = make_world(seed, scenery)  # type: ignore[arg-type]
        axes = levelled_from_cam(view.cam_from_world)
        fx, fy, cx, cy = view.camera.fx_fy_cx_cy
        x, y = np.meshgrid((np.arange(120) + 0.5 - cx) / fx, (np.arange(90) + 0.5 - cy) / fy)
        points = (np.stack([x, y, np.ones_like(x)], -1) * view.depth_m[..., None]) @ axes.T
        for thing in view_objects(world, view.camera, view.cam_from_world, view.object_id):
            left, top, right, bottom = (int(edge) for edge in thing.box_px)
            inside = view.object_id[top:bottom, left:right]
            counts = {n: int((inside == n).sum()) for n in np.unique(inside)}
            number = next(n for n, count in counts.items() if count == round(thing.pixels * 10800))
            own = points[view.object_id == number]
            seen += len(own)
            assert (own >= np.array(thing.low_m) - 1e-3).all()
            assert (own <= np.array(thing.high_m) + 1e-3).all()
            assert 0 <= thing.visible <= 1
    assert seen > 3000
