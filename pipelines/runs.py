"""A finished run, opened again: its map with all observations, its photos, its surface."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.records import load_record
from pipelines.workspace import Workspace
from recon.capture.records import read_record
from recon.errors import BadInputError
from recon.interop.clouds import ply_header
from recon.interop.meshes import WorldAxes, read_mesh
from recon.interop.run import find_workspace, output_of, read_summary
from recon.surface.texture.types import TexturedMesh
from recon.surface.types import Mesh
from recon.types import GpsFix, Scene

TEXTURE_STAGE = "texture"


@dataclass(frozen=True)
class Run:
    """``scene`` is the map in metres where its scale is known; ``output`` the mesh or cloud (None when not there)."""

    workspace: Workspace
    scene: Scene
    summary: dict[str, Any]
    output: Path | None

    @property
    def output_is_mesh(self) -> bool:
        """Whether the output has triangles."""
        if self.output is None or self.output.suffix.lower() == ".pcd":
            return False
        return self.output.suffix.lower() != ".ply" or ply_header(self.output).faces > 0

    def textured(self) -> TexturedMesh | None:
        """The textured mesh that the output is; None when it has no texture, or the workspace none any more."""
        settings, recorded = self.summary.get("settings") or {}, Path(str(self.summary.get("output", "")))
        if not settings.get("texture") or self.output is None or self.output.name != recorded.name:
            return None
        path = self.workspace.stages / f"{TEXTURE_STAGE}.npz"
        stored: tuple[TexturedMesh, dict[str, int]] | None = load_record(
            path, tuple[TexturedMesh, dict[str, int]], None
        )
        return stored[0] if stored is not None else None

    def mesh(self, path: Path) -> Mesh:
        """The mesh of the output, which lies at ``path``; without its texture, with colours at its vertices.

        Raises:
            BadInputError: the file is damaged.
        """
        textured = self.textured()
        return textured.mesh if textured is not None else read_mesh(path, self.axes)

    @property
    def axes(self) -> WorldAxes:
        """The axes of the map: east, north, up where GPS says so."""
        return "enu" if self.scene.georeference is not None else "opencv"

    def gps(self) -> dict[str, GpsFix]:
        """GPS fixes of the photos, by name."""
        records = [read_record(path) for path in sorted((self.workspace.root / "imports").glob("*.json"))]
        return {record.name: record.gps for record in records if record is not None and record.gps is not None}


def open_run(path: Path) -> Run:
    """The run whose workspace or result lies at ``path``.

    Raises:
        BadInputError: there is none, or it has no map yet.
    """
    if not path.exists():
        raise BadInputError(f"{path}: does not exist; accepted: a workspace, or the mesh beside it")
    folder = find_workspace(path)
    if folder is None:
        raise BadInputError(f"{path}: no workspace with a map; accepted: a workspace, or the mesh beside it")
    workspace = Workspace(folder.absolute())
    summary = read_summary(folder)
    given = path if path.is_file() else None
    return Run(workspace, read_scene(workspace), summary, given or output_of(folder, summary))


def read_scene(workspace: Workspace) -> Scene:
    """The map that the scale stage stored.

    Raises:
        BadInputError: it's missing or damaged.
    """
    path = workspace.stages / "scale.npz"
    stored: tuple[Scene, dict[str, int]] | None = load_record(path, tuple[Scene, dict[str, int]], None, workspace.root)
    if stored is None:
        raise BadInputError(f"{path}: missing or damaged; run the reconstruction again, it continues")
    return stored[0]
