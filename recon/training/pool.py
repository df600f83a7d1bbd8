"""Pre-rendered pools: procedural views unified for a checkpoint and kept on disk, so that training never waits.

One ``.npz`` per view (no pickle): ``image`` uint8 ``[H, W, 3]`` as inference would make it from a photo (rendered at a
larger focal length, through JPEG half of the time, then unified), ``depth_m`` float16 ``[H, W]`` z-depth at its pixel
centres, ``intrinsics`` ``fx fy cx cy``. Files are named by seed and written atomically: rendering can be killed and
continued, and training may read a pool that is still growing (what is missing it renders itself).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon.cameras.pixels import containing_pixels, pixel_centres
from recon.cameras.unify import ImageProfile, to_source_pixels, unify
from recon.errors import BadInputError
from recon.synth.dataset import Split, random_view, split_seed
from recon.types import Camera, FloatArray, ImageArray, UnifiedImage

PHOTO_FOCAL_PX = (250.0, 500.0)  # focal lengths of the pretended photos, before unification


@dataclass(frozen=True)
class PooledView:
    """A unified image with the z-depth in metres at its pixel centres, ``depth_m`` ``[H, W]`` float32."""

    image: UnifiedImage
    depth_m: FloatArray

    def flipped(self) -> PooledView:
        """The mirrored view: as true a room as the first."""
        camera = self.image.camera
        fx, fy, cx, cy = camera.fx_fy_cx_cy
        mirrored = Camera.pinhole(camera.width_px, camera.height_px, fx, fy, camera.width_px - cx, cy)
        pixels = np.ascontiguousarray(self.image.pixels[:, ::-1])
        return PooledView(UnifiedImage(pixels, mirrored, mirrored), self.depth_m[:, ::-1])


def render_pooled_view(seed: int, profile: ImageProfile) -> PooledView:
    """Renders one view of the room of ``seed`` and treats it as a photo that is unified to the profile."""
    rng = np.random.default_rng([seed, 11])
    view = random_view(seed, focal_px=float(rng.uniform(*PHOTO_FOCAL_PX)))
    pixels = view.image
    if rng.random() < 0.5:
        pixels = _through_jpeg(pixels, quality=int(rng.integers(80, 97)))
    unified = unify(pixels, view.camera, profile)
    camera = unified.camera
    source = to_source_pixels(unified, pixel_centres(camera.width_px, camera.height_px))  # [H * W, 2]
    columns, rows = containing_pixels(source, view.camera.width_px, view.camera.height_px).T
    depth_m = view.depth_m[rows, columns].reshape(camera.height_px, camera.width_px)
    return PooledView(unified, depth_m.astype(np.float32))


def render_pool(
    folder: Path,
    split: Split,
    first: int,
    count: int,
    profile: ImageProfile,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Renders seeds ``first ... first + count - 1`` of a split into ``folder``, leaving out those that are there.

    Returns:
        how many were rendered by this call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rendered = 0
    for done, index in enumerate(range(first, first + count)):
        seed = split_seed(split, index)
        path = folder / f"{seed:08d}.npz"
        if not path.exists():
            _write(path, render_pooled_view(seed, profile))
            rendered += 1
        if progress is not None:
            progress(done + 1, count)
    return rendered


def pooled_view(folder: Path, split: Split, index: int, profile: ImageProfile) -> PooledView:
    """View ``index`` of a split from the pool; rendered and kept when it is not there yet.

    Raises:
        BadInputError: the file is damaged, or was rendered for another profile.
    """
    seed = split_seed(split, index)
    path = folder / f"{seed:08d}.npz"
    if path.exists():
        view = read_view(path)
        focal_px = view.image.camera.focal_px
        if profile.mode == "focal" and abs(focal_px - profile.target_px) > 0.01 * profile.target_px:
            raise BadInputError(
                f"{path}: rendered for a focal length of {focal_px:.1f} px, needed are {profile.target_px:g} px; use "
                f"another pool folder"
            )
        return view
    folder.mkdir(parents=True, exist_ok=True)
    _write(path, render_pooled_view(seed, profile))
    return read_view(path)


def list_pool(folder: Path) -> list[Path]:
    """The pool's views in the order of their seeds.

    Raises:
        BadInputError: not a folder, or no view in it.
    """
    paths = sorted(folder.glob("[0-9]*.npz")) if folder.is_dir() else []
    if not paths:
        raise BadInputError(f"{folder}: no rendered views (NNNNNNNN.npz) in this pool; render it first")
    return paths


def read_view(path: Path) -> PooledView:
    """Reads a view of a pool.

    Raises:
        BadInputError: the file is damaged or of another kind.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            image: ImageArray = data["image"]
            depth_m = data["depth_m"].astype(np.float32)
            fx, fy, cx, cy = (float(value) for value in data["intrinsics"])
    except (OSError, ValueError, KeyError) as error:
        raise BadInputError(f"{path}: not a view of a rendered pool ({error})") from error
    camera = Camera.pinhole(image.shape[1], image.shape[0], fx, fy, cx, cy)
    return PooledView(UnifiedImage(image, camera, camera), depth_m)


def _write(path: Path, view: PooledView) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    intrinsics: NDArray[np.float64] = np.array(view.image.camera.fx_fy_cx_cy)
    with temporary.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            image=view.image.pixels,
            depth_m=view.depth_m.astype(np.float16),
            intrinsics=intrinsics,
        )
    os.replace(temporary, path)


def _through_jpeg(pixels: ImageArray, quality: int) -> ImageArray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))
