"""Schooling of a new vision tower: dense depth from its image tokens, before the first question is asked.

Large checkpoints of this architecture start from a pretrained vision encoder; a small model trained from nothing has
none, and answers' digits teach it too slowly: on the embedded checkpoint's size a thousand steps of question answering
moved the first digit hardly at all. So the tower and its mergers first learn from every image token: linear heads
classify the z-depth of its 4 x 4 cells into logarithmic bins, and guess the surface normals of its patches. The heads
are thrown away afterwards; before, their depth maps can teach the text side (:mod:`recon.training.teacher`). With pairs
the tokens of a model that can match learn their descriptors in the same steps (:mod:`recon.training.descriptors`), and
how the camera moved.

The matrices of the tower's blocks are trained by Muon (K. Jordan 2024; ``torch.optim.Muon``), the rest by AdamW.
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
from torch.nn.functional import cosine_similarity, relu
from transformers import Qwen3VLForConditionalGeneration

from recon.training.dense import CELLS, DenseBatch, DenseViews
from recon.training.dense_pairs import DensePairs, PairBatch
from recon.training.descriptors import MatchLoss, MotionHead, match_loss
from recon.training.match_structure import CHANNELS, MatchLayout, can_match
from recon.training.optimiser import MatrixOptimiser
from recon.training.schooling_state import read_state, write_state
from recon.training.structure import CODE_CHANNELS, trainable_masks
from recon.training.tower import GridPlaces, GridTower

logger = logging.getLogger(__name__)

NEAREST_M, FARTHEST_M, BINS = 0.25, 16.0, 32
NORMAL_WEIGHT = 0.3  # of the normals' cosine loss beside the depth's cross entropy
LOUDNESS_WEIGHT = 0.1  # keeps the features' mean square at 1, that of the codes beside them
MATCH_WEIGHT = 0.4  # of the descriptors' cross entropy, and of the distance in tokens
MOTION_WEIGHT = 2.0  # of the smooth L1 loss of relative poses


@dataclass(frozen=True)
class VisionSettings:
    """How to school the tower.

    Attributes:
        steps: optimiser steps.
        tokens: image tokens per step, about (16 images of 63).
        pair_tokens: the same of pairs, where there are any, beside ``tokens // 3`` of single views.
        matrix_rate: peak learning rate of the blocks' matrices (Muon, scaled to AdamW's step).
        learning_rate: of everything else in the tower (AdamW).
        head_learning_rate: of the heads that are thrown away.
        weight_decay: of both; a few thousand views are soon known by heart without.
        heads_first: steps at the beginning in which the heads alone learn, to read a tower that sees already: what new
            heads ask for would blur it.
        warmup: steps of linear warm-up (of the heads, and then of the tower).
        decay: share of the steps, at the end, over which the rates fall to 0.
        bf16: matrix products in bfloat16.
        compiled: fuse the tower's elementwise work with ``torch.compile`` (needs a C++ compiler on a CPU; a minute at
            the beginning, then 1.5 times as fast).
        save_every: steps between states from which a killed run continues.
        seed, log_every: as in ``SftSettings``.
    """

    steps: int
    tokens: int = 1000
    pair_tokens: int = 880
    matrix_rate: float = 1e-3
    learning_rate: float = 4e-4
    head_learning_rate: float = 2e-3
    weight_decay: float = 0.1
    heads_first: int = 0
    warmup: int = 50
    decay: float = 0.6
    bf16: bool = False
    compiled: bool = False
    save_every: int = 200
    seed: int = 0
    log_every: int = 25


class DenseHeads(nn.Module):
    """What is read from image tokens during schooling: bins of log depth of 4 x 4 cells, normals of 2 x 2 patches."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.depth = nn.Linear(hidden, CELLS**2 * BINS)
        self.depth_of_extra = nn.Linear(hidden, CELLS**2 * BINS, bias=False)
        self.normal = nn.Linear(hidden, 4 * 3)
        for quiet in (self.depth_of_extra, self.normal):
            nn.init.zeros_(quiet.weight)

    def forward(self, tokens: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[B, T, 4, 4, BINS]`` and normals ``[B, T, 2, 2, 3]`` of image tokens and DeepStack's addition."""
        logits = self.depth(tokens) + self.depth_of_extra(extra)
        return logits.unflatten(-1, (CELLS, CELLS, BINS)), self.normal(tokens).unflatten(-1, (2, 2, 3))


def soft_bins(depth_m: Tensor) -> Tensor:
    """Depths ``[...]`` as shares of the two nearest logarithmic bins, ``[..., BINS]``; 0 where depth is not finite."""
    place = torch.log(depth_m / NEAREST_M) / math.log(FARTHEST_M / NEAREST_M) * (BINS - 1)
    bins = torch.arange(BINS, device=depth_m.device)
    distance = (place.clamp(0, BINS - 1)[..., None] - bins).abs()
    return torch.nan_to_num((1 - distance).clamp(min=0))


def mean_log_depth(logits: Tensor) -> Tensor:
    """The mean of ln(depth in metres) under logits over the bins ``[..., BINS]``: ``[...]``."""
    centres = math.log(NEAREST_M) + torch.arange(BINS, device=logits.device) / (BINS - 1) * math.log(
        FARTHEST_M / NEAREST_M
    )
    return (logits.float().softmax(dim=-1) * centres).sum(dim=-1)  # no product that autocast would round


class DenseModel(nn.Module):
    """Tower and heads; places of a grid are worked out once."""

    def __init__(self, model: Qwen3VLForConditionalGeneration, compiled: bool = False) -> None:
        super().__init__()
        self.tower = GridTower(model)
        hidden = model.config.text_config.hidden_size
        self.heads = DenseHeads(hidden).to(model.device)
        self.motion = MotionHead(hidden).to(model.device) if can_match(model.config) else None
        self._run = torch.compile(self.tower, dynamic=True) if compiled else self.tower
        self._places: dict[tuple[int, int], GridPlaces] = {}

    def forward(self, patches: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
        """Image tokens ``[B, T, hidden]``, depth logits and normals (see ``DenseHeads``) of patches ``[B, P, F]``."""
        if (rows, columns) not in self._places:
            self._places[rows, columns] = self.tower.places(rows, columns)
        taught = torch.is_grad_enabled() and self.tower.visual.merger.linear_fc2.weight.requires_grad
        run = self._run if taught else self.tower  # compiling once more for some views would take longer
        tokens, extra = run(patches, *self._places[rows, columns])
        logits, normals = self.heads(tokens, extra)
        return tokens, logits, normals


def school_vision(
    model: Qwen3VLForConditionalGeneration,
    views: DenseViews,
    settings: VisionSettings,
    progress: Callable[[int, int], None] | None = None,
    pairs: DensePairs | None = None,
    state: Path | None = None,
) -> tuple[DenseModel, list[float]]:
    """Trains ``model.model.visual`` in place; what its structure holds stays as it was built.

    Args:
        model: weights in float32; one that can match for pairs.
        views: single views.
        settings: see there.
        progress: called with (steps done, steps in all).
        pairs: for descriptors and motion.
        state: file to keep the state of the run in; a run that finds it there continues from it.

    Returns:
        tower and heads; the depth loss of every ``log_every`` steps of this call.

    Raises:
        BadInputError: ``state`` is damaged or of another model.
        ValueError: pairs for a model that can't match.
    """
    if pairs is not None and not can_match(model.config):
        raise ValueError("pairs teach descriptors, and this model has no room for them")
    torch.manual_seed(settings.seed)
    dense = DenseModel(model, settings.compiled)
    model.model.visual.train()
    _know_frequencies(dense.heads, views)
    optimiser = _optimiser(model, dense, settings)
    schedule = _schedule(optimiser, settings)
    done = read_state(state, dense, optimiser, schedule) if state is not None else 0
    losses: list[float] = []
    total = 0.0
    for step in range(done + 1, settings.steps + 1):
        rng = np.random.default_rng([settings.seed, step])  # a resumed run draws what the killed one would have
        model.model.visual.requires_grad_(step > settings.heads_first)
        alone = settings.tokens if pairs is None else settings.tokens // 3
        loss, depth_loss = _loss(dense, views.draw(alone, rng), settings.bf16)
        if pairs is not None:
            more, _ = _pair_loss(dense, pairs.draw(settings.pair_tokens, rng), settings.bf16)
            share = alone / (alone + settings.pair_tokens)
            loss = share * loss + (1 - share) * more
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(dense.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        total += depth_loss
        if step % settings.log_every == 0:
            losses.append(total / settings.log_every)
            logger.info("vision schooling: step %d of %d, loss %.4f", step, settings.steps, losses[-1])
            total = 0.0
        if state is not None and step % settings.save_every == 0:
            write_state(state, dense, optimiser, schedule, step)
        if progress is not None:
            progress(step, settings.steps)
    model.model.visual.requires_grad_(True)
    return dense, losses


def _loss(dense: DenseModel, batch: DenseBatch, bf16: bool) -> tuple[Tensor, float]:
    device = dense.heads.depth.weight.device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        tokens, logits, normals = dense(batch.patches.to(device), batch.rows, batch.columns)
    return _dense_loss(tokens, logits, normals, batch, dense.motion is not None)


def _dense_loss(
    tokens: Tensor, logits: Tensor, normals: Tensor, batch: DenseBatch, matching: bool
) -> tuple[Tensor, float]:
    device = tokens.device
    target = soft_bins(batch.depth_m.to(device))  # [B, T, 4, 4, BINS]
    depth_loss = -(target * logits.float().log_softmax(dim=-1)).sum(dim=-1).mean()
    truth = batch.normals.to(device)
    known = truth.isfinite().all(dim=-1)  # the sky has none
    normal_loss = 1 - cosine_similarity(normals.float()[known], truth[known], dim=-1).mean()
    features = tokens[..., CODE_CHANNELS : -CHANNELS if matching else None]
    loud = relu(features.float().pow(2).mean() - 1)
    return depth_loss + NORMAL_WEIGHT * normal_loss + LOUDNESS_WEIGHT * loud, float(depth_loss.detach())


def _pair_loss(dense: DenseModel, batch: PairBatch, bf16: bool) -> tuple[Tensor, MatchLoss]:
    assert dense.motion is not None
    device = dense.heads.depth.weight.device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        tokens, logits, normals = dense(batch.views.patches.to(device), batch.views.rows, batch.views.columns)
    loss, _ = _dense_loss(tokens, logits, normals, batch.views, matching=True)
    descriptors = tokens[..., MatchLayout(tokens.shape[-1]).descriptor]
    found = match_loss(tokens, descriptors, dense.motion, batch)
    alike = MATCH_WEIGHT * (found.cross_entropy + found.distance)
    return loss + alike + MOTION_WEIGHT * found.motion + LOUDNESS_WEIGHT * found.size, found


def _optimiser(model: Qwen3VLForConditionalGeneration, dense: DenseModel, settings: VisionSettings) -> MatrixOptimiser:
    parameters = dict(model.model.visual.named_parameters(prefix="model.visual"))
    matrices = {name for name, p in parameters.items() if ".blocks." in name and p.ndim == 2}
    heads = [p for module in (dense.heads, dense.motion) if module is not None for p in module.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in parameters.items() if name not in matrices], "lr": settings.learning_rate},
        {"params": heads, "lr": settings.head_learning_rate},
    ]
    held = {parameters[name]: mask for name, mask in trainable_masks(model).items() if name in parameters}
    return MatrixOptimiser(
        [parameters[name] for name in matrices], groups, settings.matrix_rate, settings.weight_decay, 0.98, held
    )


@torch.no_grad()
def _know_frequencies(heads: DenseHeads, views: DenseViews) -> None:
    """The depth head starts with how often each bin occurs in each cell."""
    rng = np.random.default_rng(0)
    drawn = [soft_bins(views.draw(500, rng).depth_m).flatten(0, 1) for _ in range(16)]  # each [B * T, 4, 4, BINS]
    frequency = torch.cat(drawn).mean(dim=0) + 1e-4
    heads.depth.bias.copy_(frequency.log().flatten())


def _schedule(optimiser: MatrixOptimiser, settings: VisionSettings) -> torch.optim.lr_scheduler.LambdaLR:
    def tower(step: int) -> float:
        return _rate(step, settings, settings.heads_first)

    def heads(step: int) -> float:
        return _rate(step, settings)

    return torch.optim.lr_scheduler.LambdaLR(optimiser, [tower, tower, heads])  # in the order of _optimiser's groups


def _rate(step: int, settings: VisionSettings, start: int = 0) -> float:
    rising = max(0.0, (step + 1 - start) / max(settings.warmup, 1))
    falling = (settings.steps - step) / max(settings.decay * settings.steps, 1.0)
    return max(0.0, min(1.0, rising, falling))


@torch.no_grad()
def dense_depth(dense: DenseModel, patches: Tensor, rows: int, columns: int) -> Tensor:
    """Depths in metres of the cells of views of one grid, ``[B, 4 * rows, 4 * columns]``; patches ``[B, P, F]``."""
    _, logits, _ = dense(patches, rows, columns)
    log_depth = mean_log_depth(logits).unflatten(1, (rows, columns))  # [B, R, C, 4, 4]
    return log_depth.exp().transpose(2, 3).flatten(3, 4).flatten(1, 2)
