"""Chooses the kernel on a GPU and the reference elsewhere."""

from __future__ import annotations

import torch

from vlm3_kernels.lm_head import reference
from vlm3_kernels.lm_head.reference import HeadOutput


def lm_head(hidden: torch.Tensor, weight: torch.Tensor) -> HeadOutput:
    """Greedy choice from ``hidden`` [T, H] and ``weight`` [V, H]."""
    if hidden.device.type == "cuda":
        from vlm3_kernels.lm_head import kernel  # Triton is not there on every platform

        return kernel.lm_head(hidden, weight)
    return reference.lm_head(hidden, weight)
