"""``vlm3-recon train``: supervised fine-tuning of a Qwen3-VL-architecture checkpoint on a weighted mixture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import tyro
from tqdm import tqdm

from recon.errors import BadInputError, OutputError

if TYPE_CHECKING:
    from recon.training.export import Parts
    from recon.training.mixture import Mixture


@dataclass(frozen=True)
class TrainOptions:
    """Train a checkpoint by plain next-token SFT; killed runs continue with --resume to the same losses.

    A run begins from nothing (--config, a size or a JSON file of sizes) or from a checkpoint (--from).
    """

    out: Path
    """Folder of the run: checkpoints, log, and the finished checkpoint in OUT/final."""
    mixture: Path
    """YAML file of the weighted data sets (recon/training/mixture.py describes it)."""
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
    school_vision: int = 0
    """First teach a new model's (--config) vision tower dense depth for so many steps of 16 images."""
    hold_structure: bool = False
    """Keep the coordinate codes and pointing that a new model (--config) starts with fixed."""
    bf16: bool = False
    """Matrix products in bfloat16."""
    gradient_checkpointing: bool = False
    """Save memory by recomputing activations."""
    save_every: int = 200
    """Steps between checkpoints."""
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
    # heavy imports only when there is something to do
    from recon.training.export import TRAINED_ON, build_parts, export_checkpoint, load_parts
    from recon.training.mixture import load_mixture
    from recon.training.sft import SftSettings
    from recon.training.sft import train as run_sft

    mixture = load_mixture(options.mixture)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--out {options.out}: the folder can't be made ({error.strerror})") from error
    parts = load_parts(options.from_) if options.from_ else build_parts(options.config or "small", options.seed)
    settings = SftSettings(
        steps=options.steps,
        batch=options.batch,
        learning_rate=options.learning_rate,
        vision_scale=options.vision_scale,
        warmup=options.warmup,
        decay=options.decay,
        hold_structure=options.hold_structure,
        bf16=options.bf16,
        gradient_checkpointing=options.gradient_checkpointing,
        save_every=options.save_every,
        log_every=options.log_every,
        loader_processes=options.loader_processes,
        seed=options.seed,
    )
    if options.school_vision:
        _school_vision(options, parts, mixture)
    with tqdm(total=options.steps, desc="train", unit="step", disable=options.quiet) as bar:
        run_sft(
            parts.model,
            parts.tokenizer,
            parts.image_processor,
            mixture,
            options.out,
            settings,
            resume=options.resume,
            progress=_updates(bar),
        )
    tasks = sorted({dataset.task for dataset in mixture.datasets})
    export_checkpoint(parts, options.out / "final", mixture.dialect.name, tasks, TRAINED_ON)


def _school_vision(options: TrainOptions, parts: Parts, mixture: Mixture) -> None:
    """Schools the new tower, or takes what an earlier call of the same run left in ``OUT/vision.safetensors``."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    from recon.training.mixture import RoomDataset
    from recon.training.pool import render_pool
    from recon.training.vision import VisionSettings, school_vision

    visual, done = parts.model.model.visual, options.out / "vision.safetensors"
    if options.resume and done.is_file():
        try:
            visual.load_state_dict(load_file(done))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise BadInputError(f"{done}: not a vision tower of this size ({' '.join(str(error).split())})") from error
        return
    form = mixture.dialect.depth
    if form is None:
        raise BadInputError(f"--school-vision needs a dialect with depth questions; {mixture.dialect.name!r} has none")
    found = [d for d in mixture.datasets if isinstance(d, RoomDataset) and d.task in ("depth", "object")]
    if not found:
        raise BadInputError("--school-vision needs a data set of procedural views (task depth or object) in --mixture")
    rooms = found[0]
    with tqdm(desc="render", unit="view", disable=options.quiet) as bar:
        render_pool(
            rooms.pool, rooms.split, 0, rooms.rooms, form.image, _updates(bar), shape="view", scenery=rooms.scenery
        )
    settings = VisionSettings(options.school_vision, bf16=options.bf16, seed=options.seed)
    with tqdm(desc="vision", unit="step", disable=options.quiet) as bar:
        school_vision(parts.model, parts.image_processor, rooms.pool, settings, _updates(bar))
    part = done.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in visual.state_dict().items()}, part)
    part.replace(done)


def _updates(bar: tqdm[NoReturn]) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return progress


def _check(options: TrainOptions) -> None:
    if (options.config is None) == (options.from_ is None):
        raise BadInputError("give exactly one of --config (begin from nothing) and --from (begin from a checkpoint)")
    for name in ("steps", "batch", "save_every", "log_every"):
        if getattr(options, name) < 1:
            flag = name.replace("_", "-")
            raise BadInputError(f"--{flag} is {getattr(options, name)}; accepted: 1 or more")
    if not options.learning_rate > 0:
        raise BadInputError(f"--learning-rate is {options.learning_rate}; accepted: more than 0")
    if options.school_vision and options.config is None:
        raise BadInputError(
            "--school-vision teaches a new model's vision tower; it goes with --config, not with --from"
        )
    for name in ("warmup", "decay", "loader_processes", "school_vision", "vision_scale"):
        if getattr(options, name) < 0:
            flag = name.replace("_", "-")
            raise BadInputError(f"--{flag} is {getattr(options, name)}; accepted: 0 or more")
    if not options.mixture.is_file():
        raise BadInputError(f"--mixture {options.mixture}: no such file; expected a YAML of data sets")
