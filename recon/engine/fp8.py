"""FP8 matrix products, an opt-in: the text layers' weights and activations rounded to 8 bits (e4m3).

Scales are per output channel for weights and per token for activations, so one large value costs precision in its own
row only (as in Micikevicius et al. 2022 and vLLM's dynamic FP8). Answers are approximate: they are not those of
``generate``, and nothing here claims it. Attention, norms and the language-model head stay as they are.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import Qwen3VLForConditionalGeneration

from recon.engine.modules import Replace
from recon.errors import BadInputError

FORMAT = torch.float8_e4m3fn
LARGEST = torch.finfo(FORMAT).max  # 448
_MIN_CAPABILITY = (8, 9)
_ALIGNMENT = 16  # the product's inner and outer sizes must be multiples of it


def quantise_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``x`` [M, K] as 8-bit rows and their float32 scales [M, 1]: ``x ~ rows * scales``. Rows of zeros stay zeros."""
    peak = x.abs().amax(dim=1, keepdim=True).float()
    scale = torch.where(peak > 0, peak / LARGEST, torch.ones_like(peak))
    return (x.float() / scale).clamp(-LARGEST, LARGEST).to(FORMAT), scale


class Fp8Linear(nn.Module):
    """A linear layer in FP8: ``(x8 w8^T) * x_scale * w_scale + bias``; exact products, summed in float32.

    On a CPU the 8-bit numbers are multiplied in float32: the same rounding, for tests.
    """

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        self.weight8, self.weight_scale = quantise_rows(source.weight.detach())
        self.bias = source.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, scale = quantise_rows(x.flatten(0, -2))
        if x.device.type == "cpu":
            out = ((rows.float() @ self.weight8.float().T) * scale * self.weight_scale.T).to(x.dtype)
        else:
            # With a scale per row the product comes in bfloat16 alone.
            weight_scale = self.weight_scale.t().contiguous()
            out = torch._scaled_mm(
                rows, self.weight8.t(), scale_a=scale, scale_b=weight_scale, out_dtype=torch.bfloat16
            ).to(x.dtype)
        out = out.unflatten(0, x.shape[:-1])
        return out if self.bias is None else out + self.bias


def check_device(device: torch.device) -> None:
    """Raises BadInputError where FP8 products are not supported."""
    needs = f"FP8 needs an NVIDIA GPU of compute capability {'.'.join(map(str, _MIN_CAPABILITY))} or more"
    if device.type != "cuda" or torch.version.hip:
        raise BadInputError(f"--fp8: {needs}, found device {device.type!r}; leave --fp8 out")
    found = torch.cuda.get_device_capability(device)
    if found < _MIN_CAPABILITY:
        raise BadInputError(f"--fp8: {needs}, found {found[0]}.{found[1]}; leave --fp8 out")


def fp8_modules(model: Qwen3VLForConditionalGeneration) -> Replace:
    """Replaces the text layers' linear layers (the vision tower and the head are small, and shape every answer)."""
    layers = model.model.language_model.layers
    chosen = {
        id(m) for m in layers.modules() if type(m) is nn.Linear and not any(s % _ALIGNMENT for s in m.weight.shape)
    }

    def replace(module: nn.Module) -> nn.Module | None:
        return Fp8Linear(module) if id(module) in chosen and isinstance(module, nn.Linear) else None

    return replace
