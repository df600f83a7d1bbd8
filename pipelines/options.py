"""Options of ``vlm3-recon SCENE --out mesh.ply``: the rooms' own option classes and what joins them."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from pipelines.asking import AskOptions
from pipelines.models import ModelOptions
from pipelines.workspace import check_output_folder, workspace_beside
from recon.cameras.intrinsics import CameraOptions
from recon.capture.options import CaptureOptions
from recon.errors import BadInputError
from recon.interop.meshes import check_mesh_path
from recon.interop.textured import check_textured_path
from recon.mapping.map import MapOptions
from recon.surface.options import SurfaceOptions
from recon.types import Capture

LEAST_PAGE_PX, MOST_PAGE_PX = 256, 16_384  # the largest picture that graphics cards commonly take


@dataclass(frozen=True)
class Options:
    """Photos or a video become a metric mesh or point cloud.

    Other commands, each with --help: vlm3-recon info, view, report (look at scenes and runs), compare (with other
    results or ground truth), export, batch (many scenes), query (ask about a photo or a pair), train, eval, convert,
    bench.
    """

    scene: Positional[Path]
    """folder of photos, a workspace with images/, or a video"""
    out: Path
    """the result: .ply .obj .stl .glb for meshes, .ply .pcd for clouds"""
    as_: Annotated[Literal["mesh", "cloud"], arg(name="as")] = "mesh"
    """what to make"""
    workspace: Path | None = None
    """where everything computed is kept (default: a folder beside the result)"""
    known_distance: Annotated[tuple[str, str, float] | None, arg(metavar="A B METRES")] = None
    """the distance between the places where photos A and B were taken"""
    voxel_m: float | None = None
    """size of the smallest detail of the surface (default: from the photos' resolution)"""
    target_faces: int | None = None
    """simplify the mesh to about this many triangles"""
    texture: bool = False
    """put the photos' own pixels on the mesh (.glb .obj), simplified to --target-faces (default then: 200000)"""
    texture_size: int | None = None
    """most pixels along a side of the texture's pages (default: 4096)"""
    watertight: bool = False
    """close all holes of the mesh; what is made up is grey, and its share is said"""
    sky_removal: Literal["auto", "on", "off"] = "auto"
    """leave sky out of the surface; auto: of photos with GPS"""
    no_report: bool = False
    """don't write report.html into the workspace"""
    overwrite: bool = False
    """forget what earlier runs computed"""
    quiet: bool = False
    """no progress bars, no summary"""
    verbose: Annotated[bool, arg(aliases=["-v"])] = False
    """show the log"""
    models: OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)
    asking: OmitArgPrefixes[AskOptions] = field(default_factory=AskOptions)
    cameras: OmitArgPrefixes[CameraOptions] = field(default_factory=CameraOptions)
    capture: CaptureOptions = field(default_factory=CaptureOptions)
    mapping: MapOptions = field(default_factory=MapOptions)
    surface: SurfaceOptions = field(default_factory=SurfaceOptions)

    @property
    def workspace_folder(self) -> Path:
        return self.workspace or workspace_beside(self.out)

    @property
    def surface_options(self) -> SurfaceOptions:
        """The surface step's options with the ones that have short names put in."""
        fuse = self.surface.fuse
        fuse = dataclasses.replace(
            fuse,
            voxel_m=fuse.voxel_m if self.voxel_m is None else self.voxel_m,
            target_faces=fuse.target_faces if self.target_faces is None else self.target_faces,
            watertight=fuse.watertight or self.watertight,
            remove_sky=fuse.remove_sky or self.sky_removal == "on",
        )
        texture = self.surface.texture
        if self.texture and fuse.target_faces is None:
            fuse = dataclasses.replace(fuse, target_faces=texture.target_faces)
        if self.texture_size is not None:
            texture = dataclasses.replace(texture, page_px=self.texture_size)
        return dataclasses.replace(self.surface, fuse=fuse, texture=texture, device=self.models.device)

    def check(self) -> None:
        """Finds what can't work before anything is done.

        Raises:
            BadInputError: no such scene, a format that can't hold the result, values out of range.
            OutputError: a folder that can't be written.
        """
        if not self.scene.exists():
            raise BadInputError(f"{self.scene}: does not exist; accepted: a folder of photos or a video file")
        check_mesh_path(self.out, self.as_)
        for name in ("voxel_m", "target_faces"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise BadInputError(f"--{name.replace('_', '-')} must be positive, found {value}")
        of_meshes = {
            "--watertight": self.watertight, "--target-faces": self.target_faces is not None, "--texture": self.texture,
        }  # fmt: skip
        if self.as_ == "cloud" and any(of_meshes.values()):
            option = next(name for name, given in of_meshes.items() if given)
            raise BadInputError(f"{option} is about meshes; found --as cloud")
        self._check_texture()
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

    def _check_texture(self) -> None:
        if self.texture:
            check_textured_path(self.out, "--texture: ")
        elif self.texture_size is not None:
            raise BadInputError("--texture-size says how large the pages of --texture are; add --texture")
        texture = self.surface_options.texture
        ranges: dict[str, tuple[float, float, float]] = {
            "texture-size": (texture.page_px, LEAST_PAGE_PX, MOST_PAGE_PX),
            "surface.texture.target-faces": (texture.target_faces, 1, 1e9),
            "surface.texture.max-pages": (texture.max_pages, 1, 64),
            "surface.texture.longest-edge": (texture.longest_edge, 1e-4, 1e9),
            "surface.texture.candidates": (texture.candidates, 1, 64),
            "surface.texture.min-cosine": (texture.min_cosine, 0, 1),
            "surface.texture.smoothness": (texture.smoothness, 0, 1e9),
            "surface.texture.padding-px": (texture.padding_px, 0, 64),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise BadInputError(f"--{name} must be between {low:g} and {high:g}, found {value:g}")

    def check_photos(self, capture: Capture) -> None:
        """The photos of ``--known-distance`` must be there; raises BadInputError naming those that are."""
        for name in self.known_distance[:2] if self.known_distance else ():
            if all(view.name != name for view in capture.views):
                names = [view.name for view in capture.views]
                shown = ", ".join(names[:8]) + (f" ... ({len(names)} photos)" if len(names) > 8 else "")
                raise BadInputError(f"--known-distance {name}: no such photo; accepted: {shown}")
