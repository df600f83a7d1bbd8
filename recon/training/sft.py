"""Plain next-token SFT of a model on a mixture: what is trained, resumed exactly after a kill, and finished.

Rows are packed and the loss is on answers only (:mod:`recon.training.trainer`); settings and their meaning are in
:mod:`recon.training.sft_settings`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, Qwen3VLForConditionalGeneration, TrainerCallback
from transformers.integrations import TensorBoardCallback

from recon.errors import BadInputError, ReconError
from recon.training.attention import use_packed_attention
from recon.training.checkpoints import average_checkpoints, check_new, newest_checkpoint
from recon.training.datasets import RoomDataset
from recon.training.encode import Encoder, collate
from recon.training.match_structure import can_match
from recon.training.mixture import Mixture, MixtureDataset
from recon.training.motion_lessons import MotionLessons
from recon.training.regions import RegionLessons
from recon.training.sft_settings import SftSettings, training_arguments
from recon.training.structure import trainable_masks
from recon.training.trainer import SftTrainer


def train(
    model: Qwen3VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    image_processor: Any,
    mixture: Mixture,
    out: Path,
    settings: SftSettings,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, float]]:
    """Trains the model in place; checkpoints go to ``out/checkpoint-N``.

    Args:
        model: weights in float32.
        tokenizer, image_processor: of the model.
        mixture: what to learn.
        out: folder of the run.
        settings: see there.
        resume: continue from the newest whole checkpoint in ``out`` (from the beginning when there is none).
        progress: called with (steps done, steps in all).

    Returns:
        the log: one entry per ``log_every`` steps with ``step``, ``loss`` and ``loss/DATASET``.

    Raises:
        BadInputError: ``out`` holds checkpoints and ``resume`` is False, settings that don't go with FSDP, an unusable
            item of a strict data set.
    """
    if not resume:
        check_new(out)
    newest = newest_checkpoint(out)
    use_packed_attention(model)
    model.config.use_cache = False
    if settings.hold_structure:
        _hold(model)
    if settings.vision_scale == 0:  # spares the backward pass through the tower as well
        model.model.visual.requires_grad_(False)
    trained = with_lora(model, settings.lora_rank, settings.seed) if settings.lora_rank else model
    encoder = Encoder(tokenizer, image_processor, model.config.image_token_id)
    arguments = training_arguments(out, settings)
    dataset = MixtureDataset(mixture, encoder, settings.steps * settings.batch * arguments.world_size)
    pad = int(tokenizer.pad_token_id)
    callbacks: list[TrainerCallback] = [_Progress(progress)] if progress is not None else []
    if settings.tensorboard:
        callbacks.append(_tensorboard(out / "tensorboard"))
    lessons: dict[str, RegionLessons | MotionLessons] = {}
    if settings.teach_regions:
        lessons["region units"] = RegionLessons(model)
    if any(isinstance(dataset, RoomDataset) and dataset.motion for dataset in mixture.datasets):
        if not can_match(model.config):
            raise BadInputError("motion: true in --mixture needs a model with matching (--add-matching)")
        lessons["motion"] = MotionLessons(model)
    trainer = SftTrainer(
        model=trained,
        args=arguments,
        train_dataset=dataset,
        data_collator=lambda samples: collate(samples, pad),
        callbacks=callbacks,
        settings=settings,
        lessons=lessons,
    )
    if trainer.is_fsdp_enabled:
        _check_sharded(settings)
    try:
        trainer.train(resume_from_checkpoint=str(newest) if newest is not None else None)
    except (ReconError, OSError) as error:
        raise _told_by_loader(error) from error
    if settings.lora_rank:
        trained.merge_and_unload()  # the layers of ``model`` become plain again, with the additions in their weights
    elif settings.average > 1:
        trainer.accelerator.wait_for_everyone()  # the last checkpoint is one process's work
        average_checkpoints(model, out, settings.average)
    for lesson in lessons.values():
        lesson.close()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def _check_sharded(settings: SftSettings) -> None:
    used = {
        "--matrix-rate": settings.matrix_rate > 0,
        "--average": settings.average > 1,
        "--hold-structure": settings.hold_structure,
        "--add-regions": settings.teach_regions,
        "--lora-rank": settings.lora_rank > 0,
    }
    for option, is_used in used.items():
        if is_used:
            raise BadInputError(f"{option} needs whole matrices on every GPU and does not go with FSDP; leave it out")


def _told_by_loader(error: ReconError | OSError) -> ReconError | OSError:
    """The error itself. One of a loader process arrives with its whole traceback for a message; its last line is it."""
    text = str(error)
    if not text.startswith("Caught "):
        return error
    return BadInputError(text.strip().splitlines()[-1].partition(": ")[2])


def with_lora(model: Qwen3VLForConditionalGeneration, rank: int, seed: int = 0) -> Any:
    """The model with trainable low-rank additions to the text model's matrices (a ``peft.PeftModel`` around it).

    Raises:
        BadInputError: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise BadInputError("--lora-rank needs peft: pip install 'vlm3-recon[train]'") from error
    matrices = r".*language_model\.layers\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=matrices))


def _tensorboard(folder: Path) -> TrainerCallback:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise BadInputError("--tensorboard needs tensorboard: pip install 'vlm3-recon[train]'") from error
    return TensorBoardCallback(SummaryWriter(log_dir=str(folder)))


def _hold(model: Qwen3VLForConditionalGeneration) -> None:
    parameters = dict(model.named_parameters())
    for name, mask in trainable_masks(model).items():
        parameters[name].register_hook(lambda gradient, mask=mask: gradient * mask.to(gradient.device))


class _Progress(TrainerCallback):
    def __init__(self, progress: Callable[[int, int], None]) -> None:
        self._progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress(state.global_step, state.max_steps)
