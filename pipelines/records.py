"""Results on disk: any frozen dataclass of the project as one ``.npz`` file, written whole or not at all.

The tree of dataclasses, tuples and dicts becomes JSON (the entry ``record``), its arrays become the entries ``a0``,
``a1`` ...; no pickle. The declared types say how to read it back. The same encoding gives the fingerprints by which
stages are keyed, so a stage is redone exactly when something that it reads has changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import types
import typing
import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Arrays = list[NDArray[Any]]


def encode(value: object, arrays: Arrays, root: Path | None = None) -> Any:
    """``value`` as JSON data; its arrays are appended to ``arrays`` and referred to by their place.

    Paths below ``root`` are written relative to it, so that a workspace can be moved.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name), arrays, root) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return len(arrays) - 1
    if isinstance(value, Path):
        below = root is not None and value.is_relative_to(root)
        return f"./{value.relative_to(root).as_posix()}" if below and root is not None else str(value)
    if isinstance(value, Mapping):
        return {str(k): encode(v, arrays, root) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [encode(v, arrays, root) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"can't store a {type(value).__name__}")


def decode(declared: Any, data: Any, arrays: Arrays, root: Path | None = None) -> Any:
    """The inverse of ``encode`` for a value of type ``declared``; raises ValueError or TypeError if it does not fit."""
    origin, args = typing.get_origin(declared), typing.get_args(declared)
    if origin in (typing.Union, types.UnionType):
        if data is None:
            return None
        return decode(next(a for a in args if a is not type(None)), data, arrays, root)
    if dataclasses.is_dataclass(declared) and isinstance(declared, type):
        hints = typing.get_type_hints(declared)
        values = {f.name: decode(hints[f.name], data[f.name], arrays, root) for f in dataclasses.fields(declared)}
        return declared(**values)
    if declared is np.ndarray or origin is np.ndarray:
        return arrays[data]
    if declared is Path:
        return root / data[2:] if data.startswith("./") and root is not None else Path(data)
    if origin is tuple:
        kinds = [args[0]] * len(data) if len(args) == 2 and args[1] is Ellipsis else list(args)
        return tuple(decode(kind, item, arrays, root) for kind, item in zip(kinds, data, strict=True))
    if origin is list:
        return [decode(args[0], item, arrays, root) for item in data]
    if origin is dict:
        return {key: decode(args[1], item, arrays, root) for key, item in data.items()}
    if declared is float:
        return float(data)
    if origin is typing.Literal or declared in (str, int, bool):
        return data
    raise TypeError(f"can't read back a {declared}")


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``path`` so that it is the old file or the whole new one, whatever happens in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save_record(path: Path, value: object, key: str, root: Path | None = None) -> None:
    """Store ``value`` under ``key`` at ``path`` (atomic)."""
    arrays: Arrays = []
    text = json.dumps({"key": key, "value": encode(value, arrays, root)})
    buffer = io.BytesIO()
    entries = {f"a{i}": array for i, array in enumerate(arrays)}
    np.savez(buffer, record=np.frombuffer(text.encode(), dtype=np.uint8), **entries)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())


def load_record(path: Path, declared: type[T] | Any, key: str | None, root: Path | None = None) -> T | None:
    """What was stored at ``path`` under ``key`` (None: any); None when there is nothing, another key, or damage."""
    try:
        with np.load(path, allow_pickle=False) as file:
            record = json.loads(bytes(file["record"]).decode())
            if key is not None and record["key"] != key:
                return None
            arrays = [file[f"a{i}"] for i in range(len(file.files) - 1)]
        return typing.cast(T, decode(declared, record["value"], arrays, root))
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, RuntimeError, zipfile.BadZipFile):
        return None  # damaged from outside or written by another version: made anew


@lru_cache(maxsize=65536)
def _file_digest(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file's content (remembered while size and time of the file stay the same)."""
    stat = path.stat()
    return _file_digest(str(path), stat.st_size, stat.st_mtime_ns)


def fingerprint(*values: object) -> str:
    """Hex digest of ``values`` by content: dataclasses, arrays, JSON data; a ``Path`` stands for its file's content."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, Path):
            digest.update(b"file " + (file_digest(value) if value.is_file() else "absent").encode())
        elif isinstance(value, np.ndarray):
            digest.update(f"array {value.dtype.str} {value.shape} ".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            digest.update(f"{type(value).__name__}(".encode())
            for field in dataclasses.fields(value):
                digest.update(f"{field.name}=".encode())
                add(getattr(value, field.name))
            digest.update(b")")
        elif isinstance(value, Mapping):
            digest.update(b"{")
            for key in sorted(value, key=str):
                digest.update(f"{key!r}:".encode())
                add(value[key])
            digest.update(b"}")
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            digest.update(b"[")
            for item in value:
                add(item)
                digest.update(b",")
            digest.update(b"]")
        else:
            digest.update(f"{type(value).__name__} {value!r} ".encode())

    add(values)
    return digest.hexdigest()
