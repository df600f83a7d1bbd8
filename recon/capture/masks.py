"""Masks and sensor depth that lie beside ``images/``: found by name, checked, turned upright with their photo."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon.capture.decode import upright
from recon.capture.files import atomic_path, printable
from recon.errors import BadInputError
from recon.types import View


def load_mask(view: View) -> NDArray[np.bool_] | None:
    """The view's mask ``[H, W]``, True = use; None when it has none.

    Raises:
        BadInputError: the file is unreadable or not of the photo's size.
    """
    if view.mask_path is None:
        return None
    mask = np.asarray(_open_grey(view.mask_path)) > 0
    if mask.shape != (view.height_px, view.width_px):
        raise BadInputError(
            f"{view.mask_path}: {mask.shape[1]}x{mask.shape[0]}, but the photo is {view.width_px}x{view.height_px}"
        )
    return mask


def load_sensor_depth(view: View) -> NDArray[np.float32] | None:
    """The view's sensor depth in metres ``[H, W]`` (z-depth), NaN where invalid; None when it has none.

    A depth image of another size but the photo's aspect ratio is sampled to the photo's size at the nearest pixel.

    Raises:
        BadInputError: the file is unreadable, not 16-bit grey, or of another aspect ratio.
    """
    if view.depth_path is None:
        return None
    image = _open_depth(view.depth_path)
    if not _same_aspect(image.size, (view.width_px, view.height_px)):
        raise BadInputError(
            f"{view.depth_path}: {image.width}x{image.height} is not the shape of the photo "
            f"({view.width_px}x{view.height_px}); accepted: depth aligned to the photo"
        )
    millimetres = np.asarray(image)
    if image.size != (view.width_px, view.height_px):
        rows = ((np.arange(view.height_px) + 0.5) * image.height / view.height_px).astype(int)
        columns = ((np.arange(view.width_px) + 0.5) * image.width / view.width_px).astype(int)
        millimetres = millimetres[np.ix_(rows, columns)]
    depth_m = millimetres.astype(np.float32) / np.float32(1000.0)
    depth_m[millimetres == 0] = np.nan
    return depth_m


def find_mask(beside: Path, relative: PurePosixPath) -> Path | None:
    """``masks/photo.jpg.png`` (COLMAP's naming) or ``masks/photo.png``."""
    return _first_file([beside / "masks" / f"{relative}.png", beside / "masks" / relative.with_suffix(".png")])


def find_depth(beside: Path, relative: PurePosixPath) -> Path | None:
    """``depth/photo.png`` or ``depth/photo.jpg.png``."""
    return _first_file([beside / "depth" / relative.with_suffix(".png"), beside / "depth" / f"{relative}.png"])


def import_mask(source: Path, target: Path, size: tuple[int, int], orientation: int) -> str | None:
    """Writes the upright 0/255 mask of a photo of ``size`` (width, height) to ``target``.

    Returns:
        None, or why the mask can't be used, in one line.
    """
    try:
        mask = _open_grey(source)
    except BadInputError as error:
        return str(error)
    if orientation != 1 and (mask.size != size or orientation in (2, 3, 4)):
        mask = upright(mask, orientation)
    if mask.size != size:
        return f"mask {printable(source.name)} is {mask.width}x{mask.height}, the photo {size[0]}x{size[1]}, ignored"
    binary = Image.fromarray((np.asarray(mask) > 0).astype(np.uint8) * np.uint8(255))
    with atomic_path(target) as temporary:
        binary.save(temporary, format="PNG", compress_level=1)
    return None


def import_depth(source: Path, target: Path, size: tuple[int, int], orientation: int) -> tuple[Path | None, str | None]:
    """The upright depth image of a photo: ``source`` itself, or a turned copy in ``target``; or None and why not."""
    try:
        image = _open_depth(source)
    except BadInputError as error:
        return None, str(error)
    turned = orientation != 1 and (not _same_aspect(image.size, size) or orientation in (2, 3, 4))
    if turned:
        image = upright(image, orientation)
    if not _same_aspect(image.size, size):
        found = f"{image.width}x{image.height}"
        return None, f"depth {printable(source.name)} is {found}, the photo {size[0]}x{size[1]}, ignored"
    if not turned:
        return source, None
    with atomic_path(target) as temporary:
        image.save(temporary, format="PNG")
    return target, None


def _open_grey(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as image:
            if image.mode.startswith("I") or image.mode == "F":
                return Image.fromarray((np.asarray(image) > 0).astype(np.uint8) * np.uint8(255))
            return image.convert("L")
    except Exception as error:  # decoders meet arbitrary bytes
        raise BadInputError(f"{printable(path)}: not readable as a mask; accepted: 8-bit PNG, 0 = ignore") from error


def _open_depth(path: Path) -> Image.Image:
    """A 16-bit grey image (mode ``I;16``)."""
    wanted = "accepted: 16-bit grey PNG in millimetres, 0 = invalid"
    try:
        with Image.open(path, formats=("PNG", "TIFF")) as image:
            image.load()
            if image.mode == "I" or image.mode.startswith("I;16"):
                return Image.fromarray(np.asarray(image).astype(np.uint16))
            mode = image.mode
    except Exception as error:  # decoders meet arbitrary bytes
        raise BadInputError(f"{printable(path)}: not readable as sensor depth; {wanted}") from error
    raise BadInputError(f"{printable(path)}: is of the kind {mode!r}; {wanted}")


def _same_aspect(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one size is a scaled version of the other, within one pixel of the larger one."""
    (w1, h1), (w2, h2) = size, other
    return abs(w1 * h2 - w2 * h1) <= max(w1, h1, w2, h2)


def _first_file(candidates: list[Path]) -> Path | None:
    return next((path for path in candidates if path.is_file()), None)
