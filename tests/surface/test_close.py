"""Closed surfaces have no open edge, follow what was measured, and say what they made up."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from recon.surface.close import close
from recon.surface.edges import is_closed
from recon.surface.mesh import compact, with_normals
from recon.surface.types import Mesh


def volume_of(mesh: Mesh) -> float:
    a, b, c = (np.asarray(mesh.vertices_world_m)[mesh.faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def patch(normal_sign: float, keep) -> Mesh:
    """Part of the unit sphere as a mesh of small triangles, wound outside (1) or inside (-1)."""
    n = 60
    theta, phi = np.meshgrid(np.linspace(0, np.pi, n), np.linspace(0, 2 * np.pi, 2 * n, endpoint=False), indexing="ij")
    points = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], -1).reshape(-1, 3)
    row, column = np.meshgrid(np.arange(n - 1), np.arange(2 * n), indexing="ij")
    a, b = row * 2 * n + column, row * 2 * n + (column + 1) % (2 * n)
    c, d = a + 2 * n, b + 2 * n
    faces = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    faces = faces[keep(points[faces].mean(axis=1))].astype(np.int32)
    return with_normals(compact(points, faces if normal_sign > 0 else faces[:, ::-1], None))


def test_scattered_pieces_are_closed_too():
    """Small patches far apart, as of a street: the lid does not reach, and the solution runs into its box."""
    ball = patch(1.0, lambda p: (p[:, 0] > 0.5) & (p[:, 2] > -0.5))
    vertices, faces = np.asarray(ball.vertices_world_m), ball.faces
    places = [np.array([9.0 * k, 5.0 * (k % 2), 0.0]) for k in range(4)]
    many = Mesh(
        np.concatenate([vertices + place for place in places]),
        np.concatenate([faces + k * len(vertices) for k in range(4)]).astype(np.int32),
    )
    closed = close(with_normals(many), 0.2)
    assert is_closed(closed.mesh.faces)
    assert closed.kept_share > 0.9


@pytest.mark.parametrize(
    ("what", "sign", "keep", "volume"),
    [
        ("a ball with a hole below", 1.0, lambda p: p[:, 2] > -0.7, 4.19),
        ("a round room whose ceiling nobody saw", -1.0, lambda p: p[:, 2] < 0.7, 4.19),
        ("half a ball: the other side is made up", 1.0, lambda p: p[:, 0] > 0.0, None),
    ],
)
def test_an_open_surface_is_closed(what, sign, keep, volume):
    mesh = patch(sign, keep)
    assert not is_closed(mesh.faces)
    closed = close(mesh, 0.06)
    assert is_closed(closed.mesh.faces)
    vertices = np.asarray(closed.mesh.vertices_world_m)
    made_up = vertices[closed.invented]
    inner = vertices[cKDTree(made_up).query(vertices)[0] > 0.3]  # the made up part begins 0.18 from the measured one
    assert np.abs(np.linalg.norm(inner, axis=1) - 1).max() < 0.03  # half the detail that was asked for
    assert closed.kept_share > 0.98
    assert 0.02 < closed.invented_share < 0.7
    if volume is not None:
        assert sign * volume_of(closed.mesh) == pytest.approx(volume, rel=0.12)


def test_closing_again_gives_the_same_bytes():
    mesh = patch(1.0, lambda p: p[:, 2] > -0.5)
    first, second = close(mesh, 0.12), close(mesh, 0.12)
    np.testing.assert_array_equal(first.mesh.vertices_world_m, second.mesh.vertices_world_m)
    np.testing.assert_array_equal(first.mesh.faces, second.mesh.faces)
