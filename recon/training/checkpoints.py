"""The checkpoints that a training run leaves in its folder: which are whole, and their mean; weights made whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor

from recon.errors import BadInputError

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")


def newest_checkpoint(out: Path) -> Path | None:
    """The newest checkpoint in a run's folder that was written to its end; None where there is none."""
    return next(reversed(whole_checkpoints(out)), None)


def check_new(out: Path) -> None:
    """Raises BadInputError when ``out`` holds checkpoints of a run already."""
    newest = newest_checkpoint(out)
    if newest is not None:
        raise BadInputError(f"{out}: holds a run already ({newest.name}); continue it with --resume or name another")


def whole_checkpoints(out: Path) -> list[Path]:
    """The checkpoints in a run's folder in the order of their steps, without parts of one that a kill may leave."""
    found = []
    for folder in out.glob("checkpoint-*"):
        number = folder.name.removeprefix("checkpoint-")
        try:
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))  # written last
        except (OSError, ValueError):
            continue
        if number.isdigit() and any((folder / name).exists() for name in _WEIGHTS):
            found.append((int(number), folder))
    return [folder for _, folder in sorted(found)]


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's weights by name, whole also where FSDP has given every process a share of them.

    Every process must call it; with shares the first alone gets the weights (in its CPU memory), the others nothing.
    """
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return model.state_dict()
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    gathered: dict[str, Any] = get_model_state_dict(model, options=options)
    return gathered


@torch.no_grad()
def average_checkpoints(model: nn.Module, out: Path, count: int) -> None:
    """Puts the mean of the last ``count`` checkpoints (or of all there are) into the model's trained weights."""
    folders = whole_checkpoints(out)[-count:]
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    means = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in parameters.items()}
    for folder in folders:
        weights = load_file(folder / "model.safetensors")
        for name, mean in means.items():
            mean += weights[name].to(mean) / len(folders)
    for name, parameter in parameters.items():
        parameter.copy_(means[name])
