"""``x weight^T`` on the CPU, by the faster of PyTorch's two libraries.

PyTorch sends float32 products on a CPU to MKL, which leaves AVX-512 unused on processors that are not Intel's; oneDNN,
which PyTorch brings along too, compiles for the processor it finds (twice as fast on a Zen 5 core) and can apply SiLU
and a product with another tensor while the result is in registers. Its linear operator is the one that
``torch.compile`` emits. Results differ from MKL's by rounding alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import linear as plain_linear

MIN_ROWS = 16  # with fewer rows the call itself costs more than the product

_onednn: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def uses_onednn(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether a product with ``x`` [..., K] goes to oneDNN: float32 on a CPU, enough rows, no gradient wanted."""
    return (
        _onednn is not None
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() >= MIN_ROWS * x.shape[-1] > 0
        and weight.shape[0] > 0
        and not torch.is_grad_enabled()
    )


def linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, residual: torch.Tensor | None = None
) -> torch.Tensor:
    """``x`` [..., K] times ``weight`` [N, K] transposed, plus ``bias`` [N] and ``residual`` [..., N] -> [..., N]."""
    if uses_onednn(x, weight):
        out: torch.Tensor
        if residual is None:
            out = _onednn(x, weight, bias, "none", [], "")
        else:
            out = _onednn.binary(x, residual, weight, bias, "add")
        return out
    product = plain_linear(x, weight, bias)
    return product if residual is None else product + residual


def gated(x: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """``silu(x gate^T) * (x up^T)``: the inner half of a SwiGLU; ``gate`` and ``up`` [N, K]."""
    if uses_onednn(x, gate):
        inner = _onednn(x, gate, None, "swish", [], "")
        out: torch.Tensor = _onednn.binary(x, inner, up, None, "mul")
        return out
    return torch.nn.functional.silu(plain_linear(x, gate)) * plain_linear(x, up)
