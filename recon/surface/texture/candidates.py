"""The best few photos of every triangle, and which of them show something else there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.surface.texture.views import Seen

_CLIPPED = (8.0, 247.0)  # grey levels outside say nothing about exposure
_GAIN_SPREAD = 0.1  # of ln(colour ratio): what differs more is another thing, not another exposure
_LEAST_RATIO = 1e-2  # of the best quality: far worse photos (those that show a triangle partly) are not considered
_MOST_GAIN = np.log(3.0)
_OUTLIER_LEVELS = 25.0
_OUTLIER_SPREADS = 4.0  # times the median deviation
_GAIN_FACES = 40_000  # triangles that exposures are estimated from, evenly chosen
_LEAST_DETAIL = 4.0  # grey levels of gradient: on flat paint the size alone decides
_VOTES = 2  # rounds in which neighbouring triangles agree on what is an outlier


@dataclass
class Candidates:
    """Up to K photos per triangle: ``photo`` [F, K] (-1: none), ``quality`` [F, K], ``detail`` [F, K], mean ``color``
    [F, K, 3]. Quality is the size in pixels until :meth:`weigh_detail`.
    """

    photo: NDArray[np.int32]
    quality: NDArray[np.float32]
    detail: NDArray[np.float32]
    color: NDArray[np.float32]

    @classmethod
    def none(cls, num_faces: int, most: int) -> Candidates:
        shape = (num_faces, most)
        zero = np.zeros(shape, np.float32)
        return cls(np.full(shape, -1, np.int32), zero, zero.copy(), np.zeros((*shape, 3), np.float32))

    def add(self, photo: int, seen: Seen) -> None:
        """Puts a photo in where it is better than the worst of those that are there."""
        faces = seen.faces
        worst = self.quality[faces].argmin(axis=1)
        better = seen.size > self.quality[faces, worst]
        faces, worst = faces[better], worst[better]
        self.photo[faces, worst] = photo
        self.quality[faces, worst] = seen.size[better]
        self.detail[faces, worst] = seen.detail[better]
        self.color[faces, worst] = seen.color[better]

    def drop(self, which: NDArray[np.bool_]) -> None:
        """Takes out the entries ``which`` [F, K]."""
        self.photo[which] = -1
        self.quality[which] = 0

    def weigh_detail(self) -> None:
        """Makes quality the size times the photo's detail (Waechter et al. 2014, section 4.1), which a blurred photo
        lacks. More detail than in most of a triangle's photos is no merit: it is leaves before a lawn.
        """
        valid = self.photo >= 0
        rows = np.arange(len(valid))
        middle = np.maximum(valid.sum(axis=1) - 1, 0) // 2
        usual = np.sort(np.where(valid, self.detail, np.inf), axis=1)[rows, middle]
        self.quality *= np.minimum(self.detail, np.where(np.isfinite(usual), usual, 0)[:, None]) + _LEAST_DETAIL

    def drop_poor(self) -> None:
        """Takes out photos that are far worse than a triangle's best, such as those that show it partly."""
        self.drop(self.quality < _LEAST_RATIO * self.quality.max(axis=1, keepdims=True))


def same_photo(photo: NDArray[np.int32], neighbours: NDArray[np.int64]) -> NDArray[np.int32]:
    """Where each neighbour has the photo of each entry: flat places in [F, K], or -1; [F, 3, K]."""
    num_faces, most = photo.shape
    found = np.full((num_faces, 3, most), -1, dtype=np.int32)
    for side in range(3):
        other = neighbours[:, side]
        theirs = np.where(other[:, None] >= 0, photo[other], -2)
        for slot in range(most):
            equal = (theirs[:, slot, None] == photo) & (photo >= 0)
            place = (other * most + slot).astype(np.int32)
            found[:, side] = np.where(equal, place[:, None], found[:, side])
    return found


def estimate_gains(candidates: Candidates, num_photos: int) -> NDArray[np.float64]:
    """Factor per photo and channel [P, 3] by which its colours differ from the mean photo's, from shared triangles.

    Least squares of ln(colour) = ln(surface) + ln(gain), reweighed against what is no matter of exposure.
    """
    valid = candidates.photo >= 0
    shared = np.flatnonzero(valid.sum(axis=1) >= 2)
    shared = shared[:: max(1, len(shared) // _GAIN_FACES)]
    photo, valid = candidates.photo[shared].astype(np.int64), valid[shared]
    color = candidates.color[shared].astype(np.float64)
    valid &= ((color > _CLIPPED[0]) & (color < _CLIPPED[1])).all(axis=2)
    log_color = np.log(np.maximum(color, 1.0))
    log_gain: NDArray[np.floating] = np.zeros((num_photos, 3))
    if not valid.any():
        return np.exp(log_gain)
    row = np.where(valid, photo, 0)
    weight = valid.astype(np.float64)
    for _ in range(4):
        weight_sum = np.maximum(weight.sum(axis=1, keepdims=True), 1e-12)
        # Eliminating the surface's colour leaves a graph Laplacian over the photos.
        share = weight / weight_sum
        laplacian = np.diag(np.bincount(row.ravel(), weight.ravel(), num_photos))
        for first in range(photo.shape[1]):
            for second in range(photo.shape[1]):
                cell = row[:, first] * num_photos + row[:, second]
                amount = np.bincount(cell, weight[:, first] * share[:, second], num_photos**2)
                laplacian -= amount.reshape(num_photos, num_photos)
        mean = (share[..., None] * log_color).sum(axis=1, keepdims=True)
        right = np.stack(
            [
                np.bincount(row.ravel(), (weight * (log_color - mean)[..., c]).ravel(), num_photos)
                for c in range(3)
            ],
            axis=1,
        )  # fmt: skip
        ridge = 1e-6 * max(float(np.trace(laplacian)), 1e-9)
        log_gain = np.linalg.solve(laplacian + ridge * np.eye(num_photos), right)
        without = log_color - log_gain[row]
        surface = (share[..., None] * without).sum(axis=1, keepdims=True)
        away = np.abs(without - surface).max(axis=2)
        weight = np.where(valid, 1.0 / (1.0 + (away / _GAIN_SPREAD) ** 2), 0.0)
    return np.exp(np.clip(log_gain, -_MOST_GAIN, _MOST_GAIN))


def drop_outliers(candidates: Candidates, gains: NDArray[np.float64], neighbours: NDArray[np.int64]) -> int:
    """Takes out photos that show another colour than most do, as of somebody walking by; returns how many entries.

    Of three photos or more of a triangle, the median tells; its neighbours must agree (Waechter et al. 2014, section
    4.2, use a mean shift per triangle instead).
    """
    valid = candidates.photo >= 0
    count = valid.sum(axis=1)
    color = candidates.color / gains[np.maximum(candidates.photo, 0)]
    middle = np.maximum(count - 1, 0) // 2
    # Between the two middle ones where the number is even.
    other = np.maximum(count, 1) // 2
    ordered = np.sort(np.where(valid[..., None], color, np.inf), axis=1)
    rows = np.arange(len(color))
    with np.errstate(invalid="ignore"):
        median = (ordered[rows, middle] + ordered[rows, other]) / 2
        away = np.where(valid, np.abs(color - median[:, None]).max(axis=2), np.inf)
    away_ordered = np.sort(away, axis=1)
    spread = away_ordered[rows, middle]
    limit = np.maximum(_OUTLIER_LEVELS, _OUTLIER_SPREADS * np.where(np.isfinite(spread), spread, 0))
    flagged = valid & (away > limit[:, None]) & (count >= 3)[:, None]
    votes = flagged.astype(np.float32)
    same = same_photo(candidates.photo, neighbours)
    there = same >= 0
    for _ in range(_VOTES):
        near = np.where(there, votes.ravel()[np.maximum(same, 0)], np.float32(0))
        votes = (2 * votes + near.sum(axis=1)) / (2 + there.sum(axis=1))
    outlier = valid & (votes > 0.5)
    # Nothing is left of a triangle whose photos all disagree: it keeps the best.
    outlier &= (valid & ~outlier).any(axis=1)[:, None]
    candidates.drop(outlier)
    return int(outlier.sum())
