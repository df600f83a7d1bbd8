"""Teaches a model with matching how the camera moved, beside its answers.

A pose's answer is mostly words around a few digits, and these are the end of a long way: every token of the second
image compares itself with the first, what they find is averaged, the average is read. So the average is taught
directly, by a linear reading that is thrown away afterwards.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss
from transformers import Qwen3VLForConditionalGeneration

from recon.training.dense_pairs import MOTION
from recon.training.match_structure import can_match

_LAYER = 2  # behind which tokens of the second image know where they were in the first


class MotionLessons:
    """While it is open the model has one more part, ``motion_reading``, which optimisers train and checkpoints hold.

    Raises:
        ValueError: a model without matching.
    """

    def __init__(self, model: Qwen3VLForConditionalGeneration) -> None:
        if not can_match(model.config):
            raise ValueError("motion is taught to models that have matching")
        self._model = model
        self._reading = nn.Linear(model.config.text_config.hidden_size, MOTION)
        nn.init.zeros_(self._reading.weight)
        nn.init.zeros_(self._reading.bias)
        model.motion_reading = self._reading
        self._seen: Tensor | None = None
        self._handle = model.model.language_model.layers[_LAYER].register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        self._seen = output[0] if isinstance(output, tuple) else output

    def loss(self, motion: dict[str, Tensor]) -> Tensor:
        """Of the last forward pass, for the rows that ``motion`` (of a batch) names: summed over a motion's numbers."""
        assert self._seen is not None
        second = motion["second"]  # [M, P]
        tokens = self._seen[motion["rows"], : second.shape[1]].float()  # [M, P, hidden]
        even = tokens * tokens.pow(2).mean(dim=2, keepdim=True).clamp(min=1e-12).rsqrt()
        share = second.to(even) / second.sum(dim=1, keepdim=True)
        read = self._reading((share[:, :, None] * even).sum(dim=1)).float()
        return smooth_l1_loss(read, motion["targets"].to(read), beta=0.2) * MOTION

    def close(self) -> None:
        """The model is as it was, but for what it has learned."""
        self._handle.remove()
        del self._model.motion_reading
