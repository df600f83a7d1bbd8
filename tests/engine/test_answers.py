"""Confidence and spread from token probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recon.engine.answers import AnswerReader
from recon.engine.checkpoint import Checkpoint
from recon.engine.tape import Generated
from recon.types import Question
from tests.engine.oracle import random_image

QUESTION = Question("depth", "depth", "recon-1", "Depth in metres at x1 y2", (1.0, 1.0))
RELEASED = Question("depth", "depth", "vlm3-released", "how far", (1.0, 1.0))


def generated(checkpoint: Checkpoint, text: str, log_probs: list[float], digits: dict[int, list[float]]) -> Generated:
    ids = checkpoint.tokenizer(text, add_special_tokens=False)["input_ids"]
    table = np.full((len(ids) + 1, 10), -20.0, dtype=np.float32)
    for place, distribution in digits.items():
        table[place] = np.log(np.maximum(distribution, 1e-9))
    probs = np.array(log_probs or [0.0] * (len(ids) + 1), dtype=np.float32)
    end = checkpoint.tokenizer.eos_token_id
    return Generated((*ids, end), probs, np.ones(len(ids) + 1, dtype=np.float32), table, True)


def one(digit: int) -> list[float]:
    return [float(d == digit) for d in range(10)]


def test_confidence_is_that_of_the_value_alone(checkpoint: Checkpoint) -> None:
    image = random_image(np.random.default_rng(0), 64, 64)
    text = "<answer> 2.35 </answer>"
    plain = generated(checkpoint, text, [], {})
    pieces = [checkpoint.tokenizer.decode([i]) for i in plain.ids]
    begin = pieces.index("2")
    log_probs = np.full(len(pieces), -3.0)
    log_probs[begin : begin + 4] = [-0.1, -0.2, -0.3, -0.4]
    answer = AnswerReader(checkpoint.tokenizer).read(
        RELEASED, [image], generated(checkpoint, text, log_probs.tolist(), {})
    )
    assert answer.value == (2.35,)
    assert answer.confidence == pytest.approx(math.exp(-0.25))
    assert answer.log_prob == pytest.approx(log_probs.sum())
    assert answer.text == text


def test_spread_is_the_deviation_over_digit_alternatives(checkpoint: Checkpoint) -> None:
    image = random_image(np.random.default_rng(0), 64, 64)
    reader = AnswerReader(checkpoint.tokenizer)
    half = [0.0, 0.0, 0.5, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]  # 2 or 4: deviation 1
    certain = {0: one(2), 2: one(3), 3: one(5)}
    cases = [
        ("2.35", certain, 0.0),
        ("2.35", {**certain, 0: half}, 1.0),
        ("2.35", {**certain, 2: half}, 0.1),
        ("22.35", {0: half, 1: one(2), 3: one(3), 4: one(5)}, 10.0),
    ]
    for text, digits, expected in cases:
        answer = reader.read(QUESTION, [image], generated(checkpoint, text, [], digits))
        assert answer.spread == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_an_unparsed_answer_has_no_confidence(checkpoint: Checkpoint) -> None:
    image = random_image(np.random.default_rng(0), 64, 64)
    answer = AnswerReader(checkpoint.tokenizer).read(QUESTION, [image], generated(checkpoint, "not visible", [], {}))
    assert (answer.status, answer.value, answer.confidence) == ("unparsed", None, 0.0)
    assert math.isnan(answer.spread)
    assert answer.reason
