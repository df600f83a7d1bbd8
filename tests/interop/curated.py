"""Small photos with exact depth and poses, for files and layouts of curated data: a wall seen by cameras in a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT, FOCAL = 64, 48, 60.0
WALL_M = 3.0  # the wall's distance from the first camera, at right angles to its axis


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Noise as a photo; the suffix says the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    Image.fromarray(pixels).save(path, format=kind)
    return path


def depth_png(path: Path, metres: np.ndarray, units_per_metre: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(metres * units_per_metre).astype(np.uint16)).save(path)


def wall_depth(back_m: float = 0.0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """z-depth [H, W] of the wall from a camera that stands ``back_m`` behind the first."""
    return np.full((size[1], size[0]), WALL_M + back_m, dtype=np.float32)
