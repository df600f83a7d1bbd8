"""``vlm3-recon train``: supervised fine-tuning of a Qwen3-VL-architecture checkpoint on a weighted mixture."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from pipelines.train_vision import TOWER, add_matching, add_regions, bar_updates, school_tower, taught_mixture
from pipelines.workspace import readable_os_errors
from recon.errors import BadInputError, OutputError

LARGE = "qwen3-vl-4b"


@dataclass(frozen=True)
class TrainOptions:
    """Train a checkpoint by plain next-token SFT; killed runs continue with --resume to the same losses.

    A run begins from nothing (--config, a size or a JSON file of sizes) or from a checkpoint (--from).
    """

    out: Path
    """Folder of the run: checkpoints, log, and the finished checkpoint in OUT/final."""
    mixture: Path
    """YAML file of the weighted data sets (recon/training/mixture_file.py describes it)."""
    steps: int
    """Optimiser steps in all."""
    config: str | None = None
    """Begin from nothing: a size (small, tiny) or a JSON file with the fields of ModelSize."""
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Begin from a checkpoint: a folder, a hub id, or 'embedded'."""
    resume: bool = False
    """Continue the run in OUT from its newest whole checkpoint."""
    batch: int = 8
    """Samples (images or pairs) per step and device."""
    learning_rate: float = 2e-3
    """Peak learning rate (about 1e-5 when fine-tuning a large checkpoint)."""
    vision_scale: float = 1.0
    """Learning rate of the vision tower relative to the rest's."""
    warmup: int = 100
    """Steps of linear warm-up."""
    decay: int = 500
    """Last steps, over which the learning rate falls to 0."""
    add_matching: bool = False
    """Widen the small checkpoint of --from by channels and heads in which matching is built in."""
    add_regions: bool = False
    """Add units that compare regions to the small checkpoint of --from (with --add-matching, or one that has matching),
    and teach them directly on object data sets with 'regions: true'."""
    school_vision: int = 0
    """First teach the vision tower of a small model (--config, or a checkpoint trained with --hold-structure) for so
    many steps of about 16 images: dense depth, and with match or pose data sets descriptors and motion."""
    school_rate: float = 1.0
    """Learning rate of --school-vision relative to that of a new tower (0.5 for one that sees already)."""
    distil: bool = False
    """With --school-vision: depth and pose answers are learned from the schooled tower's own estimates, which hold no
    noise."""
    hold_structure: bool = False
    """Keep the coordinate codes and pointing that a new model (--config) starts with fixed."""
    lora_rank: int = 0
    """Train low-rank additions of this rank to the text model's matrices (peft) instead of the weights themselves; the
    finished checkpoint holds them merged. 0: off."""
    bf16: bool = False
    """Matrix products in bfloat16."""
    gradient_checkpointing: bool = False
    """Save memory by recomputing activations."""
    dry_run: bool = False
    """Train nothing: state the memory per GPU for 1, 2, 4 and 8 GPUs. With --config also qwen3-vl-4b."""
    tensorboard: bool = False
    """Write the log for TensorBoard to OUT/tensorboard too."""
    save_every: int = 200
    """Steps between checkpoints."""
    average: int = 1
    """The finished weights are the mean of so many of the last checkpoints (1: those of the last step)."""
    matrix_rate: float = 0.0
    """Train the layers' matrices by Muon at this peak rate (2e-3 for the embedded checkpoint); 0: AdamW for all."""
    log_every: int = 20
    """Steps between log entries."""
    loader_processes: int = 1
    """Processes that prepare samples beside the training."""
    seed: int = 0
    """Seed of new weights."""
    quiet: bool = field(default=False)
    """No progress bar."""


def train(options: TrainOptions) -> None:
    """Runs ``vlm3-recon train``.

    Raises:
        ReconError: options that don't fit together, a bad mixture or checkpoint, an unwritable folder.
    """
    _check(options)
    if options.dry_run:
        print(dry_run(options))
        return
    with readable_os_errors():
        _run(options)


def _run(options: TrainOptions) -> None:
    # heavy imports only when there is something to do
    from accelerate import PartialState

    from recon.training.checkpoints import check_new, full_weights
    from recon.training.export import TRAINED_ON, build_parts, export_checkpoint, load_parts
    from recon.training.mixture_file import load_mixture
    from recon.training.sft import train as run_sft
    from recon.training.sft_settings import SftSettings

    mixture = load_mixture(options.mixture)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--out {options.out}: the folder can't be made ({error.strerror})") from error
    if not options.resume:
        check_new(options.out)
    parts = load_parts(options.from_) if options.from_ else build_parts(options.config or "small", options.seed)
    settings = SftSettings(
        steps=options.steps,
        batch=options.batch,
        learning_rate=options.learning_rate,
        vision_scale=options.vision_scale,
        warmup=options.warmup,
        decay=options.decay,
        hold_structure=options.hold_structure,
        teach_regions=options.add_regions,
        bf16=options.bf16,
        gradient_checkpointing=options.gradient_checkpointing,
        average=options.average,
        matrix_rate=options.matrix_rate,
        lora_rank=options.lora_rank,
        tensorboard=options.tensorboard,
        save_every=options.save_every,
        log_every=options.log_every,
        loader_processes=options.loader_processes,
        seed=options.seed,
    )
    if options.add_matching:
        parts = add_matching(parts, mixture)
    if options.add_regions:
        parts = add_regions(parts)
    if options.school_vision:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not (options.resume and (options.out / TOWER).is_file()):
            raise BadInputError(
                "--school-vision works in one process: run the same command without accelerate until it is done with "
                "that, and continue it on all GPUs with --resume"
            )
        dense = school_tower(parts, mixture, options)
        if options.distil:
            mixture = taught_mixture(dense, parts, mixture, options.out, quiet=options.quiet)
    with tqdm(total=options.steps, desc="train", unit="step", disable=options.quiet) as bar:
        run_sft(
            parts.model,
            parts.tokenizer,
            parts.image_processor,
            mixture,
            options.out,
            settings,
            resume=options.resume,
            progress=bar_updates(bar),
        )
    tasks = sorted({dataset.task for dataset in mixture.datasets})
    weights = full_weights(parts.model)
    if PartialState().is_main_process:
        export_checkpoint(parts, options.out / "final", mixture.dialect.name, tasks, TRAINED_ON, weights=weights)


def dry_run(options: TrainOptions) -> str:
    """The memory that the run would need, as text."""
    from recon.training.export import checkpoint_config, new_config
    from recon.training.memory import Workload, plan_memory, table
    from recon.training.shape import qwen3_vl_4b

    where = options.from_ or options.config or "small"
    new = qwen3_vl_4b if where == LARGE else lambda: new_config(where)
    config = checkpoint_config(where) if options.from_ else new()
    workload = Workload(samples=options.batch)
    plans = [
        plan_memory(config, workload, gpus, options.bf16, options.gradient_checkpointing, options.lora_rank)
        for gpus in (1, 2, 4, 8)
    ]
    how = f"LoRA of rank {options.lora_rank}" if options.lora_rank else "all weights"
    switches = [
        "bf16" if options.bf16 else "float32",
        "gradient checkpointing" if options.gradient_checkpointing else "no gradient checkpointing",
    ]
    return (
        f"{where}: {plans[0].num_parameters / 1e9:.3f} G parameters, {plans[0].num_trained / 1e9:.3f} G trained "
        f"({how}), {', '.join(switches)}\n"
        f"per GPU and step {workload.samples} x {workload.image_tokens} image tokens with {workload.questions} "
        f"questions, FSDP with all shards; add about 10 % for workspace\n" + table(plans)
    )


def _check(options: TrainOptions) -> None:
    if (options.config is None) == (options.from_ is None):
        raise BadInputError("give exactly one of --config (begin from nothing) and --from (begin from a checkpoint)")
    for name in ("steps", "batch", "save_every", "log_every", "average"):
        if getattr(options, name) < 1:
            flag = name.replace("_", "-")
            raise BadInputError(f"--{flag} is {getattr(options, name)}; accepted: 1 or more")
    if not options.learning_rate > 0:
        raise BadInputError(f"--learning-rate is {options.learning_rate}; accepted: more than 0")
    if options.add_matching and options.from_ is None:
        raise BadInputError("--add-matching widens a checkpoint that answers already; it goes with --from")
    if options.add_regions and options.from_ is None:
        raise BadInputError("--add-regions adds to a checkpoint that answers already; it goes with --from")
    if options.add_regions and options.lora_rank:
        raise BadInputError("--lora-rank leaves all weights as they are; it does not go with --add-regions")
    if not options.school_rate > 0:
        raise BadInputError(f"--school-rate is {options.school_rate}; accepted: more than 0")
    if options.distil and not options.school_vision:
        raise BadInputError("--distil needs the tower that --school-vision makes; give both")
    if options.lora_rank and options.hold_structure:
        raise BadInputError("--lora-rank leaves all weights as they are; it does not go with --hold-structure")
    if options.lora_rank and (options.average > 1 or options.matrix_rate):
        raise BadInputError("--lora-rank does not go with --average or --matrix-rate")
    if options.config == LARGE and not options.dry_run:
        raise BadInputError(f"--config {LARGE} has no weights to begin from: give --from a checkpoint, or --dry-run")
    for name in ("warmup", "decay", "loader_processes", "school_vision", "vision_scale", "lora_rank", "matrix_rate"):
        if getattr(options, name) < 0:
            flag = name.replace("_", "-")
            raise BadInputError(f"--{flag} is {getattr(options, name)}; accepted: 0 or more")
    if not options.mixture.is_file():
        raise BadInputError(f"--mixture {options.mixture}: no such file; expected a YAML of data sets")
