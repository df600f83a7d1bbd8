"""Products on the CPU: whichever library computes them, the result is the product."""

from __future__ import annotations

import pytest
import torch
from vlm3_kernels import linear


@pytest.mark.parametrize("shape", [(1, 7, 5), (16, 33, 9), (2, 40, 64, 31), (20, 8, 0), (0, 8, 4)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_and_gated(shape: tuple[int, ...], bias: bool) -> None:
    generator = torch.Generator().manual_seed(len(shape))
    x = torch.randn(*shape[:-1], generator=generator)
    weight, gate = (torch.randn(shape[-1], shape[-2], generator=generator) for _ in range(2))
    b = torch.randn(shape[-1], generator=generator) if bias else None
    residual = torch.randn(*shape[:-2], shape[-1], generator=generator)
    before = residual.clone()
    with torch.inference_mode():
        got, both = linear.linear(x, weight, b), linear.gated(x, gate, weight)
        added = linear.linear(x, weight, b, residual)
    torch.testing.assert_close(added, got + residual, atol=3e-5, rtol=1e-5)
    assert torch.equal(residual, before)
    exact = x.double() @ weight.double().T
    half = x.double() @ gate.double().T
    torch.testing.assert_close(got.double(), exact + (b.double() if b is not None else 0), atol=3e-5, rtol=1e-5)
    torch.testing.assert_close(both.double(), half * half.sigmoid() * exact, atol=3e-4, rtol=1e-4)


def test_strided_input_and_transposed_weight() -> None:
    x = torch.randn(32, 60)[:, 7:40]
    weight = torch.randn(33, 12).T
    with torch.inference_mode():
        torch.testing.assert_close(linear.linear(x, weight), x @ weight.T, atol=1e-4, rtol=1e-4)


def test_gradients_go_through_pytorch() -> None:
    x = torch.randn(32, 8, requires_grad=True)
    linear.linear(x, torch.randn(4, 8)).sum().backward()
    assert x.grad is not None
    assert not linear.uses_onednn(x, torch.randn(4, 8))
