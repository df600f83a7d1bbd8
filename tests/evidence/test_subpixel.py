"""Coarse matches of photos that show one textured surface come back at a tenth of a pixel; wrong ones do not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from recon.evidence.local_affine import local_affines
from recon.evidence.subpixel import Pyramid, SubpixelOptions, refine_matches

# photo 2 shows photo 1 turned by 12 degrees, 20 % smaller in x, sheared and shifted: a slanted surface
MAP = np.array([[0.80, 0.21, 21.3], [-0.17, 0.96, 38.7]])


def texture(seed: int, width: int = 320, height: int = 240) -> np.ndarray:
    """Smooth random texture of several scales, [H, W, 3] uint8."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width))
    for sigma in (1.5, 4.0, 12.0):
        layer = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), sigma)
        total += layer / layer.std()
    grey = np.clip(128 + 28 * total, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def moved(pixels: np.ndarray) -> np.ndarray:
    return pixels @ MAP[:, :2].T + MAP[:, 2]


def photos() -> tuple[np.ndarray, np.ndarray]:
    first = texture(1)
    index_map = MAP.copy()  # continuous pixels to array indices: x - 0.5 on both sides
    index_map[:, 2] += MAP[:, :2] @ [0.5, 0.5] - 0.5
    second = cv2.warpAffine(first, index_map, (320, 240), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return first, np.clip(second * 0.8 + 20.0, 0, 255).astype(np.uint8)  # another exposure


def coarse_matches(sigma_px: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    grid = np.stack(np.meshgrid(np.arange(45.0, 280, 22), np.arange(45.0, 200, 22)), axis=-1).reshape(-1, 2)
    return grid, moved(grid) + rng.normal(0, sigma_px, grid.shape)


@pytest.mark.parametrize("sigma_px", [2.5, 6.0])
def test_refined_matches_are_exact(sigma_px: float) -> None:
    first, second = photos()
    grid, coarse = coarse_matches(sigma_px)

    found = refine_matches(Pyramid.of(first), Pyramid.of(second), grid, coarse, sigma_px)

    error = np.linalg.norm(moved(found.pixels1) - found.pixels2, axis=1)
    assert len(error) > 0.5 * len(grid)  # measured 0.90 and 0.85
    assert np.median(error) < 0.1  # measured 0.02: no half pixel is lost between levels
    assert (error < 1.0).mean() > 0.95
    assert np.linalg.norm(found.pixels1 - grid[found.row], axis=1).max() <= SubpixelOptions().snap_px + 1


def test_matches_of_unrelated_photos_are_left_out() -> None:
    grid, coarse = coarse_matches(4.0)
    found = refine_matches(Pyramid.of(texture(1)), Pyramid.of(texture(9)), grid, coarse, 4.0)
    assert len(found.row) <= 0.05 * len(grid)


def test_flat_and_repeating_surfaces_give_nothing() -> None:
    grid, coarse = coarse_matches(4.0)
    flat = np.full((240, 320, 3), 120, dtype=np.uint8)
    assert len(refine_matches(Pyramid.of(flat), Pyramid.of(flat), grid, coarse, 4.0).row) == 0
    tiles = np.zeros((240, 320, 3), dtype=np.uint8)
    tiles[(np.arange(240)[:, None] // 4 + np.arange(320) // 4) % 2 == 0] = 200
    still = grid + np.random.default_rng(3).normal(0, 4.0, grid.shape)
    assert len(refine_matches(Pyramid.of(tiles), Pyramid.of(tiles), grid, still, 4.0).row) == 0


def test_few_matches_or_none_are_no_trouble() -> None:
    first, second = (Pyramid.of(photo) for photo in photos())
    grid, coarse = coarse_matches(1.0)
    assert len(refine_matches(first, second, grid[:0], coarse[:0], 1.0).row) == 0
    assert len(refine_matches(first, second, grid[:3], coarse[:3], 1.0).row) <= 3


def test_neighbours_tell_the_local_map_and_who_is_wrong() -> None:
    grid, coarse = coarse_matches(1.0)
    coarse[10] += [60, -40]
    linear, gap = local_affines(grid, coarse, 1.0)
    assert np.abs(linear - MAP[:, :2]).max() < 0.12
    assert gap[10] > 50
    assert np.median(gap) < 2.5
