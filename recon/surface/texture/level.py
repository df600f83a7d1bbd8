"""Colours made equal across seams: an offset for every vertex of every piece, by sparse least squares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.linalg import splu

_MISPLACED_LEVELS = 40.0  # a larger step is more likely another thing than another exposure
_MOST_LEVELS = 100.0
# Twice: offsets that reach far, then what is left, spread over a few triangles. Smoothness within a piece against
# agreement across seams, and the pull towards no offset.
_PASSES = ((10.0, 1e-3), (0.5, 2e-2))


@dataclass(frozen=True)
class Corners:
    """Vertices of pieces: ``vertex`` [N] and ``piece`` [N], sorted by vertex; ``of_face`` [S, 3] rows of these for the
    corners of the triangles ``faces`` [S] that have a photo.
    """

    faces: NDArray[np.int64]
    vertex: NDArray[np.int64]
    piece: NDArray[np.int64]
    of_face: NDArray[np.int64]


def piece_corners(faces: NDArray[np.int32], piece: NDArray[np.int64], seen: NDArray[np.int64]) -> Corners:
    """The corners of the triangles ``seen``, those of one piece at one vertex joined."""
    count = int(piece.max(initial=0)) + 1
    key = faces[seen].astype(np.int64) * count + piece[seen, None]
    unique, row = np.unique(key, return_inverse=True)
    return Corners(seen, unique // count, unique % count, row.reshape(-1, 3))


def seam_pairs(corners: Corners) -> NDArray[np.int64]:
    """Rows of corners of different pieces at one vertex, [S, 2]."""
    first = np.flatnonzero(corners.vertex[1:] == corners.vertex[:-1])
    return np.stack([first, first + 1], axis=1)


def level(corners: Corners, color: NDArray[np.float64]) -> NDArray[np.float32]:
    """Offsets [N, 3] to the ``color`` [N, 3] of each corner that make pieces agree where they meet.

    Waechter et al. 2014, section 4.3: smooth within a piece, equal colours across seams. Solved
    directly: on a surface that takes less time than iterating.
    """
    count = len(corners.vertex)
    offset = np.zeros((count, 3))
    pairs = seam_pairs(corners)
    if len(pairs) == 0:
        return offset.astype(np.float32)
    edges = np.concatenate([corners.of_face[:, [0, 1]], corners.of_face[:, [1, 2]], corners.of_face[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    within = _laplacian(edges, np.ones(len(edges)), count)
    for smooth, pull in _PASSES:
        step = (color + offset)[pairs[:, 1]] - (color + offset)[pairs[:, 0]]  # what the first lacks to the second
        weight = 1.0 / (1.0 + (np.abs(step).max(axis=1) / _MISPLACED_LEVELS) ** 2)
        matrix = _laplacian(pairs, weight, count) + smooth * within + pull * diags(np.ones(count))
        right = np.zeros((count, 3))
        np.add.at(right, pairs[:, 0], weight[:, None] * step)
        np.add.at(right, pairs[:, 1], -weight[:, None] * step)
        symmetric = {"SymmetricMode": True}
        factors = splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=symmetric)
        offset += factors.solve(right)
    return np.clip(offset, -_MOST_LEVELS, _MOST_LEVELS).astype(np.float32)


def _laplacian(pairs: NDArray[np.int64], weight: NDArray[np.float64], count: int) -> csr_matrix:
    first, second = pairs.T
    rows = np.concatenate([first, second, first, second])
    columns = np.concatenate([first, second, second, first])
    values = np.concatenate([weight, weight, -weight, -weight])
    return coo_matrix((values, (rows, columns)), shape=(count, count)).tocsr()
