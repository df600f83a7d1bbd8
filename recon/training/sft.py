"""Plain next-token SFT with Hugging Face's Trainer: packed rows, loss on answers only, exact resume after a kill."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import SequentialSampler
from transformers import (
    PreTrainedTokenizerBase,
    Qwen3VLForConditionalGeneration,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback

from recon.errors import BadInputError
from recon.training.attention import use_packed_attention
from recon.training.checkpoints import average_checkpoints, newest_checkpoint
from recon.training.datasets import RoomDataset
from recon.training.encode import IGNORED, Encoder, collate
from recon.training.match_structure import can_match
from recon.training.mixture import Mixture, MixtureDataset
from recon.training.motion_lessons import MotionLessons
from recon.training.optimiser import MatrixOptimiser
from recon.training.regions import RegionLessons
from recon.training.structure import trainable_masks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SftSettings:
    """How to train.

    Launched by accelerate, several processes train together: ``batch`` samples each, the mixture's samples dealt out in
    order, so that two processes with 4 learn what one with 8 learns. Under FSDP ``matrix_rate``, ``average``,
    ``hold_structure``, ``teach_regions`` and ``lora_rank`` are refused: they touch whole matrices.

    Attributes:
        steps: optimiser steps in all.
        batch: samples (images or pairs) per step and device.
        learning_rate: peak, after ``warmup`` steps; constant until the last ``decay`` steps, then linear to 0 (so a
            run can be prolonged or ended at any checkpoint).
        matrix_rate: peak learning rate of the matrices of the layers (all but embeddings and norms), which are then
            trained by Muon (:mod:`recon.training.optimiser`); 0: AdamW trains everything.
        vision_scale: learning rate of the vision tower's blocks relative to the rest's. Small batches blur a tower that
            starts with useful filters faster than they teach it.
        weight_decay, beta2: of AdamW.
        bf16: matrix products in bfloat16 (weights stay float32).
        gradient_checkpointing: recompute activations, for models that don't fit otherwise.
        save_every, log_every: in steps; the last two checkpoints are kept, or those to average.
        average: the finished weights are the mean of so many of the last checkpoints, which takes the noise of single
            steps out of a high learning rate without lowering it. 1: the last step's own.
        hold_structure: keep the coordinate codes and the pointing of a new model as they were built
            (:func:`recon.training.structure.trainable_masks`); only for models of this project's own making.
        teach_regions: add the loss of the region units (:mod:`recon.training.regions`) of a model that has them, on
            samples of data sets with ``regions: true``.
        lora_rank: train low-rank additions of this rank to the text model's matrices (peft) and nothing else; they are
            merged into the weights at the end. 0: train the weights themselves.
        tensorboard: write the log for TensorBoard too, to ``out/tensorboard``.
        loader_processes: processes that prepare samples beside the training.
        seed: of everything random besides the mixture.
    """

    steps: int
    batch: int = 8
    learning_rate: float = 2e-3
    matrix_rate: float = 0.0
    vision_scale: float = 1.0
    warmup: int = 100
    decay: int = 500
    weight_decay: float = 0.01
    beta2: float = 0.98
    bf16: bool = False
    gradient_checkpointing: bool = False
    save_every: int = 200
    log_every: int = 20
    average: int = 1
    hold_structure: bool = False
    teach_regions: bool = False
    lora_rank: int = 0
    tensorboard: bool = False
    loader_processes: int = 0
    seed: int = 0


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
        BadInputError: ``out`` holds checkpoints and ``resume`` is False, or settings that don't go with FSDP.
    """
    newest = newest_checkpoint(out)
    if newest is not None and not resume:
        raise BadInputError(f"{out}: holds a run already ({newest.name}); continue it with --resume or name another")
    use_packed_attention(model)
    model.config.use_cache = False
    if settings.hold_structure:
        _hold(model)
    if settings.vision_scale == 0:  # spares the backward pass through the tower as well
        model.model.visual.requires_grad_(False)
    trained = with_lora(model, settings.lora_rank, settings.seed) if settings.lora_rank else model
    encoder = Encoder(tokenizer, image_processor, model.config.image_token_id)
    arguments = _arguments(out, settings)
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
    trainer = _SftTrainer(
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
    trainer.train(resume_from_checkpoint=str(newest) if newest is not None else None)
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


def _in_tower(name: str) -> bool:
    return ".visual." in name and "merger" not in name


def _matrix_optimiser(model: nn.Module, settings: SftSettings) -> MatrixOptimiser:
    matrices: list[nn.Parameter] = []
    groups: dict[float, list[nn.Parameter]] = {1.0: [], settings.vision_scale: []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim == 2 and "language_model.layers." in name:
            matrices.append(parameter)
        else:
            groups[settings.vision_scale if _in_tower(name) else 1.0].append(parameter)
    rest = [
        {"params": parameters, "lr": settings.learning_rate * scale}
        for scale, parameters in groups.items()
        if parameters
    ]
    parameters = dict(model.named_parameters())
    masks = trainable_masks(model) if settings.hold_structure else {}
    held = {parameters[name]: mask for name, mask in masks.items() if parameters[name].requires_grad}
    return MatrixOptimiser(matrices, rest, settings.matrix_rate, settings.weight_decay, settings.beta2, held)


def _hold(model: Qwen3VLForConditionalGeneration) -> None:
    parameters = dict(model.named_parameters())
    for name, mask in trainable_masks(model).items():
        parameters[name].register_hook(lambda gradient, mask=mask: gradient * mask.to(gradient.device))


def _arguments(out: Path, settings: SftSettings) -> TrainingArguments:
    stable = max(0, settings.steps - settings.warmup - settings.decay)
    return TrainingArguments(
        output_dir=str(out),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={
            "num_stable_steps": stable,
            "num_decay_steps": min(settings.decay, settings.steps),
            "decay_type": "linear",
        },
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        adam_beta2=settings.beta2,
        max_grad_norm=1.0,
        bf16=settings.bf16,
        use_cpu=not torch.cuda.is_available(),
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        save_steps=settings.save_every,
        save_total_limit=max(2, settings.average),
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,
        dataloader_num_workers=settings.loader_processes,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        disable_tqdm=True,
        seed=settings.seed,
    )


class _SftTrainer(Trainer):
    """Reads samples in order, computes logits at answers only, and logs the loss of each data set."""

    def __init__(
        self, *args: Any, settings: SftSettings, lessons: dict[str, RegionLessons | MotionLessons], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._lessons = lessons
        self._sums: dict[str, list[float]] = {}
        self._settings = settings

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        if self._settings.matrix_rate and getattr(self, "optimizer", None) is None:
            self.optimizer = _matrix_optimiser(self.model, self._settings)
        optimizer = super().create_optimizer(*args, **kwargs)
        scale = self._settings.vision_scale
        if scale not in (0.0, 1.0) and len(optimizer.param_groups) <= 2 and not self._settings.matrix_rate:
            tower = {id(parameter) for name, parameter in self.model.named_parameters() if _in_tower(name)}
            for group in list(optimizer.param_groups):
                slow = [parameter for parameter in group["params"] if id(parameter) in tower]
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in tower]
                rest = {key: value for key, value in group.items() if key != "params"}
                optimizer.add_param_group({**rest, "params": slow, "lr": group["lr"] * scale})
        return optimizer

    def _get_train_sampler(self, *args: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Tensor | tuple[Tensor, Any]:
        inputs = dict(inputs)
        beside = {"region units": inputs.pop("regions", None), "motion": inputs.pop("motion", None)}
        labels, datasets, skipped = (inputs.pop(name) for name in ("labels", "datasets", "skipped"))
        columns = (labels != IGNORED).any(dim=0).nonzero().flatten()  # answers stand at the same columns in most rows
        outputs = model(**inputs, use_cache=False, logits_to_keep=columns)
        kept = labels[:, columns]  # [B, K]
        learned = kept != IGNORED
        losses = cross_entropy(outputs.logits[learned].float(), kept[learned], reduction="none")
        rows = learned.nonzero()[:, 0]
        for row, (name, passed_over) in enumerate(zip(datasets, skipped, strict=True)):
            own = losses.detach()[rows == row]
            entry = self._sums.setdefault(name, [0.0, 0.0, 0.0, 0.0])
            entry[0] += float(own.sum())
            entry[1] += len(own)
            entry[2] += 1
            entry[3] += passed_over
        loss = losses.sum() / self._mean_count(len(losses))
        for name, lesson in self._lessons.items():
            targets = beside[name]
            if targets is not None:
                taught, count = lesson.loss(targets), len(targets["rows"])
                entry = self._sums.setdefault(name, [0.0, 0.0, 0.0, 0.0])
                entry[0] += float(taught.detach()) * count
                entry[1] += count
                loss = loss + taught
        return (loss, outputs) if return_outputs else loss

    def _mean_count(self, count: int) -> float:
        """Answer tokens per process: gradients are averaged over processes, and every token shall count the same."""
        if self.args.world_size == 1:
            return float(count)
        counts = self.accelerator.gather(torch.tensor([float(count)], device=self.args.device))
        return float(counts.mean())

    def _all_sums(self) -> dict[str, list[float]]:
        """Sums of the data sets over all processes; every process must ask."""
        if self.args.world_size == 1:
            return self._sums
        parts: list[dict[str, list[float]]] = gather_object([self._sums])
        names = {name for part in parts for name in part}
        return {
            name: [sum(column) for column in zip(*(p[name] for p in parts if name in p), strict=True)] for name in names
        }

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            for name, (total, count, samples, skipped) in sorted(self._all_sums().items()):
                logs[f"loss/{name}"] = total / max(count, 1.0)
                logs[f"answer_tokens/{name}"] = count
                logs[f"samples/{name}"] = samples
                if skipped:
                    logs[f"skipped/{name}"] = skipped
            self._sums.clear()
            logger.info("%s", logs)
        super().log(logs, *args, **kwargs)


class _Progress(TrainerCallback):
    def __init__(self, progress: Callable[[int, int], None]) -> None:
        self._progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress(state.global_step, state.max_steps)
