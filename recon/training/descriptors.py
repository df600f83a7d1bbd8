"""Descriptors of image tokens and what they are for, learned from pairs while the tower is schooled.

The losses do exactly what the heads of :mod:`recon.training.matching` will do with the finished descriptors: mix those
of the first image around the asked place, compare with every token of the second, and take the mean of the places that
are alike. So what schooling reaches is what answers can reach.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, smooth_l1_loss

from recon.training.dense import CELLS
from recon.training.dense_pairs import MOTION, PairBatch
from recon.training.matching import MATCH_FLAGS, POINT_FLAGS, SHARP, kernel_weights
from recon.training.structure import POINTING_PERIODS, position_code

_SHARPNESS = 5.0  # of sharp dimensions: the product of the norms' weights
_HEAD_SCALE = 8.0  # 64 / sqrt(64): a head's product of two vectors of unit root mean square
SIZE = MATCH_FLAGS  # squared length that descriptors are kept at


@dataclass(frozen=True)
class MatchLoss:
    """``cross_entropy`` of the tokens that show the asked points, ``distance`` of the answered places in tokens (a
    smooth L1 loss), ``motion`` of the relative pose, ``size`` of descriptors that are too long or too short."""

    cross_entropy: Tensor
    distance: Tensor
    motion: Tensor
    size: Tensor


@functools.cache
def place_codes(rows: int, columns: int) -> Tensor:
    """Codes [R * C, 16] of the middles of a grid's fields."""
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    return torch.cat([position_code(axis.flatten(), POINTING_PERIODS) for axis in (x, y)], dim=1)


@functools.cache
def reading_kernel(rows: int, columns: int) -> Tensor:
    """How much of each token's descriptor is read at the middle of each cell, [16 R * C, R * C]."""
    asked = place_codes(CELLS * rows, CELLS * columns) * kernel_weights()
    tokens = place_codes(rows, columns)
    length1 = (asked.pow(2).sum(dim=1, keepdim=True) + POINT_FLAGS).sqrt()
    length2 = (tokens.pow(2).sum(dim=1) + POINT_FLAGS).sqrt()
    return (_HEAD_SCALE * _SHARPNESS * (asked @ tokens.T) / (length1 * length2)).softmax(dim=1)


def alikeness(query: Tensor, key: Tensor) -> Tensor:
    """Attention logits [..., Q, K] of descriptors [..., Q, 30] and [..., K, 30], but for what flags add alike."""
    sharp = query[..., :SHARP] @ key[..., :SHARP].mT
    blunt = query[..., SHARP:] @ key[..., SHARP:].mT
    length1 = (query.pow(2).sum(dim=-1, keepdim=True) + MATCH_FLAGS).sqrt()
    length2 = (key.pow(2).sum(dim=-1) + MATCH_FLAGS).sqrt()
    return _HEAD_SCALE * (_SHARPNESS * sharp + blunt) / (length1 * length2[..., None, :])


def matched(first: Tensor, second: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Logits [B, 16 T, T] over the second images' tokens at every cell of the first, and mean places [B, 16 T, 2] in
    tokens; descriptors [B, T, 30]."""
    logits = alikeness(reading_kernel(rows, columns).to(first) @ first, second)
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    middles = torch.stack([x.flatten(), y.flatten()], dim=1).to(first)
    return logits, logits.softmax(dim=-1) @ middles


def token_shares(places: Tensor, rows: int, columns: int) -> Tensor:
    """Places [..., 2] in tokens as shares of the (up to four) tokens around them, [..., R * C]."""
    x = (places[..., 0] - 0.5).clamp(0, columns - 1)[..., None]
    y = (places[..., 1] - 0.5).clamp(0, rows - 1)[..., None]
    across = (1 - (x - torch.arange(columns, device=places.device)).abs()).clamp(min=0)
    down = (1 - (y - torch.arange(rows, device=places.device)).abs()).clamp(min=0)
    return (down[..., :, None] * across[..., None, :]).flatten(-2)


class MotionHead(nn.Module):
    """How the camera moved, from votes of the second image's tokens, each about the part of the first alike to it."""

    def __init__(self, hidden: int, votes: int = 32) -> None:
        super().__init__()
        self.inner = nn.Linear(2 * hidden + 16, 96)
        self.votes = nn.Linear(96, votes + 1)
        self.read = nn.Sequential(nn.Linear(votes, 64), nn.GELU(), nn.Linear(64, MOTION))

    def forward(self, first: Tensor, second: Tensor, alike: Tensor, rows: int, columns: int) -> Tensor:
        """Motions [B, 7] from both images' tokens [B, T, hidden] and the second's attention on the first [B, T, T]."""
        codes = place_codes(rows, columns).to(first)
        votes = self.votes(gelu(self.inner(torch.cat([second, alike @ first, alike @ codes], dim=-1))))
        weight = votes[..., -1].softmax(dim=-1)
        return self.read((weight[..., None] * votes[..., :-1]).sum(dim=1))


def match_loss(tokens: Tensor, descriptors: Tensor, motion: MotionHead, batch: PairBatch) -> MatchLoss:
    """Losses of image tokens [2 K, T, hidden] and their descriptors [2 K, T, 30]."""
    rows, columns, count = batch.views.rows, batch.views.columns, len(batch.motion)
    descriptors = descriptors.float()
    partner = descriptors.roll(count, dims=0)
    logits, places = matched(descriptors, partner, rows, columns)
    target, seen = batch.places.to(logits), batch.seen.to(logits)
    share = seen / seen.sum().clamp(min=1)
    entropy = -((token_shares(target, rows, columns) * logits.log_softmax(dim=-1)).sum(dim=-1) * share).sum()
    distance = (smooth_l1_loss(places, target, reduction="none", beta=0.3).sum(dim=-1) * share).sum()
    alike = alikeness(descriptors[count:], descriptors[:count]).softmax(dim=-1)
    moved = motion(tokens[:count].float(), tokens[count:].float(), alike, rows, columns)
    moved_loss = smooth_l1_loss(moved.float(), batch.motion.to(logits), beta=0.2)
    size = (descriptors.pow(2).sum(dim=-1) / SIZE - 1).pow(2).mean()
    return MatchLoss(entropy, distance, moved_loss, size)
