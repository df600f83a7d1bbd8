"""Where a killed schooling of a tower continues: weights, heads and optimiser in one file."""

from __future__ import annotations

import pickle
from pathlib import Path
from zipfile import BadZipFile

import torch
from torch import nn

from recon.errors import BadInputError
from recon.training.optimiser import MatrixOptimiser


def write_state(
    path: Path, dense: nn.Module, optimiser: MatrixOptimiser, schedule: torch.optim.lr_scheduler.LambdaLR, step: int
) -> None:
    """Writes the state after ``step``, atomically."""
    part = path.with_name(path.name + ".part")
    torch.save(
        {
            "step": step,
            "model": dense.state_dict(),
            "optimiser": optimiser.state_dict(),
            "schedule": schedule.state_dict(),
        },
        part,
    )
    part.replace(path)


def read_state(
    path: Path, dense: nn.Module, optimiser: MatrixOptimiser, schedule: torch.optim.lr_scheduler.LambdaLR
) -> int:
    """Restores the state of an earlier call, tensors only (no pickled code is run); the steps it had done, 0 without.

    Raises:
        BadInputError: the file is damaged or of another model.
    """
    if not path.is_file():
        return 0
    try:
        state = torch.load(path, weights_only=True)
        dense.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, BadZipFile, pickle.UnpicklingError) as error:
        raise BadInputError(f"{path}: not of this run ({' '.join(str(error).split())[:200]}); delete it") from error
    return int(state["step"])
