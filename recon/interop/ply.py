"""PLY files as their header declares them: checked against the file before any library reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recon.errors import BadInputError

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
_MAX_HEADER_BYTES = 1 << 16
_FACES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class PlyHeader:
    """``vertices`` and ``faces`` declared; ``dtype`` of a vertex (None unless binary); ``offset`` of the data."""

    binary: bool
    vertices: int
    faces: int
    dtype: np.dtype | None
    offset: int


def ply_header(path: Path) -> PlyHeader:
    """Reads the header of a PLY file and checks it against the file's length.

    Raises:
        BadInputError: it is no PLY, damaged, or declares more than the file holds.
    """
    with open(path, "rb") as file:
        head = file.read(_MAX_HEADER_BYTES)
    end = head.find(b"end_header")
    newline = head.find(b"\n", end)
    if not head.startswith(b"ply") or end < 0 or newline < 0:
        raise BadInputError(f"{path}: not a PLY file (no header)")
    words = [line.split() for line in head[:end].decode("ascii", "replace").splitlines()]
    try:
        encoding = next(line[1] for line in words if line[:1] == ["format"])
        counts = {line[1]: int(line[2]) for line in words if line[:1] == ["element"]}
        first = next(line[1] for line in words if line[:1] == ["element"])
    except (StopIteration, IndexError, ValueError) as error:
        raise BadInputError(f"{path}: the PLY header is damaged") from error
    vertices, faces = counts.get("vertex", 0), counts.get("face", 0)
    binary = encoding != "ascii"
    dtype = None
    if binary:
        dtype = _vertex_type(words, "<" if encoding == "binary_little_endian" else ">", path)
    # an ASCII vertex takes 6 bytes or more ("0 0 0\n"), a face 8
    needed = vertices * (dtype.itemsize if dtype is not None else 6) + faces * (13 if binary else 8)
    available = path.stat().st_size - newline - 1
    if vertices < 0 or faces < 0 or needed > available or (vertices and first != "vertex"):
        raise BadInputError(f"{path}: declares {vertices} vertices and {faces} faces, more than its {available} bytes")
    return PlyHeader(binary, vertices, faces, dtype, newline + 1)


def check_faces(path: Path) -> None:
    """Checks that every face of a PLY names vertices that are there: Open3D 0.20 reads polygons without looking.

    Raises:
        BadInputError: a face names a vertex that isn't there, or the faces are damaged.
    """
    header = ply_header(path)
    if header.faces == 0:
        return
    elements = _elements(path, header)
    names = [name for name, _ in elements]
    if names[:2] != ["vertex", "face"]:
        raise BadInputError(f"{path}: its elements are {', '.join(names)}; accepted: vertices, then faces")
    lists, scalars = elements[1][1][0], elements[1][1][1:]
    if len(lists) != 3 or lists[2] not in ("vertex_indices", "vertex_index") or any(len(p) == 3 for p in scalars):
        raise BadInputError(f"{path}: its faces are not a list of vertex_indices followed by plain properties")
    try:
        if header.dtype is None:
            for index in _text_faces(path, header):
                _within(index, header, path)
        else:
            _check_binary(path, header, lists, [kind for kind, _ in scalars])
    except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
        raise BadInputError(f"{path}: its faces are damaged ({error})") from error


def _elements(path: Path, header: PlyHeader) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Each element with its properties: (type, name), or (count type, type, name) of a list."""
    with open(path, "rb") as file:
        lines = file.read(header.offset).decode("ascii", "replace").splitlines()
    elements: list[tuple[str, list[tuple[str, ...]]]] = []
    for words in (line.split() for line in lines):
        if words[:1] == ["element"]:
            elements.append((words[1], []))
        elif words[:1] == ["property"] and elements:
            elements[-1][1].append(tuple(words[2:] if words[1] == "list" else words[1:]))
    return [(name, properties or [("", "")]) for name, properties in elements]


def _check_binary(path: Path, header: PlyHeader, lists: tuple[str, ...], scalars: list[str]) -> None:
    assert header.dtype is not None
    order = header.dtype["x"].str[0] if header.dtype["x"].str[0] in "<>" else "<"
    count, index = np.dtype(order + _TYPES[lists[0]]), np.dtype(order + _TYPES[lists[1]])
    extra = sum(np.dtype(_TYPES[kind]).itemsize for kind in scalars)
    start = header.offset + header.vertices * header.dtype.itemsize
    triangle = np.dtype([("count", count), ("index", index, (3,)), ("rest", "u1", (extra,))])
    data = np.memmap(path, "u1", "r")
    if start + header.faces * triangle.itemsize <= len(data):
        faces = np.frombuffer(data, triangle, header.faces, start)
        for at in range(0, len(faces), _FACES_AT_ONCE):
            part = faces[at : at + _FACES_AT_ONCE]
            if not (part["count"] == 3).all():
                break
            _within(part["index"], header, path)
        else:
            return
    for _ in range(header.faces):  # polygons: each as long as it says
        (corners,) = np.frombuffer(data, count, 1, start)
        start += count.itemsize
        if corners < 3 or start + int(corners) * index.itemsize + extra > len(data):
            raise ValueError(f"a face of {corners} corners, or longer than the file")
        _within(np.frombuffer(data, index, int(corners), start), header, path)
        start += int(corners) * index.itemsize + extra


def _text_faces(path: Path, header: PlyHeader) -> Iterator[np.ndarray]:
    with open(path, "rb") as file:
        file.seek(header.offset)
        for _ in range(header.vertices):
            file.readline()
        for _ in range(header.faces):
            words = file.readline().split()
            if int(words[0]) < 3:
                raise ValueError(f"a face of {int(words[0])} corners")
            yield np.array(words[1 : 1 + int(words[0])], dtype=np.int64)


def _within(index: np.ndarray, header: PlyHeader, path: Path) -> None:
    if index.size and (int(index.min()) < 0 or int(index.max()) >= header.vertices):
        raise BadInputError(f"{path}: holds triangles of vertices that are not there")


def _vertex_type(header: list[list[str]], order: str, path: Path) -> np.dtype:
    fields: list[tuple[str, str]] = []
    inside = False
    for line in header:
        if line[:1] == ["element"]:
            inside = line[1] == "vertex"
        elif inside and line[:1] == ["property"]:
            if line[1] not in _TYPES or len(line) != 3:
                raise BadInputError(f"{path}: vertex property {' '.join(line[1:])!r} is not supported")
            fields.append((line[2], order + _TYPES[line[1]]))
    try:
        dtype = np.dtype(fields)
    except ValueError as error:
        raise BadInputError(f"{path}: the PLY header is damaged ({error})") from error
    if not {"x", "y", "z"} <= set(dtype.names or ()):
        raise BadInputError(f"{path}: its vertices have no x, y and z")
    return dtype
