"""Chooses the kernel on a GPU and the reference elsewhere."""

from __future__ import annotations

import torch

from vlm3_kernels.prefix_attention import reference
from vlm3_kernels.prefix_attention.spans import Keys, Spans


def prefix_attention(query: torch.Tensor, keys: Keys, spans: Spans, scale: float) -> torch.Tensor:
    """As :func:`vlm3_kernels.prefix_attention.reference.prefix_attention`."""
    dim = query.shape[2]
    if query.device.type == "cuda" and dim >= 16 and dim & (dim - 1) == 0:
        from vlm3_kernels.prefix_attention import kernel  # Triton is not there on every platform

        return kernel.prefix_attention(query, keys, spans, scale)
    return reference.prefix_attention(query, keys, spans, scale)
