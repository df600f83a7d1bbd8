"""A fixed library of tileable texture patterns with mip levels, baked on first use.

A pattern holds two weights per texel instead of a colour: a material turns them into RGB with its own palette
(``base + w1 (first - base) + w2 (second - base)``), so that a few dozen patterns dress any number of rooms.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIZE = 256  # texels along each edge of level 0
NUM_LEVELS = 9  # 256 ... 1
VARIANTS = 8

Pattern = NDArray[np.float32]  # [SIZE, SIZE, 2] weights in [0, 1]


def _noise(rng: np.random.Generator, slope: float, stretch: float = 1.0) -> NDArray[np.float32]:
    """Tileable fractal noise with amplitude ``frequency ** -slope``; ``stretch`` > 1 draws it out along u. [S, S]."""
    fy = np.fft.fftfreq(SIZE)[:, None] * SIZE
    fx = np.fft.rfftfreq(SIZE)[None, :] * SIZE
    radius = np.maximum(np.hypot(fx * stretch, fy), 1.0)
    spectrum = np.exp(2j * np.pi * rng.random(radius.shape)) * radius**-slope
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, (SIZE, SIZE))
    return np.clip(0.5 + field / (4.0 * field.std()), 0.0, 1.0).astype(np.float32)


def _fine(rng: np.random.Generator) -> NDArray[np.float32]:
    return _noise(rng, 0.4)


def _plaster(rng: np.random.Generator) -> Pattern:
    return np.stack([_noise(rng, rng.uniform(0.7, 1.3)), _noise(rng, rng.uniform(1.4, 2.0))], -1)


def _carpet(rng: np.random.Generator) -> Pattern:
    return np.stack([_noise(rng, rng.uniform(0.1, 0.5)), _noise(rng, 1.2)], -1)


def _wood(rng: np.random.Generator) -> Pattern:
    warp = _noise(rng, 1.6, 6.0)
    rows = np.arange(SIZE, dtype=np.float32)[:, None] / SIZE
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.integers(6, 16) * rows + rng.uniform(3, 8) * warp))
    return np.stack([0.7 * rings + 0.3 * _noise(rng, 0.6, 8.0), _noise(rng, 0.9, 12.0)], -1).astype(np.float32)


def _marble(rng: np.random.Generator) -> Pattern:
    veins = 1.0 - np.clip(np.abs(_noise(rng, 1.5) - 0.5) * rng.uniform(6, 14), 0.0, 1.0)
    return np.stack([veins, 0.6 * _noise(rng, 1.3) + 0.4 * _fine(rng)], -1).astype(np.float32)


def _polygon(rng: np.random.Generator, centre: NDArray, radius: float) -> NDArray[np.int32]:
    angles = np.sort(rng.random(rng.integers(3, 8))) * 2 * np.pi
    reach = radius * rng.uniform(0.5, 1.0, angles.shape)
    corners = centre + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], -1)
    return np.round(corners * 16).astype(np.int32)  # cv2's fixed point with shift 4


def _shapes(rng: np.random.Generator, count: int, low: float, high: float, circles: float) -> Pattern:
    """Polygons and discs of random weights over a plain ground; wraps by drawing each shape at its nine images."""
    weights = np.full((SIZE, SIZE, 2), 0.0, np.float32) + rng.random(2).astype(np.float32)
    for _ in range(count):
        radius = float(np.exp(rng.uniform(np.log(low), np.log(high)))) * SIZE
        value = tuple(rng.random(2).tolist())
        centre = rng.random(2) * SIZE
        polygon = None if rng.random() < circles else _polygon(rng, np.zeros(2), radius)
        for shift in np.stack(np.meshgrid([-SIZE, 0, SIZE], [-SIZE, 0, SIZE]), -1).reshape(-1, 2):
            middle = centre + shift
            if np.any(middle < -radius) or np.any(middle > SIZE + radius):
                continue
            at = np.round(middle * 16).astype(np.int32)
            if polygon is None:
                cv2.circle(weights, at.tolist(), int(radius * 16), value, -1, cv2.LINE_8, 4)
            else:
                cv2.fillPoly(weights, [polygon + at], value, cv2.LINE_8, 4)
    return weights


def _terrazzo(rng: np.random.Generator) -> Pattern:
    chips = _shapes(rng, int(rng.integers(250, 500)), 0.006, 0.035, 0.2)
    return chips * 0.8 + 0.2 * np.stack([_fine(rng), _fine(rng)], -1)


def _poster(rng: np.random.Generator) -> Pattern:
    art = _shapes(rng, int(rng.integers(40, 110)), 0.015, 0.30, 0.35)
    return art * 0.9 + 0.1 * np.stack([_noise(rng, 0.8), _noise(rng, 0.8)], -1)


def _floral(rng: np.random.Generator) -> Pattern:
    dots = _shapes(rng, int(rng.integers(60, 140)), 0.01, 0.06, 0.9)
    return dots * 0.85 + 0.15 * np.stack([_fine(rng), _noise(rng, 1.2)], -1)


def _weave(rng: np.random.Generator) -> Pattern:
    threads = int(rng.integers(24, 48))
    axis = np.arange(SIZE, dtype=np.float32) / SIZE
    over = 0.5 + 0.5 * np.sin(2 * np.pi * threads * axis)[:, None] * np.sin(2 * np.pi * threads * axis)[None, :]
    bands = _noise(rng, 1.4)
    return np.stack([0.5 * over + 0.5 * _fine(rng), bands], -1).astype(np.float32)


def _stripes(rng: np.random.Generator) -> Pattern:
    edges = np.sort(rng.integers(0, SIZE, rng.integers(8, 24)))
    index = np.searchsorted(edges, np.arange(SIZE)) % len(edges)
    values = rng.random((len(edges), 2)).astype(np.float32)[index]  # [S, 2]
    grain = np.stack([_noise(rng, 0.7), _noise(rng, 0.7)], -1)
    return (0.75 * np.broadcast_to(values[None], grain.shape) + 0.25 * grain).astype(np.float32)


def _print(rng: np.random.Generator) -> Pattern:
    """Rows of word-like bars and a few pictures: newspaper, packaging, book covers."""
    weights = np.stack([0.08 * _fine(rng), 0.15 * _noise(rng, 1.2)], -1)
    row = int(rng.integers(4, 10))
    y = row
    while y < SIZE - 2 * row:
        height = int(rng.integers(max(row // 2, 2), row + 1))
        x = int(rng.integers(4, 16))
        while x < SIZE - 8:
            width = int(rng.integers(3, 6 * row))
            weights[y : y + height, x : min(x + width, SIZE - 6), 0] = rng.uniform(0.7, 1.0)
            x += width + int(rng.integers(2, row + 2))
        y += height + row // 2 + 1
    for _ in range(int(rng.integers(1, 5))):
        x, y = rng.integers(0, SIZE - 100, 2)
        w, h = rng.integers(40, 100, 2)
        weights[y : y + h, x : x + w] = _shapes(rng, 12, 0.02, 0.2, 0.4)[:h, :w]
    return weights.astype(np.float32)


def _stones(rng: np.random.Generator) -> Pattern:
    """Voronoi cells, each of its own shade, with dark joints."""
    sites = rng.random((int(rng.integers(40, 90)), 2))
    axis = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE
    first = np.full((SIZE, SIZE), np.inf, np.float32)
    second = first.copy()
    owner = np.zeros((SIZE, SIZE), np.int64)
    for k, (sx, sy) in enumerate(sites):
        dx, dy = np.abs(axis - sx), np.abs(axis - sy)
        distance = np.hypot(np.minimum(dx, 1 - dx)[None, :], np.minimum(dy, 1 - dy)[:, None]).astype(np.float32)
        closer = distance < first
        second = np.where(closer, first, np.minimum(second, distance))
        first = np.where(closer, distance, first)
        owner[closer] = k
    joint = np.clip(1.0 - (second - first) / 0.012, 0.0, 1.0)
    shade = rng.random(len(sites)).astype(np.float32)[owner]
    return np.stack([np.maximum(joint, 0.25 * _fine(rng)), 0.7 * shade + 0.3 * _fine(rng)], -1).astype(np.float32)


PATTERNS: dict[str, Callable[[np.random.Generator], Pattern]] = {
    "plaster": _plaster,
    "carpet": _carpet,
    "wood": _wood,
    "marble": _marble,
    "terrazzo": _terrazzo,
    "poster": _poster,
    "floral": _floral,
    "weave": _weave,
    "stripes": _stripes,
    "print": _print,
    "stones": _stones,
}
_KINDS = tuple(PATTERNS)
NUM_TEXTURES = len(_KINDS) * VARIANTS


def texture_id(kind: str, variant: int) -> int:
    """Number of a pattern in the library. Raises KeyError for an unknown kind."""
    if kind not in PATTERNS:
        raise KeyError(f"unknown pattern {kind!r}; known are {', '.join(_KINDS)}")
    return _KINDS.index(kind) * VARIANTS + variant % VARIANTS


def bake(index: int) -> Pattern:
    """Weights of one pattern, [SIZE, SIZE, 2] in [0, 1]; a pure function of its number."""
    kind, variant = divmod(index, VARIANTS)
    rng = np.random.default_rng([20240, kind, variant])
    return np.clip(PATTERNS[_KINDS[kind]](rng), 0.0, 1.0)


class TextureLibrary:
    """All patterns with their mip levels in one flat array per device; a pattern is baked when first asked for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._offsets = np.concatenate([[0], np.cumsum([(SIZE >> k) ** 2 for k in range(NUM_LEVELS)])])
        self._stride = int(self._offsets[-1])
        self._level_offset = torch.from_numpy(self._offsets).to(device)
        self._texels = torch.zeros(NUM_TEXTURES * self._stride, 2, device=device)  # the weights of each texel
        self._baked = np.zeros(NUM_TEXTURES, bool)

    def require(self, indices: NDArray[np.integer]) -> None:
        """Bake those of the given patterns that are not there yet."""
        for index in np.unique(indices[~self._baked[indices]]).tolist():
            level = bake(index)
            for k in range(NUM_LEVELS):
                start = index * self._stride + int(self._offsets[k])
                self._texels[start : start + level.shape[0] ** 2] = torch.from_numpy(level).view(-1, 2)
                if k + 1 < NUM_LEVELS:
                    level = 0.25 * (level[::2, ::2] + level[1::2, ::2] + level[::2, 1::2] + level[1::2, 1::2])
            self._baked[index] = True

    def sample(self, index: Tensor, u: Tensor, v: Tensor, level: Tensor) -> Tensor:
        """Trilinear, wrapping look-up.

        Args:
            index: pattern of each sample, [N] int64.
            u, v: position in units of the pattern's period, [N].
            level: mip level, fractional (0 = full resolution), [N].

        Returns:
            the two weights, [N, 2].
        """
        level = level.clamp(0.0, NUM_LEVELS - 1.001)
        lower = level.long()
        base = index * self._stride
        fine = self._bilinear(base, u, v, lower)
        coarse = self._bilinear(base, u, v, lower + 1)
        return torch.lerp(fine, coarse, (level - lower)[:, None])

    def _bilinear(self, base: Tensor, u: Tensor, v: Tensor, level: Tensor) -> Tensor:
        size = torch.bitwise_right_shift(torch.full_like(level, SIZE), level)
        x = u * size - 0.5
        y = v * size - 0.5
        x0, y0 = x.floor(), y.floor()
        fx, fy = (x - x0)[:, None], (y - y0)[:, None]
        mask = size - 1
        column = x0.long() & mask
        row = y0.long() & mask
        start = base + self._level_offset[level]
        right = (column + 1) & mask
        upper = start + row * size
        lower = start + ((row + 1) & mask) * size
        take = functools.partial(torch.index_select, self._texels, 0)
        top = torch.lerp(take(upper + column), take(upper + right), fx)
        bottom = torch.lerp(take(lower + column), take(lower + right), fx)
        return torch.lerp(top, bottom, fy)


@functools.cache
def library(device: torch.device) -> TextureLibrary:
    """The process's one library per device: a cache of pure functions, shared because baking takes a second in all."""
    return TextureLibrary(device)
