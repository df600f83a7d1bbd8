"""What the page's 3D view shows: a thinned surface, the map's points and the cameras, packed as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.report.axes import Axes, Viewpoint, extents, find_axes, find_viewpoint
from pipelines.report.packing import pack, quantised
from pipelines.report.texture import packed_texture
from pipelines.runs import Run
from recon.errors import ReconError
from recon.interop.clouds import ply_header, read_points
from recon.interop.mapped_mesh import map_mesh
from recon.interop.meshes import read_cloud
from recon.surface.texture.types import TexturedMesh
from recon.surface.thin import cluster_vertices
from recon.surface.types import Mesh, PointCloud
from recon.types import PosedView, Scene

_CAMERAS_IN_SIGHT = 40
_ENOUGH = 100  # map points to frame the view by
_AROUND = 4.0  # times the scene's extent: map points farther away are left out of the view


@dataclass(frozen=True)
class View3D:
    """``data`` for the page's script; ``axes`` and ``viewpoint`` of the scene; ``size`` is its width, depth and height.

    ``surface`` says what surface is shown and how it was thinned, or why there is none; ``num_points`` counts the map's
    points shown; ``outline`` [N, 3] are some points of the surface for the map from above.
    """

    data: dict[str, Any]
    axes: Axes
    viewpoint: Viewpoint
    size: NDArray[np.float64]
    surface: str
    num_points: int
    outline: NDArray[np.float64]


def view_3d(run: Run, max_faces: int, max_points: int, pictured: Mapping[str, int]) -> View3D:
    """The view of a run: ``pictured`` gives the number of the page's picture of a photo, by name.

    A surface that can't be read is left out, with the reason in ``surface``.
    """
    scene = run.scene
    textured = run.textured()
    surface, said = _surface(run, textured, max_faces, max_points)
    if isinstance(surface, Mesh):
        spots = np.asarray(surface.vertices_world_m, dtype=np.float64)
    elif surface is not None:
        spots = np.asarray(surface.points_world_m, dtype=np.float64)
    else:
        spots = np.asarray(scene.points_world, dtype=np.float64)
    if len(spots) == 0:
        spots = np.array([view.centre_world for view in scene.views]).reshape(-1, 3)
    step = max(1, len(spots) // 50_000)
    some = spots[::step]
    axes = find_axes(scene, some)
    # the map's points are where the photos look, wherever else there are scraps of surface
    shared = np.asarray(scene.points_world, dtype=np.float64)
    viewpoint = find_viewpoint(scene, shared if len(shared) >= _ENOUGH else some, axes)
    points, colors = _map_points(scene, viewpoint, max_points)
    data: dict[str, Any] = {
        "up": axes.up.tolist(),
        "direction": viewpoint.direction.tolist(),
        "in_sight": _in_sight(scene, viewpoint),
        "target": viewpoint.target.tolist(),
        "size": viewpoint.size,
        "frustum": _frustum_size(scene, viewpoint.size),
        "cameras": [_camera(view, pictured) for view in scene.views],
    }
    if textured is not None and surface is textured.mesh:
        data["mesh"] = packed_texture(textured)
    elif isinstance(surface, Mesh):
        places, low, size = quantised(np.asarray(surface.vertices_world_m))
        faces = surface.faces.astype(np.uint32)
        data["mesh"] = {"low": low, "size": size, "position": pack(places), "index": pack(faces)}
        if surface.colors is not None:
            data["mesh"]["color"] = pack(surface.colors)
    elif surface is not None:
        data["cloud"] = _packed_cloud(np.asarray(surface.points_world_m), surface.colors)
    if len(points):
        data["points"] = _packed_cloud(points, colors)
    return View3D(data, axes, viewpoint, extents(some, axes), said, len(points), some[:: max(1, len(some) // 4000)])


def _surface(
    run: Run, textured: TexturedMesh | None, max_faces: int, max_points: int
) -> tuple[Mesh | PointCloud | None, str]:
    if run.output is None:
        return None, "The surface is not beside the workspace any more; the view shows the map's points."
    try:
        if run.output_is_mesh:
            mesh = textured.mesh if textured is not None else map_mesh(run.output, run.axes)
            thin = cluster_vertices(mesh, max_faces)
            if len(thin.faces) == 0:
                return None, f"{run.output.name} has no triangles that can be drawn."
            if thin is mesh:
                vertices = np.asarray(mesh.vertices_world_m)
                if not np.isfinite(vertices).all() or mesh.faces.min() < 0 or mesh.faces.max() >= len(vertices):
                    return None, f"{run.output.name} is damaged: triangles without a place."
                how = ", with its texture made smaller" if textured is not None else ""
                return mesh, f"All {len(mesh.faces):,} triangles of {run.output.name} are shown{how}."
            return thin, (
                f"Shown are {len(thin.faces):,} triangles, thinned evenly from the {len(mesh.faces):,} of "
                f"{run.output.name}{', without their texture' if textured is not None else ''}."
            )
        cloud, total = _cloud(run, max_points)
    except (ReconError, OSError, ValueError) as error:
        return None, f"The surface can't be shown: {error}"
    shown = len(cloud.points_world_m)
    what = f"All {shown:,} points" if shown == total else f"{shown:,} random points of the {total:,}"
    return cloud, f"{what} of {run.output.name} are shown."


def _cloud(run: Run, max_points: int) -> tuple[PointCloud, int]:
    assert run.output is not None
    if run.output.suffix.lower() == ".ply":
        return _sorted(read_points(run.output, max_points)), ply_header(run.output).vertices
    cloud = read_cloud(run.output)
    total = len(cloud.points_world_m)
    chosen = np.sort(np.random.default_rng(0).choice(total, min(total, max_points), replace=False))
    colors = None if cloud.colors is None else cloud.colors[chosen]
    return _sorted(PointCloud(np.asarray(cloud.points_world_m)[chosen], colors)), total


def _sorted(cloud: PointCloud) -> PointCloud:
    """Points in an order in which neighbours in the list are neighbours in space: they pack better."""
    points = np.asarray(cloud.points_world_m)
    cells, _, _ = quantised(points)
    order = np.lexsort((cells[:, 2] >> 8, cells[:, 1] >> 8, cells[:, 0] >> 8))
    return PointCloud(points[order], None if cloud.colors is None else cloud.colors[order])


def _packed_cloud(points: NDArray[np.floating], colors: NDArray[np.uint8] | None) -> dict[str, Any]:
    places, low, size = quantised(points)
    packed: dict[str, Any] = {"low": low, "size": size, "position": pack(places)}
    if colors is not None:
        packed["color"] = pack(np.ascontiguousarray(colors))
    return packed


def _map_points(
    scene: Scene, viewpoint: Viewpoint, max_points: int
) -> tuple[NDArray[np.float64], NDArray[np.uint8] | None]:
    points = np.asarray(scene.points_world, dtype=np.float64)
    near = np.linalg.norm(points - viewpoint.target, axis=1) <= _AROUND * viewpoint.size
    chosen = np.flatnonzero(near & np.isfinite(points).all(axis=1))
    if len(chosen) > max_points:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, max_points, replace=False))
    if len(chosen) == 0:
        return np.zeros((0, 3)), None
    cloud = _sorted(PointCloud(points[chosen], scene.point_colors[chosen]))
    return np.asarray(cloud.points_world_m), cloud.colors


def _camera(view: PosedView, pictured: Mapping[str, int]) -> dict[str, Any]:
    """Name, pose and opening of a camera; ``photo`` is the number of its picture, absent without one."""
    camera = view.camera
    fx, fy, _, _ = camera.fx_fy_cx_cy
    row: dict[str, Any] = {
        "name": view.name,
        "centre": [round(float(v), 5) for v in view.centre_world],
        "turn": [round(float(v), 6) for v in view.cam_from_world[:, :3].reshape(-1)],
        "open": [round(camera.width_px / 2 / fx, 4), round(camera.height_px / 2 / fy, 4)],
        "points": len(view.point_ids),
    }
    if view.name in pictured:
        row["photo"] = pictured[view.name]
    return row


def _in_sight(scene: Scene, viewpoint: Viewpoint) -> list[list[float]]:
    """What the first view must show: the corners of the scene's middle, and most of the cameras."""
    centres = np.array([view.centre_world for view in scene.views]).reshape(-1, 3)
    if len(centres):
        away = np.linalg.norm(centres - viewpoint.target, axis=1)
        centres = centres[away <= min(float(np.percentile(away, 90)), 1.5 * viewpoint.size)]
        centres = centres[:: max(1, len(centres) // _CAMERAS_IN_SIGHT)]
    return [[round(float(v), 5) for v in spot] for spot in (*viewpoint.corners, *centres)]


def _frustum_size(scene: Scene, size: float) -> float:
    """How long to draw the cameras: a part of the scene, less where they stand close together."""
    centres = np.array([view.centre_world for view in scene.views]).reshape(-1, 3)
    if len(centres) < 2:
        return 0.05 * size
    some = centres[:: max(1, len(centres) // 300)]
    apart = np.linalg.norm(some[:, None] - centres[None], axis=2)
    apart[apart < 1e-9] = np.inf
    nearest = apart.min(axis=1)
    nearest = nearest[np.isfinite(nearest)]
    spacing = float(np.median(nearest)) if len(nearest) else size
    return float(np.clip(0.5 * spacing, 0.012 * size, 0.06 * size))
