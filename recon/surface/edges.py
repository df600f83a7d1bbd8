"""Edges of a triangle mesh: whether it is closed, and what closes it where little is missing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from recon.surface.types import Mesh


def is_closed(faces: NDArray[np.integer]) -> bool:
    """Whether every edge of the triangles [F, 3] is shared by exactly two, which run along it in opposite ways."""
    return len(faces) > 0 and open_edges(faces) == 0


def open_edges(faces: NDArray[np.integer]) -> int:
    """Directed edges of the triangles [F, 3] that don't meet exactly one edge in the opposite direction."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    base = int(edges.max(initial=0)) + 1
    there, count = np.unique(edges[:, 0] * base + edges[:, 1], return_counts=True)
    back = (there % base) * base + there // base
    met = np.isin(back, there[count == 1]) & (count == 1)
    return int(count[~met].sum())


def capped(mesh: Mesh) -> Mesh:
    """The mesh with a fan of triangles over each hole, from the middle of its border.

    What Poisson reconstruction leaves open lies in the border of its box, where scattered surfaces have no lid.
    """
    vertices, faces = np.asarray(mesh.vertices_world_m), mesh.faces
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    keys, back = edges[:, 0] * len(vertices) + edges[:, 1], edges[:, 1] * len(vertices) + edges[:, 0]
    border = edges[~np.isin(keys, back)]  # [E, 2]
    if len(border) == 0:
        return mesh
    number = len(vertices)
    graph = coo_matrix((np.ones(len(border), dtype=np.int8), tuple(border.T)), shape=(number, number))
    _, labels = connected_components(graph, directed=False)
    _, hole = np.unique(labels[border[:, 0]], return_inverse=True)  # [E]
    sums = np.stack([np.bincount(hole, vertices[border[:, 0], axis]) for axis in range(3)], axis=-1)
    middles = sums / np.bincount(hole)[:, None]
    fans = np.stack([border[:, 1], border[:, 0], number + hole], axis=-1)
    return Mesh(np.concatenate([vertices, middles]), np.concatenate([faces, fans]).astype(np.int32))


def split_crowded_edges(mesh: Mesh) -> Mesh:
    """The mesh with edges that four and more triangles share split into edges of two each; its shape stays.

    Where two sheets touch along an edge, Poisson reconstruction joins them there. The triangles around such an edge are
    paired so that each pair has the inside between it, and each pair gets a vertex of its own in the edge's middle.
    """
    vertices, faces = np.asarray(mesh.vertices_world_m), mesh.faces
    while True:
        edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1).astype(np.int64)
        keys = edges[:, 0] * len(vertices) + edges[:, 1]
        unique, count = np.unique(keys, return_counts=True)
        crowded = np.isin(keys, unique[count > 2]).nonzero()[0]
        around: dict[int, list[int]] = {}
        for at in crowded:
            around.setdefault(int(keys[at]), []).append(int(at % len(faces)))
        changed: set[int] = set()
        middles: list[NDArray[np.float64]] = []
        halves: list[NDArray[np.int64]] = []
        for key, members in around.items():
            if changed.intersection(members):
                continue  # the next round's
            start, end = key // len(vertices), key % len(vertices)
            pairs = _paired_around(vertices, faces, members, start, end)
            if 2 * len(pairs) != len(members):
                continue  # not between an inside and an outside
            changed.update(members)
            for pair in pairs:
                middle = len(vertices) + len(middles)
                middles.append((vertices[start] + vertices[end]) / 2)
                for face in pair:
                    halves += [np.where(faces[face] == gone, middle, faces[face]) for gone in (start, end)]
        if not changed:
            return mesh if faces is mesh.faces else Mesh(vertices, faces)
        kept = np.delete(faces, sorted(changed), axis=0)
        faces = np.concatenate([kept, np.array(halves, dtype=np.int32)])
        vertices = np.concatenate([vertices, middles])


def _paired_around(
    vertices: NDArray, faces: NDArray[np.int32], members: list[int], start: int, end: int
) -> list[list[int]]:
    """Triangles around an edge in pairs with the inside between them, each pair next to each other around the edge."""
    axis = vertices[end] - vertices[start]
    axis = axis / max(float(np.linalg.norm(axis)), 1e-300)
    first = np.cross(axis, np.eye(3)[int(np.argmin(np.abs(axis)))])
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    ordered = []
    for face in members:
        third = next(int(v) for v in faces[face] if v not in (start, end))
        arm = vertices[third] - vertices[start]
        ahead = any(faces[face, k] == start and faces[face, (k + 1) % 3] == end for k in range(3))
        ordered.append((float(np.arctan2(arm @ second, arm @ first)), ahead, face))
    ordered.sort()
    pairs = []
    while ordered:
        for k in range(len(ordered)):
            here, after = ordered[k], ordered[(k + 1) % len(ordered)]
            # the inside lies before a triangle that runs ahead, and after one that runs back
            if not here[1] and after[1]:
                pairs.append([here[2], after[2]])
                ordered = [entry for entry in ordered if entry not in (here, after)]
                break
        else:
            return pairs
    return pairs
