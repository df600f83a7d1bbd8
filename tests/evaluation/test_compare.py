"""A result against itself, against known changes, and with parts missing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from recon.errors import BadInputError
from recon.evaluation.compare import CompareOptions, compare
from recon.evaluation.pose import Similarity
from recon.evaluation.surfaces import estimate_normals, refine_by_icp, sample
from recon.evaluation.trajectory import move_cameras
from recon.interop.result import Reconstructed, Surface, placeholder_names
from recon.surface.types import DepthMap, Mesh, PointCloud
from recon.types import Camera
from tests.interop.toy import CAMERA, HEIGHT, WIDTH, toy, wall

SCENE = toy(7, seed=2)
FEW = CompareOptions(points=3000)


def depth_map(name: str, depth_m: np.ndarray, camera: Camera) -> DepthMap:
    black = np.zeros((*depth_m.shape, 3), np.uint8)
    return DepthMap(name, depth_m.astype(np.float32), np.ones(depth_m.shape, np.float32), camera, np.eye(3, 4), black)


def result(
    transform: Similarity | None = None, factor: float = 1.0, metric: bool = True, mesh: Mesh | None = None,
    camera: Camera = CAMERA, source: str = "a",
) -> Reconstructed:  # fmt: skip
    """The toy scene with its world moved by ``transform`` (depth scaled by ``factor``)."""
    transform = transform or Similarity(1.0, np.eye(3), np.zeros(3))
    mesh = mesh or wall()
    moved = dataclasses.replace(mesh, vertices_world_m=transform.apply(mesh.vertices_world_m))
    poses = dict(zip(SCENE.names, move_cameras(SCENE.poses, transform)))
    maps = {name: depth_map(name, depth * factor, camera) for name, depth in zip(SCENE.names, SCENE.depth)}
    return Reconstructed(
        Path(source), "our run", poses, dict.fromkeys(SCENE.names, camera), SCENE.names, maps.__getitem__,
        Surface("mesh", lambda limit, seed: moved), photos=SCENE.names, metric=metric,
    )  # fmt: skip


def test_a_result_agrees_with_itself_entirely() -> None:
    c = compare(result(), result(), FEW)
    assert c.poses is not None
    assert c.similarity is not None
    assert c.rigid is not None
    assert c.intrinsics is not None
    assert c.depth is not None
    assert c.depth.as_is is not None
    assert c.surface is not None
    assert all(value == pytest.approx(1, abs=1e-6) for value in c.poses.auc_exact.values())
    assert all(value == 1 for value in c.poses.auc_histogram.values())
    assert c.similarity.ate.max == pytest.approx(0, abs=1e-9)
    assert c.rigid.rpe_rotation_deg.max == pytest.approx(0, abs=1e-6)
    assert c.scale_error == pytest.approx(0, abs=1e-9)
    assert c.intrinsics.pixel_shift_px_median == pytest.approx(0, abs=1e-9)
    assert (c.depth.as_is.delta1, c.depth.as_is.abs_rel) == (1, 0)
    assert c.surface.scores.scores.accuracy_mean_m == pytest.approx(0, abs=1e-9)
    assert c.surface.scores.scores.completeness_mean_m == pytest.approx(0, abs=1e-9)
    assert c.surface.scores.scores.f_score == (1,) * 5
    assert c.surface.scores.normal_consistency == pytest.approx(1)
    assert np.allclose(c.reference_from_result, np.eye(4), atol=1e-9)


@settings(deadline=None, max_examples=8, derandomize=True)
@given(seed=st.integers(0, 99), scale=st.floats(0.2, 5))
def test_another_world_with_another_unit_is_no_error(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    transform = Similarity(scale, Rotation.random(None, rng).as_matrix(), rng.normal(size=3))
    c = compare(result(transform, scale, metric=False), result(), FEW)
    assert c.poses is not None
    assert c.similarity is not None
    assert c.depth is not None
    assert c.depth.by_cameras is not None
    assert c.depth.by_median is not None
    assert c.surface is not None
    assert c.scale_error is None  # not both are metric
    assert c.alignment.startswith("similarity")
    assert c.similarity.scale == pytest.approx(1 / scale)
    assert c.poses.auc_exact[5] == pytest.approx(1, abs=1e-5)
    assert c.depth.as_is is None
    assert c.depth.by_cameras.abs_rel == pytest.approx(0, abs=1e-5)
    assert c.depth.median_factor == pytest.approx(1 / scale, rel=1e-5)
    assert c.surface.scores.scores.accuracy_mean_m == pytest.approx(0, abs=1e-6)


@settings(deadline=None, max_examples=8, derandomize=True)
@given(percent=st.floats(-8, 8).filter(lambda p: abs(p) > 0.1))
def test_a_wrong_scale_is_found_and_shows_in_metres_only(percent: float) -> None:
    factor = 1 + percent / 100
    c = compare(result(Similarity(factor, np.eye(3), np.zeros(3)), factor), result(), FEW)
    assert c.scale_error is not None
    assert c.similarity is not None
    assert c.rigid is not None
    assert c.depth is not None
    assert c.depth.as_is is not None
    assert c.depth.by_median is not None
    assert c.alignment.startswith("rigid")
    assert c.scale_error == pytest.approx(1 / factor - 1)
    assert c.similarity.ate.rmse == pytest.approx(0, abs=1e-9)
    spread = np.array([-p[:, :3].T @ p[:, 3] for p in SCENE.poses])
    spread -= spread.mean(axis=0)
    expected = abs(factor - 1) * np.sqrt((spread**2).sum(axis=1).mean())
    assert c.rigid.ate.rmse == pytest.approx(expected)
    assert c.depth.as_is.abs_rel == pytest.approx(abs(factor - 1), rel=1e-4)
    assert c.depth.by_median.abs_rel == pytest.approx(0, abs=1e-5)


def test_a_photo_that_was_not_registered_is_a_failure() -> None:
    full, part = result(), result()
    poses = {name: pose for name, pose in part.poses.items() if name != SCENE.names[0]}
    c = compare(dataclasses.replace(part, poses=poses), full, FEW)
    assert c.poses is not None
    assert (c.photos_common, c.photos_reference) == (6, 7)
    # 15 of 21 pairs are perfect, the 6 with the missing photo fail
    assert c.poses.auc_exact[30] == pytest.approx(15 / 21, abs=1e-6)
    assert c.poses.auc_histogram[30] == pytest.approx(15 / 21)


def test_a_surface_beside_the_true_one_is_at_its_distance() -> None:
    plane = Mesh(
        np.array([[-1.0, -1, 4], [1, -1, 4], [1, 1, 4], [-1, 1, 4]]), np.array([[0, 2, 1], [0, 3, 2]], np.int32)
    )
    shifted = dataclasses.replace(plane, vertices_world_m=plane.vertices_world_m - [0, 0, -0.03])
    c = compare(result(mesh=shifted), result(mesh=plane), FEW)
    assert c.surface is not None
    scores = c.surface.scores.scores
    assert scores.accuracy_mean_m == pytest.approx(0.03, rel=1e-9)
    assert scores.completeness_median_m == pytest.approx(0.03, rel=1e-9)
    assert scores.precision == (0, 0, 1, 1, 1)  # at 1, 2, 5, 10, 20 cm
    tilted = dataclasses.replace(
        plane, vertices_world_m=(plane.vertices_world_m - [0, 0, 4]) @ Rotation.from_euler("x", 60, True).as_matrix().T
    )
    flat = dataclasses.replace(plane, vertices_world_m=plane.vertices_world_m - [0, 0, 4])
    c = compare(result(mesh=tilted), result(mesh=flat), dataclasses.replace(FEW, thresholds=(9.0,)))
    assert c.surface is not None
    assert c.surface.scores.normal_consistency == pytest.approx(0.5)


def test_icp_takes_back_a_small_move_and_says_how_large_it_was() -> None:
    turn = Rotation.from_rotvec([0.01, -0.02, 0.015])
    pushed = dataclasses.replace(
        wall(), vertices_world_m=turn.apply(wall().vertices_world_m - [0, 0, 4]) - [-0.01, -0.01, -4.02]
    )
    options = CompareOptions(points=6000, icp=True)
    before = compare(result(mesh=pushed), result(), dataclasses.replace(options, icp=False))
    after = compare(result(mesh=pushed), result(), options)
    assert before.surface is not None
    assert after.surface is not None
    assert after.surface.icp is not None
    assert after.alignment.endswith("then ICP on the surfaces")
    assert after.surface.icp.distance_after < 0.2 * after.surface.icp.distance_before
    assert after.surface.icp.turn_deg == pytest.approx(np.degrees(turn.magnitude()), rel=0.15)
    assert after.surface.scores.scores.accuracy_mean_m < 0.3 * before.surface.scores.scores.accuracy_mean_m
    assert after.surface.icp.scale == 1  # both are metric


def test_icp_finds_a_scale_where_the_unit_is_free() -> None:
    points = sample(wall(), 4000).points
    move, said = refine_by_icp(1.02 * (points - [0, 0, 4]), points - [0, 0, 4], with_scale=True)
    assert move.scale == pytest.approx(1 / 1.02, rel=3e-3)
    assert said.distance_after < said.distance_before


def test_intrinsics_are_compared_whatever_the_size() -> None:
    doubled = CAMERA.resized(2 * WIDTH, 2 * HEIGHT)
    c = compare(result(camera=doubled, source="b"), result(), FEW)
    assert c.intrinsics is not None
    assert c.intrinsics.pixel_shift_px_median == pytest.approx(0, abs=1e-9)
    fx, fy, cx, cy = CAMERA.fx_fy_cx_cy
    longer = Camera.pinhole(WIDTH, HEIGHT, 1.03 * fx, 1.03 * fy, cx + 3, cy - 4)
    c = compare(result(camera=longer, source="b"), result(), FEW)
    assert c.intrinsics is not None
    assert c.intrinsics.focal_percent_median == pytest.approx(3)
    assert c.intrinsics.centre_px_median == pytest.approx(5)
    cropped = Camera.pinhole(WIDTH, HEIGHT - 10, fx, fy, cx, cy)
    c = compare(dataclasses.replace(result(), cameras=dict.fromkeys(SCENE.names, cropped)), result(), FEW)
    assert c.intrinsics is None


def test_depth_of_a_distorted_photo_is_found_at_the_right_place() -> None:
    # the reference's depth belongs to the photo as taken (distorted), the result's to an undistorted version
    lens = Camera("SIMPLE_RADIAL", WIDTH, HEIGHT, (FOCAL := 50.0, WIDTH / 2, HEIGHT / 2, -0.25), "given")
    flat = Camera.pinhole(WIDTH, HEIGHT, FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2)
    from recon.cameras import pinhole
    from recon.cameras.pixels import pixel_centres

    def ramp(camera: Camera) -> np.ndarray:  # depth that depends on the viewing direction
        return (3 + 2 * pinhole.rays(camera, pixel_centres(WIDTH, HEIGHT))[:, 0]).reshape(HEIGHT, WIDTH)

    name = SCENE.names[0]
    taken = dataclasses.replace(
        result(), depth_names=(name,), load_depth=lambda _: depth_map(name, ramp(lens), lens),
        cameras=dict.fromkeys(SCENE.names, lens),
    )  # fmt: skip
    straightened = dataclasses.replace(taken, load_depth=lambda _: depth_map(name, ramp(flat), flat))
    c = compare(straightened, taken, FEW)
    assert c.depth is not None
    assert c.depth.as_is is not None
    assert c.depth.as_is.abs_rel < 0.005  # half a pixel of the ramp; 0.02 without regard to the lens
    careless = dataclasses.replace(straightened, cameras=dict.fromkeys(SCENE.names, flat))
    c = compare(careless, taken, FEW)
    assert c.depth is not None
    assert c.depth.as_is is not None
    assert c.depth.as_is.abs_rel > 0.01


def test_names_without_order_and_other_extensions() -> None:
    unnamed = result().renamed(dict(zip(SCENE.names, placeholder_names(7))))
    unnamed = dataclasses.replace(unnamed, has_names=False)
    c = compare(unnamed, result(), FEW)
    assert c.matched_by == "sorted order"
    assert c.poses is not None
    assert c.poses.auc_exact[5] == pytest.approx(1, abs=1e-6)
    assert any("sorted order" in note for note in c.notes)
    c = compare(result(), unnamed, FEW)
    assert c.poses is not None
    assert c.poses.auc_exact[5] == pytest.approx(1, abs=1e-6)
    other = result().renamed({name: f"frames/{name[:-4]}.png" for name in SCENE.names})
    c = compare(other, result(), FEW)
    assert c.matched_by == "file name without extension"
    assert c.photos_common == 7
    strange = result().renamed({name: f"z{i}.jpg" for i, name in enumerate(SCENE.names)})
    with pytest.raises(BadInputError, match="no photo of a"):
        compare(strange, result(), FEW)


def test_surfaces_alone_are_compared_in_one_world_and_it_is_said() -> None:
    alone = Reconstructed(Path("m.ply"), "mesh", surface=Surface("mesh", lambda limit, seed: wall()), metric=True)
    c = compare(alone, result(), FEW)
    assert c.poses is None
    assert c.similarity is None
    assert "taken to be in one world" in c.alignment
    assert c.surface is not None
    assert c.surface.scores.scores.f_score[0] == 1
    nothing = Reconstructed(Path("n"), "COLMAP model")
    with pytest.raises(BadInputError, match="nothing in common"):
        compare(nothing, alone, FEW)


def test_sampling_is_said(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(5000, 3))
    cloud = Surface("cloud", lambda limit, seed: PointCloud(points), 5000)
    c = compare(dataclasses.replace(result(), surface=cloud), dataclasses.replace(result(), surface=cloud),
                CompareOptions(points=500))  # fmt: skip
    assert any("500 of 5000 points drawn at random" in note for note in c.notes)
    assert c.surface is not None
    assert c.surface.scores.normals_estimated
    assert c.surface.scores.scores.f_score[0] == 1


def test_normals_of_a_plane() -> None:
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.random((200, 2)), np.zeros(200)])
    np.testing.assert_allclose(np.abs(estimate_normals(points)[:, 2]), 1, atol=1e-9)


@pytest.mark.parametrize("options", [CompareOptions(points=3), CompareOptions(thresholds=(0.1, -1.0))])
def test_options_that_make_no_sense(options: CompareOptions) -> None:
    with pytest.raises(BadInputError, match="--"):
        compare(result(), result(), options)
