"""Does a checkpoint know when it is right? Confidence against correctness and error, in bins of equal counts.

``ece`` is the expected calibration error (Guo et al., ICML 2017: the mean distance between confidence and share of
right answers, weighted by the bins' counts), here with bins of equal counts. ``rank_correlation`` is Spearman's between
confidence and error: -1 where the surer answer is always the better one, 0 where confidence says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

NUM_BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers of neighbouring confidence: their confidences' range and mean, the share that is right, and the median
    error of those that have one (NaN where none has)."""

    count: int
    low: float
    high: float
    confidence: float
    accuracy: float
    median_error: float


@dataclass(frozen=True)
class Reliability:
    """The curve and its summaries; ``rank_correlation`` is NaN where either side is constant."""

    bins: tuple[ReliabilityBin, ...]
    ece: float
    rank_correlation: float


def reliability(confidence: ArrayLike, correct: ArrayLike, error: ArrayLike, num_bins: int = NUM_BINS) -> Reliability:
    """The reliability curve of N answers.

    Args:
        confidence: ``[N]`` in [0, 1].
        correct: ``[N]`` whether each answer counts as right.
        error: ``[N]`` its error in any unit; NaN for an answer without one (unparsed).
        num_bins: at most this many bins; answers of equal confidence stay in one bin.

    Raises:
        ValueError: lengths differ, no answers, a confidence outside [0, 1].
    """
    sure = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=bool)
    wrong_by = np.asarray(error, dtype=np.float64)
    if sure.ndim != 1 or len(sure) == 0 or sure.shape != right.shape or sure.shape != wrong_by.shape:
        raise ValueError(
            f"expected three equal lengths of at least 1, got {sure.shape}, {right.shape} and {wrong_by.shape}"
        )
    if not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError("confidences must lie in [0, 1]")
    bins = tuple(_bin(sure, right, wrong_by, rows) for rows in _equal_counts(sure, num_bins))
    ece = sum(part.count * abs(part.confidence - part.accuracy) for part in bins) / len(sure)
    return Reliability(bins, float(ece), _rank_correlation(sure, wrong_by))


def _equal_counts(sure: NDArray[np.float64], num_bins: int) -> list[NDArray[np.int64]]:
    """Rows in order of confidence, cut where the count is reached and the confidence changes."""
    order = np.argsort(sure, kind="stable").astype(np.int64)
    ordered = sure[order]
    cuts = {0, len(order)}
    for k in range(1, num_bins):
        cuts.add(int(np.searchsorted(ordered, ordered[min(k * len(order) // num_bins, len(order) - 1)], side="left")))
    edges = sorted(cuts)
    return [order[begin:end] for begin, end in pairwise(edges)]


def _bin(
    sure: NDArray[np.float64], right: NDArray[np.bool_], wrong_by: NDArray[np.float64], rows: NDArray[np.int64]
) -> ReliabilityBin:
    errors = wrong_by[rows]
    errors = errors[np.isfinite(errors)]
    return ReliabilityBin(
        count=len(rows),
        low=float(sure[rows].min()),
        high=float(sure[rows].max()),
        confidence=float(sure[rows].mean()),
        accuracy=float(right[rows].mean()),
        median_error=float(np.median(errors)) if len(errors) else float("nan"),
    )


def _rank_correlation(sure: NDArray[np.float64], wrong_by: NDArray[np.float64]) -> float:
    known = np.isfinite(wrong_by)
    if known.sum() < 2:
        return float("nan")
    first, second = rankdata(sure[known]), rankdata(wrong_by[known])
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
