"""What a curated file holds: one photo with depths, one pair with matches and a pose, or one photo with questions.

Pixels in the files are array indices (pixel (0, 0) is the centre of the first pixel, as DepthLM's curation writes
them); here they are corner-based like everywhere in the project. Labels belong to the photo's stored pixel grid: an
EXIF orientation is not applied.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon.errors import BadInputError
from recon.types import Camera, DepthKind, ImageArray

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")


@dataclass(frozen=True)
class DepthItem:
    """A photo with known depths: ``pixels`` ``[N, 2]`` inside it, ``depth_m`` ``[N]`` in metres, as z-depth or along
    the ray (``depth_kind``). ``name`` is the photo's name in the file, ``line`` where it stands there (from 1)."""

    name: str
    image: Path
    camera: Camera
    pixels: NDArray[np.float64]
    depth_m: NDArray[np.float64]
    depth_kind: DepthKind
    line: int


@dataclass(frozen=True)
class PairItem:
    """Two photos of one scene.

    Attributes:
        name1, name2, image1, image2, camera1, camera2: the photos.
        pixels1: ``[N, 2]`` in the first photo, ``[0, 2]`` when the pair has no matches.
        pixels2: ``[N, 2]`` where they are in the second, NaN where it does not show them.
        cam1_from_cam2: ``[3, 4]`` rotation, and camera 2's centre in camera 1's frame; None when not known.
        is_metric: whether that centre is in metres.
        scene: photos of equal scene are not independent of one another.
        line: where the pair stands in the file (from 1).
    """

    name1: str
    name2: str
    image1: Path
    image2: Path
    camera1: Camera
    camera2: Camera
    pixels1: NDArray[np.float64]
    pixels2: NDArray[np.float64]
    cam1_from_cam2: NDArray[np.float64] | None
    is_metric: bool
    scene: str
    line: int


@dataclass(frozen=True)
class ObjectItem:
    """Questions about regions of one photo.

    Attributes:
        name, image: the photo.
        camera: its camera; a guess (``focal_source`` ``prior``) when the file has no intrinsics.
        boxes: regions as corner-based left, top, right, bottom, in pixels of the photo.
        turns: (question with ``Region [k]`` for the k-th box, label in words).
        kind: ``qualitative`` or ``quantitative``.
        category: the data set's name for what is asked, e.g. ``left_predicate``, ``width_data``.
        line: where it stands in the file: the line, or the entry's number (from 1).
    """

    name: str
    image: Path
    camera: Camera
    boxes: tuple[tuple[float, float, float, float], ...]
    turns: tuple[tuple[str, str], ...]
    kind: Literal["qualitative", "quantitative"]
    category: str
    line: int


@dataclass(frozen=True)
class Fault:
    """A line (or entry) that can't be used, counted from 1, and why."""

    line: int
    reason: str


def load_pixels(path: Path, camera: Camera) -> ImageArray:
    """The stored pixels of a photo, ``[H, W, 3]`` uint8.

    Raises:
        BadInputError: missing, damaged, or of another size than its labels say.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                if image.size != (camera.width_px, camera.height_px):
                    raise BadInputError(
                        f"{path}: is {image.width}x{image.height}, its labels are for "
                        f"{camera.width_px}x{camera.height_px}"
                    )
                pixels = np.asarray(image.convert("RGB"))
    except BadInputError:
        raise
    except Exception as error:  # decoders meet arbitrary bytes
        raise BadInputError(f"{path}: not a readable photo ({' '.join(str(error).split())[:120]})") from error
    return pixels


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of a photo from its header; raises BadInputError when it has none."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return image.size
    except Exception as error:
        raise BadInputError(f"{path}: not a readable photo ({' '.join(str(error).split())[:120]})") from error
