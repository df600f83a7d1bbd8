"""Bundle adjustment, pose graph, dense alignment and tracks against exact scenes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from recon.errors import MappingError
from recon.evaluation.pose import align
from recon.mapping.bundle import BundleOptions, BundleState, Observations, adjust
from recon.mapping.dense import DenseOptions, align_surfaces, surface_map
from recon.mapping.factors import PoseFactors, PositionFactors, RigidFactors, moved
from recon.mapping.pose_graph import compose, consistent_edges, inverse, optimise, select, spanning_poses
from recon.mapping.tracks import build_tracks
from recon.types import Camera
from tests.mapping.scenes import Synthetic, make_scene


def _centres(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    return -np.einsum("nji,nj->ni", poses[:, :, :3], poses[:, :, 3])


def _problem(scene: Synthetic, with_depth: bool) -> tuple[BundleState, Observations]:
    rng = np.random.default_rng(2)
    view, point = np.nonzero(np.isfinite(scene.pixels).all(axis=2))
    pixels = scene.pixels[view, point].copy()
    wrong = rng.random(len(view)) < 0.05
    pixels[wrong] += rng.normal(0, 30, (int(wrong.sum()), 2))
    in_camera = np.einsum("mij,mj->mi", scene.poses[view][:, :, :3], scene.points[point]) + scene.poses[view][:, :, 3]
    depth = in_camera[:, 2] * np.exp(rng.normal(0, 0.01, len(view)))
    nothing = np.full(len(view), np.nan)
    spread = np.full(len(view), 0.01)
    observations = Observations(view, point, pixels, depth if with_depth else nothing, spread)
    start = BundleState(
        poses=moved(scene.poses, rng.normal(0, 0.01, (len(scene.poses), 6))),
        cameras=(Camera("SIMPLE_RADIAL", 640, 480, (600.0, 320.0, 240.0, 0.0), "prior"),),
        camera_of_view=np.zeros(len(scene.poses), dtype=np.int64),
        points=scene.points + rng.normal(0, 0.03, scene.points.shape),
    )
    return start, observations


def test_adjustment_recovers_lens_and_poses_despite_outliers() -> None:
    scene = make_scene(num_views=10, num_points=400, centre=(326.0, 235.0))
    start, observations = _problem(scene, with_depth=False)

    result = adjust(start, observations, BundleOptions(refine_principal_point=True))

    f, cx, cy, k = result.state.cameras[0].params
    sigma = result.intrinsics_sigma[0]
    for value, true, spread in zip((f, cx, cy, k), (560.0, 326.0, 235.0, 0.02), sigma, strict=True):
        assert abs(value - true) < 4 * spread  # the stated spread (for 0.5 px keypoints) is honest
    assert sigma[1:3].max() < 2.0
    fit = align(_centres(result.state.poses), _centres(scene.poses))
    error = np.linalg.norm(fit.apply(_centres(result.state.poses)) - _centres(scene.poses), axis=1)
    assert error.max() < 0.01  # radius 4; measured 0.003
    assert np.median(result.errors_px) < 0.45


def test_measured_depth_fixes_the_scale() -> None:
    scene = make_scene(num_views=6, num_points=200)
    start, observations = _problem(scene, with_depth=True)
    shrunk = dataclasses.replace(start, poses=start.poses * [1, 1, 1, 0.9], points=start.points * 0.9)

    result = adjust(shrunk, observations)

    assert align(_centres(result.state.poses), _centres(scene.poses)).scale == pytest.approx(1.0, abs=0.003)


def test_fixed_parameters_stay_fixed() -> None:
    scene = make_scene(num_views=4, num_points=60)
    start, observations = _problem(scene, with_depth=False)
    options = BundleOptions(refine_focal=False, refine_distortion=False)
    result = adjust(start, observations, options)
    assert result.state.cameras[0].params == start.cameras[0].params
    assert not result.intrinsics_sigma[0].any()


def test_nothing_to_adjust() -> None:
    scene = make_scene(num_views=4, num_points=60)
    start, observations = _problem(scene, with_depth=False)
    with pytest.raises(MappingError, match="0 observations"):
        adjust(start, observations.select(np.zeros(len(observations.view), dtype=bool)))


def _motions(poses: NDArray[np.float64], noise: float = 0.0) -> RigidFactors:
    rng = np.random.default_rng(0)
    first, second = np.triu_indices(len(poses), 1)
    motion = compose(poses[first], inverse(poses[second]))
    motion = moved(motion, rng.normal(0, noise, (len(first), 6)))
    count = len(first)
    return RigidFactors(first, second, motion, np.full(count, 0.005), np.full(count, 0.01))


@pytest.mark.parametrize("kind", ["pose", "rigid", "position"])
def test_factors_vanish_at_the_truth_and_their_jacobians_are_right(kind: str) -> None:
    poses = make_scene(num_views=4).poses
    rigid = _motions(poses)
    offset = rigid.cam1_from_cam2[:, :, 3]
    length = np.linalg.norm(offset, axis=1)
    count = len(length)
    pose = PoseFactors(
        rigid.view1, rigid.view2, rigid.cam1_from_cam2[:, :, :3], offset / length[:, None], length,
        np.full(count, 0.02), np.full(count, 0.05), np.full(count, 0.2),
    )  # fmt: skip
    position = PositionFactors(np.arange(4), _centres(poses), np.full((4, 3), 0.1))
    factors = {"pose": pose, "rigid": rigid, "position": position}[kind]
    assert np.abs(factors.residuals(poses)[0]).max() < 1e-9
    # along a random step the residual changes as the Jacobian says
    rng = np.random.default_rng(1)
    away = moved(poses, rng.normal(0, 0.05, (4, 6)))
    step = rng.normal(0, 1e-6, (4, 6))
    value, *jacobians = factors.residuals(away)
    views = [position.view] if kind == "position" else [rigid.view1, rigid.view2]
    predicted = sum(np.einsum("frk,fk->fr", j, step[v]) for j, v in zip(jacobians, views, strict=True))
    np.testing.assert_allclose(factors.residuals(moved(away, step))[0] - value, predicted, atol=3e-8)


def test_pose_graph_drops_wrong_edges() -> None:
    poses = make_scene(num_views=7).poses
    poses = compose(poses, inverse(poses[:1]))  # the first camera is the world
    edges = _motions(poses, noise=0.003)
    wrong = [2, 9]
    motion = edges.cam1_from_cam2.copy()
    motion[wrong, :, :3] = Rotation.from_euler("y", 40, degrees=True).as_matrix() @ motion[wrong, :, :3]
    edges = dataclasses.replace(edges, cam1_from_cam2=motion)

    keep = consistent_edges(edges, 7)
    assert list(np.flatnonzero(~keep)) == wrong
    kept = select(edges, keep)
    start = spanning_poses(kept, np.ones(int(keep.sum())), 7, root=0)
    result, residual = optimise(start, kept)
    assert np.abs(_centres(result) - _centres(poses)).max() < 0.02  # edges are off by 3 mm and 0.2 degrees at 4 m
    assert residual.max() < 6


def test_tracks_join_across_photos_and_drop_contradictions() -> None:
    matches = {
        (0, 1): np.array([[0, 0], [1, 1], [2, 2]]),
        (1, 2): np.array([[0, 5], [2, 3]]),
        (0, 2): np.array([[2, 4]]),  # keypoint 2 of photo 0 would then be keypoints 3 and 4 of photo 2
    }
    view, keypoint, track = build_tracks(np.array([3, 3, 6]), matches)
    assert list(zip(view, keypoint, track, strict=True)) == [(0, 0, 0), (1, 0, 0), (2, 5, 0), (0, 1, 1), (1, 1, 1)]
    assert all(len(part) == 0 for part in build_tracks(np.array([3, 3]), {}))


def test_dense_alignment_of_a_room_corner() -> None:
    camera = Camera.pinhole(160, 120, 140, 140, 80, 60)
    truth = np.array(
        [
            np.column_stack([Rotation.from_euler("xy", [0.05 * i, 0.04 * i * (-1) ** i]).as_matrix(), [0.1 * i, 0, 0]])
            for i in range(4)
        ]
    )
    depths = [_corner_depth(camera, pose) for pose in truth]
    surfaces = [surface_map(depth, camera, 2) for depth in depths]
    start = truth.copy()
    rng = np.random.default_rng(0)
    start[1:] = moved(truth[1:], rng.normal(0, 0.015, (3, 6)))

    result = align_surfaces(start, surfaces, [camera] * 4, options=DenseOptions(grid_px=2, iterations=15))

    before = np.linalg.norm(_centres(start) - _centres(truth), axis=1).max()
    after = np.linalg.norm(_centres(result) - _centres(truth), axis=1).max()
    assert before > 0.02
    assert after < 0.004


def _corner_depth(camera: Camera, cam_from_world: NDArray[np.float64]) -> NDArray[np.float32]:
    """Exact z-depth of three walls x = 0.6, y = 0.4, z = 3 that meet in a corner, seen from within."""
    columns, rows = np.meshgrid(np.arange(camera.width_px) + 0.5, np.arange(camera.height_px) + 0.5)
    fx, fy, cx, cy = camera.fx_fy_cx_cy
    directions = np.stack([(columns - cx) / fx, (rows - cy) / fy, np.ones_like(rows)], axis=-1)
    in_world = directions @ cam_from_world[:, :3]
    centre = -cam_from_world[:, :3].T @ cam_from_world[:, 3]
    with np.errstate(divide="ignore"):
        hits = (np.array([0.6, 0.4, 3.0]) - centre) / in_world
    return np.where(hits > 0, hits, np.inf).min(axis=-1).astype(np.float32)
