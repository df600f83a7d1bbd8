"""The text model's decoder layer for inference on a CPU: Hugging Face's arithmetic in fewer passes over memory.

Residuals are added inside the products (oneDNN), a norm's sum of squares is one reduction, and the rotation reads its
input twice instead of four times. All of it differs from Hugging Face's layers by float32 rounding alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    Qwen3VLTextAttention,
    Qwen3VLTextDecoderLayer,
    Qwen3VLTextMLP,
    Qwen3VLTextRMSNorm,
    rotate_half,
)
from vlm3_kernels.linear import gated, linear

from recon.engine.attention import AttentionContext

Rotary = tuple[torch.Tensor, torch.Tensor]  # cosines and sines [1, T, D]


class FastLinear(nn.Module):
    """A linear layer's arithmetic through :func:`vlm3_kernels.linear.linear`."""

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = source.weight, source.bias

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """``residual`` is added to the result."""
        return linear(x, self.weight, self.bias, residual)


class FastNorm(nn.Module):
    """RMSNorm in three passes over memory instead of four, none of them into fresh memory but one."""

    def __init__(self, source: Qwen3VLTextRMSNorm) -> None:
        super().__init__()
        self.weight, self.epsilon = source.weight, source.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        return (wide * scale.add_(self.epsilon).rsqrt_()).to(x.dtype).mul_(self.weight)


class FastMLP(nn.Module):
    """SwiGLU whose activation and product are fused into the matrix products where the CPU's library can."""

    def __init__(self, source: Qwen3VLTextMLP) -> None:
        super().__init__()
        mlp: Any = source
        self.gate, self.up, self.down = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """``residual`` is added to the result."""
        return linear(gated(x, self.gate, self.up), self.down, None, residual)


class FastAttention(nn.Module):
    """The projections and norms of an attention block, under Hugging Face's names."""

    def __init__(self, source: Qwen3VLTextAttention) -> None:
        super().__init__()
        self.head_dim, self.layer_idx, self.scaling = source.head_dim, source.layer_idx, source.scaling
        self.q_proj, self.k_proj = FastLinear(source.q_proj), FastLinear(source.k_proj)
        self.v_proj, self.o_proj = FastLinear(source.v_proj), FastLinear(source.o_proj)
        self.q_norm, self.k_norm = FastNorm(source.q_norm), FastNorm(source.k_norm)


class FastLayer(nn.Module):
    """A decoder layer that calls the engine's attention context directly."""

    def __init__(self, source: Qwen3VLTextDecoderLayer) -> None:
        super().__init__()
        self.self_attn = FastAttention(source.self_attn)
        self.mlp = FastMLP(source.mlp)
        self.input_layernorm = FastNorm(source.input_layernorm)
        self.post_attention_layernorm = FastNorm(source.post_attention_layernorm)

    def forward(
        self, hidden: torch.Tensor, *, position_embeddings: Rotary, recon_context: AttentionContext, **_: Any
    ) -> torch.Tensor:  # [1, T, H]
        attn, normed = self.self_attn, self.input_layernorm(hidden)
        heads = (*hidden.shape[:-1], -1, attn.head_dim)
        query = rotate(attn.q_norm(attn.q_proj(normed).view(heads)), position_embeddings).transpose(1, 2)
        key = rotate(attn.k_norm(attn.k_proj(normed).view(heads)), position_embeddings).transpose(1, 2)
        value = attn.v_proj(normed).view(heads).transpose(1, 2)
        mixed = recon_context.attend(attn.layer_idx, query, key, value, attn.scaling)
        hidden = attn.o_proj(mixed.reshape(*hidden.shape[:-1], -1), hidden)
        return self.mlp(self.post_attention_layernorm(hidden), hidden)


def rotate(x: torch.Tensor, rotary: Rotary) -> torch.Tensor:
    """Rotary position embedding of ``x`` [1, T, heads, D], as ``apply_rotary_pos_emb`` computes it."""
    cos, sin = (table[:, :, None] for table in rotary)  # [1, T, 1, D]
    if x.dtype != torch.float32:  # narrow types are rounded where Hugging Face rounds them
        return x * cos + rotate_half(x) * sin
    half = x.shape[-1] // 2
    # The swapped halves' signs go to the small table of sines.
    signed = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
    return (x * cos).addcmul_(torch.cat([x[..., half:], x[..., :half]], dim=-1), signed)
