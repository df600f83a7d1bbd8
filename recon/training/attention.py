"""Attention of packed training rows: suffixes see the shared prefix and themselves, in blocks instead of one big mask.

Of the ``L x L`` scores of a packed row nearly all are masked: 32 questions of 14 tokens behind 70 prefix tokens need
44 thousand of 269 thousand. Registered with ``transformers.AttentionInterface``; the layout comes through the model's
forward arguments (``packing``, see :func:`recon.training.encode.collate`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import AttentionInterface, Qwen3VLForConditionalGeneration

NAME = "recon_packed"


def packed_attention(
    module: nn.Module,
    query: Tensor,  # [B, H, P + N * S, D]
    key: Tensor,  # [B, H_kv, P + N * S, D]
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    packing: dict[str, Tensor] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function of Hugging Face's interface; returns ``[B, P + N * S, H, D]``.

    Raises:
        ValueError: called without ``packing``.
    """
    if packing is None:
        raise ValueError("packed attention needs the layout of the rows (packing=...)")
    prefix_mask, owners = packing["prefix"], packing["suffixes"]
    batch, prefix = prefix_mask.shape
    _, count, length = owners.shape
    key, value = key.to(query.dtype), value.to(query.dtype)

    seen = torch.ones(prefix, prefix, dtype=torch.bool, device=query.device).tril()
    head = _attend(query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], seen, scaling)

    def own(tensor: Tensor) -> Tensor:  # [B, H, N * S, D] -> [B * N, H, S, D]
        heads, dim = tensor.shape[1], tensor.shape[3]
        return tensor[:, :, prefix:].reshape(batch, heads, count, length, dim).transpose(1, 2).flatten(0, 1)

    def shared(tensor: Tensor) -> Tensor:  # [B, H, P, D] -> [B * N, H, P, D]
        return tensor[:, None, :, :prefix].expand(-1, count, -1, -1, -1).flatten(0, 1)

    causal = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    mask = torch.cat(
        [
            prefix_mask[:, None, None, :].expand(-1, count, length, -1),
            causal & (owners[..., :, None] == owners[..., None, :]),  # several suffixes may share a slot
        ],
        dim=-1,
    ).flatten(0, 1)[:, None]  # [B * N, 1, S, P + S]
    keys = torch.cat([shared(key), own(key)], dim=2)
    values = torch.cat([shared(value), own(value)], dim=2)
    tails = _attend(own(query), keys, values, mask, scaling)  # [B * N, H, S, D]
    tails = tails.unflatten(0, (batch, count)).transpose(2, 3).flatten(1, 2)  # [B, N * S, H, D]
    return torch.cat([head.transpose(1, 2), tails], dim=1), None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    """Plain softmax attention of blocks: for such small ones 3 times as fast on a CPU as PyTorch's fused function."""
    batch, heads, length, dim = query.shape
    groups = heads // key.shape[1]
    scale = dim**-0.5 if scaling is None else scaling
    grouped = query.reshape(batch, key.shape[1], groups * length, dim) * scale  # heads that share keys side by side
    scores = torch.matmul(grouped, key.transpose(-1, -2)).unflatten(2, (groups, length))  # [B, H_kv, G, Q, K]
    visible = mask if mask.ndim == 2 else mask[:, :, None]
    scores = scores.masked_fill(~visible, float("-inf")).float().softmax(dim=-1).to(value.dtype)
    return torch.matmul(scores.flatten(2, 3), value).reshape(batch, heads, length, dim)


def use_packed_attention(model: Qwen3VLForConditionalGeneration) -> None:
    """Switches the text model to packed attention, and the patch embedding to a matrix product."""
    AttentionInterface.register(NAME, packed_attention)
    model.set_attn_implementation({"text_config": NAME, "vision_config": "sdpa"})
    use_linear_patches(model)


def use_linear_patches(model: Qwen3VLForConditionalGeneration) -> None:
    """Computes the patch embedding as the matrix product that it is (its convolution's stride is its kernel).

    As a 3-D convolution it took half of a tower's training step on a CPU. Weights and results stay what they are.
    """
    patch_embed = model.model.visual.patch_embed

    def forward(patches: Tensor) -> Tensor:  # [patches, features] -> [patches, hidden]
        projection = patch_embed.proj
        weight = projection.weight.flatten(1)  # [hidden, features]
        return linear(patches.to(weight.dtype), weight, projection.bias)

    patch_embed.forward = forward
