"""The last stages of a run: dense depth of every photo, and the mesh or cloud, with texture where it is wanted."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.options import Options
from pipelines.progress import Progress, progress_bar
from pipelines.records import fingerprint
from pipelines.runs import TEXTURE_STAGE
from pipelines.stages import Stages, code_version, photo_keys
from recon.capture.folder import load_mask, load_pixels, load_sensor_depth
from recon.interop.meshes import WorldAxes, write_cloud, write_mesh
from recon.interop.textured import textured_files, write_textured
from recon.surface.build import SurfaceDepth, build_cloud, build_depth_maps
from recon.surface.meshing import BuiltMesh, build_mesh
from recon.surface.options import FuseOptions, TextureOptions
from recon.surface.sky import WithoutSky
from recon.surface.store import FolderDepthStore
from recon.surface.texture.build import texture_mesh
from recon.surface.texture.types import TexturedMesh
from recon.surface.types import Photos
from recon.types import Capture, DepthSamples, Scene


@dataclass(frozen=True)
class ResultSize:
    """Vertices (or points) and triangles of the result, and what its user should know about it."""

    vertices: int
    faces: int
    notes: tuple[str, ...] = ()


def make_depth_maps(
    stages: Stages, options: Options, capture: Capture, scene: Scene, depths: Sequence[DepthSamples]
) -> tuple[SurfaceDepth, str]:
    """Dense depth of every registered photo, and the key of all that it depends on."""
    # fusing and texturing come later
    surface = dataclasses.replace(options.surface_options, fuse=FuseOptions(), texture=TextureOptions())
    key = fingerprint(code_version("surface"), photo_keys(capture), scene, depths, surface)[:20]
    folder = stages.workspace.dense / key
    photos = _photos(capture)
    with stages.report("dense depth") as report, progress_bar("dense depth", "steps", stages.quiet) as progress:
        for other in stages.workspace.dense.glob("*"):
            if other != folder:
                shutil.rmtree(other)  # maps of earlier settings
        depth = build_depth_maps(scene, photos, depths, surface, FolderDepthStore(folder), progress)
        report.counts = {"depth maps": len(depth.depth_maps)}
        report.rejected = depth.rejected
    return depth, key


def make_surface(
    stages: Stages, options: Options, depth: tuple[SurfaceDepth, str], capture: Capture, scene: Scene, outdoors: bool
) -> ResultSize:
    """The mesh or cloud, written to where the user wants it."""
    maps, key = depth
    fuse = options.surface_options.fuse
    if options.sky_removal == "auto" and outdoors:
        fuse = dataclasses.replace(fuse, remove_sky=True)
    axes: WorldAxes = "enu" if scene.georeference is not None else "opencv"
    if options.texture:
        return make_textured(stages, options, depth, capture, scene, fuse, axes)

    def compute(progress: Progress) -> ResultSize:
        if options.as_ == "cloud":
            cloud = build_cloud(WithoutSky(maps.depth_maps) if fuse.remove_sky else maps.depth_maps, fuse, progress)
            write_cloud(cloud, options.out)
            return ResultSize(len(cloud.points_world_m), 0)
        built = build_mesh(maps.depth_maps, fuse, progress)
        write_mesh(built.mesh, options.out, axes)
        return ResultSize(len(built.mesh.vertices_world_m), len(built.mesh.faces), built.notes)

    return stages.run(
        options.as_, ResultSize, [key, fuse, str(options.out), axes], compute,
        room="interop", unit="depth maps", outputs=[options.out.absolute()],
        counts=lambda size: {"vertices": size.vertices, "faces": size.faces},
    )  # fmt: skip


def make_textured(
    stages: Stages,
    options: Options,
    depth: tuple[SurfaceDepth, str],
    capture: Capture,
    scene: Scene,
    fuse: FuseOptions,
    axes: WorldAxes,
) -> ResultSize:
    """The mesh with the photos' pixels on it: kept in the workspace, and written to where the user wants it."""
    maps, key = depth
    texture = options.surface_options.texture
    built: BuiltMesh = stages.run(
        "fusion", BuiltMesh, [key, fuse], lambda progress: build_mesh(maps.depth_maps, fuse, progress),
        room="surface", unit="depth maps", counts=lambda found: {"faces": len(found.mesh.faces)},
    )  # fmt: skip
    textured: TexturedMesh = stages.run(
        TEXTURE_STAGE, TexturedMesh, [key, fuse, texture],
        lambda progress: texture_mesh(
            built.mesh, scene.views, _photos(capture), texture, maps.depth_maps, built.invented, progress
        ),
        room="surface", unit="steps",
        counts=lambda found: {"pages": len(found.pages), "photos": found.photos_used},
    )  # fmt: skip
    mesh = textured.mesh

    def compute(progress: Progress) -> ResultSize:
        write_textured(textured, options.out, axes)
        return ResultSize(len(mesh.vertices_world_m), len(mesh.faces), (*built.notes, *textured.doubts()))

    return stages.run(
        "mesh", ResultSize, ["textured", key, fuse, texture, str(options.out), axes], compute,
        room="interop", outputs=textured_files(options.out.absolute(), len(textured.pages)),
        counts=lambda size: {"vertices": size.vertices, "faces": size.faces},
    )  # fmt: skip


def _photos(capture: Capture) -> Photos:
    return Photos(
        pixels=lambda name: load_pixels(capture.view(name)),
        sensor_depth=lambda name: load_sensor_depth(capture.view(name)),
        mask=lambda name: load_mask(capture.view(name)),
    )
