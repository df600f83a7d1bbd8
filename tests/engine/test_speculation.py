"""Templates inside ``Engine.ask``: learned from the first answers, drafted, verified; stopping after the number."""

from __future__ import annotations

import re

import numpy as np
import pytest

from recon.engine.engine import Engine, EngineOptions
from recon.questions.dialects import get_dialect
from tests.engine.conftest import Case, questions_about
from tests.engine.oracle import generate, random_image
from tests.engine.speaker import DIALECT, make_speaker


@pytest.fixture(scope="module")
def speaker():
    return make_speaker()


@pytest.fixture(scope="module")
def case(speaker) -> Case:
    rng = np.random.default_rng(1)
    images = [random_image(rng, 70, 64)]
    questions = questions_about(images, rng, 36, get_dialect(DIALECT))
    return Case(images, questions, [generate(speaker, images, question, 20) for question in questions])


def test_the_speaker_says_numbers_in_fixed_text(speaker, case: Case) -> None:
    texts = [speaker.tokenizer.decode(ids, skip_special_tokens=True) for ids in case.expected]
    assert all(re.fullmatch(r"[789]\.[0123][456] meters away from", text) for text in texts)
    assert len(set(texts)) >= 4


def test_learned_templates_save_passes_and_change_nothing(speaker, case: Case) -> None:
    drafted = Engine(speaker, EngineOptions())
    plain = Engine(speaker, EngineOptions(speculation=False))
    for engine in (drafted, plain):
        assert [answer.token_ids for answer in engine.ask(case.images, case.questions)] == case.expected
    assert drafted.decoder.stats.num_accepted_tokens == 4 * 28  # the point and three words of all but the scouts
    before = drafted.decoder.stats.num_steps
    drafted.ask(case.images, case.questions)
    assert drafted.decoder.stats.num_steps - before <= 5  # the templates are known: digits and the end are left
    assert plain.decoder.stats.num_steps >= len(case.expected[0]) - 1


def test_stopping_after_the_number_changes_no_digit_and_no_text(speaker, case: Case) -> None:
    engine = Engine(speaker, EngineOptions(stop_after_number=True))
    whole = Engine(speaker, EngineOptions()).ask(case.images, case.questions)
    for _ in range(2):  # learning the templates, and knowing them
        answers = engine.ask(case.images, case.questions)
        for answer, full, expected in zip(answers, whole, case.expected, strict=True):
            assert answer.token_ids == expected[: len(answer.token_ids)]
            assert (answer.text, answer.value, answer.status) == (full.text, full.value, "ok")
            assert answer.confidence == pytest.approx(full.confidence, rel=1e-4)
            assert answer.spread == pytest.approx(full.spread, rel=1e-3, abs=1e-4)
    assert all(len(answer.token_ids) < len(expected) for answer, expected in zip(answers, case.expected, strict=True))


def test_without_speculation_the_number_still_ends_the_answer(speaker, case: Case) -> None:
    engine = Engine(speaker, EngineOptions(stop_after_number=True, speculation=False))
    engine.ask(case.images, case.questions)
    answers = engine.ask(case.images, case.questions)
    assert all(answer.text.endswith(" meters away from") for answer in answers)
