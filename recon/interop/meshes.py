"""Meshes and point clouds as files: PLY, OBJ, STL and GLB; PLY and PCD. Written atomically.

Coordinates in the files are those of the scene (metres when the scale is known), except GLB: glTF wants y up and
z towards the viewer, so the OpenCV-like scene axes (y down, z forward) are turned by 180 degrees about x on the way
out and back on the way in. A scene with GPS (east, north, up) is turned so that up becomes y.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recon.errors import BadInputError, OutputError
from recon.interop.gltf import srgb_from_linear, write_glb
from recon.interop.ply import check_faces
from recon.interop.replacing import replacing
from recon.surface.backend import open3d
from recon.surface.types import Mesh, PointCloud

MESH_FORMATS = (".ply", ".obj", ".stl", ".glb")
CLOUD_FORMATS = (".ply", ".pcd")
WorldAxes = Literal["opencv", "enu"]

GLTF_FROM_WORLD = {
    "opencv": np.diag([1.0, -1.0, -1.0]),  # y down, z forward -> y up, z backward
    "enu": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),  # east north up -> x, -z, y
}


def check_mesh_path(path: Path, kind: Literal["mesh", "cloud"] = "mesh") -> None:
    """Fail early where a result of this kind can't be written to ``path``.

    Raises:
        BadInputError: unknown file format, or the path is a folder.
    """
    accepted = MESH_FORMATS if kind == "mesh" else CLOUD_FORMATS
    if path.suffix.lower() not in accepted:
        found = f"format {path.suffix!r}" if path.suffix else "a name without a format"
        raise BadInputError(f"{path}: {found} can't hold a {kind}; accepted: {' '.join(accepted)}")
    if path.is_dir():
        raise BadInputError(f"{path}: is a folder; give the name of a {' '.join(accepted)} file")


def write_mesh(mesh: Mesh, path: Path, world_axes: WorldAxes = "opencv") -> None:
    """Write a mesh (.ply .obj .stl .glb) whole or not at all. STL has no colours; ``world_axes`` matters to GLB only.

    Raises:
        BadInputError: unknown file format.
        OutputError: the file can't be written, or the mesh is empty.
    """
    check_mesh_path(path)
    if len(mesh.faces) == 0:
        raise OutputError(f"{path}: the mesh is empty, nothing was written")
    if path.suffix.lower() == ".glb":
        turn = GLTF_FROM_WORLD[world_axes]
        normals = None if mesh.normals is None else (mesh.normals @ turn.T).astype(np.float32)
        vertices = (np.asarray(mesh.vertices_world_m) @ turn.T).astype(np.float32)
        faces = mesh.faces.astype(np.uint32)
        with replacing(path) as temporary, temporary.open("wb") as file:
            write_glb(file, vertices, faces, mesh.colors, normals)
        return
    o3d = open3d()
    out = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(np.asarray(mesh.vertices_world_m, dtype=np.float64)),
        o3d.utility.Vector3iVector(np.asarray(mesh.faces, dtype=np.int32)),
    )
    if mesh.colors is not None:
        out.vertex_colors = o3d.utility.Vector3dVector(mesh.colors / 255.0)
    if mesh.normals is not None:
        out.vertex_normals = o3d.utility.Vector3dVector(np.asarray(mesh.normals, dtype=np.float64))
    if path.suffix.lower() == ".stl":
        out.compute_triangle_normals()  # STL stores one normal per triangle; Open3D refuses to write without them
    _write_with_open3d(path, lambda temporary: o3d.io.write_triangle_mesh(temporary, out))


def write_cloud(cloud: PointCloud, path: Path) -> None:
    """Write a point cloud (.ply .pcd, binary) whole or not at all.

    Raises:
        BadInputError: unknown file format.
        OutputError: the file can't be written, or the cloud is empty.
    """
    check_mesh_path(path, "cloud")
    if len(cloud.points_world_m) == 0:
        raise OutputError(f"{path}: the point cloud is empty, nothing was written")
    o3d = open3d()
    out = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(np.asarray(cloud.points_world_m, dtype=np.float64)))
    if cloud.colors is not None:
        out.colors = o3d.utility.Vector3dVector(cloud.colors / 255.0)
    if cloud.normals is not None:
        out.normals = o3d.utility.Vector3dVector(np.asarray(cloud.normals, dtype=np.float64))
    _write_with_open3d(path, lambda temporary: o3d.io.write_point_cloud(temporary, out))


def read_mesh(path: Path, world_axes: WorldAxes = "opencv") -> Mesh:
    """Read a mesh (.ply .obj .stl .glb).

    Raises:
        BadInputError: the file is missing, of another format, damaged, or has no triangles.
    """
    check_mesh_path(path)
    if path.suffix.lower() == ".ply" and path.is_file():
        check_faces(path)
    legacy = _read(path, lambda o3d: o3d.io.read_triangle_mesh(str(path)))
    faces = np.asarray(legacy.triangles).astype(np.int32)
    if len(faces) == 0:
        raise BadInputError(f"{path}: holds no triangles; a mesh is wanted ({' '.join(MESH_FORMATS)})")
    is_gltf = path.suffix.lower() == ".glb"
    turn = GLTF_FROM_WORLD[world_axes] if is_gltf else np.eye(3)
    normals = (np.asarray(legacy.vertex_normals) @ turn).astype(np.float32) if legacy.has_vertex_normals() else None
    colors = None
    if legacy.has_vertex_colors():
        values = np.asarray(legacy.vertex_colors)
        colors = _to_bytes(srgb_from_linear(values) if is_gltf else values)
    vertices = np.asarray(legacy.vertices)
    if path.suffix.lower() == ".stl":  # STL repeats every corner: join equal ones again
        vertices, joined = np.unique(vertices, axis=0, return_inverse=True)
        return Mesh(vertices, joined.reshape(-1)[faces].astype(np.int32))
    return Mesh(vertices @ turn, faces, colors, normals)


def read_cloud(path: Path) -> PointCloud:
    """Read a point cloud (.ply .pcd).

    Raises:
        BadInputError: the file is missing, of another format, damaged, or has no points.
    """
    check_mesh_path(path, "cloud")
    legacy = _read(path, lambda o3d: o3d.io.read_point_cloud(str(path)))
    if len(legacy.points) == 0:
        raise BadInputError(f"{path}: holds no points; a point cloud is wanted ({' '.join(CLOUD_FORMATS)})")
    normals = np.asarray(legacy.normals).astype(np.float32) if legacy.has_normals() else None
    return PointCloud(
        np.asarray(legacy.points).copy(), _to_bytes(legacy.colors) if legacy.has_colors() else None, normals
    )


def _to_bytes(colors: Any) -> NDArray[np.uint8]:
    return np.clip(np.rint(np.asarray(colors) * 255), 0, 255).astype(np.uint8)


def _read(path: Path, read: Callable[[Any], Any]) -> Any:
    if not path.is_file():
        raise BadInputError(f"{path}: no such file")
    o3d = open3d()
    with o3d.utility.VerbosityContextManager(o3d.utility.VerbosityLevel.Error):
        return read(o3d)


def _write_with_open3d(path: Path, write: Callable[[str], bool]) -> None:
    o3d = open3d()
    with replacing(path) as temporary, o3d.utility.VerbosityContextManager(o3d.utility.VerbosityLevel.Error):
        if not write(str(temporary)) or temporary.stat().st_size == 0:
            raise OutputError(f"{path}: Open3D could not write the file; is the disk full?")
