"""Point clouds in mesh formats: GLB primitives of points (as VGGT's and Depth-Anything-3's demos write), OBJ vertices.

Format: Khronos glTF 2.0, sections 3.6 (binary data), 3.7 (geometry) and 4 (GLB). Only what a cloud needs is read:
float32 positions in the file's own buffer, node matrices and translations; declared sizes are checked against the file.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from recon.errors import BadInputError
from recon.surface.types import PointCloud

_POINTS, _FLOAT = 0, 5126
_MAX_COPIES = 4  # of the file's size that its nodes may place: a small file must not become a huge cloud


def read_glb_points(path: Path) -> PointCloud:
    """All points of a GLB's point primitives, with y down and z forward as meshes are read.

    Raises:
        BadInputError: the file is damaged, or has no points.
    """
    try:
        document, binary = _chunks(path)
        parts: list[NDArray[np.float64]] = []
        left = _MAX_COPIES * len(binary)
        for matrix, mesh in _meshes(document):
            for positions in _positions(document, binary, mesh):
                left -= positions.nbytes
                if left < 0:
                    raise ValueError("its nodes place the same points many times over")
                parts.append(positions @ matrix[:3, :3].T + matrix[:3, 3])
    except (
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        struct.error,
        RecursionError,
    ) as error:
        raise BadInputError(f"{path}: not a readable GLB ({' '.join(str(error).split())[:120]})") from error
    points = np.concatenate(parts) if parts else np.zeros((0, 3))
    return PointCloud(_finite(points * [1.0, -1.0, -1.0], path))


def read_obj_points(path: Path) -> PointCloud:
    """The vertices of an OBJ file.

    Raises:
        BadInputError: a line is damaged, or there are no vertices.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            rows = [line.split()[1:4] for line in file if line.startswith("v ")]
        points = np.array(rows, dtype=np.float64).reshape(-1, 3)
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: not a readable OBJ ({error})") from error
    return PointCloud(_finite(points, path))


def _finite(points: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) == 0:
        raise BadInputError(f"{path}: holds neither triangles nor points")
    return points


def _chunks(path: Path) -> tuple[dict[str, Any], memoryview]:
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    if magic != b"glTF" or version != 2 or length > len(data):
        raise ValueError("no GLB of version 2, or truncated")
    found: dict[bytes, memoryview] = {}
    offset = 12
    while offset + 8 <= length:
        size, kind = struct.unpack_from("<I4s", data, offset)
        if offset + 8 + size > length:
            raise ValueError("a chunk is longer than the file")
        found.setdefault(kind, memoryview(data)[offset + 8 : offset + 8 + size])
        offset += 8 + size
    return json.loads(bytes(found[b"JSON"])), found.get(b"BIN\0", memoryview(b""))


def _meshes(document: dict[str, Any]) -> Iterator[tuple[NDArray[np.float64], int]]:
    """World matrix [4, 4] and mesh number of every node below the scene."""
    nodes = document.get("nodes", [])
    scenes = document.get("scenes") or [{"nodes": list(range(len(nodes)))}]
    waiting = [(np.eye(4), node) for node in scenes[document.get("scene", 0)].get("nodes", [])]
    visited = 0
    while waiting:
        visited += 1
        if visited > len(nodes):  # glTF wants a strict tree
            raise ValueError("nodes are used twice, or stand in a circle")
        parent, number = waiting.pop()
        node = nodes[number]
        matrix = parent @ _local(node)
        if "mesh" in node:
            yield matrix, int(node["mesh"])
        waiting += [(matrix, child) for child in node.get("children", [])]


def _local(node: dict[str, Any]) -> NDArray[np.float64]:
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T  # stored by columns
    matrix = np.eye(4)
    turn = Rotation.from_quat(node.get("rotation", [0.0, 0.0, 0.0, 1.0])).as_matrix()
    matrix[:3, :3] = turn * np.array(node.get("scale", [1.0, 1.0, 1.0]), dtype=np.float64)
    matrix[:3, 3] = node.get("translation", [0.0, 0.0, 0.0])
    return matrix


def _positions(document: dict[str, Any], binary: memoryview, mesh: int) -> Iterator[NDArray[np.float32]]:
    for primitive in document["meshes"][mesh]["primitives"]:
        if primitive.get("mode", 4) != _POINTS:
            continue
        accessor = document["accessors"][primitive["attributes"]["POSITION"]]
        if accessor["componentType"] != _FLOAT or accessor["type"] != "VEC3" or "sparse" in accessor:
            raise ValueError("positions are not plain float32 triples")
        view = document["bufferViews"][accessor["bufferView"]]
        count, stride = int(accessor["count"]), int(view.get("byteStride", 12))
        start = int(view.get("byteOffset", 0)) + int(accessor.get("byteOffset", 0))
        if count < 0 or start < 0 or stride < 12 or start + max(0, count - 1) * stride + 12 * (count > 0) > len(binary):
            raise ValueError(f"{count} positions declared, {len(binary)} bytes there")
        yield np.ndarray((count, 3), "<f4", binary, start, (stride, 4))
