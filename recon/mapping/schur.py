"""Normal equations of a bundle adjustment and their reduction to the cameras (Schur complement of the points)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_MAX_DENSE_COLUMNS = 600  # camera parameters up to which the Schur complement is built from dense chunks


@dataclass(frozen=True)
class NormalEquations:
    """Normal equations: camera block ``hcc`` [C, C], ``bc`` [C]; points ``hpp`` [P, 3, 3], ``bp`` [P, 3]; coupling as
    blocks ``hcp`` [M, B, 3] with camera columns ``columns`` [M, B] (C = none) and ``point`` [M].
    """

    hcc: Float64Array
    bc: Float64Array
    hpp: Float64Array
    bp: Float64Array
    hcp: Float64Array
    columns: IntArray
    point: IntArray

    def schur(self, damping: float) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Reduced camera system S [C, C], b [C], and the inverse point blocks [P, 3, 3]."""
        hpp = self.hpp.copy()
        diagonal = np.einsum("pii->pi", hpp)
        diagonal += damping * diagonal + 1e-12 * (1.0 + diagonal.max(axis=1, initial=0.0, keepdims=True))
        root = np.linalg.inv(np.linalg.cholesky(hpp))  # L^-1
        inverse = root.transpose(0, 2, 1) @ root
        half = self.hcp @ root.transpose(0, 2, 1)[self.point]  # W = Hcp L^-T, [M, B, 3]
        c = len(self.bc)
        rows = np.broadcast_to(self.columns[:, :, None], half.shape).ravel()
        cols = (3 * self.point[:, None, None] + np.arange(3)[None, None]).repeat(half.shape[1], axis=1).ravel()
        w = scipy.sparse.csr_matrix((half.ravel(), (rows, cols)), shape=(c + 1, 3 * len(hpp)))[:c]
        if c <= _MAX_DENSE_COLUMNS:
            product = np.zeros((c, c))
            chunk = max(1, 4_000_000 // max(c, 1))
            wt = w.T.tocsr()
            for start in range(0, wt.shape[0], chunk):
                dense = wt[start : start + chunk].toarray()
                product += dense.T @ dense
        else:
            product = (w @ w.T).toarray()
        s = self.hcc - product
        s[np.diag_indices(c)] += damping * np.diag(self.hcc) + 1e-12
        b = self.bc - w @ np.einsum("pij,pj->pi", root, self.bp).ravel()
        return s, b, inverse

    def solve(self, damping: float) -> tuple[Float64Array, Float64Array] | None:
        """Steps of cameras [C] and points [P, 3]; None when the system is not positive definite."""
        try:
            s, b, inverse = self.schur(damping)
            camera_step = cho_solve(cho_factor(s), b)
        except np.linalg.LinAlgError:
            return None
        padded = np.append(camera_step, 0.0)
        coupled = np.einsum("mbk,mb->mk", self.hcp, padded[self.columns])  # [M, 3]
        right = self.bp.copy()
        np.subtract.at(right, self.point, coupled)
        return camera_step, np.einsum("pij,pj->pi", inverse, right)


def sum_by(index: IntArray, rows: Float64Array, count: int) -> Float64Array:
    """Sums of rows [M, K] by index [M] into [count, K]."""
    return np.stack([np.bincount(index, rows[:, k], minlength=count) for k in range(rows.shape[1])], axis=1)


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


def skew(v: Float64Array) -> Float64Array:
    """Cross-product matrices [M, 3, 3] of vectors [M, 3]."""
    zero = np.zeros(len(v))
    rows = [zero, -v[:, 2], v[:, 1], v[:, 2], zero, -v[:, 0], -v[:, 1], v[:, 0], zero]
    return np.stack(rows, axis=1).reshape(-1, 3, 3)
