"""Plain PyTorch twin of the kernel, and the CPU path."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from vlm3_kernels.linear import linear

_LOGITS_AT_ONCE = 1 << 24  # most logits held in memory (64 MiB in float32)
_LARGEST_BLOCK = 256  # of the vocabulary, a power of two


class HeadOutput(NamedTuple):
    """``token`` [T] int64 the first index of the largest logit; ``logit`` [T] that logit; ``log_sum_exp`` [T] over the
    vocabulary; ``margin`` [T] the largest logit minus the second largest. All but ``token`` are float32.
    """

    token: torch.Tensor
    logit: torch.Tensor
    log_sum_exp: torch.Tensor
    margin: torch.Tensor


def lm_head(hidden: torch.Tensor, weight: torch.Tensor) -> HeadOutput:
    """Greedy choice from ``hidden`` [T, H] and ``weight`` [V, H], V at least 2."""
    rows = max(1, _LOGITS_AT_ONCE // weight.shape[0])
    parts = [_choose(linear(part, weight)) for part in hidden.split(rows)]
    if len(parts) == 1:
        return parts[0]
    return HeadOutput(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _choose(logits: torch.Tensor) -> HeadOutput:
    """The figures of logits [T, V], which are overwritten."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # Finding a maximum's place costs ten times as much as finding it: so first the best block, then the place in it.
    size = math.gcd(logits.shape[1], _LARGEST_BLOCK)
    blocks = logits.view(len(logits), logits.shape[1] // size, size)
    best, block = blocks.amax(dim=-1).max(dim=-1)  # the first of equal blocks
    place = blocks[torch.arange(len(logits), device=logits.device), block].argmax(dim=-1)
    token = block * size + place
    second = logits.scatter_(1, token[:, None], float("-inf")).amax(dim=-1)
    others = logits.sub_(best[:, None]).exp_().sum(dim=-1)  # relative to the best, whose own share is 1
    return HeadOutput(token, best, best + others.log1p(), best - second)
