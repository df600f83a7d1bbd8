"""Rendered pairs in memory: patches and dense labels of both views, and where each one's cells lie in the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.errors import BadInputError
from recon.questions.pose import euler_from_rotation, rotation_from_euler
from recon.synth.correspondence import true_correspondence
from recon.training.dense import CELLS, CROPPED, DenseBatch, PackedView, ViewStacker
from recon.training.pool import read_pair
from recon.training.pooled import PooledPair, PooledView

MOTION = 7  # numbers of a relative pose as the tower learns it
_TURN_UNIT = 0.5  # radians that count as 1 beside a direction of length 1
MIRROR = np.array([-1, 1, -1, -1, 1, 1, 1], np.float32)  # a mirrored pair's motion is the motion times this


@dataclass(frozen=True)
class PairBatch:
    """K pairs of one grid: ``views`` holds the K first and then the K second views.

    ``places`` [2 K, 16 T, 2]: where the centres of a view's cells (4 x 4 per token, row by row over the image) lie in
    its partner, in tokens from its corner (x, y); ``seen`` [2 K, 16 T] whether the partner sees them; ``motion``
    [K, 7] (:func:`motion_of`).
    """

    views: DenseBatch
    places: Tensor
    seen: Tensor
    motion: Tensor


@dataclass(frozen=True)
class _Side:
    view: PackedView
    places: NDArray[np.float16]  # [4 R, 4 C, 2] cells of the partner
    seen: NDArray[np.bool_]  # [4 R, 4 C]

    def flipped(self) -> _Side:
        places = self.places[:, ::-1].copy()
        places[..., 0] = places.shape[1] - places[..., 0]  # both views have one grid
        return _Side(self.view.flipped(), places, self.seen[:, ::-1])

    def cropped(self, own: tuple[int, int], others: tuple[int, int]) -> _Side:
        """A row and a column of tokens less; ``own`` and the partner's offsets (down, right) in cells."""
        rows, columns = self.seen.shape[0] - CELLS, self.seen.shape[1] - CELLS
        part = slice(own[0], own[0] + rows), slice(own[1], own[1] + columns)
        places = self.places[part] - np.array(others[::-1], np.float16)
        inside = ((places >= 0) & (places <= [columns, rows])).all(axis=-1)
        return _Side(self.view.cropped(*own), places, self.seen[part] & inside)


@dataclass(frozen=True)
class _Pair:
    first: _Side
    second: _Side
    motion: NDArray[np.float32]
    motion_back: NDArray[np.float32]


def motion_of(cam1_from_cam2: NDArray[np.float64]) -> NDArray[np.float32]:
    """Yaw, pitch, roll in units of half a radian, direction [3], ln(distance in metres), of a relative pose [3, 4]."""
    turns = np.radians(euler_from_rotation(cam1_from_cam2[:, :3])) / _TURN_UNIT
    step = cam1_from_cam2[:, 3]
    distance = float(np.linalg.norm(step))
    return np.array([*turns, *(step / distance), np.log(distance)], np.float32)


def pose_of_motion(motion: NDArray[np.float64]) -> NDArray[np.float64]:
    """The relative pose [3, 4] that :func:`motion_of` writes as ``motion`` [7]; its direction may have any length."""
    rotation = rotation_from_euler(*np.degrees(motion[:3] * _TURN_UNIT).tolist())
    step = motion[3:6] / max(float(np.linalg.norm(motion[3:6])), 1e-6) * np.exp(motion[6])
    return np.column_stack([rotation, step])


class DensePairs:
    """Those pairs of a pool (given by their files) whose views share a grid, by grid.

    Raises:
        BadInputError: no such pair, or a damaged one.
    """

    def __init__(
        self, paths: Sequence[Path], image_processor: Any, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self._stacker = ViewStacker(image_processor)
        self._pairs: dict[tuple[int, int], list[_Pair]] = {}
        for number, path in enumerate(paths, start=1):
            packed = _packed_pair(read_pair(path), self._stacker)
            if packed is not None:
                self._pairs.setdefault(packed.first.view.grid, []).append(packed)
            if progress is not None:
                progress(number, len(paths))
        if not self._pairs:
            where = paths[0].parent if paths else "none given"
            raise BadInputError(f"{where}: no pair of views of one size among {len(paths)} pairs; render more")

    def __len__(self) -> int:
        return sum(len(pairs) for pairs in self._pairs.values())

    def draw(self, tokens: int, rng: np.random.Generator) -> PairBatch:
        """Random pairs of a random grid, about ``tokens`` image tokens in all, each time a little different: in the
        other order, mirrored, cropped, in other light, with hidden patches."""
        grids = list(self._pairs)
        weights = np.array([len(self._pairs[grid]) * grid[0] * grid[1] for grid in grids], float)
        grid = grids[int(rng.choice(len(grids), p=weights / weights.sum()))]
        pairs = self._pairs[grid]
        count = max(1, round(tokens / (2 * grid[0] * grid[1])))
        chosen = [pairs[int(i)] for i in rng.choice(len(pairs), count, replace=count > len(pairs))]
        crop = min(grid) > 4 and rng.random() < CROPPED
        varied = [_varied(pair, crop, rng) for pair in chosen]
        batch = self._stack(varied)
        return PairBatch(self._stacker.disturbed(batch.views, rng), batch.places, batch.seen, batch.motion)

    def in_order(self, pairs: int = 8) -> list[PairBatch]:
        """Every pair once, as it is."""
        return [
            self._stack(group[start : start + pairs])
            for group in self._pairs.values()
            for start in range(0, len(group), pairs)
        ]

    def _stack(self, pairs: list[_Pair]) -> PairBatch:
        sides = [pair.first for pair in pairs] + [pair.second for pair in pairs]
        places = np.stack([side.places for side in sides]).astype(np.float32) / CELLS
        seen = np.stack([side.seen for side in sides])
        return PairBatch(
            self._stacker.stack([side.view for side in sides]),
            torch.from_numpy(places).flatten(1, 2),
            torch.from_numpy(seen).flatten(1, 2),
            torch.from_numpy(np.stack([pair.motion for pair in pairs])),
        )


def _varied(pair: _Pair, crop: bool, rng: np.random.Generator) -> _Pair:
    first, second, motion, back = pair.first, pair.second, pair.motion, pair.motion_back
    if rng.random() < 0.5:
        first, second, motion, back = second, first, back, motion
    if rng.random() < 0.5:
        first, second, motion, back = first.flipped(), second.flipped(), motion * MIRROR, back * MIRROR
    if crop:
        (down1, right1), (down2, right2) = rng.integers(1, 4, (2, 2)).tolist()
        first, second = (
            first.cropped((down1, right1), (down2, right2)),
            second.cropped((down2, right2), (down1, right1)),
        )
    return _Pair(first, second, motion, back)


def _packed_pair(pair: PooledPair, stacker: ViewStacker) -> _Pair | None:
    """None where the views' grids differ."""
    first, second = stacker.packed(pair.first), stacker.packed(pair.second)
    if first.grid != second.grid:
        return None
    return _Pair(
        _Side(first, *_places(pair.first, pair.second, first.grid)),
        _Side(second, *_places(pair.second, pair.first, second.grid)),
        motion_of(pair.cam1_from_cam2),
        motion_of(pair.swapped().cam1_from_cam2),
    )


def _places(
    view: PooledView, partner: PooledView, grid: tuple[int, int]
) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    rows, columns = CELLS * grid[0], CELLS * grid[1]
    own, other = view.image.camera, partner.image.camera
    y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
    centres = np.stack([x * own.width_px, y * own.height_px], axis=-1).reshape(-1, 2)
    found, seen = true_correspondence(view.geometry(), partner.geometry(), centres)
    found = found / [other.width_px, other.height_px] * [columns, rows]
    seen &= np.isfinite(found).all(axis=1)
    found[~seen] = 0.0
    return found.reshape(rows, columns, 2).astype(np.float16), seen.reshape(rows, columns)
