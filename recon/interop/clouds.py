"""Surfaces of any size for comparison: at most so many random points of a PLY cloud, or a whole mesh.

A binary PLY is mapped into memory and only the chosen vertices are touched, so a cloud of 50 million points costs what
the sample costs. Meshes and other formats are read whole by Open3D.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.errors import BadInputError
from recon.interop.loose_points import read_glb_points, read_obj_points
from recon.interop.meshes import CLOUD_FORMATS, MESH_FORMATS, read_cloud, read_mesh
from recon.interop.result import Reconstructed, Surface
from recon.surface.types import Mesh, PointCloud

SURFACE_FORMATS = tuple(dict.fromkeys((*MESH_FORMATS, *CLOUD_FORMATS)))

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
_MAX_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class PlyHeader:
    """``vertices`` and ``faces`` declared; ``dtype`` of a vertex (None unless binary); ``offset`` of the data."""

    binary: bool
    vertices: int
    faces: int
    dtype: np.dtype | None
    offset: int


def read_surface(path: Path) -> Reconstructed:
    """A mesh or cloud file as a result without photos; it is read when it is needed.

    Raises:
        BadInputError: no such file, another format, or a damaged header.
    """
    suffix = path.suffix.lower()
    if suffix not in SURFACE_FORMATS:
        raise BadInputError(f"{path}: format {suffix!r} is no surface; accepted: {' '.join(SURFACE_FORMATS)}")
    if not path.is_file():
        raise BadInputError(f"{path}: no such file")
    if suffix == ".ply":
        header = ply_header(path)
        if header.faces == 0:
            what = f"cloud {path.name}"
            surface = Surface(what, lambda limit, seed: read_points(path, limit, seed), header.vertices)
            return Reconstructed(path, "cloud", surface=surface)
    if suffix == ".pcd":
        return Reconstructed(path, "cloud", surface=Surface(f"cloud {path.name}", lambda limit, seed: read_cloud(path)))
    return Reconstructed(path, "mesh", surface=Surface(path.name, lambda limit, seed: _checked(path)))


def _checked(path: Path) -> Mesh | PointCloud:
    """The mesh of a file; the points of a GLB or OBJ that has no triangles."""
    loose = {".glb": read_glb_points, ".obj": read_obj_points}.get(path.suffix.lower())
    try:
        mesh = read_mesh(path)
    except BadInputError:
        if loose is None:
            raise
        return loose(path)
    if not np.isfinite(mesh.vertices_world_m).all():
        raise BadInputError(f"{path}: holds vertices that are not finite")
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices_world_m):
        raise BadInputError(f"{path}: holds triangles of vertices that are not there")
    return mesh


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
    available = path.stat().st_size - newline
    if vertices < 0 or faces < 0 or needed > available or (vertices and first != "vertex"):
        raise BadInputError(f"{path}: declares {vertices} vertices and {faces} faces, more than its {available} bytes")
    return PlyHeader(binary, vertices, faces, dtype, newline + 1)


def read_points(path: Path, max_points: int, seed: int = 0) -> PointCloud:
    """At most ``max_points`` vertices of a PLY cloud, drawn at random, with normals and colours where the file has them.

    Raises:
        BadInputError: the file holds no finite point.
    """
    header = ply_header(path)
    if header.vertices == 0:
        raise BadInputError(f"{path}: holds no points")
    if header.dtype is None:
        cloud = read_cloud(path)
        points, normals = np.asarray(cloud.points_world_m), cloud.normals
        chosen = _choose(len(points), max_points, seed)
        points, normals = points[chosen], None if normals is None else np.asarray(normals)[chosen]
        colors = None if cloud.colors is None else cloud.colors[chosen]
    else:
        mapped = np.memmap(path, header.dtype, "r", header.offset, (header.vertices,))
        chosen = _choose(header.vertices, max_points, seed)
        # one slice at a time: an index over the whole map would keep every touched page resident
        rows = np.concatenate([np.array(mapped[part]) for part in np.array_split(chosen, max(1, len(chosen) >> 16))])
        points = np.stack([rows[axis].astype(np.float64) for axis in "xyz"], axis=1)
        names = header.dtype.names or ()
        normals = np.stack([rows[a] for a in ("nx", "ny", "nz")], axis=1) if {"nx", "ny", "nz"} <= set(names) else None
        channels = [c for c in ("red", "green", "blue") if c in names and header.dtype[c] == np.uint8]
        colors = np.stack([rows[c] for c in channels], axis=1) if len(channels) == 3 else None
    finite = np.isfinite(points).all(axis=1)
    if not finite.any():
        raise BadInputError(f"{path}: holds no finite point")
    return PointCloud(
        points[finite],
        None if colors is None else colors[finite],
        None if normals is None else normals[finite].astype(np.float32),
    )


def _choose(count: int, max_points: int, seed: int) -> NDArray[np.int64]:
    if count <= max_points:
        return np.arange(count)
    # one from each of max_points equal stretches of the file: as random as needed, and no permutation of 50 million
    edges = np.linspace(0, count, max_points + 1)
    offset = np.random.default_rng(seed).random(max_points)
    return np.minimum((edges[:-1] + offset * np.diff(edges)).astype(np.int64), count - 1)


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


def write_ply(cloud: PointCloud, path: Path) -> None:
    """Writes a cloud as binary PLY with float32 positions and the property names that splatting trainers expect.

    Colours are grey where the cloud has none.
    """
    count = len(cloud.points_world_m)
    columns: list[tuple[str, str, NDArray]] = []
    columns += [(axis, "f4", np.asarray(cloud.points_world_m)[:, i]) for i, axis in enumerate("xyz")]
    if cloud.normals is not None:
        columns += [(f"n{axis}", "f4", np.asarray(cloud.normals)[:, i]) for i, axis in enumerate("xyz")]
    colors = np.full((count, 3), 128, np.uint8) if cloud.colors is None else cloud.colors
    columns += [(name, "u1", colors[:, i]) for i, name in enumerate(("red", "green", "blue"))]
    rows = np.empty(count, dtype=[(name, f"<{kind}") for name, kind, _ in columns])
    for name, _, values in columns:
        rows[name] = values
    names = {"f4": "float", "u1": "uchar"}
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    head += [f"property {names[kind]} {name}" for name, kind, _ in columns] + ["end_header", ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write("\n".join(head).encode("ascii"))
        rows.tofile(file)
