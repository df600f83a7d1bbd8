"""Scores of answers to questions about regions, by SpatialRGPT-Bench's rules (Cheng et al., NeurIPS 2024).

Qualitative: the answer's polarity, or the region it chooses, equals the label's. Quantitative lengths: right within
+-25 % of the label; AbsRel over the parsed lengths. Directions on the clock: right within one hour. The benchmark lets
a language model compare the texts; here the values are read by rules (:mod:`recon.questions.object_answers`), and what
the rules can't read counts as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

LENGTH_WITHIN = 0.25
HOURS_WITHIN = 1
_EPSILON_M = 1e-4  # the benchmark's, against labels of 0

ValueKind = Literal["polarity", "choice", "length", "clock"]


@dataclass(frozen=True)
class ObjectAnswer:
    """One scored answer: its category, what kind of value it holds, the label's value (1 or 0, index of the region,
    metres, hour) and the answer's, None where it could not be read."""

    category: str
    kind: ValueKind
    truth: float
    predicted: float | None

    @property
    def is_qualitative(self) -> bool:
        return self.kind in ("polarity", "choice")

    @property
    def is_right(self) -> bool:
        if self.predicted is None:
            return False
        if self.kind == "length":
            # multiplied, as the benchmark does: a label of 0 is right only when answered 0
            return (1 - LENGTH_WITHIN) * self.truth <= self.predicted <= (1 + LENGTH_WITHIN) * self.truth
        if self.kind == "clock":
            return hours_apart(self.predicted, self.truth) <= HOURS_WITHIN
        return self.predicted == self.truth

    @property
    def error(self) -> float:
        """0 or 1 (qualitative), relative (lengths), hours; NaN where it could not be read."""
        if self.predicted is None:
            return float("nan")
        if self.kind == "length":
            return abs(self.predicted - self.truth) / (self.truth + _EPSILON_M)
        if self.kind == "clock":
            return hours_apart(self.predicted, self.truth)
        return float(self.predicted != self.truth)


@dataclass(frozen=True)
class CategoryScores:
    """``accuracy`` over all ``count`` answers (unread is wrong); ``abs_rel`` over the parsed lengths, NaN otherwise."""

    count: int
    parse_rate: float
    accuracy: float
    abs_rel: float


@dataclass(frozen=True)
class ObjectScores:
    """Overall scores and those of every category; NaN where there are no such questions.

    ``quantitative`` counts lengths and directions together, as the benchmark's overall figure does; ``lengths`` only
    lengths.
    """

    count: int
    parse_rate: float
    qualitative: float
    quantitative: float
    lengths: float
    abs_rel: float
    categories: Mapping[str, CategoryScores]

    def to_json(self) -> dict[str, object]:
        """The scores by name."""
        return asdict(self)


def hours_apart(first: float, second: float) -> float:
    """Distance of two hours on the clock face, 0 to 6."""
    apart = abs(first - second) % 12
    return min(apart, 12 - apart)


def score_objects(answers: Sequence[ObjectAnswer]) -> ObjectScores:
    """Scores answers; raises ValueError without any."""
    if not answers:
        raise ValueError("no answers to score")
    by_category: dict[str, list[ObjectAnswer]] = {}
    for answer in answers:
        by_category.setdefault(answer.category, []).append(answer)
    lengths = [answer for answer in answers if answer.kind == "length"]
    return ObjectScores(
        count=len(answers),
        parse_rate=_parse_rate(answers),
        qualitative=_accuracy([answer for answer in answers if answer.is_qualitative]),
        quantitative=_accuracy([answer for answer in answers if not answer.is_qualitative]),
        lengths=_accuracy(lengths),
        abs_rel=_abs_rel(lengths),
        categories={
            name: CategoryScores(len(part), _parse_rate(part), _accuracy(part), _abs_rel(part))
            for name, part in sorted(by_category.items())
        },
    )


def best_constants(answers: Sequence[ObjectAnswer]) -> list[ObjectAnswer]:
    """The same questions answered by someone who never looks: in every category the one answer that is right most often
    on these very labels. No constant does better."""
    best: dict[str, float] = {}
    for category in {answer.category for answer in answers}:
        labels = [replace(answer, predicted=None) for answer in answers if answer.category == category]
        candidates = sorted({answer.truth for answer in labels} | {answer.truth / 1.25 for answer in labels})
        if labels[0].kind == "clock":
            candidates = [float(hour) for hour in range(1, 13)]
        best[category] = max(candidates, key=lambda value: sum(replace(a, predicted=value).is_right for a in labels))
    return [replace(answer, predicted=best[answer.category]) for answer in answers]


def _parse_rate(answers: Sequence[ObjectAnswer]) -> float:
    return float(np.mean([answer.predicted is not None for answer in answers]))


def _accuracy(answers: Sequence[ObjectAnswer]) -> float:
    return float(np.mean([answer.is_right for answer in answers])) if answers else float("nan")


def _abs_rel(answers: Sequence[ObjectAnswer]) -> float:
    errors = [answer.error for answer in answers if answer.kind == "length" and answer.predicted is not None]
    return float(np.mean(errors)) if errors else float("nan")
