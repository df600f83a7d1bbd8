"""Plain PyTorch twin of the kernel, and the CPU path."""

from __future__ import annotations

from typing import NamedTuple

import torch


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
    logits = hidden @ weight.T  # [T, V]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    best, token = logits.max(dim=-1)  # the first of equal logits, as torch.argmax
    log_sum_exp = logits.logsumexp(dim=-1)
    second = logits.scatter_(1, token[:, None], float("-inf")).amax(dim=-1)
    return HeadOutput(token, best, log_sum_exp, best - second)
