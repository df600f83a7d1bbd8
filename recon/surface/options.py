"""Every setting of the surface step, with its default, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FillPolicy = Literal["trusted", "never", "always"]


@dataclass(frozen=True)
class DensifyOptions:
    """Upsampling of sparse depth samples guided by the image."""

    solve_px: int = 192  # long side of the grid on which the linear system is solved
    edge_sigma: float = 7.0  # colour difference (CIELAB units) over which depth may jump
    smoothing: float = 1.5  # radius of influence of a sample in units of the sample spacing
    min_align_points: int = 12  # triangulated points in view needed to align the prior to the map
    robust_sigmas: float = 2.0  # residual in standard deviations from which a sample loses weight (Huber)


@dataclass(frozen=True)
class MultiviewOptions:
    """Photometric multi-view search around a prior or over the range of the sparse points."""

    work_px: int = 640  # long side of the finest level; photos are never enlarged
    num_neighbours: int = 6
    min_angle_deg: float = 2.0  # triangulation angle at the points seen in common
    max_angle_deg: float = 35.0
    max_hypotheses: int = 160  # depths tried per pixel on the coarsest level
    # Sides of the ZNCC window, odd. The sweep's windows face the camera, so on a slanted floor a small one fits better;
    # the refinement's follow the surface, and a large one is steadier on weak texture.
    sweep_window_px: int = 5
    window_px: int = 9
    prior_sigmas: float = 3.0  # from a dense prior, beyond which a depth needs better evidence in the photos
    min_score: float = 0.5  # mean ZNCC over the best views, below which a pixel has no photometric evidence
    max_reprojection_px: float = 1.0  # geometric consistency, there and back
    max_relative_depth: float = 0.01
    min_consistent: int = 2  # neighbours that must agree (1 where a view has one neighbour only)
    min_speckle_px: int = 60  # connected patches smaller than this are dropped


@dataclass(frozen=True)
class FuseOptions:
    """Truncated signed distance fusion, clean-up, and the cloud."""

    voxel_m: float | None = None  # voxel size in the scene's unit; None: from the pixels' footprint
    voxel_pixels: float = 1.5  # footprints of a pixel per voxel when the size comes from the data
    max_voxels_per_extent: int = 1600  # ... and the finest division of the scene's largest side
    truncation_voxels: float = 5.0
    min_confidence: float = 0.1  # pixels below are not integrated
    min_weight: float = (
        0.1  # summed weight (confidence times cosine of the viewing angle) a voxel needs to bear surface
    )
    carve_weight: float = 0.3  # weight of "this voxel is empty" against "the surface is here"
    max_memory_mb: int = 2048  # of the voxel grid; the voxel grows until it fits
    max_depth_m: float | None = None  # pixels farther away are left out; None: all
    min_component_faces: int = 200  # connected pieces smaller than this are floaters ...
    min_component_fraction: float = 0.002  # ... as are those below this share of all faces
    target_faces: int | None = None
    remove_sky: bool = False  # of upright photos taken outdoors
    watertight: bool = False  # close all holes; what is made up is grey
    cloud_neighbours: int = 16  # statistical outlier removal of clouds
    cloud_outlier_sigmas: float = 2.5


@dataclass(frozen=True)
class TextureOptions:
    """Texturing a mesh with the photos' own pixels."""

    target_faces: int = 200_000  # simplified to so many triangles first, where the fusion's target_faces doesn't say
    page_px: int = 4096  # most pixels along a side of a page of the atlas
    max_pages: int = 4  # what doesn't fit on so many pages is reduced until it does
    longest_edge: float = 0.01  # parts of the surface's extent; longer edges are cut, as no photo may show them whole
    candidates: int = 8  # photos considered per triangle, the best ones
    min_cosine: float = 0.1  # of the angle between line of sight and normal: flatter than 84 degrees nothing is taken
    smoothness: float = 0.5  # cost of an edge between two photos; a triangle's worst photo for its best costs 1
    min_chart_faces: int = 40  # smaller pieces of one photo join a neighbour where its photo shows them
    padding_px: int = 4  # of the photo around every chart


@dataclass(frozen=True)
class SurfaceOptions:
    """The surface step: dense depth per photo, then one mesh or cloud."""

    densify: DensifyOptions = field(default_factory=DensifyOptions)
    multiview: MultiviewOptions = field(default_factory=MultiviewOptions)
    fuse: FuseOptions = field(default_factory=FuseOptions)
    texture: TextureOptions = field(default_factory=TextureOptions)
    refine: bool = True  # photometric multi-view search; off: the aligned prior alone
    use_sensor_depth: bool = True
    fill: FillPolicy = "trusted"  # where no photo confirms a depth: keep the aligned prior, at low confidence
    fill_confidence: float = 0.2
    planes: bool = True  # fill from planes that the scene's photos see together, too
    device: str = "auto"  # auto, cpu, cuda, cuda:1 ...
