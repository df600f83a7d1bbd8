"""A closed surface through an open one: what no photo saw is made up, and marked.

Two steps. On a coarse grid the surface's normals are integrated to an indicator of inside and outside (Poisson surface
reconstruction, Kazhdan et al. 2006) that is held to one value on the border of a box around the scene, so its level set
is closed whatever the surface leaves open. Its parts far from the surface become points of a lid; surface and lid
together go into screened Poisson reconstruction (Kazhdan and Hoppe 2013, by Open3D), which alone would run open into
the border of its box where a facade or a floor ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dstn, idstn
from scipy.ndimage import map_coordinates
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from recon.errors import SurfaceError
from recon.surface.backend import open3d
from recon.surface.edges import capped, is_closed, open_edges, split_crowded_edges
from recon.surface.mesh import compact, with_normals
from recon.surface.types import Mesh

_COARSE_CELLS = 1_000_000
_MARGIN = 0.12  # of the longest side, around the surface
_SMOOTH_CELLS = 1.0  # standard deviation that the normals are smeared over
_LEAST_LEVEL = 0.15  # distance of the level from the border's value 0; the jump at the surface is 1
_LID_CELLS = 2.0  # coarse cells from the surface at which the lid starts
_MAX_DEPTH = 10  # of the octree: 1024 cells along the box
_INVENTED_VOXELS = 3.0  # distance from the measured surface beyond which a vertex is invented


@dataclass(frozen=True)
class ClosedMesh:
    """``mesh`` without boundary; ``invented`` [V] vertices that no measured surface is near; ``invented_share`` and
    ``kept_share``: of the closed mesh's area that is invented, and of the measured area that the closed mesh follows.
    """

    mesh: Mesh
    invented: NDArray[np.bool_]
    invented_share: float
    kept_share: float


def close(mesh: Mesh, voxel_m: float) -> ClosedMesh:
    """The closed surface through ``mesh`` (outward normals wanted), with detail down to ``voxel_m``.

    Raises:
        SurfaceError: the result has open edges after all.
    """
    measured = mesh if mesh.normals is not None else with_normals(mesh)
    assert measured.normals is not None
    vertices = np.asarray(measured.vertices_world_m, dtype=np.float64)
    lid, lid_normals = _lid(vertices, measured)
    points = np.concatenate([vertices, lid])
    normals = np.concatenate([np.asarray(measured.normals, dtype=np.float64), lid_normals])
    extent = float(np.ptp(points, axis=0).max())
    depth = int(np.clip(np.ceil(np.log2(1.1 * extent / voxel_m)), 5, _MAX_DEPTH))
    o3d = open3d()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    cloud.normals = o3d.utility.Vector3dVector(normals)
    # One thread: with more the order of the vertices, and their last digits, change from run to run.
    made, _ = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=depth, n_threads=1)
    closed = _near_pieces(Mesh(np.asarray(made.vertices), np.asarray(made.triangles).astype(np.int32)), vertices)
    closed = split_crowded_edges(capped(closed))
    if not is_closed(closed.faces):
        raise SurfaceError(
            f"--watertight: {open_edges(closed.faces)} edges of the surface stay open; leave the option out, or take "
            "photos from more sides"
        )
    closed = with_normals(closed)
    tree = cKDTree(vertices)
    reach = _INVENTED_VOXELS * max(voxel_m, 1.1 * extent / 2**depth)
    invented = tree.query(closed.vertices_world_m, distance_upper_bound=reach)[0] > reach
    kept = cKDTree(closed.vertices_world_m).query(vertices, distance_upper_bound=reach)[0] <= reach
    return ClosedMesh(
        closed,
        invented,
        _area_share(closed, invented),
        _area_share(Mesh(vertices, mesh.faces), kept),
    )


def _lid(vertices: NDArray[np.float64], mesh: Mesh) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points [N, 3] and outward normals [N, 3] that close the surface, away from it."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    margin = _MARGIN * float((high - low).max())
    low, high = low - margin, high + margin
    cell = float(np.prod(high - low) / _COARSE_CELLS) ** (1 / 3)
    shape = np.maximum(8, np.ceil((high - low) / cell).astype(int))
    indicator, level = _indicator(vertices, mesh, low, cell, shape)
    o3d = open3d()
    # Open3D's volumes are [z, y, x]; the border's own value closes the level set at the box.
    padded = np.pad(indicator - level, 1, constant_values=-level).transpose(2, 1, 0)
    surface = o3d.t.geometry.TriangleMesh.create_isosurfaces(np.ascontiguousarray(padded, dtype=np.float32), [0.0])
    points = (surface.vertex.positions.numpy().astype(np.float64) - 1) * cell + low
    faces = surface.triangle.indices.numpy().astype(np.int32)
    lid = with_normals(Mesh(points, faces))
    assert lid.normals is not None
    at = (points - low) / cell
    ahead = np.asarray(lid.normals, dtype=np.float64)
    slope = map_coordinates(indicator, (at + ahead).T, order=1) - map_coordinates(indicator, (at - ahead).T, order=1)
    normals = np.where(slope[:, None] > 0, -ahead, ahead)  # outside is where the indicator is low
    away = cKDTree(vertices).query(points, distance_upper_bound=_LID_CELLS * cell)[0] > _LID_CELLS * cell
    return points[away], normals[away]


def _indicator(
    vertices: NDArray[np.float64], mesh: Mesh, low: NDArray[np.float64], cell: float, shape: NDArray[np.int64]
) -> tuple[NDArray[np.float32], float]:
    """Indicator [X, Y, Z] of the inside (it jumps by 1 at the surface, 0 on the border), and its level there."""
    corners = vertices[mesh.faces]
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    share = np.bincount(mesh.faces.ravel(), np.repeat(area / 3, 3), minlength=len(vertices))  # [V]
    flow = -np.asarray(mesh.normals, dtype=np.float64) * share[:, None] / cell**3  # the gradient of the indicator
    place = (vertices - low) / cell  # [V, 3], nodes at whole numbers
    divergence = np.zeros(shape, dtype=np.float32)
    for axis in range(3):
        field = _splat(place, flow[:, axis], shape)
        divergence += np.gradient(field, cell, axis=axis).astype(np.float32)
    waves = [np.pi * np.arange(1, n + 1) / (n + 1) for n in shape]
    laplace = sum(
        np.expand_dims(2 * (np.cos(wave) - 1), tuple({0, 1, 2} - {axis})).astype(np.float32)
        for axis, wave in enumerate(waves)
    )
    spectrum = dstn(divergence, type=1) * np.exp(0.5 * _SMOOTH_CELLS**2 * laplace) * cell**2 / laplace
    indicator = idstn(spectrum, type=1)
    at_surface = map_coordinates(indicator, place.T, order=1)
    level = float(np.average(at_surface, weights=share))
    if abs(level) < _LEAST_LEVEL:  # a single wall: the side behind it is taken for the inside
        level = _LEAST_LEVEL
    return indicator.astype(np.float32), level


def _splat(place: NDArray[np.float64], values: NDArray[np.float64], shape: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums of values [V] at grid positions [V, 3], spread over the eight nodes around each."""
    base = np.floor(place).astype(np.int64)
    part = place - base
    total = np.zeros(int(np.prod(shape)))
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, part, 1 - part), axis=1)
        index = np.ravel_multi_index(tuple((base + corner).T), tuple(shape), mode="clip")
        total += np.bincount(index, weight * values, minlength=len(total))
    return total.reshape(shape)


def _near_pieces(mesh: Mesh, vertices: NDArray[np.float64]) -> Mesh:
    """The connected pieces that come near the measured surface; a piece of lid on its own is dropped."""
    faces = mesh.faces
    starts, ends = np.concatenate([faces[:, 0], faces[:, 1]]), np.concatenate([faces[:, 1], faces[:, 2]])
    number = len(mesh.vertices_world_m)
    graph = coo_matrix((np.ones(len(starts), dtype=np.int8), (starts, ends)), shape=(number, number))
    _, labels = connected_components(graph, directed=False)
    _, nearest = cKDTree(mesh.vertices_world_m).query(vertices)
    votes = np.bincount(labels[nearest], minlength=labels.max() + 1)
    keep = votes >= max(1, int(0.001 * len(vertices)))
    return compact(mesh.vertices_world_m, faces[keep[labels[faces[:, 0]]]], None)


def _area_share(mesh: Mesh, chosen: NDArray[np.bool_]) -> float:
    corners = np.asarray(mesh.vertices_world_m)[mesh.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return float((area * chosen[mesh.faces].mean(axis=1)).sum() / max(area.sum(), 1e-300))
