"""How to train by SFT, and the same in the words of Hugging Face's Trainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import TrainingArguments


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


def training_arguments(out: Path, settings: SftSettings) -> TrainingArguments:
    """The arguments of a run in ``out``."""
    return TrainingArguments(
        output_dir=str(out),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={
            # what lies between warm-up and decay is stable; a short run has less of a decay, and ends at 0 as well
            "num_decay_steps": min(settings.decay, max(0, settings.steps - settings.warmup)),
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
