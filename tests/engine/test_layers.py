"""The CPU's layers against Hugging Face's, and the engine on Hugging Face's layers, as a GPU runs it."""

from __future__ import annotations

import pytest
import torch
from vlm3_kernels.lm_head import reference as head

from recon.engine.attention import SegmentContext
from recon.engine.checkpoint import Checkpoint
from recon.engine.engine import Engine, EngineOptions
from recon.engine.forward import TextRunner
from recon.engine.layers import FastLayer, FastNorm
from recon.engine.modules import inference_twin
from tests.engine.conftest import NUM_TOKENS, Case


def test_layers_differ_from_hugging_faces_by_rounding_alone(checkpoint: Checkpoint) -> None:
    twins = [inference_twin(checkpoint.model), inference_twin(checkpoint.model, lambda module: None)]
    assert all(isinstance(layer, FastLayer) for layer in twins[0].model.language_model.layers)
    assert not any(isinstance(module, (FastLayer, FastNorm)) for module in twins[1].modules())
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(37, 64, generator=generator)
    positions = torch.randint(0, 90, (3, 37), generator=generator)
    made = []
    with torch.inference_mode():
        for twin in twins:
            runner = TextRunner(twin)
            context = SegmentContext(runner.empty_keys())
            layer = twin.model.language_model.layers[0]
            out = runner._layer(layer, hidden[None], runner._rotary(hidden, positions), context)
            made.append((out, context.keys[0], context.values[0], runner._text.norm(out)))
    for fast, plain in zip(*made, strict=True):
        scale = plain.abs().max()
        torch.testing.assert_close(fast / scale, plain / scale, atol=2e-6, rtol=0.0)


def test_parameters_are_shared_with_the_model(checkpoint: Checkpoint) -> None:
    mine = {p.data_ptr() for p in checkpoint.model.parameters()}
    assert {p.data_ptr() for p in inference_twin(checkpoint.model).parameters()} == mine


def test_hugging_faces_layers_with_our_attention_equal_generate(
    checkpoint: Checkpoint, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs on a GPU: the registered attention function inside the checkpoint's own layers."""
    monkeypatch.setattr("recon.engine.modules.fast_modules", lambda module: None)
    engine = Engine(checkpoint, EngineOptions(max_new_tokens=NUM_TOKENS))
    for case in (cases[1], cases[3]):
        answers = engine.ask(case.images, case.questions)
        assert [answer.token_ids for answer in answers] == case.expected


@pytest.mark.parametrize("vocabulary", [2, 3, 97, 96, 768])
def test_head_finds_the_first_best_and_the_second(vocabulary: int) -> None:
    logits = torch.randn(50, vocabulary, generator=torch.Generator().manual_seed(vocabulary)).round(decimals=1)
    logits[7] = 0.5  # all equal
    hidden, weight = logits, torch.eye(vocabulary)  # products that change nothing
    out = head.lm_head(hidden.double(), weight.double())
    assert torch.equal(out.token, logits.argmax(dim=1))
    ordered = logits.double().sort(dim=1, descending=True).values
    torch.testing.assert_close(out.margin, ordered[:, 0] - ordered[:, 1])
    torch.testing.assert_close(out.log_sum_exp, logits.double().logsumexp(dim=1))
