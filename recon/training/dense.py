"""Rendered views in memory as patches and dense labels, in batches of one grid: what a new vision tower is schooled on.

A view of 7 x 9 image tokens takes 200 kB. Labels are the z-depth at the centres of 4 x 4 cells of every image token (8
pixels apart) and the surface normals of its 2 x 2 patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.training.pool import PooledView, read_view
from recon.types import Camera, FloatArray

CELLS = 4  # per side of an image token
LIGHT = 0.2  # standard deviation of the logarithm of an image's brightness in training
TINT = 0.06  # the same for each colour
CROPPED = 0.6  # share of batches that see a token less of rows and columns, at an offset of 8, 16 or 24 pixels
HIDDEN = 0.1  # share of the patches of every other image that show their image's mean colour only


@dataclass(frozen=True)
class DenseBatch:
    """Views of ``rows x columns`` image tokens, T = rows * columns of them in the order of the image processor.

    ``patches`` [B, 4 T, 3 * 16 * 16] normalised, ``depth_m`` [B, T, 4, 4], ``normals`` [B, T, 2, 2, 3] in the
    camera's axes, towards the camera.
    """

    rows: int
    columns: int
    patches: Tensor
    depth_m: Tensor
    normals: Tensor


@dataclass(frozen=True)
class PackedView:
    """One view in memory: R x C image tokens."""

    patches: NDArray[np.uint8]  # [R, C, 2, 2, 3, 16, 16]
    depth_m: NDArray[np.float16]  # [R, C, 4, 4]
    normals: NDArray[np.float16]  # [R, C, 2, 2, 3]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image tokens."""
        return self.patches.shape[0], self.patches.shape[1]

    def flipped(self) -> PackedView:
        """The mirrored view."""
        mirror = np.array([-1, 1, 1], np.float16)
        return PackedView(
            self.patches[:, ::-1, :, ::-1, :, :, ::-1],
            self.depth_m[:, ::-1, :, ::-1],
            self.normals[:, ::-1, :, ::-1] * mirror,
        )

    def cropped(self, down: int, right: int) -> PackedView:
        """One row and one column of tokens less, beginning ``down`` and ``right`` cells (of 8 pixels) from the corner:
        other patches of the same view, its principal point at most 8 pixels off for 1 to 3 cells."""
        rows, columns = self.patches.shape[0] - 1, self.patches.shape[1] - 1
        pixels = self.patches.transpose(4, 0, 2, 5, 1, 3, 6).reshape(3, 32 * rows + 32, 32 * columns + 32)
        pixels = pixels[:, 8 * down : 8 * down + 32 * rows, 8 * right : 8 * right + 32 * columns]
        cells = self.depth_m.transpose(0, 2, 1, 3).reshape(4 * rows + 4, 4 * columns + 4)
        cells = cells[down : down + 4 * rows, right : right + 4 * columns]
        normals = self.normals.transpose(0, 2, 1, 3, 4).reshape(2 * rows + 2, 2 * columns + 2, 3)
        row, column = (np.arange(2 * rows) * 2 + 1 + down) // 2, (np.arange(2 * columns) * 2 + 1 + right) // 2
        return PackedView(
            pixels.reshape(3, rows, 2, 16, columns, 2, 16).transpose(1, 4, 2, 5, 0, 3, 6),
            cells.reshape(rows, 4, columns, 4).transpose(0, 2, 1, 3),
            normals[row][:, column].reshape(rows, 2, columns, 2, 3).transpose(0, 2, 1, 3, 4),  # the nearest known
        )


class ViewStacker:
    """Packs views, and makes batches of packed views of one grid, for one image processor."""

    def __init__(self, image_processor: Any) -> None:
        self._processor = image_processor
        self._mean = torch.tensor(image_processor.image_mean).repeat_interleave(256)
        self._std = torch.tensor(image_processor.image_std).repeat_interleave(256)

    def packed(self, view: PooledView) -> PackedView:
        """A view in memory."""
        return _packed(view, self._processor)

    def stack(self, views: list[PackedView]) -> DenseBatch:
        """A batch of views of one grid."""
        (rows, columns), count = views[0].grid, len(views)
        tokens = rows * columns
        shown = np.ascontiguousarray(np.stack([view.patches for view in views])).reshape(count, 4 * tokens, -1)
        patches = (torch.from_numpy(shown).float() / 255 - self._mean) / self._std
        depth_m = torch.from_numpy(np.stack([view.depth_m for view in views]).astype(np.float32))
        normals = torch.from_numpy(np.stack([view.normals for view in views]).astype(np.float32))
        return DenseBatch(rows, columns, patches, depth_m.flatten(1, 2), normals.flatten(1, 2))

    def disturbed(self, batch: DenseBatch, rng: np.random.Generator) -> DenseBatch:
        """The batch in other light, with hidden patches."""
        count = len(batch.patches)
        light = rng.normal(0, LIGHT, (count, 1)) + rng.normal(0, TINT, (count, 3))
        gain = torch.from_numpy(np.exp(light).astype(np.float32)).repeat_interleave(256, dim=1)[:, None]
        black, white = -self._mean / self._std, (1 - self._mean) / self._std
        patches = torch.minimum((batch.patches - black) * gain + black, white)
        hidden = (rng.random(patches.shape[:2]) < HIDDEN) & (rng.random((count, 1)) < 0.5)
        patches = torch.where(torch.from_numpy(hidden)[:, :, None], patches.mean(dim=1, keepdim=True), patches)
        return replace(batch, patches=patches)


class DenseViews:
    """Views of a pool by their files, grouped by grid.

    Raises:
        BadInputError: a file is damaged.
    """

    def __init__(
        self, paths: Sequence[Path], image_processor: Any, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self._stacker = ViewStacker(image_processor)
        self._views: dict[tuple[int, int], list[PackedView]] = {}
        for number, path in enumerate(paths, start=1):
            view = self._stacker.packed(read_view(path))
            self._views.setdefault(view.grid, []).append(view)
            if progress is not None:
                progress(number, len(paths))

    def __len__(self) -> int:
        return sum(len(views) for views in self._views.values())

    @property
    def grids(self) -> dict[tuple[int, int], int]:
        """How many views there are of each grid (rows, columns of image tokens)."""
        return {grid: len(views) for grid, views in self._views.items()}

    def draw(self, tokens: int, rng: np.random.Generator) -> DenseBatch:
        """Random views of a random grid, about ``tokens`` image tokens in all. Each time they are a little different:
        mirrored, cropped, in other light, with hidden patches. Every token of the pool is as likely as the others."""
        grids = list(self._views)
        weights = np.array([len(self._views[grid]) * grid[0] * grid[1] for grid in grids], float)
        grid = grids[int(rng.choice(len(grids), p=weights / weights.sum()))]
        views = self._views[grid]
        count = max(1, round(tokens / (grid[0] * grid[1])))
        chosen = [views[int(i)] for i in rng.choice(len(views), count, replace=count > len(views))]
        chosen = [view.flipped() if rng.random() < 0.5 else view for view in chosen]
        if min(grid) > 4 and rng.random() < CROPPED:
            chosen = [view.cropped(*rng.integers(1, 4, 2).tolist()) for view in chosen]
        return self._stacker.disturbed(self._stacker.stack(chosen), rng)

    def in_order(self, tokens: int = 2000) -> list[DenseBatch]:
        """Every view once, as it is."""
        batches = []
        for grid, views in self._views.items():
            count = max(1, tokens // (grid[0] * grid[1]))
            batches += [self._stacker.stack(views[start : start + count]) for start in range(0, len(views), count)]
        return batches


def view_patches(view: PooledView, image_processor: Any) -> tuple[Tensor, int, int]:
    """One frame of the processor's patches ``[P, 3 * 16 * 16]`` of a view and its rows and columns of image tokens."""
    picture = image_processor([np.ascontiguousarray(view.image.pixels)], return_tensors="pt")
    rows, columns = (int(n) // int(image_processor.merge_size) for n in picture["image_grid_thw"][0, 1:])
    frames = picture["pixel_values"].unflatten(1, (3, int(image_processor.temporal_patch_size), -1))
    return frames[:, :, 0].flatten(1), rows, columns


def _packed(view: PooledView, image_processor: Any) -> PackedView:
    patches, rows, columns = view_patches(view, image_processor)
    mean, std = (np.repeat(np.asarray(value, np.float32), 256) for value in (
        image_processor.image_mean, image_processor.image_std,
    ))  # fmt: skip
    shown = np.rint((patches.numpy() * std + mean) * 255).astype(np.uint8).reshape(rows, columns, 2, 2, 3, 16, 16)
    height, width = view.depth_m.shape
    row, column = _centres(rows * CELLS, height), _centres(columns * CELLS, width)
    cells = view.depth_m[row][:, column].reshape(rows, CELLS, columns, CELLS).transpose(0, 2, 1, 3)
    normals = _normals(view.image.camera, view.depth_m, _centres(rows * 2, height), _centres(columns * 2, width))
    normals = normals.reshape(rows, 2, columns, 2, 3).transpose(0, 2, 1, 3, 4)
    return PackedView(shown, cells.astype(np.float16), normals.astype(np.float16))


def _centres(cells: int, pixels: int) -> NDArray[np.int64]:
    return ((np.arange(cells) + 0.5) / cells * pixels).astype(np.int64)


def _normals(camera: Camera, depth_m: FloatArray, row: NDArray[np.int64], column: NDArray[np.int64]) -> FloatArray:
    """Surface normals at rows x columns, from the points 2 pixels to the left, right, above and below, [R, C, 3]."""
    height, width = depth_m.shape
    fx, fy, cx, cy = camera.fx_fy_cx_cy
    x, y = (np.arange(width) + 0.5 - cx) / fx, (np.arange(height) + 0.5 - cy) / fy
    points = np.stack([x[None] * depth_m, y[:, None] * depth_m, depth_m], axis=-1)
    left, right = np.clip(column - 2, 0, width - 1), np.clip(column + 2, 0, width - 1)
    above, below = np.clip(row - 2, 0, height - 1), np.clip(row + 2, 0, height - 1)
    # x right times y down points away from the camera for a wall that faces it
    away = np.cross(points[row][:, right] - points[row][:, left], points[below][:, column] - points[above][:, column])
    return (-away / (np.linalg.norm(away, axis=-1, keepdims=True) + 1e-9)).astype(np.float32)
