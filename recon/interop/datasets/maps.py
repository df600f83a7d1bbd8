"""Depth maps as data sets store them: 16-bit PNG, raw float32, HDF5. All are z-depth, NaN where unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon.errors import BadInputError


def png_depth(path: Path, units_per_metre: float) -> NDArray[np.float32]:
    """A 16-bit PNG ``[H, W]`` in metres, 0 unknown; raises BadInputError when it is none."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if not image.mode.startswith("I"):
                raise ValueError(f"mode {image.mode}")
            values = np.asarray(image).astype(np.float32)
    except Exception as error:  # decoders meet arbitrary bytes
        raise BadInputError(f"{path}: not a 16-bit depth PNG ({_line(error)})") from error
    return np.where(values > 0, values / np.float32(units_per_metre), np.float32(np.nan))


def raw_depth(path: Path, width_px: int, height_px: int) -> NDArray[np.float32]:
    """Row-major little-endian float32 ``[H, W]`` in metres, not finite or not positive: unknown."""
    try:
        size = path.stat().st_size
        if size != 4 * width_px * height_px:
            raise ValueError(f"{size} bytes, {width_px}x{height_px} pixels need {4 * width_px * height_px}")
        values = np.fromfile(path, dtype="<f4").reshape(height_px, width_px)
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: not a raw float32 depth map ({_line(error)})") from error
    return np.where(np.isfinite(values) & (values > 0), values, np.float32(np.nan)).astype(np.float32)


def hdf5_depth(path: Path, key: str = "depth") -> NDArray[np.float32]:
    """A data set ``[H, W]`` of an HDF5 file, 0 unknown (MegaDepth)."""
    with open_hdf5(path) as file:
        values = hdf5_array(file, key, path, 2)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan).astype(np.float32)


def open_hdf5(path: Path) -> Any:
    """An HDF5 file for reading; raises BadInputError when it is none or h5py is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise BadInputError(f"{path}: HDF5 needs the h5py package: pip install 'vlm3-recon[datasets]'") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise BadInputError(f"{path}: not a readable HDF5 file ({_line(error)})") from error


def hdf5_array(file: Any, key: str, path: Path, ndim: int) -> NDArray[Any]:
    """A numeric data set of an open HDF5 file, read whole; raises BadInputError when it is not there."""
    dataset = hdf5_dataset(file, key, path, ndim)
    try:
        return np.asarray(dataset)
    except OSError as error:
        raise BadInputError(f"{path}: {key} can't be read ({_line(error)})") from error


def hdf5_dataset(file: Any, key: str, path: Path, ndim: int) -> Any:
    """A numeric data set of an open HDF5 file, not read yet; raises BadInputError when it is not there."""
    dataset = file.get(key)
    shape = getattr(dataset, "shape", None)
    if shape is None or len(shape) != ndim or dataset.dtype.kind not in "fiu":
        raise BadInputError(f"{path}: has no numbers called {key!r} with {ndim} axes; found: {', '.join(file)}")
    return dataset


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]
