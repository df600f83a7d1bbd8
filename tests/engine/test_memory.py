"""Memory of questions in flight: linear, bounded by the wave, and what happens when it is full."""

from __future__ import annotations

import dataclasses
import logging
import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recon.engine import decoding
from recon.engine.checkpoint import Checkpoint
from recon.engine.engine import Engine, EngineOptions
from recon.errors import DeviceMemoryError
from recon.training.tokenizer import build_image_processor
from tests.engine.conftest import NUM_TOKENS, Case
from tests.engine.oracle import generate, random_image
from tests.engine.test_exactness import _pose_question


class LiveBytes(TorchDispatchMode):
    """The most bytes of tensors made inside it that were alive at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        pointer, size = storage.data_ptr(), storage.nbytes()
        if size == 0 or pointer in self._seen:
            return
        self._seen.add(pointer)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, pointer, size)

    def _gone(self, pointer: int, size: int) -> None:
        self._seen.discard(pointer)
        self.now -= size


def peak_bytes(checkpoint: Checkpoint, case: Case, wave: int, count: int) -> int:
    """The most memory that ``count`` questions take in waves of ``wave``, without the prefix."""
    options = EngineOptions(wave_size=wave, chunk_tokens=64, max_new_tokens=NUM_TOKENS, speculation=False)
    engine = Engine(checkpoint, options)
    engine.ask(case.images, case.questions[:1])
    engine.decoder.release()
    with LiveBytes() as live:
        engine.ask(case.images, (case.questions * 9)[:count])
    return live.peak


def test_memory_is_linear_in_questions_in_flight_and_bounded_by_the_wave(
    checkpoint: Checkpoint, cases: list[Case]
) -> None:
    by_wave = {wave: peak_bytes(checkpoint, cases[0], wave, 64) for wave in (16, 32, 64)}
    first, second = by_wave[32] - by_wave[16], by_wave[64] - by_wave[32]
    assert second == pytest.approx(2 * first, rel=0.25)
    assert peak_bytes(checkpoint, cases[0], 16, 160) == pytest.approx(by_wave[16], rel=0.05)


def test_the_measure_counts_what_is_alive() -> None:
    with LiveBytes() as live:
        a = torch.zeros(1000)
        del a
        b = torch.zeros(500)
        c = b.view(2, 250)
    assert (live.peak, live.now, len(c)) == (4000, 2000, 2)


def test_full_memory_in_a_pass_halves_the_wave_and_is_said_once(
    checkpoint: Checkpoint, cases: list[Case], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The allocator fails in the middle of decoding, for every wave of more than five questions."""
    step = decoding.WaveDecoder._step
    sizes: list[int] = []

    def small_gpu(self, prefix, slab, batch):
        sizes.append(len(batch.lengths))
        if len(batch.lengths) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return step(self, prefix, slab, batch)

    monkeypatch.setattr(decoding.WaveDecoder, "_step", small_gpu)
    engine = Engine(checkpoint, EngineOptions(max_new_tokens=NUM_TOKENS))
    with caplog.at_level(logging.INFO):
        answers = engine.ask(cases[0].images, cases[0].questions)
    assert [answer.token_ids for answer in answers] == cases[0].expected
    assert max(sizes) > 5
    assert engine._largest_wave <= 9
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING and "memory is full" in r.message]
    assert len(warnings) == 1


def test_full_memory_while_the_photo_is_read_gives_back_what_is_kept(
    checkpoint: Checkpoint, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(checkpoint, EngineOptions(max_new_tokens=NUM_TOKENS))
    engine.ask(cases[0].images, cases[0].questions[:2])
    compute, clear, is_full = engine.prefixes._compute, engine.prefixes.clear, [True]

    def fails_while_full(segment, past):
        if is_full[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(segment, past)

    def gives_back() -> None:
        is_full[0] = False
        clear()

    monkeypatch.setattr(engine.prefixes, "_compute", fails_while_full)
    monkeypatch.setattr(engine.prefixes, "clear", gives_back)
    answers = engine.ask(cases[1].images, cases[1].questions[:3])
    assert [answer.token_ids for answer in answers] == cases[1].expected[:3]


def test_what_can_not_fit_is_one_line(
    checkpoint: Checkpoint, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine = Engine(checkpoint, EngineOptions(max_new_tokens=4))
    monkeypatch.setattr(engine.decoder, "decode", full)
    with pytest.raises(DeviceMemoryError, match="too small for a single question"):
        engine.ask(cases[0].images, cases[0].questions[:3])
    monkeypatch.setattr(engine.prefixes, "get", full)
    with pytest.raises(DeviceMemoryError, match=r"too small for the images \(64x64 pixels\)"):
        engine.ask(cases[0].images, cases[0].questions[:3])


@pytest.mark.slow
def test_two_large_photos(checkpoint: Checkpoint) -> None:
    """2830 x 1884 pixels each: a prefix of 10 400 image tokens, and the answer that ``generate`` gives."""
    rng = np.random.default_rng(6)
    images = [random_image(rng, 2830, 1884) for _ in range(2)]
    checkpoint = dataclasses.replace(checkpoint, image_processor=build_image_processor(max_pixels=2**24))
    engine = Engine(checkpoint, EngineOptions(max_new_tokens=2))
    question = _pose_question()
    answer = engine.ask(images, [question])[0]
    assert engine.prefixes.stats.num_computed_tokens > 10_300
    assert answer.token_ids == generate(checkpoint, images, question, 2)
