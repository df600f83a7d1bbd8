"""One of several processes that train together under FSDP on CPUs: ``python -m tests.training.fsdp_process``.

accelerate shares models among GPUs only: with ``--cpu`` its state never becomes FSDP (``AcceleratorState.__init__``
lists the kinds of devices that may). Here that one decision is changed; the sharding itself (``fully_shard``), the
processes' messages (gloo) and what is saved are the real ones.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from pipelines.train import TrainOptions, train
from recon.errors import BadInputError

SETTINGS = Path(__file__).resolve().parents[2] / "docs" / "fsdp.yaml"
STEPS, SAVED = 4, 2


def options_for(out: Path, mixture: Path, batch: int) -> TrainOptions:
    """The run that all processes make together, or one alone with more samples per step."""
    return TrainOptions(
        out=out, mixture=mixture, steps=STEPS, config="tiny", batch=batch, learning_rate=1e-3, warmup=0, decay=1,
        save_every=SAVED, log_every=1, loader_processes=0, quiet=True,
    )  # fmt: skip


def environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What ``accelerate launch --config_file docs/fsdp.yaml`` tells a process."""
    told: dict[str, object] = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_PORT": port,
    }
    told |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_FSDP": "true", "OMP_NUM_THREADS": 1}
    for key, value in yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))["fsdp_config"].items():
        told[key.upper().replace("TRANSFORMER_LAYER_CLS", "TRANSFORMER_CLS")] = value
    return {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in told.items()}


def _share_on_cpus() -> None:
    made = AcceleratorState.__init__

    def init(self: AcceleratorState, *args: Any, **kwargs: Any) -> None:
        if PartialState(cpu=True).distributed_type == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        made(self, *args, **kwargs)

    AcceleratorState.__init__ = init


def main(out: Path, mixture: Path) -> None:
    """A whole run; the same again from its first checkpoint; and a run with an option that is refused."""
    options = options_for(out, mixture, batch=1)
    train(options)
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        shutil.copytree(out / f"checkpoint-{STEPS}", out / "whole")
        shutil.rmtree(out / f"checkpoint-{STEPS}")
    torch.distributed.barrier()
    train(replace(options, resume=True))
    try:
        train(replace(options, out=out / "refused", average=2))
    except BadInputError as error:
        print(error)


if __name__ == "__main__":
    torch.set_num_threads(1)
    _share_on_cpus()
    main(Path(sys.argv[1]), Path(sys.argv[2]))
