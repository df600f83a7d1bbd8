"""Hugging Face's Trainer for packed rows: samples in order, loss on answers only, logged for each data set."""

from __future__ import annotations

import logging
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import SequentialSampler
from transformers import Trainer

from recon.training.encode import IGNORED
from recon.training.motion_lessons import MotionLessons
from recon.training.optimiser import MatrixOptimiser
from recon.training.regions import RegionLessons
from recon.training.sft_settings import SftSettings
from recon.training.structure import trainable_masks

logger = logging.getLogger(__name__)


class SftTrainer(Trainer):
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
