"""From depth maps to the mesh as the user asked for it: fused, cleaned, closed or not, coloured, simplified."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon.errors import SurfaceError
from recon.surface.close import close
from recon.surface.edges import is_closed
from recon.surface.fuse import fuse
from recon.surface.grid import plan_grid
from recon.surface.mesh import UNKNOWN_GREY, clean, color_vertices, facing_cameras, simplify
from recon.surface.options import FuseOptions
from recon.surface.sky import WithoutSky
from recon.surface.types import DepthMap, Mesh

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BuiltMesh:
    """A mesh, and what its user should know about it, one sentence each; ``invented`` are the vertices [V] of surface
    that was made up to close it, None where nothing was.
    """

    mesh: Mesh
    notes: tuple[str, ...] = ()
    invented: NDArray[np.bool_] | None = None


def build_mesh(depth_maps: Sequence[DepthMap], options: FuseOptions, progress: Progress | None = None) -> BuiltMesh:
    """Fuse depth maps into a clean, coloured mesh with normals towards the cameras.

    Raises:
        SurfaceError: the maps support no surface, or it can't be closed as ``options.watertight`` asks.
    """
    notes = []
    if options.remove_sky:
        depth_maps = WithoutSky(depth_maps)
        shares = [depth_map.stats["sky"] for depth_map in depth_maps]
        seen = sum(share > 0 for share in shares)
        notes.append(f"sky was left out: {np.mean(shares):.1%} of the pictures, in {seen} of {len(shares)} photos")
    plan = plan_grid(depth_maps, options)
    mesh = facing_cameras(clean(fuse(depth_maps, options, progress, plan), options), depth_maps)
    invented = None
    if options.watertight:
        closed = close(mesh, plan.voxel_m)
        mesh, invented = closed.mesh, closed.invented
        notes.append(
            f"the mesh is watertight: {closed.invented_share:.0%} of its area is made up (grey), and it follows "
            f"{closed.kept_share:.0%} of the area that photos show"
        )
    mesh = color_vertices(mesh, depth_maps, options, plan.truncation_m)
    if invented is not None:
        assert mesh.colors is not None
        colors = np.where(invented[:, None], np.uint8(UNKNOWN_GREY), mesh.colors)
        mesh = Mesh(mesh.vertices_world_m, mesh.faces, colors, mesh.normals)
    if options.target_faces is not None:
        fine, mesh = mesh, simplify(mesh, options.target_faces)
        if invented is not None:
            invented = invented[cKDTree(fine.vertices_world_m).query(mesh.vertices_world_m)[1]]
        if options.watertight and not is_closed(mesh.faces):
            raise SurfaceError(
                f"--target-faces {options.target_faces}: simplified that far the mesh is not watertight any more; "
                "ask for more triangles or leave --watertight out"
            )
    for note in notes:
        logger.info("%s", note)
    return BuiltMesh(mesh, tuple(notes), invented)
