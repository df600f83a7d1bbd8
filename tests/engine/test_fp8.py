"""FP8: the rounding and its scales, computed on the CPU; the refusal where it can't run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recon.engine.checkpoint import Checkpoint
from recon.engine.engine import Engine, EngineOptions
from recon.engine.forward import TextRunner
from recon.engine.fp8 import LARGEST, Fp8Linear, fp8_modules, quantise_rows
from recon.engine.modules import FastLinear, inference_twin
from recon.errors import BadInputError


def test_every_row_uses_the_whole_range_and_zero_rows_stay_zero() -> None:
    x = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [3e4, 1.0, -7e-3]])
    rows, scale = quantise_rows(x)
    assert scale[:, 0].tolist() == pytest.approx([2 / 448, 1.0, 3e4 / 448])
    assert rows.float().abs().amax(dim=1).tolist() == [LARGEST, 0.0, LARGEST]
    assert (rows.float() * scale)[0].tolist() == pytest.approx([1.0, -2.0, 0.5])  # powers of two of the peak: exact


def test_rounding_error_is_that_of_three_mantissa_bits() -> None:
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    rows, scale = quantise_rows(x)
    normal = x.abs() > scale * 2**-6  # below it the format has fewer bits
    error = ((rows.float() * scale - x).abs() / x.abs())[normal]
    assert error.max() <= 2**-4 + 1e-6


def test_a_large_row_does_not_cost_the_others_precision() -> None:
    generator = torch.Generator().manual_seed(1)
    linear = nn.Linear(128, 32)
    linear.weight.data = torch.randn(32, 128, generator=generator)
    linear.weight.data[3] *= 1000
    x = torch.randn(5, 128, generator=generator)
    x[2] *= 1e4
    with torch.inference_mode():
        exact, got = linear(x), Fp8Linear(linear)(x)
    others = [0, 1, 2, *range(4, 32)]
    error = ((got - exact)[:, others].norm(dim=1) / exact[:, others].norm(dim=1)).max()
    assert 0.01 < error < 0.06  # two roundings of at most 1/16 each, averaged over 128 products; measured 0.045


def test_text_layers_alone_are_replaced(checkpoint: Checkpoint) -> None:
    twin = inference_twin(checkpoint.model, fp8_modules(checkpoint.model))
    layers = twin.model.language_model.layers
    assert all(isinstance(m, Fp8Linear) for layer in layers for m in (layer.self_attn.q_proj, layer.mlp.down_proj))
    assert not any(isinstance(m, (Fp8Linear, FastLinear)) for m in twin.model.visual.modules())
    assert type(twin.lm_head) is nn.Linear
    assert (
        type(checkpoint.model.model.language_model.layers[0].mlp.up_proj) is nn.Linear
    )  # the user's model is as it was
    assert TextRunner(twin).num_layers == 3


def test_a_device_that_can_not_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(BadInputError, match=r"--fp8: FP8 needs an NVIDIA GPU .* found device 'cpu'"):
        Engine(checkpoint, EngineOptions(fp8=True))
