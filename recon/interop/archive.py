"""Arrays of a foreign ``.npz`` file: only those asked for, never pickled, never more than the file really holds."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError  # of numpy's reading of a damaged header
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from recon.errors import BadInputError

MAX_ARRAY_BYTES = 256 << 20  # of an array read whole; images and depth maps are read photo by photo
MAX_FRAME_BYTES = 512 << 20  # of one photo's part of an array


class NamedArrays:
    """The arrays of an ``.npz`` file, opened for reading (a context manager isn't needed: nothing stays open).

    Raises:
        BadInputError: on opening, when the file is no archive; on reading, when an array is missing, pickled,
            truncated or larger than accepted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                entries = [info.filename for info in archive.infolist()]
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise BadInputError(f"{path}: not a readable .npz archive ({_line(error)})") from error
        if len(set(entries)) != len(entries):
            raise BadInputError(f"{path}: the archive holds two entries of the same name; the file is refused")
        self.names = tuple(name.removesuffix(".npy") for name in entries if name.endswith(".npy"))

    def first_of(self, *names: str) -> str:
        """The first of several spellings that the file has.

        Raises:
            BadInputError: it has none.
        """
        for name in names:
            if name in self.names:
                return name
        shown = ", ".join(sorted(self.names)[:12]) or "no arrays"
        raise BadInputError(f"{self.path}: has no array {' or '.join(map(repr, names))}; found: {shown}")

    def shape(self, name: str) -> tuple[int, ...]:
        """The declared shape, after checking that the file holds as much."""
        with self._opened(name) as (_, shape, _dtype):
            return shape

    def read(self, name: str) -> NDArray[Any]:
        """A whole array of at most 256 MiB."""
        with self._opened(name) as (stream, shape, dtype):
            size = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if size > MAX_ARRAY_BYTES:
                raise BadInputError(
                    f"{self.path}: {name!r} declares {size >> 20} MiB; accepted: up to {MAX_ARRAY_BYTES >> 20}"
                )
            return np.frombuffer(_read(stream, size), dtype=dtype).reshape(shape)

    def frames(self, name: str, wanted: Sequence[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        """Slices ``array[index]`` for rising ``wanted`` indices, with one slice in memory at a time."""
        with self._opened(name) as (stream, shape, dtype):
            size = int(np.prod(shape[1:], dtype=object)) * dtype.itemsize
            if len(shape) < 2 or size > MAX_FRAME_BYTES:
                raise BadInputError(f"{self.path}: {name!r} declares the shape {shape}; too large for a photo's data")
            position = 0
            for index in wanted:
                for _ in range(position, index):
                    _skip(stream, size)
                position = index + 1
                yield index, np.frombuffer(_read(stream, size), dtype=dtype).reshape(shape[1:])

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype]]:
        entry = f"{self.first_of(name)}.npy"
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(entry) as stream:
                shape, dtype = _header(stream)
                declared = int(np.prod(shape, dtype=object)) * dtype.itemsize + stream.tell()
                if declared != archive.getinfo(entry).file_size:
                    raise BadInputError(
                        f"{self.path}: {name!r} declares {declared} bytes, {archive.getinfo(entry).file_size} are there"
                    )
                yield stream, shape, dtype
        except BadInputError:
            raise
        except (OSError, EOFError, ValueError, TypeError, SyntaxError, MemoryError, RuntimeError, TokenError,
                zlib.error, zipfile.BadZipFile, struct.error) as error:  # fmt: skip
            raise BadInputError(f"{self.path}: the array {name!r} can't be read ({_line(error)})") from error


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it is pickled, which is never loaded")
    if dtype.kind not in "fiub":
        raise ValueError(f"its type {dtype} is not a number")
    if fortran_order and len(shape) > 1:
        raise ValueError("it is stored in column order")
    if any(side < 0 for side in shape):
        raise ValueError(f"its shape {shape} is impossible")
    return tuple(int(side) for side in shape), dtype


def _read(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("it is truncated")
    return data


def _skip(stream: IO[bytes], size: int) -> None:
    while size > 0:
        data = stream.read(min(size, 1 << 20))
        if not data:
            raise EOFError("it is truncated")
        size -= len(data)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
