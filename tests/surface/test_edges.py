"""Edges of closed meshes: each twice and in opposite directions; what is open is found, holes get fans."""

import numpy as np
import pytest

from recon.surface.edges import capped, is_closed, open_edges, split_crowded_edges
from recon.surface.types import Mesh
from tests.surface.test_close import volume_of


def tetrahedron(shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]) + shift
    return vertices, np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], dtype=np.int32)


def test_closed_is_every_edge_twice_in_opposite_ways():
    _, faces = tetrahedron()
    assert is_closed(faces)
    assert open_edges(faces[1:]) == 3
    turned = faces.copy()
    turned[0] = turned[0, ::-1]
    assert open_edges(turned) == 6
    assert not is_closed(np.empty((0, 3), dtype=np.int32))


def test_a_hole_gets_a_fan():
    vertices, faces = tetrahedron()
    mesh = capped(Mesh(vertices, faces[:3]))
    assert is_closed(mesh.faces)
    np.testing.assert_allclose(mesh.vertices_world_m[4], [1 / 3, 1 / 3, 1 / 3])
    assert volume_of(mesh) == pytest.approx(1 / 6)
    whole = Mesh(vertices, faces)
    assert capped(whole) is whole


def test_two_bodies_that_touch_along_an_edge_are_parted():
    vertices, faces = tetrahedron()
    # the second body is the first, mirrored in the edge from vertex 0 to vertex 3
    mirrored = vertices * [-1.0, -1.0, 1.0]
    joined = np.array([0, 4, 5, 3], dtype=np.int32)[faces]
    mesh = Mesh(np.concatenate([vertices, mirrored[1:3]]), np.concatenate([faces, joined]))
    assert open_edges(mesh.faces) == 4
    parted = split_crowded_edges(mesh)
    assert is_closed(parted.faces)
    assert len(parted.vertices_world_m) == len(mesh.vertices_world_m) + 2  # one middle for each body
    assert len(parted.faces) == len(mesh.faces) + 4
    assert volume_of(parted) == pytest.approx(2 / 6)
    assert split_crowded_edges(parted) is parted
