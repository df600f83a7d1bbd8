"""``vlm3-recon view RUN``: a finished run in the browser, on this machine only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tyro.conf import Positional

from pipelines.runs import Run, open_run
from pipelines.viewer import HOST, Viewer, start_server
from recon.errors import BadInputError
from recon.interop.clouds import read_points
from recon.interop.mapped_mesh import map_mesh
from recon.interop.meshes import read_cloud
from recon.surface.thin import MAX_TARGET_FACES, cluster_vertices
from recon.surface.types import Mesh, PointCloud

__all__ = ["Options", "run", "serve"]


@dataclass(frozen=True)
class Options:
    """Look at a finished run in the browser: mesh, cloud, cameras with photos, depth, measuring.

    The server listens on 127.0.0.1 only; from another machine use ssh -L 8080:127.0.0.1:8080.
    """

    run: Positional[Path]
    """a workspace, or the mesh beside it"""
    port: int = 8080
    """where to listen; the next free port when it is taken, 0 for any"""
    max_faces: int = 1_000_000
    """larger meshes are thinned for the browser"""
    max_points: int = 2_000_000
    """larger clouds are thinned for the browser"""

    def check(self) -> None:
        """Raises BadInputError when an option makes no sense."""
        if not 0 <= self.port <= 65535:
            raise BadInputError(f"--port must be between 0 and 65535, found {self.port}")
        for name in ("max_faces", "max_points"):
            if not 1000 <= getattr(self, name) <= MAX_TARGET_FACES:
                option, found = f"--{name.replace('_', '-')}", getattr(self, name)
                raise BadInputError(f"{option} must be between 1000 and {MAX_TARGET_FACES}, found {found}")


def run(options: Options) -> None:
    """The command: serves until it is interrupted. Raises ReconError with one line about what can't be shown."""
    options.check()
    serve(open_run(options.run), options, wait=threading.Event().wait)


def serve(opened: Run, options: Options, wait: Callable[[], object]) -> None:
    """Shows a run until ``wait`` returns or Ctrl+C is pressed.

    Raises:
        BadInputError: the run's mesh is damaged, or viser is not installed.
    """
    viewer = show(opened, options)
    print(f"showing {opened.workspace.root} at http://{HOST}:{viewer.server.get_port()}; Ctrl+C ends", flush=True)
    try:
        wait()
    except KeyboardInterrupt:
        print("ended")
    finally:
        viewer.server.stop()


def show(opened: Run, options: Options) -> Viewer:
    """Starts a server with the run's scene."""
    textured = opened.textured()
    if textured is not None and len(textured.mesh.faces) > options.max_faces:
        textured = None  # thinned, it would not fit its pictures any more
    surface = _surface(opened, options) if textured is None else textured.mesh
    server = start_server(options.port, opened.workspace.root.name.removesuffix("-workspace"))
    try:
        return Viewer(server, opened, surface, textured)
    except BaseException:
        server.stop()
        raise


def _surface(opened: Run, options: Options) -> Mesh | PointCloud | None:
    """What the browser gets of the run's mesh or cloud; None when the file is not there any more."""
    path = opened.output
    if path is None:
        return None
    if opened.output_is_mesh:
        textured = opened.textured()
        mesh = textured.mesh if textured is not None else map_mesh(path, opened.axes)
        thin = cluster_vertices(mesh, options.max_faces)
        vertices, faces = np.asarray(thin.vertices_world_m), np.asarray(thin.faces)
        if not len(faces) or faces.min() < 0 or faces.max() >= len(vertices) or not np.isfinite(vertices).all():
            raise BadInputError(f"{path}: damaged, it holds triangles without a place; run the reconstruction again")
        return Mesh(vertices, faces, thin.colors)
    return read_points(path, options.max_points) if path.suffix.lower() == ".ply" else read_cloud(path)
