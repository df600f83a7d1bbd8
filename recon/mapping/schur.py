"""Normal equations of a bundle adjustment and their reduction to the cameras (Schur complement of the points)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_CHUNK_POINTS = 128  # points whose dense coupling is held at once: it stays in the processor's cache


@dataclass(frozen=True)
class _Chunk:
    """Some points: their observations [m], camera columns [c] that these touch, and where each entry of their coupling
    [B, 3, m] stands in a dense matrix ``shape`` (3 rows per point, c columns)."""

    observations: IntArray
    columns: IntArray
    place: IntArray
    shape: tuple[int, int]


class Structure:
    """Which camera columns [B, M] (C = none) and which of P points [M] every observation touches.

    It stays the same while values change. Points are taken in the order of the first and the last photo that sees them,
    so that those in one chunk touch few columns.
    """

    def __init__(self, columns: IntArray, point: IntArray, num_columns: int, num_points: int) -> None:
        self.columns, self.point = columns, point
        self.num_columns, self.num_points = num_columns, num_points
        first, last = np.full(num_points, num_columns), np.full(num_points, -1)
        np.minimum.at(first, point, columns[0])
        np.maximum.at(last, point, columns[0])
        rank = np.empty(num_points, dtype=np.int64)
        rank[np.lexsort((last, first))] = np.arange(num_points)
        order = np.argsort(rank[point], kind="stable")
        chunk_of = rank[point[order]] // _CHUNK_POINTS
        bounds = np.searchsorted(chunk_of, np.arange(-(-num_points // _CHUNK_POINTS) + 1))
        self.chunks = []
        for start, stop in pairwise(bounds):
            if start == stop:
                continue
            mine = order[start:stop]
            touched, local = np.unique(columns[:, mine], return_inverse=True)
            row = 3 * (rank[point[mine]] % _CHUNK_POINTS) + np.arange(3)[:, None]  # [3, m]
            place = row[None] * len(touched) + local.reshape(len(columns), 1, -1)
            shape = (3 * _CHUNK_POINTS, len(touched))
            self.chunks.append(_Chunk(mine, touched, place.ravel(), shape))


@dataclass(frozen=True)
class NormalEquations:
    """Normal equations: camera block ``hcc`` [C, C], ``bc`` [C]; points ``hpp`` [P, 3, 3], ``bp`` [P, 3]; coupling as
    blocks ``hcp`` [B, 3, M] whose places ``structure`` knows.
    """

    hcc: Float64Array
    bc: Float64Array
    hpp: Float64Array
    bp: Float64Array
    hcp: Float64Array
    structure: Structure

    def schur(self, damping: float) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Reduced camera system S [C, C], b [C], and the inverse point blocks [P, 3, 3]."""
        hpp = self.hpp.copy()
        diagonal = np.einsum("pii->pi", hpp)
        diagonal += damping * diagonal + 1e-12 * (1.0 + diagonal.max(axis=1, initial=0.0, keepdims=True))
        root = np.linalg.inv(np.linalg.cholesky(hpp))  # L^-1
        inverse = root.transpose(0, 2, 1) @ root
        lower = root[:, (0, 1, 1, 2, 2, 2), (0, 0, 1, 0, 1, 2)].T[:, self.structure.point]  # [6, M]
        half = np.empty_like(self.hcp)  # W = Hcp L^-T, [B, 3, M]
        x, y, z = self.hcp.transpose(1, 0, 2)
        half[:, 0] = x * lower[0]
        half[:, 1] = x * lower[1] + y * lower[2]
        half[:, 2] = x * lower[3] + y * lower[4] + z * lower[5]
        c = len(self.bc)
        s = np.zeros((c + 1, c + 1))
        for chunk in self.structure.chunks:
            values = half[:, :, chunk.observations].ravel()
            dense = np.bincount(chunk.place, values, minlength=chunk.shape[0] * chunk.shape[1]).reshape(chunk.shape)
            s[np.ix_(chunk.columns, chunk.columns)] -= dense.T @ dense
        s = s[:c, :c] + self.hcc
        s[np.diag_indices(c)] += damping * np.diag(self.hcc) + 1e-12
        whitened = np.einsum("pij,pj->ip", root, self.bp)[:, self.structure.point]  # [3, M]
        coupled = half[:, 0] * whitened[0] + half[:, 1] * whitened[1] + half[:, 2] * whitened[2]
        b = self.bc - np.bincount(self.structure.columns.ravel(), coupled.ravel(), minlength=c + 1)[:c]
        return s, b, inverse

    def solve(self, damping: float) -> tuple[Float64Array, Float64Array] | None:
        """Steps of cameras [C] and points [P, 3]; None when the system is not positive definite."""
        try:
            s, b, inverse = self.schur(damping)
            camera_step = cho_solve(cho_factor(s, overwrite_a=True), b)
        except np.linalg.LinAlgError:
            return None
        moved = np.append(camera_step, 0.0)[self.structure.columns]  # [B, M]
        coupled = (self.hcp * moved[:, None]).sum(axis=0)  # [3, M]
        right = self.bp - sum_by(self.structure.point, coupled, self.structure.num_points)
        return camera_step, np.einsum("pij,pj->pi", inverse, right)


def sum_by(index: IntArray, rows: Float64Array, count: int) -> Float64Array:
    """Sums of rows [K, M] by index [M] into [count, K]."""
    return np.stack([np.bincount(index, row, minlength=count) for row in rows], axis=1)


def accumulate(
    hcc: Float64Array,
    bc: Float64Array,
    columns: IntArray,
    jacobian: Float64Array,
    r: Float64Array,
    weight: Float64Array,
) -> None:
    weighted = jacobian * weight[:, None, None]
    np.add.at(hcc, (columns[:, :, None], columns[:, None, :]), weighted.transpose(0, 2, 1) @ jacobian)
    np.subtract.at(bc, columns, np.einsum("frb,fr->fb", weighted, r))
