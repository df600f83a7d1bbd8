"""Surfaces of any size for comparison: at most so many random points of a PLY cloud, or a whole mesh.

A binary PLY is read in windows of which only the chosen vertices are kept, so a cloud of 50 million points costs one
pass over its file and the sample's memory. Meshes and other formats are read whole by Open3D.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.errors import BadInputError
from recon.interop.loose_points import read_glb_points, read_obj_points
from recon.interop.meshes import CLOUD_FORMATS, MESH_FORMATS, read_cloud, read_mesh
from recon.interop.ply import PlyHeader, ply_header
from recon.interop.result import Reconstructed, Surface
from recon.surface.types import Mesh, PointCloud

_WINDOW_BYTES = 8 << 20
SURFACE_FORMATS = tuple(dict.fromkeys((*MESH_FORMATS, *CLOUD_FORMATS)))


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


def read_points(path: Path, max_points: int, seed: int = 0) -> PointCloud:
    """At most ``max_points`` vertices of a PLY cloud, drawn at random, with the normals and colours that it has.

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
        rows = _rows(path, header, _choose(header.vertices, max_points, seed))
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


def _rows(path: Path, header: PlyHeader, chosen: NDArray[np.int64]) -> NDArray[np.void]:
    """The ``chosen`` vertices (rising numbers), read window by window: single places would each wait for the disk."""
    assert header.dtype is not None
    length = max(1, _WINDOW_BYTES // header.dtype.itemsize)
    parts = []
    with open(path, "rb") as file:
        for first in range(0, header.vertices, length):
            low, high = np.searchsorted(chosen, [first, first + length])
            if low < high:
                file.seek(header.offset + first * header.dtype.itemsize)
                window = np.fromfile(file, header.dtype, min(length, header.vertices - first))
                parts.append(window[chosen[low:high] - first])
    return np.concatenate(parts)


def _choose(count: int, max_points: int, seed: int) -> NDArray[np.int64]:
    if count <= max_points:
        return np.arange(count)
    # one from each of max_points equal stretches of the file: as random as needed, and no permutation of 50 million
    edges = np.linspace(0, count, max_points + 1)
    offset = np.random.default_rng(seed).random(max_points)
    return np.minimum((edges[:-1] + offset * np.diff(edges)).astype(np.int64), count - 1)


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
