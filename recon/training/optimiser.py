"""Muon for matrices beside AdamW for the rest, as one optimiser that schedules and checkpoints see.

Muon (K. Jordan 2024) turns each matrix's momentum into the nearest orthogonal one, so that all directions move alike.
On small models trained from little data that took far fewer steps here than AdamW. Its step is scaled to AdamW's
(``match_rms_adamw``), so that one learning rate serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class MatrixOptimiser(torch.optim.Optimizer):
    """``torch.optim.Muon`` for ``matrices`` and ``torch.optim.AdamW`` for ``rest``.

    Where a mask of ``held`` (by parameter) is 0 the weight stays as it was when this was made: masking gradients is not
    enough, as both weight decay and Muon's rotation move what has none.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        rest: Iterable[Mapping[str, Any]],
        matrix_rate: float,
        weight_decay: float,
        beta2: float,
        held: Mapping[nn.Parameter, Tensor],
    ) -> None:
        self._parts: tuple[torch.optim.Optimizer, torch.optim.Optimizer] = (
            torch.optim.Muon(list(matrices), lr=matrix_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW([dict(group) for group in rest], betas=(0.9, beta2), weight_decay=weight_decay),
        )
        # the same dictionaries: a schedule that sets a rate here sets it there
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._held = [(parameter, mask.bool(), parameter.detach().clone()) for parameter, mask in held.items()]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for parameter, mask, _ in self._held:
            if parameter.grad is not None:
                parameter.grad.mul_(mask.to(parameter.device))
        for part in self._parts:
            part.step()
        for parameter, mask, kept in self._held:
            device = parameter.device
            parameter.copy_(torch.where(mask.to(device), parameter, kept.to(device)))
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores :meth:`state_dict`; the groups stay the dictionaries that schedules know."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            groups = part.param_groups
            part.load_state_dict(state)
            for known, loaded in zip(groups, part.param_groups, strict=True):
                known.update(loaded)
            part.param_groups = groups
