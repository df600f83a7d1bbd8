"""A mesh made light enough to look at: vertices that share a cell of a grid become one (Rossignac and Borrel, 1993).

Quadric edge collapse (:func:`recon.surface.mesh.simplify`) spends triangles where the surface bends. A surface whose
picture is in the colours of its vertices needs them everywhere: a flat painted wall would lose its painting. Clustering
keeps them even, works through arrays mapped from a file, and takes seconds for millions of triangles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.surface.types import Mesh

_CHUNK = 1 << 20
_LAST = (1 << 21) - 1  # three corners go into one 64-bit number
MAX_TARGET_FACES = 2_000_000
_TRIALS = 6
_CLOSE = 0.9  # of the wanted number of triangles is near enough


def cluster_vertices(mesh: Mesh, target_faces: int) -> Mesh:
    """The mesh with at most ``target_faces`` triangles, nearly that many; unchanged when it has fewer.

    Each vertex is the mean of its cell in place and colour; triangles that shrink to a line are dropped, equal ones
    are kept once. Triangles with corners that are not finite, or not there, are dropped. Normals are left out.
    ``target_faces`` is at most ``MAX_TARGET_FACES``.
    """
    if not 1 <= target_faces <= MAX_TARGET_FACES:
        raise ValueError(f"target_faces must be between 1 and {MAX_TARGET_FACES}, found {target_faces}")
    vertices, faces = mesh.vertices_world_m, mesh.faces
    if len(faces) <= target_faces:
        return mesh
    low, high = _bounds(vertices)
    area = _area(vertices, faces)
    # a plane through a grid of cells h touches about 1.5 of them per h^2, and every vertex carries two triangles
    cell = float(np.sqrt(3 * area / target_faces)) if area > 0 else float((high - low).max()) / np.sqrt(target_faces)
    cell = max(cell, float((high - low).max()) / (1 << 20), 1e-12)
    for _ in range(_TRIALS):  # counting cells is cheap
        share = 2 * len(np.unique(_cells(vertices, low, cell))) / target_faces
        if _CLOSE <= share <= 1:
            break
        cell *= float(np.clip(np.sqrt(share / 0.96), 0.5, 4.0))
    while True:
        thin = _clustered(vertices, faces, mesh.colors, low, cell)
        if len(thin.faces) <= target_faces:
            return thin
        cell *= 1.02 * float(np.sqrt(len(thin.faces) / target_faces))


def _cells(vertices: NDArray, low: NDArray, cell: float) -> NDArray[np.int64]:
    """The number of each vertex' cell [V]; -1 where a coordinate is not finite."""
    keys = np.empty(len(vertices), dtype=np.int64)
    for start in range(0, len(vertices), _CHUNK):
        part = np.asarray(vertices[start : start + _CHUNK], dtype=np.float64)
        finite = np.asarray(np.isfinite(part).all(axis=1))
        at = np.where(finite[:, None], (part - low) / cell, 0.0).astype(np.int64)  # [B, 3], below 2^21 each
        keys[start : start + _CHUNK] = np.where(finite, (at[:, 0] << 42) | (at[:, 1] << 21) | at[:, 2], -1)
    return keys


def _clustered(vertices: NDArray, faces: NDArray, colors: NDArray | None, low: NDArray, cell: float) -> Mesh:
    cells, label = np.unique(_cells(vertices, low, cell), return_inverse=True)
    label = label.astype(np.int32)
    count = np.zeros(len(cells))
    place = np.zeros((len(cells), 3))
    color = np.zeros((len(cells), 3))
    for start in range(0, len(vertices), _CHUNK):
        index = label[start : start + _CHUNK]
        part = np.nan_to_num(np.asarray(vertices[start : start + _CHUNK], dtype=np.float64))
        count += np.bincount(index, minlength=len(cells))
        for axis in range(3):
            place[:, axis] += np.bincount(index, part[:, axis], len(cells))
            if colors is not None:
                color[:, axis] += np.bincount(index, colors[start : start + _CHUNK, axis], len(cells))
    kept = []
    for start in range(0, len(faces), _CHUNK):
        part = np.asarray(faces[start : start + _CHUNK])
        part = part[((part >= 0) & (part < len(vertices))).all(axis=1)]
        corners = label[part]
        a, b, c = corners.T
        whole = (a != b) & (b != c) & (a != c) & (cells[corners] >= 0).all(axis=1)
        kept.append(_named(corners[whole]))
    names = np.unique(np.concatenate(kept)) if kept else np.zeros(0, np.int64)
    joined = np.stack([names >> 42, (names >> 21) & _LAST, names & _LAST], axis=1)
    used, renumbered = np.unique(joined, return_inverse=True)
    places = (place[used] / count[used, None]).astype(np.float32)
    means = np.rint(color[used] / count[used, None]).astype(np.uint8) if colors is not None else None
    return Mesh(places, renumbered.reshape(-1, 3).astype(np.int32), means)


def _named(faces: NDArray[np.int32]) -> NDArray[np.int64]:
    """A number per triangle, equal for triangles of the same corners in the same sense (the smallest stands first)."""
    shift = faces.argmin(axis=1)[:, None]
    a, b, c = np.take_along_axis(faces, (shift + np.arange(3)) % 3, axis=1).astype(np.int64).T
    return (a << 42) | (b << 21) | c


def _bounds(vertices: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for start in range(0, len(vertices), _CHUNK):
        part = np.asarray(vertices[start : start + _CHUNK], dtype=np.float64)
        part = part[np.isfinite(part).all(axis=1)]
        if len(part):
            low, high = np.minimum(low, part.min(axis=0)), np.maximum(high, part.max(axis=0))
    return (low, high) if np.isfinite(low).all() else (np.zeros(3), np.zeros(3))


def _area(vertices: NDArray, faces: NDArray) -> float:
    """Area of the surface, from an even sample of its triangles."""
    step = max(1, len(faces) // (1 << 18))
    sample = np.asarray(faces[::step])
    sample = sample[((sample >= 0) & (sample < len(vertices))).all(axis=1)]
    corners = np.asarray(vertices[sample], dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        double = np.linalg.norm(cross, axis=1)
    return float(double[np.isfinite(double)].sum()) / 2 * step
