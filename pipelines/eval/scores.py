"""Figures of an evaluation: stored replies against labels, with bootstrap intervals and a reliability curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines.eval.answers import Answered
from pipelines.eval.items import Reply, group_of
from recon.cameras.pinhole import rays
from recon.evaluation.bootstrap import Interval, bootstrap
from recon.evaluation.depth import DELTA_BASE, DepthScores, best_constants, median_scaled, score_depth
from recon.evaluation.match import endpoint_errors, score_match
from recon.evaluation.object import ObjectAnswer, ObjectScores, ValueKind, score_objects
from recon.evaluation.object import best_constants as best_object_constants
from recon.evaluation.pair_pose import PairPoseErrors, pair_pose_errors, score_pair_poses
from recon.evaluation.reliability import Reliability, reliability
from recon.interop.datasets.records import DepthItem, ObjectItem, PairItem
from recon.questions import object, object_answers, pose
from recon.questions.dialects import POSE_KINDS
from recon.types import DepthKind, Task

MATCH_RIGHT_WITHIN = 25.0  # normalised-1000, for the reliability curve
POSE_RIGHT_WITHIN_DEG = 10.0
_NAN = float("nan")

Rows = NDArray[np.int64]
Statistic = Callable[[Rows], dict[str, float]]


@dataclass(frozen=True)
class Scores:
    """What came out.

    Attributes:
        figures: by name, over all questions.
        intervals: their 95 % bootstrap intervals over photos or scenes.
        reliability: confidence against error; None for an answerer without confidence.
        right_means, error_means: what the curve's axes count, in words.
        right: per question (per pair for pose) whether it counts as right, in order, for pictures.
        error: and its error.
        categories: of object questions: name -> figures.
        constants: figures of the constant answers that are best on these labels, by what they are best for.
        notes: what a reader must know.
    """

    figures: Mapping[str, float]
    intervals: Mapping[str, Interval]
    reliability: Reliability | None
    right_means: str
    error_means: str
    right: NDArray[np.bool_]
    error: NDArray[np.float64]
    categories: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    constants: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def score(answered: Sequence[Answered], task: Task, depth_kind: DepthKind | None, resamples: int) -> Scores:
    """Scores of a task's replies.

    Args:
        answered: at least one item.
        depth_kind: what the answerer means by depth; None: what each label means.
        resamples: of the bootstrap.
    """
    if task == "depth":
        return _depth(answered, depth_kind, resamples)
    if task == "match":
        return _match(answered, resamples)
    if task == "pose":
        return _pose(answered, resamples)
    return _object(answered, resamples)


# ---------------------------------------------------------------------------------------------------------------------


def _depth(answered: Sequence[Answered], depth_kind: DepthKind | None, resamples: int) -> Scores:
    predicted, truth, confidence, groups = [], [], [], []
    for entry in answered:
        item = entry.item
        assert isinstance(item, DepthItem)
        depth_m = np.array([_single(reply) for reply in entry.replies])
        if depth_kind is not None and depth_kind != item.depth_kind:
            stretch = np.linalg.norm(rays(item.camera, item.pixels), axis=1)  # ray over z
            depth_m = depth_m * stretch if item.depth_kind == "ray" else depth_m / stretch
        predicted.append(depth_m)
        truth.append(item.depth_m)
        confidence += [reply.confidence for reply in entry.replies]
        groups += [group_of(item)] * len(depth_m)
    answers, labels = np.concatenate(predicted), np.concatenate(truth)
    scaled = median_scaled(answers, labels, groups)

    def statistic(rows: Rows) -> dict[str, float]:
        raw, fitted = score_depth(answers[rows], labels[rows]), score_depth(scaled[rows], labels[rows])
        after = {f"scaled_{name}": v for name, v in _depth_figures(fitted).items() if name != "parse_rate"}
        return {**_depth_figures(raw), **after}

    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.abs(np.log(np.where(answers > 0, answers, np.nan) / labels))
    right = error < np.log(DELTA_BASE)
    return _scores(
        statistic, groups, resamples, confidence, right, error, "within a factor 1.25", "|ln(answer/truth)|",
        constants=constant_figures(labels),
    )  # fmt: skip


def _depth_figures(scores: DepthScores) -> dict[str, float]:
    figures = scores.to_json()
    del figures["count"]
    return figures


def constant_figures(truth_m: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """Figures of the constant answers that score best on the labels ``truth_m`` themselves: no constant, tuned on
    whatever data, does better."""
    best = best_constants(truth_m)
    rows = {}
    for name, metres in (("for_delta1", best.for_delta1_m), ("for_abs_rel", best.for_abs_rel_m)):
        figures = _depth_figures(score_depth(np.full(len(truth_m), metres), truth_m))
        rows[name] = {"metres": metres, **figures}
    return rows


def _match(answered: Sequence[Answered], resamples: int) -> Scores:
    predicted, truth, sizes, denied, confidence, groups = [], [], [], [], [], []
    for entry in answered:
        item = entry.item
        assert isinstance(item, PairItem)
        predicted += [reply.value if reply.status == "ok" and reply.value else (_NAN, _NAN) for reply in entry.replies]
        denied += [reply.status == "not_visible" for reply in entry.replies]
        truth.append(item.pixels2)
        sizes += [(item.camera2.width_px, item.camera2.height_px)] * len(entry.replies)
        confidence += [reply.confidence for reply in entry.replies]
        groups += [group_of(item)] * len(entry.replies)
    answers, labels, size = np.array(predicted, np.float64), np.concatenate(truth), np.array(sizes, np.float64)
    says_hidden = np.array(denied)

    def statistic(rows: Rows) -> dict[str, float]:
        scores = score_match(answers[rows], labels[rows], size[rows], says_hidden[rows])
        figures = {
            name: getattr(scores, name)
            for name in ("parse_rate", "answered", "epe_mean", "epe_median", "epe_mean_px", "epe_median_px")
        }
        figures |= {f"pck_{t}": share for t, share in scores.pck.items()}
        figures |= {f"pck_px_{t}": share for t, share in scores.pck_px.items()}
        return {**figures, "hidden_recognised": scores.hidden_recognised}

    error, _ = endpoint_errors(answers, labels, size)
    hidden = ~np.isfinite(labels[:, 0])
    right = np.where(hidden, says_hidden, error <= MATCH_RIGHT_WITHIN)
    means = f"within {MATCH_RIGHT_WITHIN:g} of 1000, or rightly called not visible"
    notes = (f"{int(hidden.sum())} of {len(hidden)} asked points are hidden in the second photo",)
    return _scores(statistic, groups, resamples, confidence, right, error, means, "end-point error (of 1000)", notes)


def _pose(answered: Sequence[Answered], resamples: int) -> Scores:
    rotations, directions, distances, true_rotations, centres, metric = [], [], [], [], [], []
    confidence, groups, angle_errors, parsed = [], [], [], []
    for entry in answered:
        item = entry.item
        assert isinstance(item, PairItem)
        assert item.cam1_from_cam2 is not None
        by_kind = dict(zip(POSE_KINDS, entry.replies, strict=True))
        euler, direction = by_kind["euler_natural"], by_kind["translation_direction"]
        rotations.append(pose.rotation_from_euler(*_triple(euler)) if _ok(euler) else np.full((3, 3), _NAN))
        directions.append(_triple(direction) if _ok(direction) else (_NAN,) * 3)
        distances.append(_single(by_kind["translation_distance"]))
        true_rotations.append(item.cam1_from_cam2[:, :3])
        centres.append(item.cam1_from_cam2[:, 3])
        metric.append(item.is_metric)
        true_angle = pose.rotation_angle_deg(item.cam1_from_cam2[:, :3])
        angle_errors.append(abs(_single(by_kind["rotation_angle"]) - true_angle))
        confidence.append(min(euler.confidence, direction.confidence))
        parsed.append(np.mean([_ok(reply) for reply in entry.replies]))
        groups.append(group_of(item))
    errors = pair_pose_errors(
        np.array(rotations), np.array(directions), np.array(distances), np.array(true_rotations), np.array(centres),
        np.array(metric),
    )  # fmt: skip
    has_distance = np.array(metric) & (np.linalg.norm(np.array(centres), axis=1) > 1e-9)
    angles, all_parsed = np.array(angle_errors), np.array(parsed)

    def statistic(rows: Rows) -> dict[str, float]:
        part = PairPoseErrors(errors.rotation_deg[rows], errors.direction_deg[rows], errors.ratio[rows])
        scores = score_pair_poses(part, has_distance[rows])
        figures: dict[str, float] = {"parse_rate": float(all_parsed[rows].mean()), "pose_rate": scores.parse_rate}
        for name in ("auc_histogram", "auc_exact", "auc_rotation", "auc_direction"):
            figures |= {f"{name}_{t}": area for t, area in getattr(scores, name).items()}
        figures |= {
            name: getattr(scores, name)
            for name in ("median_rotation_deg", "median_direction_deg", "distance_within", "distance_abs_rel")
        }
        known = angles[rows][np.isfinite(angles[rows])]
        return {**figures, "median_angle_question_deg": float(np.median(known)) if len(known) else _NAN}

    worst = errors.worst_deg
    finite = np.where(np.isfinite(worst), worst, np.nan)
    means = f"rotation and direction within {POSE_RIGHT_WITHIN_DEG:g} degrees"
    right = worst <= POSE_RIGHT_WITHIN_DEG
    return _scores(statistic, groups, resamples, confidence, right, finite, means, "larger angle error (degrees)")


def _object(answered: Sequence[Answered], resamples: int) -> Scores:
    answers: list[ObjectAnswer] = []
    confidence, groups, unread = [], [], 0
    for entry in answered:
        item = entry.item
        assert isinstance(item, ObjectItem)
        for (text, label), reply in zip(item.turns, entry.replies, strict=True):
            made = object_answer(item.category, text, label, reply)
            if made is None:
                unread += 1
                continue
            answers.append(made)
            confidence.append(reply.confidence)
            groups.append(group_of(item))
    if not answers:
        from recon.errors import BadInputError

        raise BadInputError("no label of the object questions can be read: neither polarity, region, length nor hour")

    def statistic(rows: Rows) -> dict[str, float]:
        return _object_figures(score_objects([answers[row] for row in rows]))

    categories = {
        name: {"count": float(part.count), "accuracy": part.accuracy, "abs_rel": part.abs_rel}
        for name, part in score_objects(answers).categories.items()
    }
    right = np.array([answer.is_right for answer in answers])
    error = np.array([answer.error for answer in answers])
    notes = (f"{unread} questions left out: their labels hold no readable value",) if unread else ()
    return _scores(
        statistic, groups, resamples, confidence, right, error, "right by the benchmark's rules",
        "error (0/1, relative, or hours)", notes, categories,
        {"in_every_category": _object_figures(score_objects(best_object_constants(answers)))},
    )  # fmt: skip


def _object_figures(scores: ObjectScores) -> dict[str, float]:
    names = ("parse_rate", "qualitative", "quantitative", "lengths", "abs_rel")
    return {name: getattr(scores, name) for name in names}


def object_answer(category: str, text: str, label: str, reply: Reply) -> ObjectAnswer | None:
    """The scored answer to a question; None when the label itself holds no value that can be read."""
    kind = object.kind_of(text)
    if kind == "object":
        regions = object.named_regions(text)
        truth = _chosen(label, regions)
        if truth is None:
            return None
        return ObjectAnswer(category, "choice", truth, _chosen(reply.text, regions))
    truth = object_answers.read_value(kind, label)
    if truth is None:
        return None
    names: dict[str, ValueKind] = {"object_polarity": "polarity", "object_length": "length", "object_clock": "clock"}
    return ObjectAnswer(category, names[kind], truth, _single(reply) if _ok(reply) else None)


def _chosen(text: str, regions: Sequence[int]) -> float | None:
    """The one region that an answer names as ``Region [k]``; None when it names none of them, or several."""
    named = {number for number in object.named_regions(text) if number in regions}
    return float(named.pop()) if len(named) == 1 else None


def _scores(
    statistic: Statistic,
    groups: Sequence[str],
    resamples: int,
    confidence: Sequence[float],
    right: NDArray[np.bool_],
    error: NDArray[np.float64],
    right_means: str,
    error_means: str,
    notes: tuple[str, ...] = (),
    categories: Mapping[str, Mapping[str, float]] | None = None,
    constants: Mapping[str, Mapping[str, float]] | None = None,
) -> Scores:
    sure = np.array(confidence, dtype=np.float64)
    curve = reliability(sure, right, error) if np.isfinite(sure).all() else None
    return Scores(
        figures=statistic(np.arange(len(groups))),
        intervals=bootstrap(statistic, groups, resamples),
        reliability=curve,
        right_means=right_means,
        error_means=error_means,
        right=right,
        error=error,
        categories=categories or {},
        constants=constants or {},
        notes=notes,
    )


def _ok(reply: Reply) -> bool:
    return reply.status == "ok" and reply.value is not None


def _single(reply: Reply) -> float:
    return reply.value[0] if _ok(reply) and reply.value is not None else _NAN


def _triple(reply: Reply) -> tuple[float, float, float]:
    assert reply.value is not None
    a, b, c = reply.value
    return a, b, c
