"""Templates: what is learned from answers, what is drafted, and when an answer is decided."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

from recon.engine.answers import AnswerReader
from recon.engine.checkpoint import Checkpoint
from recon.engine.templates import MIN_ANSWERS, TemplateBook, WaveDrafter, slot_form

FORM = "<think> The point is around {0} meters away from the camera. </think> <answer> {0} </answer>"
VALUES = ["2.35", "1.07", "9.99", "4.20", "3.31"]


@pytest.fixture
def tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    return checkpoint.tokenizer


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str, end: bool = True) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id] if end else ids


@pytest.fixture
def book(tokenizer: PreTrainedTokenizerBase) -> TemplateBook:
    made = TemplateBook(AnswerReader(tokenizer).piece, [tokenizer.eos_token_id])
    for value in VALUES:
        made.learn("depth", ids_of(tokenizer, FORM.format(value)))
    for value in ("x3 y900", "x1000 y41", "x77 y0", "x5 y6"):
        made.learn("match", ids_of(tokenizer, value))
    return made


def test_slot_forms() -> None:
    assert [slot_form(p) for p in ("x233", "7", " meters", "+", ".", "=-")] == ["x#", "#", "", "±", "", "=±"]


def test_drafts_run_to_the_next_free_digit_and_copy_the_number(
    book: TemplateBook, tokenizer: PreTrainedTokenizerBase
) -> None:
    drafter = WaveDrafter(book, ["depth"], stops=False)
    whole = ids_of(tokenizer, FORM.format("7.68"), end=False)
    given: list[int] = []
    passes = 0
    while len(given) < len(whole):
        draft = drafter.draft(0, given)
        assert draft == whole[len(given) : len(given) + len(draft)]
        given += whole[len(given) : len(given) + len(draft) + 1]  # a verified draft brings one token more
        passes += 1
    assert passes <= 4  # three digits, and the end
    assert len(whole) > 20


def test_an_answer_of_another_form_is_not_drafted_any_more(
    book: TemplateBook, tokenizer: PreTrainedTokenizerBase
) -> None:
    drafter = WaveDrafter(book, ["depth"], stops=False)
    assert drafter.draft(0, ids_of(tokenizer, "I do not know", end=False)) == []
    assert WaveDrafter(book, ["depth"], stops=False).draft(0, []) != []


def test_stops_only_behind_the_number(book: TemplateBook, tokenizer: PreTrainedTokenizerBase) -> None:
    whole = ids_of(tokenizer, FORM.format("7.68"), end=False)
    drafter = WaveDrafter(book, ["depth"], stops=True)
    complete = [drafter.is_complete(0, whole[: n + 1]) for n in range(len(whole))]
    first = complete.index(True)
    text = tokenizer.decode(whole[: first + 1])
    assert "7.68" in text
    assert not text.endswith("8")  # the number is closed by the next word, so no digit can follow
    assert whole[: first + 1] + book.completion("depth", whole[: first + 1]) == whole


def test_single_words_are_not_worth_drafting(book: TemplateBook, tokenizer: PreTrainedTokenizerBase) -> None:
    answers = TemplateBook(AnswerReader(tokenizer).piece, [tokenizer.eos_token_id])
    for value in VALUES:
        answers.learn("depth", ids_of(tokenizer, value))
    assert answers.knows("depth")
    assert answers.templates("depth") == []  # three free digits around one point
    assert book.templates("match")  # the blank between two coordinates is a third


def test_too_few_answers_make_no_template(tokenizer: PreTrainedTokenizerBase) -> None:
    book = TemplateBook(AnswerReader(tokenizer).piece, [tokenizer.eos_token_id])
    for value in VALUES[: MIN_ANSWERS - 1]:
        book.learn("depth", ids_of(tokenizer, FORM.format(value)))
    assert book.templates("depth") == []
    assert not book.knows("depth")
