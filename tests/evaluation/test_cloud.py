"""Scores of surfaces: known distances give known figures."""

import numpy as np
import pytest

from recon.errors import BadInputError
from recon.evaluation.cloud import CloudScores, compare_points, sample_surface, seen_by
from recon.surface.types import DepthMap, Mesh, PointCloud
from recon.types import Camera

CAMERA = Camera.pinhole(64, 48, 50.0, 50.0, 32.0, 24.0)
POSE = np.eye(3, 4)


def square(z: float, half: float = 1.0) -> Mesh:
    vertices = np.array([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]])
    return Mesh(vertices, np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int32))


def flat_map(depth: float, name: str = "a.jpg") -> DepthMap:
    image = np.full((48, 64), depth, dtype=np.float32)
    return DepthMap(name, image, np.ones_like(image), CAMERA, POSE, np.zeros((48, 64, 3), np.uint8))


def scores_of(surface: Mesh | PointCloud, truth: Mesh, *thresholds_m: float) -> CloudScores:
    return compare_points(sample_surface(surface, 20_000, 1), sample_surface(truth, 20_000, 0), thresholds_m)


def test_samples_are_even_over_the_area_and_repeatable():
    big, small = square(0.0), square(5.0, 0.5)
    both = Mesh(
        np.concatenate([big.vertices_world_m, small.vertices_world_m]), np.concatenate([big.faces, small.faces + 4])
    )
    points = sample_surface(both, 5000, seed=3)
    assert (points[:, 2] > 1).mean() == pytest.approx(0.2, abs=0.01)
    quadrants = [((points[:, 0] * sx > 0) & (points[:, 1] * sy > 0)).mean() for sx in (-1, 1) for sy in (-1, 1)]
    assert np.allclose(quadrants, 0.25, atol=0.03)
    np.testing.assert_array_equal(points, sample_surface(both, 5000, seed=3))


def test_a_shifted_surface_has_the_shift_as_its_distance():
    scores = scores_of(square(2.03), square(2.0), 0.02, 0.05)
    assert scores.accuracy_median_m == pytest.approx(0.0315, abs=0.002)  # 3 cm and the gaps between the samples
    assert scores.precision == (0.0, 1.0)
    assert scores.recall == (0.0, 1.0)
    assert scores.f_score == (0.0, 1.0)


def test_half_a_surface_is_accurate_but_incomplete():
    whole = square(2.0)
    half = Mesh(whole.vertices_world_m * [0.5, 1, 1] - [0.5, 0, 0], whole.faces)
    scores = scores_of(half, whole, 0.05)
    assert scores.precision[0] == 1.0
    assert scores.recall[0] == pytest.approx(0.525, abs=0.01)  # half, and 5 cm beyond its border of 2 m
    assert scores.f_score[0] == pytest.approx(2 * 0.525 / 1.525, abs=0.01)


def test_only_what_the_photos_see_counts():
    hidden = square(4.0)
    visible = square(2.0)
    truth = Mesh(
        np.concatenate([visible.vertices_world_m, hidden.vertices_world_m]),
        np.concatenate([visible.faces, hidden.faces + 4]),
    )
    assert scores_of(visible, truth, 0.05).recall[0] == pytest.approx(0.5, abs=0.02)
    seen = sample_surface(truth, 20_000)
    seen = seen[seen_by(seen, [flat_map(2.0)])]
    assert 0 < len(seen) < 11_000
    assert compare_points(sample_surface(visible, 20_000, 1), seen, (0.05,)).recall[0] == 1.0


def test_visibility_needs_the_frame_and_the_depth():
    points = np.array([[0, 0, 2.0], [0, 0, 1.5], [0, 0, -2.0], [5, 0, 2.0], [0.1, 0.1, 2.04]])
    np.testing.assert_array_equal(seen_by(points, [flat_map(2.0)]), [True, False, False, False, True])
    assert not seen_by(points, []).any()


def test_clouds_are_scored_like_meshes():
    cloud = PointCloud(sample_surface(square(2.0), 20_000))
    assert scores_of(cloud, square(2.0), 0.05).f_score == (1.0,)
    assert len(sample_surface(cloud, 500)) == 500


def test_nothing_to_compare_is_said():
    with pytest.raises(BadInputError, match="nothing to compare: 0 reconstructed"):
        compare_points(np.empty((0, 3)), np.zeros((4, 3)))
    with pytest.raises(BadInputError, match="0 ground-truth"):
        compare_points(np.zeros((4, 3)), np.empty((0, 3)))
    with pytest.raises(BadInputError, match="no area"):
        sample_surface(Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]], dtype=np.int32)), 10)
