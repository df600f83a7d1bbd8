"""What is made of a scene and how: the options that hold for one scene and for many."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, arg

from pipelines.asking import AskOptions
from pipelines.models import ModelOptions
from recon.cameras.intrinsics import CameraOptions
from recon.capture.options import CaptureOptions
from recon.errors import BadInputError
from recon.mapping.map import MapOptions
from recon.surface.options import SurfaceOptions

LEAST_PAGE_PX, MOST_PAGE_PX = 256, 16_384  # the largest picture that graphics cards commonly take


@dataclass(frozen=True)
class MakingOptions:
    """The rooms' own option classes, and short names for what is asked for most."""

    as_: Annotated[Literal["mesh", "cloud"], arg(name="as")] = "mesh"
    """what to make"""
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

    def check_making(self) -> None:
        """Finds values out of range, and what cannot be made together; raises BadInputError."""
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
        if self.texture_size is not None and not self.texture:
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
