"""Decodes one photo of any accepted kind to upright 8-bit RGB, or says in one line why it can't be used."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from recon.capture.exif import PhotoExif, read_exif
from recon.capture.options import CaptureOptions
from recon.types import ImageArray

ACCEPTED = "JPEG, PNG, TIFF, WebP or HEIC"
SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".tif", ".tiff", ".webp", ".heic", ".heif"}
UNSUPPORTED_SUFFIXES = {
    *(".gif", ".bmp", ".avif", ".jxl", ".jp2", ".psd", ".exr", ".hdr", ".svg", ".tga"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw", ".raw"),
}
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")  # PIL opens MPO (phones' JPEG with a second picture) through JPEG
_LOSSY = {"JPEG", "MPO", "WEBP", "HEIF"}
_STORED_AS_IS = {"JPEG": (".jpg", ".jpeg"), "MPO": (".jpg", ".jpeg"), "PNG": (".png",)}


class UnusablePhotoError(Exception):
    """A photo that can't be used; the message is the reason for the user."""


@dataclass(frozen=True)
class DecodedPhoto:
    """Upright pixels of one photo.

    Attributes:
        pixels: ``[H, W, 3]`` uint8.
        keep_file: the file itself is already upright 8-bit RGB that COLMAP reads: copy it instead of encoding anew.
        suffix: extension for the stored file: the format's own, ``.png`` for lossless and ``.jpg`` for lossy sources.
        orientation: EXIF orientation that was applied (1: none).
    """

    pixels: ImageArray
    keep_file: bool
    suffix: str
    orientation: int
    exif: PhotoExif
    notes: tuple[str, ...]


def decode_photo(path: Path, options: CaptureOptions) -> DecodedPhoto:
    """Decodes a photo.

    Raises:
        UnusablePhotoError: unreadable, not an image, truncated, too small or too large.
    """
    try:
        if path.stat().st_size == 0:
            raise UnusablePhotoError(f"the file is empty (0 bytes); accepted: {ACCEPTED}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _open(path) as image:
                return _decode(image, path, options)
    except UnusablePhotoError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise UnusablePhotoError(f"the file can't be read ({error.strerror}); needs a readable file") from error
        raise UnusablePhotoError(f"the image data is damaged ({_line(error)}); needs a complete {ACCEPTED}") from error
    except Image.DecompressionBombError as error:
        raise UnusablePhotoError(
            f"too many pixels for a photo ({_line(error)}); accepted: at most {options.max_megapixels:g} megapixels"
        ) from error
    except Exception as error:  # decoders meet arbitrary bytes and raise whatever comes
        raise UnusablePhotoError(
            f"the image data is damaged ({type(error).__name__}: {_line(error)}); needs a complete {ACCEPTED}"
        ) from error


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image turned as its EXIF orientation (1 to 8) says."""
    return image.transpose(_TURNS[orientation]) if orientation != 1 else image


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _open(path: Path) -> Image.Image:
    formats: tuple[str, ...] = _FORMATS
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
        formats = (*_FORMATS, "HEIF")
    except ImportError:
        if path.suffix.lower() in (".heic", ".heif"):
            raise UnusablePhotoError("HEIC needs the pillow-heif package: pip install 'vlm3-recon[heic]'") from None
    try:
        return Image.open(path, formats=formats)
    except Image.UnidentifiedImageError as error:
        with open(path, "rb") as handle:
            head = handle.read(512)
        is_text = b"\x00" not in head and sum(32 <= byte < 127 or byte in b"\r\n\t" for byte in head) > 0.9 * len(head)
        found = "a text file" if is_text else "not an image of an accepted kind"
        raise UnusablePhotoError(f"the file is {found}; accepted: {ACCEPTED}") from error


def _decode(image: Image.Image, path: Path, options: CaptureOptions) -> DecodedPhoto:
    width, height = image.size
    if width * height > options.max_megapixels * 1e6:
        raise UnusablePhotoError(
            f"{width}x{height} is too many pixels for a photo; accepted: at most {options.max_megapixels:g} megapixels"
        )
    if min(width, height) < options.min_side_px:
        raise UnusablePhotoError(f"{width}x{height} is too small; accepted: sides of at least {options.min_side_px} px")
    notes: list[str] = []
    kind = image.format or ""
    if getattr(image, "n_frames", 1) > 1 and kind != "MPO":
        notes.append(f"has {image.n_frames} pages or frames, the first is used")  # type: ignore[attr-defined]
    has_16_bits = any(";16" in str(tile.args) for tile in getattr(image, "tile", []))
    exif = read_exif(image) if options.use_exif else PhotoExif()
    orientation = _orientation(image, notes)
    image.load()
    to_apply = _orientation(image, [])  # PIL's TIFF reader has turned the image itself by now
    keep_file = kind in _STORED_AS_IS and image.mode == "RGB" and orientation == 1 and not has_16_bits
    if keep_file:
        suffixes = _STORED_AS_IS[kind]
        suffix = path.suffix if path.suffix.lower() in suffixes else suffixes[0]
    else:
        suffix = ".jpg" if kind in _LOSSY and image.mode in ("RGB", "L", "CMYK") else ".png"
    rgb = _to_rgb(image, has_16_bits, notes)
    return DecodedPhoto(np.asarray(upright(rgb, to_apply)), keep_file, suffix, orientation, exif, tuple(notes))


def _orientation(image: Image.Image, notes: list[str]) -> int:
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF, already noted by read_exif
        return 1
    if value in range(1, 9):
        return int(value)
    notes.append(f"EXIF orientation {value!r} is not one of 1 to 8, ignored")
    return 1


def _to_rgb(image: Image.Image, has_16_bits: bool, notes: list[str]) -> Image.Image:
    """8-bit RGB of any PIL mode; what was lost is noted."""
    mode = image.mode
    if mode == "F" or (mode == "I" and not has_16_bits):
        found = "32-bit float" if mode == "F" else "32-bit integer"
        raise UnusablePhotoError(f"the pixels are {found}; accepted: 8 or 16 bits per channel")
    if mode == "I" or mode.startswith("I;16"):
        notes.append("16-bit grey reduced to 8-bit RGB")
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if has_16_bits:
        notes.append("16 bits per channel reduced to 8")
    has_alpha = mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    if has_alpha:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            notes.append("transparency dropped: see-through pixels became black")
            black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
            rgba = Image.alpha_composite(black, rgba)
        return rgba.convert("RGB")
    if mode != "RGB":
        notes.append(f"{_MODE_WORDS.get(mode, mode)} converted to RGB")
        return image.convert("RGB")
    return image


_MODE_WORDS = {"L": "grey", "P": "palette", "CMYK": "CMYK", "1": "black and white", "YCbCr": "YCbCr", "LAB": "Lab"}


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
