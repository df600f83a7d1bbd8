"""Measuring between two clicks: where lines of sight meet the surface, and what the scale leaves of the distance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon.evaluation.measure import hit_mesh, hit_points, measure
from recon.types import MetricScale
from tests.interop.toy import wall

KNOWN = MetricScale(2.0, 1.9, 2.2, ("gps",), ())
UNKNOWN = MetricScale(float("nan"), float("nan"), float("nan"), (), ())


def test_a_distance_with_the_interval_of_the_scale() -> None:
    found = measure([0, 0, 0], [3, 4, 0], KNOWN)  # the map is in metres already: 2.0 has been applied
    assert (found.distance, found.metric) == (5.0, True)
    assert found.low == pytest.approx(4.75)
    assert found.high == pytest.approx(5.5)
    assert found.text() == "5 m (95 %: 4.75 to 5.5 m)"
    assert measure([0, 0, 0], [0, 0, 0.25], KNOWN).text() == "25 cm (95 %: 23.75 to 27.5 cm)"


def test_without_a_scale_no_metres_are_made_up() -> None:
    found = measure([0, 0, 0], [0, 2, 0], UNKNOWN)
    assert not found.metric
    assert found.text() == "2 units (the scale is unknown)"


def test_the_first_triangle_on_the_way_is_hit() -> None:
    mesh = wall()  # the wall z = 4 with a step to 3.5 in the middle
    vertices = np.asarray(mesh.vertices_world_m)
    np.testing.assert_allclose(hit_mesh([0.1, 0.1, 0], [0, 0, 2.0], vertices, mesh.faces), [0.1, 0.1, 3.5])
    np.testing.assert_allclose(hit_mesh([2.3, 2.1, 0], [0, 0, 1], vertices, mesh.faces), [2.3, 2.1, 4.0])
    np.testing.assert_allclose(hit_mesh([2.3, 2.1, 9], [0, 0, -1], vertices, mesh.faces), [2.3, 2.1, 4.0])
    assert hit_mesh([0, 0, 5], [0, 0, 1], vertices, mesh.faces) is None  # behind the eye
    assert hit_mesh([9, 9, 0], [0, 0, 1], vertices, mesh.faces) is None
    twice = np.concatenate([vertices, vertices + np.array([0, 0, 1])])
    both = np.concatenate([mesh.faces + len(vertices), mesh.faces])
    np.testing.assert_allclose(hit_mesh([2.3, 2.1, 0], [0, 0, 1], twice, both), [2.3, 2.1, 4.0])


def test_no_triangles_and_degenerate_ones_are_not_hit() -> None:
    line = np.array([[0.0, 0, 1], [0, 0, 2], [0, 0, 3]])
    assert hit_mesh([0, 0, 0], [0, 0, 1], line, np.array([[0, 1, 2]])) is None
    assert hit_mesh([0, 0, 0], [0, 0, 1], line, np.zeros((0, 3), int)) is None


@given(
    st.tuples(*[st.floats(0.02, 0.96)] * 2).filter(lambda uv: sum(uv) < 0.98),
    st.integers(0, 10**6),
)
def test_a_ray_aimed_at_a_triangle_meets_it_there(uv: tuple[float, float], seed: int) -> None:
    corners = np.random.default_rng(seed).normal(size=(3, 3))
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    target = corners[0] + uv[0] * (corners[1] - corners[0]) + uv[1] * (corners[2] - corners[0])
    if np.linalg.norm(normal) < 0.1:
        return
    origin = target + normal / np.linalg.norm(normal) + 0.3 * (corners[1] - corners[0])
    found = hit_mesh(origin, target - origin, corners, np.array([[0, 1, 2]]))
    assert found is not None
    np.testing.assert_allclose(found, target, atol=1e-9)


def test_the_nearest_point_under_the_click_is_hit() -> None:
    points = np.array([[0, 0, 5.0], [0.01, 0, 3.0], [0.5, 0, 1.0], [0, 0, -1.0]])
    np.testing.assert_array_equal(hit_points([0, 0, 0], [0, 0, 7.0], points), [0.01, 0, 3.0])
    np.testing.assert_array_equal(hit_points([0, 0, 4.0], [0, 0, 1.0], points), [0, 0, 5.0])
    assert hit_points([0, 0, 0], [0, 1.0, 0], points) is None
    assert hit_points([0, 0, 0], [0, 1.0, 0], points[:0]) is None
