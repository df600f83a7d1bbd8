"""What a photo's EXIF says about its camera and place; nonsense is left out with a note.

Focal length in pixels, first that makes sense:

1. ``FocalLengthIn35mmFilm``: the CIPA definition (and COLMAP's) compares diagonals, 43.27 mm being that of 36x24 mm. A
   photo wider than 3:2 is a crop of a taller sensor with the same width (16:9 modes of phones and drones), whose
   diagonal is that of a 3:2 frame at least.
2. ``FocalLength`` and ``FocalPlaneXResolution`` (pixels of the *original* image per unit: scaled when the photo was
   resized, ignored when it was cropped).
3. ``FocalLength`` and the sensor width from COLMAP's camera database, asked through pycolmap.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from recon.types import GpsFix

FULL_FRAME_DIAGONAL_MM = math.hypot(36.0, 24.0)
MIN_FOCAL_RATIO, MAX_FOCAL_RATIO = 0.2, 25.0  # of the longer side: 7 mm fisheye to 900 mm telephoto (35 mm equivalent)

_MAKE, _MODEL, _EXIF_IFD, _GPS_IFD = 0x010F, 0x0110, 0x8769, 0x8825
_FOCAL_MM, _FOCAL_35MM, _LENS_MODEL = 0x920A, 0xA405, 0xA434
_WIDTH, _HEIGHT = 0xA002, 0xA003
_PLANE_X_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # inch, cm, mm, um


@dataclass(frozen=True)
class PhotoExif:
    """EXIF facts of one photo; ``camera`` names body, lens and zoom (empty when the photo does not say)."""

    camera: str = ""
    focal_px: float | None = None
    gps: GpsFix | None = None
    notes: tuple[str, ...] = ()


def read_exif(image: Image.Image) -> PhotoExif:
    """Reads the EXIF of an open (not yet transposed) photo. Never raises for damaged metadata: it is noted."""
    notes: list[str] = []
    width, height = image.size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns of damaged tags that this function checks itself
            exif = image.getexif()
            main: dict[int, Any] = dict(exif)
            photo = dict(exif.get_ifd(_EXIF_IFD))
            gps_ifd = dict(exif.get_ifd(_GPS_IFD))
    except Exception as error:  # the parser meets arbitrary bytes
        return PhotoExif(notes=(f"EXIF unreadable ({type(error).__name__}), ignored",))
    make, model, lens = (_text(main.get(_MAKE)), _text(main.get(_MODEL)), _text(photo.get(_LENS_MODEL)))
    focal_px = _focal_px(photo, make, model, width, height, notes)
    gps = _gps(gps_ifd, notes)
    camera = ""
    if make or model:
        focal_mm, focal_35mm = _number(photo.get(_FOCAL_MM)), _number(photo.get(_FOCAL_35MM))
        camera = "|".join([make, model, lens, f"{focal_mm or 0:.2f}mm", f"{focal_35mm or 0:.0f}mm"])
    return PhotoExif(camera, focal_px, gps, tuple(notes))


# ---------------------------------------------------------------------------------------------------------------------
# focal length


def _focal_px(
    photo: Mapping[int, Any], make: str, model: str, width: int, height: int, notes: list[str]
) -> float | None:
    long_side, short_side = max(width, height), min(width, height)

    def sane(name: str, focal_px: float) -> bool:
        if MIN_FOCAL_RATIO * long_side <= focal_px <= MAX_FOCAL_RATIO * long_side:
            return True
        notes.append(
            f"EXIF {name} gives a focal length of {focal_px:.6g} px for {width}x{height}, ignored (accepted: "
            f"{MIN_FOCAL_RATIO:g} to {MAX_FOCAL_RATIO:g} times the longer side)"
        )
        return False

    if _FOCAL_35MM in photo:
        focal_35mm = _number(photo[_FOCAL_35MM])
        if focal_35mm is None:
            notes.append("EXIF FocalLengthIn35mmFilm is not a number, ignored")
        elif focal_35mm != 0:  # 0 means unknown (EXIF 2.3)
            diagonal = math.hypot(long_side, max(short_side, long_side / 1.5))
            focal_px = focal_35mm / FULL_FRAME_DIAGONAL_MM * diagonal
            if sane("FocalLengthIn35mmFilm", focal_px):
                return focal_px

    if _FOCAL_MM not in photo:
        return None
    focal_mm = _number(photo[_FOCAL_MM])
    if focal_mm is None or focal_mm <= 0:
        if focal_mm != 0:
            notes.append("EXIF FocalLength is not a positive number, ignored")
        return None
    plane = _number(photo.get(_PLANE_X_RESOLUTION))
    unit_mm = _UNIT_MM.get(int(_number(photo.get(_PLANE_UNIT, 2)) or 0))
    original = (_number(photo.get(_WIDTH)) or width, _number(photo.get(_HEIGHT)) or height)
    scale = long_side / max(original)
    is_resized_only = abs(short_side - min(original) * scale) <= 2.0
    if plane and plane > 0 and unit_mm and is_resized_only:
        focal_px = focal_mm / unit_mm * plane * scale
        if sane("FocalLength with FocalPlaneXResolution", focal_px):
            return focal_px
    sensor_mm = sensor_width_mm(make, model)
    if sensor_mm is not None:
        focal_px = focal_mm / sensor_mm * long_side
        if sane("FocalLength", focal_px):
            return focal_px
    return None


@lru_cache(maxsize=256)
def sensor_width_mm(make: str, model: str) -> float | None:
    """Sensor width of a camera in COLMAP's database, None when it is not there.

    pycolmap offers the database only through the EXIF of an image file, so a small one with these names is asked.
    """
    if not model:
        return None
    import pycolmap

    brand = make.split()[0] if make else ""
    makers = make.lower().split()
    bare = " ".join(word for word in model.split() if word.lower() not in makers)
    repeated = next((word for word in model.split() if word.lower() in makers), brand)  # EASTMAN KODAK, KODAK Z612
    side_px, focal_mm = 100, 10
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "camera.jpg"
        for candidate_make, candidate_model in dict.fromkeys(
            [(make, model), (brand, model), (brand, bare), (repeated, bare)]
        ):
            if not candidate_make or not candidate_model:
                continue
            image = Image.fromarray(np.zeros((side_px, side_px, 3), np.uint8))
            exif = image.getexif()
            exif[_MAKE], exif[_MODEL] = candidate_make, candidate_model
            exif.get_ifd(_EXIF_IFD)[_FOCAL_MM] = IFDRational(focal_mm, 1)
            image.save(path, exif=exif)
            bitmap = pycolmap.Bitmap.read(path, True)
            focal_px = bitmap.exif_focal_length() if bitmap is not None else None
            if focal_px:
                return float(focal_mm * side_px / focal_px)
    return None


# ---------------------------------------------------------------------------------------------------------------------
# GPS


def _gps(ifd: Mapping[int, Any], notes: list[str]) -> GpsFix | None:
    """GPS fix of the GPS IFD: tags 1-6 (position, altitude), 31 (horizontal error in metres)."""
    if 2 not in ifd and 4 not in ifd:
        return None
    latitude = _angle_deg(ifd.get(2), ifd.get(1), positive="N", negative="S")
    longitude = _angle_deg(ifd.get(4), ifd.get(3), positive="E", negative="W")
    if latitude is None or longitude is None:
        notes.append("EXIF GPS position is not a number, ignored")
        return None
    if abs(latitude) > 90 or abs(longitude) > 180:
        notes.append(f"EXIF GPS position {latitude:.6g}, {longitude:.6g} is out of range, ignored")
        return None
    if latitude == 0 and longitude == 0:
        notes.append("EXIF GPS position is exactly 0, 0 (no fix), ignored")
        return None
    altitude = None
    if 6 in ifd:
        altitude = _number(ifd[6])
        if altitude is not None and ifd.get(5) in (1, b"\x01"):
            altitude = -altitude  # below sea level
        if altitude is None or not -1000 <= altitude <= 20_000:
            notes.append("EXIF GPS altitude is not a number between -1000 and 20000 m, ignored")
            altitude = None
    accuracy = _number(ifd.get(31))
    return GpsFix(latitude, longitude, altitude, accuracy if accuracy is not None and accuracy > 0 else None)


def _angle_deg(value: Any, reference: Any, positive: str, negative: str) -> float | None:
    """Degrees of an EXIF (degrees, minutes, seconds) triple with its N/S/E/W letter; None when it makes no sense."""
    try:
        parts = [_number(part) for part in value]
    except TypeError:
        return None
    numbers = [part for part in parts if part is not None and part >= 0]
    if not 1 <= len(parts) <= 3 or len(numbers) != len(parts):
        return None
    degrees, minutes, seconds = [*numbers, 0.0, 0.0][:3]
    if minutes > 60 or seconds > 60:
        return None
    letter = _text(reference).upper()[:1]
    if letter not in (positive, negative, ""):
        return None
    angle = degrees + minutes / 60 + seconds / 3600
    return -angle if letter == negative else angle


def _number(value: Any) -> float | None:
    """A finite float, or None (missing, text, NaN, infinite, zero denominator)."""
    if isinstance(value, tuple | list):  # a count of one is sometimes written as an array
        value = value[0] if len(value) == 1 else None
    if value is None or isinstance(value, str | bytes):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if not isinstance(value, str):
        return ""
    return "".join(char for char in value.split("\x00")[0] if char.isprintable()).strip()
