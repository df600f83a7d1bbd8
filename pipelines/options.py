"""Options of ``vlm3-recon SCENE --out mesh.ply``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from pipelines.making import MakingOptions
from pipelines.workspace import check_output_folder, workspace_beside
from recon.errors import BadInputError
from recon.interop.meshes import check_mesh_path
from recon.interop.textured import check_textured_path
from recon.types import Capture


@dataclass(frozen=True)
class _One:
    """What is said of one scene. A base, so that these options come first."""

    scene: Positional[Path]
    """folder of photos, a workspace with images/, or a video"""
    out: Path
    """the result: .ply .obj .stl .glb for meshes, .ply .pcd for clouds"""
    workspace: Path | None = None
    """where everything computed is kept (default: a folder beside the result)"""
    known_distance: Annotated[tuple[str, str, float] | None, arg(metavar="A B METRES")] = None
    """the distance between the places where photos A and B were taken"""


@dataclass(frozen=True)
class Options(MakingOptions, _One):
    """Photos or a video become a metric mesh or point cloud.

    Other commands, each with --help: vlm3-recon info, view, report (look at scenes and runs), compare (with other
    results or ground truth), export, batch (many scenes), query (ask about a photo or a pair), train, eval, convert,
    bench.
    """

    @property
    def workspace_folder(self) -> Path:
        return self.workspace or workspace_beside(self.out)

    def check(self) -> None:
        """Finds what can't work before anything is done.

        Raises:
            BadInputError: no such scene, a format that can't hold the result, values out of range.
            OutputError: a folder that can't be written.
        """
        if not self.scene.exists():
            raise BadInputError(f"{self.scene}: does not exist; accepted: a folder of photos or a video file")
        check_mesh_path(self.out, self.as_)
        self.check_making()
        if self.texture:
            check_textured_path(self.out, "--texture: ")
        if self.known_distance is not None:
            first, second, metres = self.known_distance
            if not 0 < metres < float("inf"):
                raise BadInputError(f"--known-distance must be a positive number of metres, found {metres}")
            if first == second:
                raise BadInputError(f"--known-distance needs two different photos, found {first} twice")
        check_output_folder(self.out.parent, "--out")
        check_output_folder(self.workspace_folder, "--workspace")
        if self.workspace_folder.resolve() == self.scene.resolve() and not (self.scene / "images").is_dir():
            raise BadInputError(f"--workspace {self.workspace}: is the folder of photos itself; name another")
        if os.path.realpath(self.out) == os.path.realpath(self.scene):
            raise BadInputError(f"--out {self.out}: is the scene itself; name another file")

    def check_photos(self, capture: Capture) -> None:
        """The photos of ``--known-distance`` must be there; raises BadInputError naming those that are."""
        for name in self.known_distance[:2] if self.known_distance else ():
            if all(view.name != name for view in capture.views):
                names = [view.name for view in capture.views]
                shown = ", ".join(names[:8]) + (f" ... ({len(names)} photos)" if len(names) > 8 else "")
                raise BadInputError(f"--known-distance {name}: no such photo; accepted: {shown}")
