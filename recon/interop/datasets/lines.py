"""The values of a line of a curated file, checked: what is wrong is named, without the file and the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.cameras.pinhole import MODELS, check_camera
from recon.cameras.pixels import corner_from_index
from recon.errors import BadInputError
from recon.interop.datasets.records import image_size
from recon.interop.result import check_photo_name
from recon.types import Camera

_LARGEST = 1e30  # no pixel, metre or rotation is; JSON holds whole numbers of any size


class BadLineError(BadInputError):
    """One line can't be used; the message says why, without naming the file."""


def required(entry: dict[str, Any], key: str) -> Any:
    """A key's value; raises BadLineError when there is none."""
    if key not in entry:
        raise BadLineError(f"has no {key!r}; found: {', '.join(list(entry)[:12]) or 'nothing'}")
    return entry[key]


def text(entry: dict[str, Any], key: str) -> str:
    """A key's text; raises BadLineError for anything else."""
    value = required(entry, key)
    if not isinstance(value, str) or not value.strip():
        raise BadLineError(f"{key} is {str(value)[:40]!r}; accepted: a text")
    return value


def name(entry: dict[str, Any], key: str) -> str:
    """A key's text that may be printed as it is; raises BadLineError for anything else (terminals obey control
    characters)."""
    value = text(entry, key)
    if not value.isprintable():
        raise BadLineError(f"{key} {value[:80]!r} holds characters that can't be printed")
    return value


def numbers(value: Any, key: str, length: int | None = None) -> NDArray[np.float64]:
    """A list of finite numbers; raises BadLineError naming the first that is none."""
    if not isinstance(value, list) or (length is not None and len(value) != length):
        found = f"{len(value)} values" if isinstance(value, list) else type(value).__name__
        wanted = "a list of numbers" if length is None else f"{length} numbers"
        raise BadLineError(f"{key} is {found}; accepted: {wanted}")
    for index, number in enumerate(value):
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not abs(number) < _LARGEST:
            raise BadLineError(f"{key}[{index}] is {str(number)[:40]}; accepted: a finite number")
    return np.array(value, dtype=np.float64)


def photo(entry: dict[str, Any], key: str, folder: Path) -> tuple[str, Path]:
    """A photo's name and file below ``folder``.

    A leading slash is dropped, as DepthLM's reader does; a name that leads out of the folder is refused.

    Raises:
        BadLineError: not a name, or there is no such file.
    """
    given = name(entry, key).lstrip("/")
    try:
        given = check_photo_name(given, folder)
    except BadInputError as error:
        raise BadLineError(f"{key} {given[:80]!r} leads out of {folder}") from error
    path = folder / given
    if not path.is_file():
        raise BadLineError(f"{key} {given[:80]!r} is missing in {folder}")
    return given, path


def camera(entry: dict[str, Any], suffix: str, path: Path) -> Camera:
    """The camera of ``intrinsics`` (fx, fy, cx, cy, and width, height; index-based centre), or of ``camera`` with a
    COLMAP model and its parameters (corner-based), which goes before it.

    Raises:
        BadLineError: neither is there, or it makes no sense.
    """
    try:
        if f"camera{suffix}" in entry:
            return _colmap_camera(entry[f"camera{suffix}"], f"camera{suffix}")
        key = f"intrinsics{suffix}"
        value = required(entry, key)
        if not isinstance(value, list) or len(value) not in (4, 6):
            raise BadLineError(f"{key} is {str(value)[:60]}; accepted: fx, fy, cx, cy and, if known, width, height")
        intrinsics = numbers(value, key)
        size = (int(intrinsics[4]), int(intrinsics[5])) if len(intrinsics) == 6 else image_size(path)
        cx, cy = corner_from_index(intrinsics[2:4]).tolist()
        made = Camera.pinhole(*size, float(intrinsics[0]), float(intrinsics[1]), cx, cy)
        check_camera(made)
        if not (-size[0] <= cx <= 2 * size[0] and -size[1] <= cy <= 2 * size[1]):
            raise BadLineError(f"{key} has its centre at {cx:.0f}, {cy:.0f}, far outside a {size[0]}x{size[1]} photo")
        return made
    except BadLineError:
        raise
    except BadInputError as error:
        raise BadLineError(str(error)) from error


def _colmap_camera(value: Any, key: str) -> Camera:
    if not isinstance(value, dict) or set(value) != {"model", "width", "height", "params"}:
        raise BadLineError(f"{key} is {str(value)[:60]}; accepted: an object with model, width, height, params")
    model = value["model"]
    if model not in MODELS:
        raise BadLineError(f"{key}.model is {str(model)[:40]!r}; accepted: {', '.join(MODELS)}")
    size = numbers([value["width"], value["height"]], key, 2)
    params = numbers(value["params"], f"{key}.params", MODELS[model])
    made = Camera(model, int(size[0]), int(size[1]), tuple(params.tolist()), "given")
    check_camera(made)
    return made


def pixels(value: Any, key: str, of: Camera) -> NDArray[np.float64]:
    """Corner-based pixels ``[N, 2]`` of index-based ones inside the photo; NaN where the entry is null.

    Raises:
        BadLineError: not a list of pairs of numbers, or one outside the photo (named).
    """
    if not isinstance(value, list):
        raise BadLineError(f"{key} is {type(value).__name__}; accepted: a list of [u, v]")
    points = np.full((len(value), 2), np.nan)
    for index, point in enumerate(value):
        if point is None:
            continue
        points[index] = numbers(point, f"{key}[{index}]", 2)
        u, v = points[index]
        if not (-0.5 <= u <= of.width_px - 0.5 and -0.5 <= v <= of.height_px - 0.5):
            raise BadLineError(
                f"{key}[{index}] is {u:g}, {v:g}, outside the photo; accepted: 0, 0 to "
                f"{of.width_px - 1}, {of.height_px - 1}"
            )
    return corner_from_index(points)
