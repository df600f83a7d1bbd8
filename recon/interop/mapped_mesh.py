"""Meshes of any size for looking at: a binary PLY is mapped into memory instead of being read."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from recon.interop.clouds import ply_header
from recon.interop.meshes import WorldAxes, read_mesh
from recon.surface.types import Mesh

_FACE = np.dtype([("count", "u1"), ("corners", "<u4", (3,))])


def map_mesh(path: Path, world_axes: WorldAxes = "opencv") -> Mesh:
    """The mesh of a file (.ply .obj .stl .glb); a binary PLY as we write it comes as views into the file.

    Such views cost memory only where they are looked at. Normals are left out. Other files are read whole.

    Raises:
        BadInputError: the file is missing, of another format, damaged, or has no triangles.
    """
    if path.suffix.lower() != ".ply" or not path.is_file():
        return read_mesh(path, world_axes)
    mapped = _mapped(path)
    return mapped if mapped is not None else read_mesh(path, world_axes)


def _mapped(path: Path) -> Mesh | None:
    """Views into a little-endian PLY of coloured or plain vertices followed by plain triangles; None for others."""
    header = ply_header(path)
    kind = header.dtype
    if kind is None or header.faces == 0 or header.vertices == 0 or kind.byteorder == ">":
        return None
    names = kind.names or ()
    number = kind["x"]
    if number.byteorder == ">" or kind["y"] != number or kind["z"] != number or number.kind != "f":
        return None
    with open(path, "rb") as file:
        head = file.read(header.offset).decode("ascii", "replace")
        lists = [line.split()[2:4] for line in head.splitlines() if line.startswith("property list")]
        if lists not in ([["uchar", "uint"]], [["uchar", "int"]], [["uint8", "uint32"]], [["uint8", "int32"]]):
            return None
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    faces_at = header.offset + header.vertices * kind.itemsize
    if faces_at + header.faces * _FACE.itemsize != len(data):
        return None  # polygons, or more elements behind
    faces = np.frombuffer(data, _FACE, header.faces, faces_at)
    if not (faces["count"] == 3).all():
        return None
    rows = np.frombuffer(data, kind, header.vertices, header.offset)
    offsets = {name: kind.fields[name][1] for name in names} if kind.fields is not None else {}
    step = number.itemsize
    if (offsets["y"], offsets["z"]) != (offsets["x"] + step, offsets["x"] + 2 * step):
        return None
    shape, strides = (header.vertices, 3), (kind.itemsize, step)
    vertices = np.ndarray(shape, number, data, header.offset + offsets["x"], strides)
    colors = None
    wanted = ("red", "green", "blue")
    if set(wanted) <= set(names) and all(kind[c] == np.uint8 for c in wanted):
        first = offsets["red"]
        if (offsets["green"], offsets["blue"]) == (first + 1, first + 2):
            colors = np.ndarray(shape, np.uint8, data, header.offset + first, (rows.strides[0], 1))
    return Mesh(vertices, faces["corners"].view(np.int32), colors)
