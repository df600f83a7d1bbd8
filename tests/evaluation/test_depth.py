"""Depth scores against hand-checked arithmetic, and the best constant against trying all constants."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recon.evaluation.depth import best_constants, score_depth


def test_scores_of_a_hand_checked_set() -> None:
    # ratios 1.2 (within 1.25), 0.5 (a factor 2: outside 1.25**3 = 1.953), 1.5 (within 1.5625), 1.25 (not below 1.25)
    scores = score_depth([1.2, 1.0, 6.0, 2.5], [1.0, 2.0, 4.0, 2.0])
    assert (scores.delta1, scores.delta2, scores.delta3) == (0.25, 0.75, 0.75)
    assert scores.abs_rel == pytest.approx((0.2 + 0.5 + 0.5 + 0.25) / 4)
    assert scores.rmse_m == pytest.approx(math.sqrt((0.04 + 1.0 + 4.0 + 0.25) / 4))
    logs = np.log([1.2, 0.5, 1.5, 1.25])
    assert scores.silog == pytest.approx(100 * math.sqrt((logs**2).mean() - logs.mean() ** 2))
    assert scores.parse_rate == 1.0


def test_unparsed_answers_count_as_wrong() -> None:
    scores = score_depth([1.0, np.nan, 1.0, np.inf], [1.0, 1.0, 1.0, 1.0])
    assert scores.parse_rate == 0.5
    assert scores.delta1 == scores.delta3 == 0.5
    assert scores.abs_rel == 0.0
    nothing = score_depth([np.nan], [1.0])
    assert nothing.delta1 == 0.0
    assert math.isnan(nothing.abs_rel)


def test_scale_does_not_change_silog() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 5, 50)
    predicted = truth * np.exp(rng.normal(0, 0.2, 50))
    assert score_depth(3 * predicted, truth).silog == pytest.approx(score_depth(predicted, truth).silog)


@pytest.mark.parametrize("seed", range(5))
def test_best_constants_beat_every_other_constant(seed: int) -> None:
    truth = np.exp(np.random.default_rng(seed).normal(0.8, 0.6, 301))
    best = best_constants(truth)
    for_delta1 = score_depth(np.full(len(truth), best.for_delta1_m), truth).delta1
    for_abs_rel = score_depth(np.full(len(truth), best.for_abs_rel_m), truth).abs_rel
    for constant in np.geomspace(truth.min(), truth.max(), 2000):
        scores = score_depth(np.full(len(truth), constant), truth)
        assert scores.delta1 <= for_delta1
        assert scores.abs_rel >= for_abs_rel - 1e-12


@pytest.mark.parametrize(
    ("predicted", "truth"), [([1.0], [1.0, 2.0]), ([], []), ([1.0], [0.0]), ([1.0], [np.nan]), ([[1.0]], [[1.0]])]
)
def test_bad_arguments_are_refused(predicted: list[float], truth: list[float]) -> None:
    with pytest.raises(ValueError):
        score_depth(predicted, truth)
