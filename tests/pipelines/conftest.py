"""A small scene and a small checkpoint that the pipeline's tests share."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import REPOSITORY


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


Command = Callable[..., Finished]


@pytest.fixture(scope="session")
def command() -> Command:
    """Runs ``vlm3-recon`` with the given arguments in a process of its own."""

    def run(*arguments: object, cwd: Path | None = None, timeout: float = 500) -> Finished:
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *map(str, arguments)],
            cwd=cwd or REPOSITORY,
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'kernels'}"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def mute_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the real architecture with random weights: it loads and answers, at most a few tokens."""
    from tests.engine.conftest import make_checkpoint

    folder = tmp_path_factory.mktemp("checkpoint")
    checkpoint = make_checkpoint()
    checkpoint.model.save_pretrained(folder)
    checkpoint.tokenizer.save_pretrained(folder)
    checkpoint.image_processor.save_pretrained(folder)
    depth = dataclasses.replace(checkpoint.profile.depth, max_new_tokens=4)
    profile = dataclasses.replace(checkpoint.profile, trusted_on_photos=False, tasks={"depth": depth})
    (folder / "vlm3_profile.json").write_text(json.dumps(profile.to_json()))
    return folder


@pytest.fixture(scope="session")
def few_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photos (320x240) of a textured box corner, seen from places on an arc: enough for a map and a surface."""
    folder = tmp_path_factory.mktemp("scene")
    (folder / "images").mkdir()
    for index, photo in enumerate(corner_photos(5)):
        Image.fromarray(photo).save(folder / "images" / f"{index}.png")
    return folder


def corner_photos(count: int, width: int = 320, height: int = 240, focal: float = 300.0) -> list[np.ndarray]:
    """Photos of three textured walls that meet in a corner, by casting one ray per pixel (exact, no lens)."""
    rng = np.random.default_rng(3)
    textures = [smooth_noise(rng, 512) for _ in range(3)]  # of the walls x = 0, y = 0, z = 0; 2 m wide
    photos = []
    for k in range(count):
        angle = np.radians(45 + 8 * (k - (count - 1) / 2))
        eye = np.array([2.2 * np.cos(angle), 2.2 * np.sin(angle), 1.3 + 0.08 * (k % 2)])
        forward = np.array([0.55, 0.55, 0.55]) - eye
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        x, y = np.meshgrid((np.arange(width) + 0.5 - width / 2) / focal, (np.arange(height) + 0.5 - height / 2) / focal)
        rays = x[..., None] * right + y[..., None] * down + forward
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.where(rays < 0, -eye / rays, np.inf)  # to each wall's plane
        wall = distance.argmin(axis=-1)
        hit = eye + rays * distance.min(axis=-1)[..., None]
        photo = np.zeros((height, width, 3), dtype=np.uint8)
        for axis in range(3):
            u, v = (hit[..., i] for i in range(3) if i != axis)
            on = wall == axis
            column, row = (np.clip(c / 2.0 * 511, 0, 511) for c in (u, v))
            photo[on] = sample(textures[axis], column[on], row[on])
        photos.append(photo)
    return photos


def smooth_noise(rng: np.random.Generator, size: int) -> np.ndarray:
    """A colour texture [size, size, 3] with structure at several scales, in [0, 255]."""
    total = np.zeros((size, size, 3))
    for cells in (8, 16, 32, 64, 128):
        coarse = Image.fromarray((rng.random((cells, cells, 3)) * 255).astype(np.uint8))
        total += np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=float)
    total -= total.min()
    return total / total.max() * 255


def sample(texture: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Bilinear colours [N, 3] at continuous texture positions."""
    c0, r0 = np.minimum(column.astype(int), 510), np.minimum(row.astype(int), 510)
    fc, fr = (column - c0)[:, None], (row - r0)[:, None]
    top = texture[r0, c0] * (1 - fc) + texture[r0, c0 + 1] * fc
    bottom = texture[r0 + 1, c0] * (1 - fc) + texture[r0 + 1, c0 + 1] * fc
    return np.clip(top * (1 - fr) + bottom * fr, 0, 255).astype(np.uint8)


def copy_of(scene: Path, target: Path) -> Path:
    shutil.copytree(scene, target)
    return target
