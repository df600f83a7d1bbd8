"""Schooling of a new vision tower: dense depth from its image tokens, before the first question is asked.

Large checkpoints of this architecture start from a pretrained vision encoder; a small model trained from nothing has
none, and answers' digits teach it too slowly: on the embedded checkpoint's size a thousand steps of question answering
moved the first digit hardly at all. So the tower and its merger first learn from every pixel: each image token
classifies the z-depth of its four quarters into logarithmic bins through a linear head that is thrown away afterwards.
The text side then learns to read out what the tokens hold, by ordinary SFT.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.utils.data import DataLoader, Dataset
from transformers import Qwen3VLForConditionalGeneration

from recon.training.attention import use_linear_patches
from recon.training.init import trainable_masks
from recon.training.pool import list_pool, read_view

logger = logging.getLogger(__name__)

NEAREST_M, FARTHEST_M, BINS = 0.25, 16.0, 32
QUARTERS = 2  # per side of an image token


@dataclass(frozen=True)
class VisionSettings:
    """How to school the tower: optimiser ``steps`` of ``batch`` images; peak ``learning_rate`` after ``warmup`` steps,
    falling along a cosine; ``bf16``: matrix products in bfloat16."""

    steps: int
    batch: int = 16
    learning_rate: float = 3e-4
    head_learning_rate: float = 2e-3
    warmup: int = 50
    bf16: bool = False
    seed: int = 0
    log_every: int = 25


def soft_bins(depth_m: Tensor) -> Tensor:
    """Depths ``[...]`` as shares of the two nearest logarithmic bins, ``[..., BINS]``; 0 where depth is not finite."""
    place = torch.log(depth_m / NEAREST_M) / math.log(FARTHEST_M / NEAREST_M) * (BINS - 1)
    distance = (place.clamp(0, BINS - 1)[..., None] - torch.arange(BINS)).abs()
    return torch.nan_to_num((1 - distance).clamp(min=0))


class _Views(Dataset[dict[str, Tensor]]):
    """Pooled views, mirrored half of the time, with the depth at the quarters of every image token."""

    def __init__(self, pool: Path, image_processor: Any, settings: VisionSettings) -> None:
        self._paths = list_pool(pool)
        self._processor = image_processor
        self._settings = settings

    def __len__(self) -> int:
        return self._settings.steps * self._settings.batch

    def __getitem__(self, turn: int) -> dict[str, Tensor]:
        round_, place = divmod(turn, len(self._paths))
        order = np.random.default_rng([self._settings.seed, round_]).permutation(len(self._paths))
        view = read_view(self._paths[order[place]])
        if np.random.default_rng([self._settings.seed, turn, 1]).random() < 0.5:
            view = view.flipped()
        picture = self._processor([np.ascontiguousarray(view.image.pixels)], return_tensors="pt")
        grid: Tensor = picture["image_grid_thw"]
        merge = int(self._processor.merge_size)
        rows, columns = (int(n) // merge * QUARTERS for n in grid[0, 1:])
        height, width = view.depth_m.shape
        row = ((np.arange(rows) + 0.5) / rows * height).astype(int)
        column = ((np.arange(columns) + 0.5) / columns * width).astype(int)
        depth = torch.from_numpy(np.ascontiguousarray(view.depth_m[row][:, column]))  # [2 R, 2 C]
        quarters = depth.unflatten(0, (-1, QUARTERS)).unflatten(2, (-1, QUARTERS)).permute(0, 2, 1, 3)
        return {"pixels": picture["pixel_values"], "grid": grid, "depth_m": quarters.flatten(0, 1).flatten(1)}


def _collate(views: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([view[name] for view in views]) for name in views[0]}


@torch.no_grad()
def whiten_patches(model: Qwen3VLForConditionalGeneration, patches: Tensor) -> None:
    """Starts the patch embedding as the whitened principal components of ``patches`` [N, features].

    Nearly all variance of a photo's patch is its mean colour, so random filters all see the same thing and the texture,
    which tells distance, is noise beside it. Channels that hold the position codes stay empty.
    """
    embed = model.model.visual.patch_embed
    held = trainable_masks(model)["model.visual.patch_embed.proj.weight"].flatten(1).amax(dim=1) == 0  # [hidden]
    times = embed.temporal_patch_size
    frames = patches.unflatten(1, (embed.in_channels, times, -1)).mean(dim=2).flatten(1).double()  # equal frames
    mean = frames.mean(dim=0)
    values, vectors = torch.linalg.eigh((frames - mean).T @ (frames - mean) / len(frames))
    free = int((~held).sum())
    scale = (values[-free:] + 1e-4 * values[-1]).rsqrt()
    filters = (vectors[:, -free:] * scale).T.to(embed.proj.weight.dtype)  # [free, channels * patch * patch]
    shape = (free, embed.in_channels, 1, embed.patch_size, embed.patch_size)
    embed.proj.weight[~held] = (filters.view(shape) / times).expand(-1, -1, times, -1, -1)
    embed.proj.bias[~held] = -(filters @ mean.to(filters.dtype))


def school_vision(
    model: Qwen3VLForConditionalGeneration,
    image_processor: Any,
    pool: Path,
    settings: VisionSettings,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Trains ``model.model.visual`` in place on a rendered pool; returns the loss of every ``log_every`` steps.

    Raises:
        BadInputError: the pool is empty or damaged.
    """
    torch.manual_seed(settings.seed)
    use_linear_patches(model)
    visual = model.model.visual
    prefix = "model.visual."
    masks = {n.removeprefix(prefix): m for n, m in trainable_masks(model).items() if n.startswith(prefix)}
    head = nn.Linear(model.config.text_config.hidden_size, QUARTERS**2 * BINS).to(visual.device)
    parameters = [*visual.parameters(), *head.parameters()]
    groups = [
        {"params": list(visual.parameters()), "lr": settings.learning_rate},
        {"params": list(head.parameters()), "lr": settings.head_learning_rate},
    ]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, settings))
    views = _Views(pool, image_processor, settings)
    loader = DataLoader(views, settings.batch, num_workers=1, collate_fn=_collate, prefetch_factor=4)
    losses: list[float] = []
    sample = _collate([views[turn] for turn in range(min(64, len(views)))])
    whiten_patches(model, sample["pixels"].to(visual.device))
    with torch.no_grad():  # the head starts with how often each bin occurs
        frequency = soft_bins(sample["depth_m"]).mean(dim=0) + 1e-4  # [4, BINS]
        head.bias.copy_(frequency.log().flatten())
    total, kept = 0.0, {name: parameter.detach().clone() for name, parameter in visual.named_parameters()}
    visual.train()
    for step, batch in enumerate(loader, start=1):
        batch = {name: tensor.to(visual.device) for name, tensor in batch.items()}
        with torch.autocast(visual.device.type, torch.bfloat16, enabled=settings.bf16):
            tokens = visual(batch["pixels"], grid_thw=batch["grid"]).pooler_output  # [T, hidden]
            logits = linear(tokens, head.weight, head.bias).unflatten(1, (QUARTERS**2, BINS))
        target = soft_bins(batch["depth_m"])  # [T, 4, BINS]
        loss = cross_entropy(logits.float().flatten(0, 1), target.flatten(0, 1))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():  # what the structure holds stays as it was built, weight decay included
            for name, mask in masks.items():
                parameter = visual.get_parameter(name)
                parameter.copy_(torch.where(mask.bool().to(parameter.device), parameter, kept[name]))
        total += float(loss.detach())
        if step % settings.log_every == 0:
            losses.append(total / settings.log_every)
            logger.info("vision schooling: step %d of %d, loss %.4f", step, settings.steps, losses[-1])
            total = 0.0
        if progress is not None:
            progress(step, settings.steps)
    return losses


def _rate(step: int, settings: VisionSettings) -> float:
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    through = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(through, 1.0)))
