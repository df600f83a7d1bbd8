"""Chooses the kernel on a GPU and the reference elsewhere."""

from __future__ import annotations

import torch

from vlm3_kernels.prefix_attention import reference
from vlm3_kernels.prefix_attention.spans import Spans


def prefix_attention(
    query: torch.Tensor,  # [T, Hq, D]
    prefix_key: torch.Tensor,  # [Hkv, P, D]
    prefix_value: torch.Tensor,  # [Hkv, P, D]
    own_key: torch.Tensor,  # [W, Hkv, C, D]
    own_value: torch.Tensor,  # [W, Hkv, C, D]
    spans: Spans,
    scale: float,
) -> torch.Tensor:  # [T, Hq, D]
    """Attention of packed queries over a shared prefix and each span's own slab row."""
    dim = query.shape[2]
    if query.device.type == "cuda" and dim >= 16 and dim & (dim - 1) == 0:
        from vlm3_kernels.prefix_attention import kernel  # Triton is not there on every platform

        return kernel.prefix_attention(query, prefix_key, prefix_value, own_key, own_value, spans, scale)
    return reference.prefix_attention(query, prefix_key, prefix_value, own_key, own_value, spans, scale)
