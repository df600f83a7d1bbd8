"""Scores of match, pose and object answers against hand-checked arithmetic and independent implementations."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from recon.evaluation.bootstrap import bootstrap
from recon.evaluation.depth import median_scaled, score_depth
from recon.evaluation.match import endpoint_errors, score_match
from recon.evaluation.object import ObjectAnswer, best_constants, hours_apart, score_objects
from recon.evaluation.pair_pose import pair_pose_errors, score_pair_poses
from recon.evaluation.reliability import reliability

NAN = float("nan")


# ---------------------------------------------------------------------------------------------------------------------
# match


def test_match_scores_of_a_hand_checked_set() -> None:
    # a second photo of 500 x 250: 3 px right and 2 px down are 6 and 8 of 1000, together 10
    predicted = [[103.0, 52.0], [100.0, 50.0], [NAN, NAN], [NAN, NAN], [10.0, 10.0]]
    truth = [[100.0, 50.0], [100.0, 50.0], [100.0, 50.0], [NAN, NAN], [NAN, NAN]]
    scores = score_match(predicted, truth, [[500.0, 250.0]] * 5, [False, False, False, True, False])
    assert (scores.count, scores.visible) == (5, 3)
    assert scores.parse_rate == pytest.approx(4 / 5)
    assert scores.answered == pytest.approx(2 / 3)
    assert scores.epe_mean == pytest.approx(5.0)
    assert scores.epe_median == pytest.approx(5.0)
    assert scores.epe_mean_px == pytest.approx(math.sqrt(13) / 2)
    assert scores.pck == {5: pytest.approx(1 / 3), 10: pytest.approx(2 / 3), 25: pytest.approx(2 / 3),
                          50: pytest.approx(2 / 3)}  # fmt: skip
    assert scores.pck_px[4] == pytest.approx(2 / 3)
    assert scores.hidden_recognised == pytest.approx(0.5)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10))
def test_normalised_errors_do_not_change_when_the_photo_is_resized(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    predicted, truth = rng.uniform(0, 100, (2, 8, 2))
    size = np.tile([[120.0, 110.0]], (8, 1))
    error, error_px = endpoint_errors(predicted, truth, size)
    resized, resized_px = endpoint_errors(predicted * scale, truth * scale, size * scale)
    np.testing.assert_allclose(resized, error, rtol=1e-9)
    np.testing.assert_allclose(resized_px, error_px * scale, rtol=1e-9)


# ---------------------------------------------------------------------------------------------------------------------
# pose


def _turn(axis: str, degrees: float) -> np.ndarray:
    return Rotation.from_euler(axis, degrees, degrees=True).as_matrix()


def test_pose_scores_of_a_hand_checked_set() -> None:
    true_rotation = np.stack([_turn("y", 10.0)] * 4)
    centres = np.array([[1.0, 0, 0], [0, 0, 2.0], [2.0, 0, 0], [1.0, 0, 0]])
    rotation = np.stack([_turn("y", 13.0), _turn("y", 10.0), np.full((3, 3), NAN), _turn("y", 10.0)])
    direction = np.array([[1.0, 0, 0], [0, 0, -1.0], [1.0, 0, 0], [0.0, 1.0, 0]])
    errors = pair_pose_errors(rotation, direction, [1.2, 2.0, 2.6, NAN], true_rotation, centres, [True] * 3 + [False])
    np.testing.assert_allclose(errors.rotation_deg, [3.0, 0.0, np.inf, 0.0], atol=1e-9)
    np.testing.assert_allclose(errors.direction_deg, [0.0, 180.0, 0.0, 90.0], atol=1e-9)  # the sign counts
    scores = score_pair_poses(errors, [True, True, True, False])
    assert scores.parse_rate == 0.75
    # one pair of four within 3 degrees: recall 0 at 1, 2 and 3 (3.0 falls into the last bin's end), a quarter after
    assert scores.auc_histogram[30] == pytest.approx(np.mean([0.25 * (d > 3) for d in range(1, 31)]), abs=0.25 / 30)
    assert scores.auc_exact[10] == pytest.approx((0.25 * 3 / 2 + 0.25 * 7) / 10)
    assert scores.auc_rotation[30] > scores.auc_direction[30]
    assert scores.distance_count == 3
    assert scores.distance_within == pytest.approx(2 / 3)  # 1.2, 1.0 and 1.3 of the truth
    assert scores.distance_abs_rel == pytest.approx((0.2 + 0.0 + 0.3) / 3)


# ---------------------------------------------------------------------------------------------------------------------
# object


def test_object_scores_of_a_hand_checked_set() -> None:
    answers = [
        ObjectAnswer("left_predicate", "polarity", 1.0, 1.0),
        ObjectAnswer("left_predicate", "polarity", 0.0, None),  # unread is wrong
        ObjectAnswer("tall_choice", "choice", 1.0, 0.0),
        ObjectAnswer("width_data", "length", 2.0, 2.5),  # exactly 25 % more is right
        ObjectAnswer("width_data", "length", 2.0, 1.49),
        ObjectAnswer("width_data", "length", 2.0, None),
        ObjectAnswer("direction", "clock", 12.0, 1.0),  # one hour apart is right
        ObjectAnswer("direction", "clock", 11.0, 1.0),
    ]
    scores = score_objects(answers)
    assert scores.qualitative == pytest.approx(1 / 3)
    assert scores.quantitative == pytest.approx(2 / 5)
    assert scores.lengths == pytest.approx(1 / 3)
    assert scores.abs_rel == pytest.approx((0.5 + 0.51) / 2 / 2.0001)
    assert scores.parse_rate == pytest.approx(6 / 8)
    assert scores.categories["left_predicate"].accuracy == 0.5
    assert math.isnan(scores.categories["direction"].abs_rel)
    assert hours_apart(11, 1) == 2
    with pytest.raises(ValueError, match="no answers"):
        score_objects([])


def test_no_constant_beats_the_best_constants_of_objects() -> None:
    rng = np.random.default_rng(0)
    lengths = [ObjectAnswer("width_data", "length", float(v), None) for v in np.exp(rng.normal(0, 0.5, 60))]
    hours = [ObjectAnswer("direction", "clock", float(v), None) for v in [12, 1, 2, 6, 6]]
    said = [ObjectAnswer("left_predicate", "polarity", float(v), None) for v in [1, 1, 0]]
    scores = score_objects(best_constants([*lengths, *hours, *said]))
    assert scores.qualitative == pytest.approx(2 / 3)
    assert scores.categories["direction"].accuracy == pytest.approx(3 / 5)  # 1 o'clock, an hour off twice
    for constant in np.geomspace(0.2, 5, 500):
        tried = score_objects([replace(answer, predicted=float(constant)) for answer in lengths])
        assert tried.lengths <= scores.lengths


# ---------------------------------------------------------------------------------------------------------------------
# depth: scaling, and another implementation


def test_median_scaling_is_per_photo_and_leaves_unparsed_alone() -> None:
    predicted = [1.0, 2.0, 4.0, NAN, 10.0]
    truth = [2.0, 4.0, 8.0, 1.0, 5.0]
    scaled = median_scaled(predicted, truth, ["a", "a", "a", "a", "b"])
    np.testing.assert_allclose(scaled, [2.0, 4.0, 8.0, NAN, 5.0])
    assert score_depth(scaled, truth).delta1 == 0.8  # the unparsed one stays wrong
    with pytest.raises(ValueError, match="equal lengths"):
        median_scaled([1.0], [1.0], ["a", "b"])


@settings(deadline=None, max_examples=30, derandomize=True)
@given(seed=st.integers(0, 1000), factor=st.floats(0.01, 100))
def test_median_scaled_scores_do_not_depend_on_the_scale(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    truth, groups = rng.uniform(0.5, 9, 20), [str(k % 3) for k in range(20)]
    predicted = truth * np.exp(rng.normal(0, 0.4, 20))
    one, other = (median_scaled(values, truth, groups) for values in (predicted, predicted * factor))
    np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.slow
def test_depth_and_rank_figures_agree_with_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    regression = pytest.importorskip("torchmetrics.functional.regression")
    rng = np.random.default_rng(3)
    truth = rng.uniform(0.3, 12, 400)
    predicted = truth * np.exp(rng.normal(0.1, 0.5, 400))
    scores = score_depth(predicted, truth)
    a, b = torch.tensor(predicted), torch.tensor(truth)
    assert scores.rmse_m == pytest.approx(float(regression.mean_squared_error(a, b, squared=False)), rel=1e-6)
    assert scores.abs_rel == pytest.approx(float(regression.mean_absolute_percentage_error(a, b)), rel=1e-6)
    # silog^2 = mean of squared logs - square of the mean log; torchmetrics' log error is of ln(1 + x)
    squared = float(regression.mean_squared_error(a.log(), b.log()))
    assert (scores.silog / 100) ** 2 == pytest.approx(squared - float((a / b).log().mean()) ** 2, rel=1e-6)
    confidence = rng.uniform(0, 1, 400)
    error = np.abs(np.log(predicted / truth))
    curve = reliability(confidence, error < 0.2, error)
    theirs = float(regression.spearman_corrcoef(torch.tensor(confidence), torch.tensor(error)))
    assert curve.rank_correlation == pytest.approx(theirs, abs=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# bootstrap


def test_bootstrap_draws_whole_groups() -> None:
    values = np.array([0.0] * 50 + [1.0] * 50)
    groups = ["a"] * 50 + ["b"] * 50
    interval = bootstrap(lambda rows: {"mean": float(values[rows].mean())}, groups, 400)["mean"]
    assert (interval.low, interval.high) == (0.0, 1.0)  # two groups: a quarter of the draws holds one of them only
    single = bootstrap(lambda rows: {"mean": float(values[rows].mean())}, list(range(100)), 400)["mean"]
    assert 0.35 < single.low < 0.45 < 0.55 < single.high < 0.65
    lonely = bootstrap(lambda rows: {"mean": 1.0}, ["a", "a"], 10)["mean"]
    assert math.isnan(lonely.low)
    assert math.isnan(lonely.high)


def test_bootstrap_agrees_with_scipy_on_single_rows() -> None:
    from scipy.stats import bootstrap as scipy_bootstrap

    values = np.random.default_rng(0).normal(3, 1, 60)
    ours = bootstrap(lambda rows: {"m": float(values[rows].mean())}, list(range(60)), 3000)["m"]
    theirs = scipy_bootstrap(
        (values,), np.mean, n_resamples=3000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.03)
    assert ours.high == pytest.approx(theirs.high, abs=0.03)


def test_bootstrap_is_the_same_again_and_refuses_nothing() -> None:
    def statistic(rows: np.ndarray) -> dict[str, float]:
        return {"half": NAN if rows.sum() % 2 else float(rows.mean())}

    assert bootstrap(statistic, [1, 2, 3], 50) == bootstrap(statistic, [1, 2, 3], 50)
    with pytest.raises(ValueError, match="rows"):
        bootstrap(statistic, [], 50)


# ---------------------------------------------------------------------------------------------------------------------
# reliability


def test_reliability_of_a_hand_checked_set() -> None:
    confidence = [0.1, 0.1, 0.9, 0.9]
    curve = reliability(confidence, [False, False, True, False], [3.0, NAN, 1.0, 2.0], num_bins=2)
    low, high = curve.bins
    assert (low.count, low.accuracy, low.median_error) == (2, 0.0, 3.0)
    assert (high.count, high.accuracy, high.median_error) == (2, 0.5, 1.5)
    assert curve.ece == pytest.approx((2 * 0.1 + 2 * 0.4) / 4)
    assert curve.rank_correlation == pytest.approx(-math.sqrt(3) / 2)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(confidence=st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.50001, 1.0]), min_size=1, max_size=40))
def test_bins_hold_every_answer_once_and_never_split_equal_confidences(confidence: list[float]) -> None:
    curve = reliability(confidence, [True] * len(confidence), [0.0] * len(confidence))
    assert sum(part.count for part in curve.bins) == len(confidence)
    assert all(a.high < b.low for a, b in zip(curve.bins[:-1], curve.bins[1:], strict=True))
    assert math.isnan(curve.rank_correlation)


def test_a_perfectly_calibrated_answerer_has_no_calibration_error() -> None:
    confidence = np.repeat([0.25, 0.75], 40)
    right = np.tile([True, False, False, False], 10).tolist() + np.tile([True, True, True, False], 10).tolist()
    assert reliability(confidence, right, 1.0 - np.array(right, float)).ece == pytest.approx(0.0)
    with pytest.raises(ValueError, match="confidences"):
        reliability([1.5], [True], [0.0])
