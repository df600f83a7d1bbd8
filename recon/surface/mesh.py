"""Mesh clean-up: floaters, broken triangles, normals, colours from the photos, simplification."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from recon.errors import SurfaceError
from recon.surface.backend import open3d
from recon.surface.fuse import view_weights
from recon.surface.options import FuseOptions
from recon.surface.types import DepthMap, Mesh

UNKNOWN_GREY = 128  # of vertices that no photo shows


def clean(mesh: Mesh, options: FuseOptions) -> Mesh:
    """Drop triangles with unknown corners or no area, and connected pieces that are too small to be surface.

    Holes stay: where no photo saw a surface none is made up.

    Raises:
        SurfaceError: nothing is left.
    """
    vertices, faces = np.asarray(mesh.vertices_world_m, dtype=np.float64), mesh.faces
    faces = faces[np.isfinite(vertices[faces]).all(axis=(1, 2))]
    corners = vertices[faces]  # [F, 3, 3]
    double_area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    faces = faces[double_area > 0]
    faces = faces[_large_components(faces, len(vertices), options)]
    if len(faces) == 0:
        raise SurfaceError(
            f"no connected piece of surface has {options.min_component_faces} triangles: take photos with more overlap "
            "or lower min_component_faces"
        )
    return with_normals(compact(vertices, faces, mesh.colors))


def _large_components(faces: NDArray[np.int32], num_vertices: int, options: FuseOptions) -> NDArray[np.bool_]:
    if len(faces) == 0:
        return np.zeros(0, dtype=bool)
    starts = np.concatenate([faces[:, 0], faces[:, 1]])
    ends = np.concatenate([faces[:, 1], faces[:, 2]])
    graph = coo_matrix((np.ones(len(starts), dtype=np.int8), (starts, ends)), shape=(num_vertices, num_vertices))
    _, labels = connected_components(graph, directed=False)
    face_labels = labels[faces[:, 0]]
    sizes = np.bincount(face_labels)
    least = max(options.min_component_faces, int(options.min_component_fraction * len(faces)))
    return sizes[face_labels] >= least


def compact(vertices: NDArray, faces: NDArray[np.int32], colors: NDArray[np.uint8] | None) -> Mesh:
    """The mesh without vertices that no triangle uses."""
    used, inverse = np.unique(faces, return_inverse=True)
    return Mesh(vertices[used], inverse.reshape(-1, 3).astype(np.int32), None if colors is None else colors[used])


def with_normals(mesh: Mesh) -> Mesh:
    """The mesh with area-weighted vertex normals on the side that the triangles' winding calls outside."""
    corners = np.asarray(mesh.vertices_world_m, dtype=np.float64)[mesh.faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])  # [F, 3]
    num_vertices = len(mesh.vertices_world_m)
    normals = np.stack(
        [
            sum(np.bincount(mesh.faces[:, k], weights=face_normals[:, axis], minlength=num_vertices) for k in range(3))
            for axis in range(3)
        ],
        axis=-1,
    )  # [V, 3]
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    unit = np.divide(normals, lengths, out=np.tile([0.0, 0.0, 1.0], (num_vertices, 1)), where=lengths > 0)
    return Mesh(mesh.vertices_world_m, mesh.faces, mesh.colors, unit.astype(np.float32))


def facing_cameras(mesh: Mesh, depth_maps: Sequence[DepthMap]) -> Mesh:
    """The mesh wound so that most normals point to the cameras that see them (a TSDF gives either sign)."""
    centres = np.stack([-m.cam_from_world[:, :3].T @ m.cam_from_world[:, 3] for m in depth_maps])
    oriented = mesh if mesh.normals is not None else with_normals(mesh)
    assert oriented.normals is not None
    vertices = np.asarray(oriented.vertices_world_m)
    _, nearest = cKDTree(centres).query(vertices)
    outward = np.einsum("ij,ij->i", oriented.normals, centres[nearest] - vertices) > 0
    if outward.mean() >= 0.5:
        return oriented
    return Mesh(mesh.vertices_world_m, mesh.faces[:, ::-1].copy(), mesh.colors, -oriented.normals)


def simplify(mesh: Mesh, target_faces: int) -> Mesh:
    """Quadric edge collapse (Garland and Heckbert 1997, by Open3D) down to about ``target_faces`` triangles."""
    if len(mesh.faces) <= target_faces:
        return mesh
    o3d = open3d()
    legacy = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(np.asarray(mesh.vertices_world_m, dtype=np.float64)),
        o3d.utility.Vector3iVector(mesh.faces),
    )
    if mesh.colors is not None:
        legacy.vertex_colors = o3d.utility.Vector3dVector(mesh.colors / 255.0)
    smaller = legacy.simplify_quadric_decimation(target_number_of_triangles=target_faces)
    smaller.remove_degenerate_triangles()
    colors = None
    if mesh.colors is not None:
        colors = np.clip(np.rint(np.asarray(smaller.vertex_colors) * 255), 0, 255).astype(np.uint8)
    vertices, faces = np.asarray(smaller.vertices), np.asarray(smaller.triangles).astype(np.int32)
    return with_normals(compact(vertices, faces, colors))


def color_vertices(mesh: Mesh, depth_maps: Sequence[DepthMap], options: FuseOptions, tolerance_m: float) -> Mesh:
    """Colour each vertex from the photos that see it best.

    A photo sees a vertex when its depth there agrees within ``tolerance_m``. Weights grow steeply with confidence,
    frontal view and nearness, and with the photo's sharpness, so that the best photos give the detail and the others
    only smooth seams. Vertices that no depth map confirms take the colour of the nearest one that has one.
    """
    vertices = np.asarray(mesh.vertices_world_m, dtype=np.float64)
    total = np.zeros((len(vertices), 3))
    weight_sum = np.zeros(len(vertices))
    for depth_map in depth_maps:
        index, color, weight = _seen_colors(vertices, depth_map, options, tolerance_m)
        total[index] += weight[:, None] * color
        weight_sum[index] += weight
    seen = weight_sum > 0
    colors = np.full((len(vertices), 3), UNKNOWN_GREY, dtype=np.uint8)
    if seen.any():
        colors[seen] = np.clip(np.rint(total[seen] / weight_sum[seen, None]), 0, 255).astype(np.uint8)
        if not seen.all():
            _, nearest = cKDTree(vertices[seen]).query(vertices[~seen])
            colors[~seen] = colors[seen][nearest]
    return Mesh(mesh.vertices_world_m, mesh.faces, colors, mesh.normals)


def _seen_colors(
    vertices: NDArray[np.float64], depth_map: DepthMap, options: FuseOptions, tolerance_m: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Indices [N] of the vertices a view sees, their colours [N, 3] and weights [N]."""
    fx, fy, cx, cy = depth_map.camera.fx_fy_cx_cy
    height, width = depth_map.depth_m.shape
    points = vertices @ depth_map.cam_from_world[:, :3].T + depth_map.cam_from_world[:, 3]
    z = points[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = fx * points[:, 0] / z + cx, fy * points[:, 1] / z + cy
        inside = (z > 0) & (x >= 0.5) & (x < width - 0.5) & (y >= 0.5) & (y < height - 0.5)
    index = np.nonzero(inside)[0]
    column, row = x[index].astype(np.int64), y[index].astype(np.int64)
    weights = view_weights(depth_map, options)[row, column]
    visible = (weights > 0) & (np.abs(depth_map.depth_m[row, column] - z[index]) < tolerance_m)
    index = index[visible]
    weight = (weights[visible].astype(np.float64) / z[index] ** 2) ** 2 * _sharpness(depth_map.color)
    left, top = x[index] - 0.5, y[index] - 0.5
    column, row = left.astype(np.int64), top.astype(np.int64)
    a, b = (left - column)[:, None], (top - row)[:, None]
    image = depth_map.color
    color = (1 - b) * ((1 - a) * image[row, column] + a * image[row, np.minimum(column + 1, width - 1)]) + b * (
        (1 - a) * image[np.minimum(row + 1, height - 1), column]
        + a * image[np.minimum(row + 1, height - 1), np.minimum(column + 1, width - 1)]
    )
    return index, color, weight


def _sharpness(color: NDArray[np.uint8]) -> float:
    """Mean strength of a photo's fine detail, to be compared with that of other photos of the same things."""
    grey = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
    return float(np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean()) + 1.0
