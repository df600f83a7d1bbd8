"""Plain PyTorch twin of the kernel, and the CPU path."""

from __future__ import annotations

from typing import NamedTuple

import torch

from vlm3_kernels.linear import linear

_LOGITS_AT_ONCE = 1 << 24  # most logits held in memory (64 MiB in float32)


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
    best, token = logits.max(dim=-1)  # the first of equal logits, as torch.argmax
    second = logits.scatter_(1, token[:, None], float("-inf")).amax(dim=-1)
    others = logits.sub_(best[:, None]).exp_().sum(dim=-1)  # relative to the best, whose own share is 1
    return HeadOutput(token, best, best + others.log1p(), best - second)
