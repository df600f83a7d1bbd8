"""Scores of correspondence answers: end-point error and share of correct points, in two units.

The end-point error is measured in *normalised-1000* units (both axes of the second photo scaled to 1000, as
arXiv 2605.30561 reports it) and in pixels of the second photo. An answer without a position has no error: the mean and
median are over answered points, ``answered`` says how many those are, and PCK (the share within a threshold) counts the
others as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

PCK_NORMALISED = (5, 10, 25, 50)
PCK_PX = (4, 8, 16, 32)
RANGE = 1000.0


@dataclass(frozen=True)
class MatchScores:
    """Scores of N questions, V of them about points that the second photo shows.

    Attributes:
        count, visible: N and V.
        parse_rate: share of the N answers of an accepted form (a position, or "not visible").
        answered: share of the V visible points for which a position was given.
        epe_mean, epe_median: end-point error over those, normalised-1000. epe_mean_px, epe_median_px: in pixels.
        pck: share of the V points within each threshold, normalised-1000. pck_px: in pixels.
        hidden_recognised: share of the N - V hidden points that were called not visible; NaN without such points.
    """

    count: int
    visible: int
    parse_rate: float
    answered: float
    epe_mean: float
    epe_median: float
    epe_mean_px: float
    epe_median_px: float
    pck: Mapping[int, float]
    pck_px: Mapping[int, float]
    hidden_recognised: float

    def to_json(self) -> dict[str, object]:
        """The scores by name."""
        return asdict(self)


def endpoint_errors(
    predicted_px: ArrayLike, truth_px: ArrayLike, size_px: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """End-point errors ``[N]`` of positions ``[N, 2]`` in the second photos of sizes ``[N, 2]`` (width, height):
    normalised-1000, and in pixels; NaN where either position is NaN."""
    difference = np.asarray(predicted_px, np.float64) - np.asarray(truth_px, np.float64)
    scaled = difference / np.asarray(size_px, np.float64) * RANGE
    return np.hypot(scaled[:, 0], scaled[:, 1]), np.hypot(difference[:, 0], difference[:, 1])


def score_match(predicted_px: ArrayLike, truth_px: ArrayLike, size_px: ArrayLike, denied: ArrayLike) -> MatchScores:
    """Scores positions in the second photo.

    Args:
        predicted_px: ``[N, 2]``, NaN where no position was given.
        truth_px: ``[N, 2]``, NaN where the second photo does not show the point.
        size_px: ``[N, 2]`` width and height of the second photo.
        denied: ``[N]`` whether the answer was "not visible".

    Raises:
        ValueError: shapes differ, or no questions.
    """
    predicted, truth = np.asarray(predicted_px, np.float64), np.asarray(truth_px, np.float64)
    size, says_hidden = np.asarray(size_px, np.float64), np.asarray(denied, bool)
    shapes = {predicted.shape, truth.shape, size.shape}
    if len(shapes) != 1 or predicted.ndim != 2 or predicted.shape[1:] != (2,) or len(predicted) == 0:
        raise ValueError(f"expected equal shapes [N, 2] with N of at least 1, got {sorted(shapes)}")
    if says_hidden.shape != (len(predicted),):
        raise ValueError(f"expected {len(predicted)} denials, got shape {says_hidden.shape}")
    positions = np.isfinite(predicted[:, 0]) & np.isfinite(predicted[:, 1])
    visible = np.isfinite(truth[:, 0]) & np.isfinite(truth[:, 1])
    normalised, pixels = endpoint_errors(predicted[visible], truth[visible], size[visible])
    has_error = np.isfinite(normalised)
    hidden = np.logical_not(visible)
    return MatchScores(
        count=len(predicted),
        visible=int(visible.sum()),
        parse_rate=float((positions | says_hidden).mean()),
        answered=_share(has_error),
        epe_mean=_mean(normalised[has_error]),
        epe_median=_median(normalised[has_error]),
        epe_mean_px=_mean(pixels[has_error]),
        epe_median_px=_median(pixels[has_error]),
        pck={t: _share(normalised <= t) for t in PCK_NORMALISED},  # NaN is not within
        pck_px={t: _share(pixels <= t) for t in PCK_PX},
        hidden_recognised=_share(says_hidden[hidden] & ~positions[hidden]),
    )


def _share(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if len(flags) else float("nan")


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if len(values) else float("nan")
