"""Answers in tokens: while they grow, and when they are done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Generated:
    """One answer in tokens: ``ids`` with the end token if reached; per token its log-probability, its logit's margin
    over the second best, and the log-probabilities of the ten digits [n, 10] (NaN without single-digit tokens).
    """

    ids: tuple[int, ...]
    log_probs: Floats
    margins: Floats
    digit_log_probs: Floats
    ended: bool


class Tape:
    """The answers of a wave while they grow: arrays [N, room]."""

    def __init__(self, num_questions: int, num_digits: int) -> None:
        self.count = np.zeros(num_questions, dtype=np.int64)
        self.ids = np.zeros((num_questions, 16), dtype=np.int64)
        self.figures = np.zeros((num_questions, 16, 2 + num_digits), dtype=np.float32)

    def append(self, question: Ints, place: Ints, ids: Ints, figures: Floats) -> None:
        """Puts tokens at given places of given questions, growing the arrays when needed."""
        while place.max() >= self.ids.shape[1]:
            self.ids = np.concatenate([self.ids, np.zeros_like(self.ids)], axis=1)
            self.figures = np.concatenate([self.figures, np.zeros_like(self.figures)], axis=1)
        self.ids[question, place] = ids
        self.figures[question, place] = figures
        np.maximum.at(self.count, question, place + 1)

    def said(self, i: int) -> list[int]:
        """The tokens of one answer so far."""
        ids: list[int] = self.ids[i, : self.count[i]].tolist()
        return ids

    def newest(self, question: Ints) -> Ints:
        """The last token of each of the given answers."""
        return self.ids[question, self.count[question] - 1]

    def answer(self, i: int, ended: bool) -> Generated:
        """One answer as it stands."""
        figures = self.figures[i, : self.count[i]]
        return Generated(tuple(self.said(i)), figures[:, 0], figures[:, 1], figures[:, 2:], ended)
