"""Pictures of a report as data URIs: photos, depth and confidence, small enough for one file."""

from __future__ import annotations

import base64
import io
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from recon.surface.store import read_depth_map
from recon.surface.types import DepthMap

logger = logging.getLogger(__name__)

PHOTO_PX = 640  # long side
DEPTH_PX = 480
_PERCENTILES = (2, 98)


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI and its size in pixels."""

    uri: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class DepthPictures:
    """Depth and confidence of a photo. ``near`` and ``far`` are the ends of the depth's colours (its middle 96 %), in
    the scene's unit; ``coverage`` is the share of pixels that have a depth; ``confidence`` their mean confidence.
    """

    depth: Picture
    confidence: Picture
    near: float
    far: float
    coverage: float
    mean_confidence: float


def photo_path(images: Path, name: str) -> Path | None:
    """The file of a photo in the workspace, None when there is none or the name leads elsewhere."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or "\0" in name:
        return None
    file = images / name
    try:
        return file if file.is_file() and file.resolve().is_relative_to(images.resolve()) else None
    except OSError:
        return None


def photo_picture(file: Path, long_side_px: int = PHOTO_PX) -> Picture | None:
    """A photo made small; None when it can't be read (the log says why)."""
    try:
        with Image.open(file) as photo:
            photo.draft("RGB", (long_side_px, long_side_px))  # JPEG is decoded at a fraction of its size
            return _webp(_at_most(photo.convert("RGB"), long_side_px, Image.Resampling.LANCZOS))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        logger.warning("report: %s can't be shown: %s", file, error)
        return None


def depth_pictures(file: Path) -> DepthPictures | None:
    """A depth map's pictures; None when the file is damaged or holds no depth."""
    try:
        depth_map = read_depth_map(file)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("report: %s can't be shown: %s", file, error)
        return None
    return draw_depth(depth_map)


def draw_depth(depth_map: DepthMap) -> DepthPictures | None:
    """Depth in colours from near to far, and confidence from 0 to 1; where nothing is known both are transparent."""
    depth = depth_map.depth_m
    known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        return None
    near, far = (float(v) for v in np.percentile(depth[known], _PERCENTILES))
    place = (np.where(known, depth, near) - near) / max(far - near, 1e-12)
    confidence = np.where(known, np.nan_to_num(depth_map.confidence), 0.0)
    return DepthPictures(
        _coloured(place, known, cv2.COLORMAP_TURBO),
        _coloured(confidence, known, cv2.COLORMAP_VIRIDIS),
        near,
        far,
        float(known.mean()),
        float(confidence[known].mean()),
    )


def _coloured(values: NDArray[np.floating], known: NDArray[np.bool_], colors: int) -> Picture:
    levels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    painted = cv2.cvtColor(cv2.applyColorMap(levels, colors), cv2.COLOR_BGR2RGB)
    image = Image.fromarray(np.dstack([painted, np.where(known, 255, 0).astype(np.uint8)]), "RGBA")
    return _webp(_at_most(image, DEPTH_PX, Image.Resampling.BOX))


def _at_most(image: Image.Image, long_side_px: int, how: Image.Resampling) -> Image.Image:
    if max(image.size) <= long_side_px:
        return image
    return ImageOps.contain(image, (long_side_px, long_side_px), how)


def _webp(image: Image.Image) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=78, method=4)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(f"data:image/webp;base64,{text}", image.width, image.height)
