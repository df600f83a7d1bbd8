"""The contract: in float32 every answer is token for token what ``generate`` gives for that question alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from recon.engine.checkpoint import Checkpoint
from recon.engine.decoding import DecodeOptions, WaveDecoder
from recon.engine.engine import Engine, EngineOptions
from recon.engine.prompts import common_prefix_length
from tests.engine.conftest import NUM_TOKENS, Case
from tests.engine.oracle import generate, random_image


def ask_ids(engine: Engine, case: Case, order: Sequence[int]) -> list[tuple[int, ...]]:
    answers = engine.ask(case.images, [case.questions[i] for i in order])
    ids: list[tuple[int, ...]] = [()] * len(order)
    for i, answer in zip(order, answers, strict=True):
        ids[i] = answer.token_ids
    return ids


def test_the_questions_are_many_and_their_answers_varied(cases: list[Case]) -> None:
    expected = [ids for case in cases for ids in case.expected]
    assert len(expected) > 190
    assert len(set(expected)) > 0.8 * len(expected)
    assert len({len(ids) for ids in expected}) == NUM_TOKENS


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(),
        EngineOptions(wave_size=3, speculation=False),
        EngineOptions(wave_size=7),
        EngineOptions(chunk_tokens=5),
        EngineOptions(chunk_tokens=64, wave_size=33, speculation=False),
    ],
    ids=lambda o: f"wave{o.wave_size}-chunk{o.chunk_tokens}-spec{o.speculation}",
)
def test_any_packing_and_order_equals_generate(
    checkpoint: Checkpoint, cases: list[Case], options: EngineOptions
) -> None:
    rng = np.random.default_rng(options.wave_size + options.chunk_tokens)
    engine = Engine(checkpoint, EngineOptions(**{**vars(options), "max_new_tokens": NUM_TOKENS}))
    for case in cases:
        assert ask_ids(engine, case, rng.permutation(len(case.questions)).tolist()) == case.expected


def test_evicted_prefixes_are_rebuilt_exactly(checkpoint: Checkpoint, cases: list[Case]) -> None:
    """With memory for hardly one prefix and images in turn, everything is evicted again and again."""
    engine = Engine(checkpoint, EngineOptions(kv_memory_bytes=60_000, max_new_tokens=NUM_TOKENS))
    for begin in (0, 9):
        for case in cases:
            part = Case(case.images, case.questions[begin : begin + 9], case.expected[begin : begin + 9])
            assert ask_ids(engine, part, range(len(part.questions))) == part.expected
    assert engine.prefixes.stats.num_evicted > 10
    assert engine.prefixes.num_bytes < 30_000 + max(64_000, engine.prefixes.num_bytes // 2)


def test_a_pair_starts_from_its_first_image(checkpoint: Checkpoint) -> None:
    rng = np.random.default_rng(3)
    first, second, third = (random_image(rng, 96, 64) for _ in range(3))
    engine = Engine(checkpoint, EngineOptions(max_new_tokens=4))
    question = _pose_question()
    engine.ask([first, second], [question])
    before = engine.prefixes.stats.num_computed_tokens
    answer = engine.ask([first, third], [question])[0]
    num_second_and_text = engine.prefixes.stats.num_computed_tokens - before
    assert engine.prefixes.stats.num_images_encoded == 3  # the first image's tower ran once
    assert engine.prefixes.stats.num_cached_tokens >= 6  # 3 x 2 image tokens
    assert num_second_and_text < before
    assert answer.token_ids == generate(checkpoint, [first, third], question, 4)
    # The same photo as image 1 and as image 2 of a pair: content alone is not the key.
    assert engine.ask([first, first], [question])[0].token_ids == generate(checkpoint, [first, first], question, 4)


def test_images_of_one_size_are_not_confused(checkpoint: Checkpoint, cases: list[Case]) -> None:
    rng = np.random.default_rng(4)
    engine = Engine(checkpoint, EngineOptions(max_new_tokens=6))
    question = cases[0].questions[0]
    images = [random_image(rng, 64, 64) for _ in range(3)]
    told = [engine.ask([image], [question])[0].token_ids for image in images]
    assert told == [generate(checkpoint, [image], question, 6) for image in images]
    assert len(set(told)) > 1


class _Guesser:
    """Drafts the right continuation, or a wrong one, or right tokens followed by wrong ones, at random."""

    stops = False

    def __init__(self, answers: Sequence[tuple[int, ...]], ends: Sequence[int], vocabulary: int) -> None:
        self._answers = answers
        self._ends = set(ends)
        self._vocabulary = vocabulary
        self._rng = np.random.default_rng(5)

    def draft(self, index: int, ids: Sequence[int]) -> list[int]:
        rest = [t for t in self._answers[index][len(ids) :] if t not in self._ends]
        right = rest[: int(self._rng.integers(0, 6))]
        wrong = self._rng.integers(0, self._vocabulary, int(self._rng.integers(0, 4))).tolist()
        return [t for t in [*right, *wrong] if t not in self._ends]

    def is_complete(self, index: int, ids: Sequence[int]) -> bool:
        return False


def test_drafts_right_or_wrong_change_nothing(checkpoint: Checkpoint, cases: list[Case]) -> None:
    engine = Engine(checkpoint, EngineOptions(max_new_tokens=NUM_TOKENS))
    worst: list[float] = []
    for case in cases:
        prompts = engine._prompts.encode([q.text for q in case.questions], len(case.images))
        shared = common_prefix_length(prompts)
        guesser = _Guesser(case.expected, checkpoint.end_token_ids, len(checkpoint.tokenizer))
        decoder = WaveDecoder(engine._runner, checkpoint.end_token_ids, engine._reader.digit_ids, DecodeOptions(256))
        with torch.inference_mode():
            prefix = engine.prefixes.get(engine._segments(case.images, prompts[0][:shared]))
            generated = decoder.decode(prefix, [p[shared:] for p in prompts], [NUM_TOKENS] * len(prompts), guesser)
            plain = decoder.decode(prefix, [p[shared:] for p in prompts], [NUM_TOKENS] * len(prompts))
        assert [g.ids for g in generated] == case.expected
        assert decoder.stats.num_accepted_tokens > 50
        assert decoder.stats.num_drafted_tokens > decoder.stats.num_accepted_tokens
        for drafted, alone in zip(generated, plain, strict=True):
            worst.append(float(np.abs(drafted.log_probs - alone.log_probs).max()))
            worst.append(float(np.abs(drafted.digit_log_probs - alone.digit_log_probs).max()))
    assert max(worst) < 3e-5  # measured 8.6e-6 in log-probability


class _Stopper(_Guesser):
    """Guesses too, and calls every answer of three tokens or more complete."""

    stops = True

    def is_complete(self, index: int, ids: Sequence[int]) -> bool:
        return len(ids) >= 3


def test_stopping_early_changes_no_token_before_the_stop(checkpoint: Checkpoint, cases: list[Case]) -> None:
    engine = Engine(checkpoint, EngineOptions(max_new_tokens=NUM_TOKENS))
    case = cases[0]
    prompts = engine._prompts.encode([q.text for q in case.questions], len(case.images))
    shared = common_prefix_length(prompts)
    stopper = _Stopper(case.expected, checkpoint.end_token_ids, len(checkpoint.tokenizer))
    with torch.inference_mode():
        prefix = engine.prefixes.get(engine._segments(case.images, prompts[0][:shared]))
        limits = [NUM_TOKENS] * len(prompts)
        generated = engine.decoder.decode(prefix, [p[shared:] for p in prompts], limits, stopper)
    for answer, expected in zip(generated, case.expected, strict=True):
        assert answer.ids == expected[: len(answer.ids)]
        assert len(answer.ids) >= min(3, len(expected))
    assert any(not answer.ended for answer in generated)


def test_out_of_gpu_memory_halves_the_wave(
    checkpoint: Checkpoint, cases: list[Case], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(checkpoint, EngineOptions(max_new_tokens=NUM_TOKENS))
    decode, sizes = engine.decoder.decode, []

    def small_gpu(prefix, suffixes, *args):
        sizes.append(len(suffixes))
        if len(suffixes) > 10:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return decode(prefix, suffixes, *args)

    monkeypatch.setattr(engine.decoder, "decode", small_gpu)
    case = cases[0]
    assert ask_ids(engine, case, range(len(case.questions))) == case.expected
    assert sizes[:4] == [36, 18, 9, 9]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["GPU memory is full: at most 18 questions in flight from now on"]  # said once


def test_memory_is_bounded_by_the_wave(checkpoint: Checkpoint, cases: list[Case]) -> None:
    """Slab memory is linear in the wave and does not depend on how many questions are asked."""

    def peak(wave: int, count: int) -> int:
        engine = Engine(checkpoint, EngineOptions(wave_size=wave, max_new_tokens=NUM_TOKENS, speculation=False))
        engine.ask(cases[0].images, (cases[0].questions * 3)[:count])
        return engine.decoder.stats.peak_slab_bytes

    assert peak(16, 48) == peak(16, 96)
    assert peak(32, 96) == pytest.approx(2 * peak(16, 96), rel=0.05)


def _pose_question():
    from recon.questions import pose
    from recon.questions.dialects import get_dialect

    return pose.ask(get_dialect("recon-1"))[0]
