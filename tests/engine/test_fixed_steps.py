"""Decoding passes in buffers of fixed size, as CUDA graphs use them, run without recording: the same answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recon.engine.checkpoint import Checkpoint
from recon.engine.decoding import WaveDecoder
from recon.engine.engine import Engine, EngineOptions
from recon.engine.steps import FIXED_SIZES, FixedSteps
from tests.engine.conftest import NUM_TOKENS, Case
from tests.engine.test_exactness import _Guesser


def fixed_engine(checkpoint: Checkpoint, **options: int) -> Engine:
    engine = Engine(checkpoint, EngineOptions(max_new_tokens=NUM_TOKENS, **options))
    engine.decoder = engine.make_decoder(fixed_sizes=True)
    return engine


def fixed_steps(decoder: WaveDecoder) -> FixedSteps:
    assert decoder._fixed is not None
    return decoder._fixed


def test_fixed_sizes_equal_generate(checkpoint: Checkpoint, cases: list[Case]) -> None:
    """Prefixes of several lengths go through the same buffers, finished questions leave, rows stay in place."""
    engine = fixed_engine(checkpoint)
    engine.decoder._in_place = True
    sizes = set()
    for case in cases:
        answers = engine.ask(case.images, case.questions)
        assert [answer.token_ids for answer in answers] == case.expected
        sizes |= set(fixed_steps(engine.decoder)._passes)  # a longer prefix or a new slab starts them anew
    stats = engine.decoder.stats
    assert stats.num_fixed_steps == stats.num_steps
    assert {size for size, _ in sizes} <= set(FIXED_SIZES)
    assert len(sizes) > 2


def test_short_drafts_go_through_fixed_sizes_too(checkpoint: Checkpoint, cases: list[Case]) -> None:
    engine, case = fixed_engine(checkpoint), cases[0]
    guesser = _Guesser(case.expected, checkpoint.end_token_ids, len(checkpoint.tokenizer))
    engine._drafter = lambda kinds: guesser  # type: ignore[method-assign]
    engine._scouts = lambda limits, kinds: []  # type: ignore[method-assign]
    answers = engine.ask(case.images, case.questions)
    assert [answer.token_ids for answer in answers] == case.expected
    assert engine.decoder.stats.num_accepted_tokens > 20
    assert any(longest > 1 for _, longest in fixed_steps(engine.decoder)._passes)
    assert 0 < engine.decoder.stats.num_fixed_steps < engine.decoder.stats.num_steps  # long drafts do not fit


def test_buffers_outlive_the_photo_and_die_with_the_slab(checkpoint: Checkpoint, cases: list[Case]) -> None:
    engine = fixed_engine(checkpoint, wave_size=8)
    engine.ask(cases[0].images, cases[0].questions[:8])
    steps = fixed_steps(engine.decoder)
    kept = dict(steps._passes)
    engine.ask(cases[1].images, cases[1].questions[:8])  # another photo of another size
    assert all(steps._passes[key] is made for key, made in kept.items())
    engine.decoder.release()
    assert steps._passes == {}
    answers = engine.ask(cases[0].images, cases[0].questions[:8])
    assert [answer.token_ids for answer in answers] == cases[0].expected[:8]


@pytest.mark.parametrize("count", [1, 8, 9])
def test_the_edges_of_a_size(checkpoint: Checkpoint, cases: list[Case], count: int) -> None:
    engine = fixed_engine(checkpoint)
    answers = engine.ask(cases[2].images, cases[2].questions[:count])
    assert [answer.token_ids for answer in answers] == cases[2].expected[:count]
    assert min(size for size, _ in fixed_steps(engine.decoder)._passes) == 8
    assert np.all(np.diff(FIXED_SIZES) > 0)


def test_a_new_slab_starts_anew_wherever_it_stands(
    checkpoint: Checkpoint, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python gives a new object the address of a freed one: recorded passes must not outlive their own slab."""
    monkeypatch.setattr("recon.engine.steps.id", lambda thing: 1, raising=False)
    engine = fixed_engine(checkpoint)
    engine.ask(cases[0].images, cases[0].questions[:8])
    steps = fixed_steps(engine.decoder)
    kept = list(steps._passes.values())
    engine.ask(cases[0].images, cases[0].questions[:36])  # needs a larger slab
    assert not any(made is old for made in steps._passes.values() for old in kept)


def test_passes_are_plain_where_recording_fails(
    checkpoint: Checkpoint, cases: list[Case], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self, prefix, slab, stream, pool):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    monkeypatch.setattr("recon.engine.steps._FixedPass.record", fails)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    engine = fixed_engine(checkpoint)
    fixed_steps(engine.decoder)._record = True
    answers = engine.ask(cases[0].images, cases[0].questions)
    assert [answer.token_ids for answer in answers] == cases[0].expected
    assert [r.message for r in caplog.records if "CUDA graphs are off" in r.message] != []
    assert engine.decoder.stats.num_fixed_steps == 1  # the failed one; it was not tried again


def test_a_longer_prefix_forgets_the_pool_of_its_graphs(checkpoint: Checkpoint, cases: list[Case]) -> None:
    """CUDA's allocator refuses the handle of a pool whose graphs are gone."""
    engine = fixed_engine(checkpoint)
    engine.ask(cases[0].images, cases[0].questions[:8])
    steps = fixed_steps(engine.decoder)
    steps._pool = "a handle"
    assert steps._prefix is not None
    short = steps._prefix.num_tokens
    with torch.inference_mode():
        steps._fill_prefix(steps._prefix.with_room(short))
        assert steps._pool == "a handle"
        steps._fill_prefix(steps._prefix.with_room(short + 1))
    assert (steps._pool, steps._passes) == (None, {})
