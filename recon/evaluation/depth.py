"""Scores of metric depth answers: the field's metrics, unparsed answers counted as wrong, and the best constant guess.

delta_k is the share of points with ``max(prediction / truth, truth / prediction) < 1.25 ** k`` (Eigen et al., 2014;
arXiv 2605.30561 reports delta_1). AbsRel, RMSE and SILog are over the parsed answers only, since an answer that is no
number has no error; ``parse_rate`` says how many those are.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

DELTA_BASE = 1.25


@dataclass(frozen=True)
class DepthScores:
    """Scores of N answers.

    Attributes:
        count: N. parse_rate: share of answers with a depth.
        delta1, delta2, delta3: shares within a factor 1.25, 1.25**2, 1.25**3, of all N (unparsed is wrong).
        abs_rel: mean of ``|prediction - truth| / truth``. rmse_m: root mean square error in metres.
        silog: scale-invariant log error, 100 * standard deviation of ``ln(prediction / truth)`` (KITTI's).
        log_sigma: robust standard deviation of ``ln(prediction / truth)``: 1.4826 * median absolute value.
    """

    count: int
    parse_rate: float
    delta1: float
    delta2: float
    delta3: float
    abs_rel: float
    rmse_m: float
    silog: float
    log_sigma: float

    def to_json(self) -> dict[str, float]:
        """The scores by name."""
        return asdict(self)


def score_depth(predicted_m: ArrayLike, truth_m: ArrayLike) -> DepthScores:
    """Scores depths ``[N]`` against the truth ``[N]``; a prediction that is NaN is an unparsed answer.

    Raises:
        ValueError: shapes differ, no points, or a truth that is not finite and positive.
    """
    predicted, truth = np.asarray(predicted_m, np.float64), np.asarray(truth_m, np.float64)
    if predicted.shape != truth.shape or truth.ndim != 1 or len(truth) == 0:
        raise ValueError(f"expected two equal lengths of at least 1, got shapes {predicted.shape} and {truth.shape}")
    if not (np.isfinite(truth) & (truth > 0)).all():
        raise ValueError("true depths must be finite and positive")
    parsed = np.isfinite(predicted) & (predicted > 0)
    ratio = predicted[parsed] / truth[parsed]
    factor = np.maximum(ratio, 1 / ratio)
    deltas = [float(np.count_nonzero(factor < DELTA_BASE**k)) / len(truth) for k in (1, 2, 3)]
    if not parsed.any():
        nan = float("nan")
        return DepthScores(len(truth), 0.0, deltas[0], deltas[1], deltas[2], nan, nan, nan, nan)
    log_ratio = np.log(ratio)
    error_m = predicted[parsed] - truth[parsed]
    return DepthScores(
        count=len(truth),
        parse_rate=float(parsed.mean()),
        delta1=deltas[0],
        delta2=deltas[1],
        delta3=deltas[2],
        abs_rel=float(np.mean(np.abs(error_m) / truth[parsed])),
        rmse_m=float(np.sqrt(np.mean(error_m**2))),
        silog=float(100 * np.std(log_ratio)),
        log_sigma=float(1.4826 * np.median(np.abs(log_ratio))),
    )


def median_scaled(predicted_m: ArrayLike, truth_m: ArrayLike, groups: Sequence[Hashable]) -> NDArray[np.float64]:
    """Predictions ``[N]`` with every group's (photo's) median brought to the median of its truth (Zhou et al., CVPR
    2017, for depth up to scale). Unparsed predictions (NaN) stay so, and count in no median.
    """
    predicted, truth = np.asarray(predicted_m, np.float64), np.asarray(truth_m, np.float64)
    if not predicted.shape == truth.shape == (len(groups),):
        raise ValueError(f"expected equal lengths, got {predicted.shape}, {truth.shape} and {len(groups)} groups")
    _, group_of = np.unique([str(group) for group in groups], return_inverse=True)
    scaled = np.full(len(predicted), np.nan)
    for group in range(int(group_of.max(initial=-1)) + 1):
        rows = np.flatnonzero((group_of == group) & np.isfinite(predicted) & (predicted > 0))
        if len(rows):
            scaled[rows] = predicted[rows] * np.median(truth[rows]) / np.median(predicted[rows])
    return scaled


@dataclass(frozen=True)
class BestConstants:
    """The best answers of someone who never looks: in metres, the one for delta1 and the one for AbsRel."""

    for_delta1_m: float
    for_abs_rel_m: float


def best_constants(truth_m: ArrayLike) -> BestConstants:
    """The constants that score best on depths ``[N]`` (tune them on training data, then score them on test data).

    A constant is within the factor of a depth d when its logarithm lies in an open interval around ``ln d``: the best
    one is where most intervals overlap. AbsRel is the weighted median with weights ``1 / d``.

    Raises:
        ValueError: no depths, or one that is not finite and positive.
    """
    truth: NDArray[np.float64] = np.sort(np.asarray(truth_m, np.float64).ravel())
    if len(truth) == 0 or not (np.isfinite(truth).all() and truth[0] > 0):
        raise ValueError("true depths must be finite and positive")
    lows, highs = truth / DELTA_BASE, truth * DELTA_BASE
    # just inside the beginning of an interval as many overlap as begin at or before it and have not ended
    begun = np.searchsorted(lows, lows, side="right")
    ended = np.searchsorted(highs, lows, side="right")
    best = int(np.argmax(begun - ended))
    following = highs[ended[best]]  # the first end after it: anywhere between is as good
    weights = np.cumsum(1 / truth)
    median = truth[np.searchsorted(weights, weights[-1] / 2)]
    return BestConstants(float(np.sqrt(lows[best] * min(following, lows[best] * 1.01))), float(median))
