"""Vertex clustering: the target is kept, places, colours and senses stay, bad triangles go."""

from __future__ import annotations

import numpy as np
import pytest

from recon.surface.thin import MAX_TARGET_FACES, cluster_vertices
from recon.surface.types import Mesh
from tests.interop.toy import wall


def painted(cells: int) -> Mesh:
    """The toy's wall with red growing along x and green along y."""
    mesh = wall(cells=cells)
    x, y, _ = np.asarray(mesh.vertices_world_m).T
    colors = np.stack([(x + 3) * 40, (y + 3) * 40, np.full(len(x), 7)], axis=1)
    return Mesh(mesh.vertices_world_m, mesh.faces, colors.astype(np.uint8))


@pytest.mark.parametrize("target", [200, 1000, 5000])
def test_target_places_and_colours(target: int) -> None:
    mesh = painted(80)  # 12800 triangles
    thin = cluster_vertices(mesh, target)
    assert 0.7 * target <= len(thin.faces) <= target
    assert thin.faces.max() == len(thin.vertices_world_m) - 1
    x, y, z = np.asarray(thin.vertices_world_m).T
    assert z.min() >= 3.5
    assert z.max() <= 4.0
    assert thin.colors is not None
    # the mean of a linear colour is the colour of the mean
    assert np.abs(thin.colors[:, 0] - (x + 3) * 40).max() < 1.6
    assert np.abs(thin.colors[:, 1] - (y + 3) * 40).max() < 1.6
    corners = thin.vertices_world_m[thin.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    before = mesh.vertices_world_m[mesh.faces]
    sense = np.cross(before[:, 1] - before[:, 0], before[:, 2] - before[:, 0])[0, 2]
    assert (normals[:, 2] * sense >= -1e-9).all()
    area = np.linalg.norm(normals, axis=1).sum() / 2
    assert area == pytest.approx(36, rel=0.15)


def test_few_triangles_stay() -> None:
    mesh = painted(4)
    assert cluster_vertices(mesh, 32) is mesh
    with pytest.raises(ValueError, match="target_faces"):
        cluster_vertices(mesh, MAX_TARGET_FACES + 1)


def test_bad_triangles_go() -> None:
    mesh = painted(40)
    vertices = np.array(mesh.vertices_world_m)
    vertices[0] = np.nan
    faces = np.concatenate([mesh.faces, [[1, 2, 10**6], [-1, 2, 3]], mesh.faces[:5]]).astype(np.int32)
    thin = cluster_vertices(Mesh(vertices, faces, mesh.colors), 3000)
    assert np.isfinite(thin.vertices_world_m).all()
    assert 0 < len(thin.faces) <= 3000
    assert len(np.unique(np.sort(thin.faces, axis=1), axis=0)) == len(thin.faces)


def test_all_in_one_place() -> None:
    nothing = cluster_vertices(Mesh(np.zeros((300, 3)), np.arange(300, dtype=np.int32).reshape(-1, 3)), 10)
    assert len(nothing.faces) == 0
