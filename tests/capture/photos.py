"""Small photos with chosen content and metadata for the tests of the import."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

EXIF_IFD, GPS_IFD = 0x8769, 0x8825


def picture(seed: int = 0, width: int = 64, height: int = 48) -> np.ndarray:
    """A smooth random picture, uint8 ``[height, width, 3]``: survives JPEG, differs from other seeds."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def save_photo(path: Path, pixels: np.ndarray | None = None, **options) -> Path:
    """Saves pixels (a random picture by default) in the format of the path's extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture() if pixels is None else pixels).save(path, **options)
    return path


def make_exif(main: dict | None = None, photo: dict | None = None, gps: dict | None = None) -> Image.Exif:
    """EXIF of the three directories, tag number -> value."""
    exif = Image.Exif()
    for tag, value in (main or {}).items():
        exif[tag] = value
    exif.get_ifd(EXIF_IFD).update(photo or {})
    exif.get_ifd(GPS_IFD).update(gps or {})
    return exif


def gps_tags(latitude: tuple, longitude: tuple, north: str = "N", east: str = "E", **more) -> dict:
    """GPS directory of two (degrees, minutes, seconds) triples of numbers or (numerator, denominator) pairs."""
    return {1: north, 2: _rationals(latitude), 3: east, 4: _rationals(longitude), **more.get("more", {})}


def _rationals(values: tuple) -> tuple:
    return tuple(IFDRational(*value) if isinstance(value, tuple) else IFDRational(value) for value in values)
