"""Neighbours, normals and sizes of triangles; cutting long ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.surface.mesh import with_normals
from recon.surface.types import Mesh

_MOST_ROUNDS = 12  # of halving: edges get up to 4096 times shorter


def face_neighbours(faces: NDArray[np.int32]) -> NDArray[np.int64]:
    """The triangle across each edge (corner 0-1, 1-2, 2-0), [F, 3]; -1 at a rim. Of several one is taken."""
    num_faces = len(faces)
    starts, ends = faces, np.roll(faces, -1, axis=1)
    low = np.minimum(starts, ends).astype(np.int64).ravel()
    high = np.maximum(starts, ends).astype(np.int64).ravel()
    key = low * (int(faces.max(initial=0)) + 1) + high
    order = np.argsort(key, kind="stable")
    same = key[order[1:]] == key[order[:-1]]
    neighbours = np.full(3 * num_faces, -1, dtype=np.int64)
    first, second = order[:-1][same], order[1:][same]
    neighbours[second] = first // 3
    neighbours[first] = second // 3
    neighbours[neighbours == np.repeat(np.arange(num_faces), 3)] = -1  # a triangle with an edge twice
    return neighbours.reshape(num_faces, 3)


def face_normals(vertices: NDArray[np.float64], faces: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray]:
    """Unit normals [F, 3] (zero for triangles without area) and areas [F]."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    length = np.linalg.norm(cross, axis=1)
    return np.divide(cross, length[:, None], out=np.zeros_like(cross), where=length[:, None] > 0), length / 2


def split_long_edges(mesh: Mesh, longest: float) -> Mesh:
    """The mesh with every edge longer than ``longest`` halved until none is, without gaps; the surface stays the same.

    A wall of two triangles is fully in no photo, and where one of them is hidden the whole would be.
    """
    vertices = np.asarray(mesh.vertices_world_m, dtype=np.float64)
    faces = mesh.faces.astype(np.int64)
    colors = None if mesh.colors is None else mesh.colors.astype(np.float64)
    for _ in range(_MOST_ROUNDS):
        starts, ends = faces, np.roll(faces, -1, axis=1)
        length = np.linalg.norm(vertices[ends] - vertices[starts], axis=-1)  # [F, 3]
        long = length > longest
        if not long.any():
            break
        low, high = np.minimum(starts, ends)[long], np.maximum(starts, ends)[long]
        _, first, place = np.unique(low * len(vertices) + high, return_index=True, return_inverse=True)
        middle = np.full(faces.shape, -1, dtype=np.int64)
        middle[long] = len(vertices) + place
        vertices = np.concatenate([vertices, (vertices[low[first]] + vertices[high[first]]) / 2])
        if colors is not None:
            colors = np.concatenate([colors, (colors[low[first]] + colors[high[first]]) / 2])
        faces = _split(faces, middle, np.where(long, length, 0))
    if len(vertices) == len(mesh.vertices_world_m):
        return mesh
    rounded = None if colors is None else np.rint(colors).astype(np.uint8)
    return with_normals(Mesh(vertices, faces.astype(np.int32), rounded))


def _split(faces: NDArray[np.int64], middle: NDArray[np.int64], length: NDArray[np.float64]) -> NDArray[np.int64]:
    """Triangles [F, 3] whose edges have new ``middle`` vertices [F, 3] (-1: none) as two, three or four."""
    # Turned so that the longest edge to be cut comes first: it is cut first.
    turn = (length.argmax(axis=1)[:, None] + np.arange(3)) % 3
    faces, middle = np.take_along_axis(faces, turn, axis=1), np.take_along_axis(middle, turn, axis=1)
    a, b, c = faces.T
    ab, bc, ca = middle.T
    cut = middle >= 0
    parts = [faces[~cut[:, 0]]]  # nothing to cut
    here = cut[:, 0]
    left, right = here & cut[:, 2], here & cut[:, 1]  # halves (a, ab, c) and (ab, b, c) that are cut again
    whole_left, whole_right = here & ~cut[:, 2], here & ~cut[:, 1]
    parts.append(np.stack([a, ab, c], axis=1)[whole_left])
    parts += [np.stack([a, ab, ca], axis=1)[left], np.stack([ca, ab, c], axis=1)[left]]
    parts.append(np.stack([ab, b, c], axis=1)[whole_right])
    parts += [np.stack([ab, b, bc], axis=1)[right], np.stack([ab, bc, c], axis=1)[right]]
    return np.concatenate(parts)
