"""The surface step as a whole: registered photos and their evidence become dense depth maps, and those a cloud."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from recon.errors import SurfaceError
from recon.surface.cloud import fuse_cloud
from recon.surface.grid import plan_grid
from recon.surface.options import FuseOptions, SurfaceOptions
from recon.surface.stages import DepthStages
from recon.surface.store import DepthStore, StoredDepthMaps
from recon.surface.types import DepthMap, Photos, PointCloud
from recon.types import DepthSamples, Rejected, Scene

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SurfaceDepth:
    """Dense depth of the scene: final maps (read when asked for) and the photos that gave none, with the reason."""

    depth_maps: Sequence[DepthMap]
    rejected: tuple[Rejected, ...]


def build_depth_maps(
    scene: Scene,
    photos: Photos,
    depth_samples: Sequence[DepthSamples],
    options: SurfaceOptions,
    store: DepthStore,
    progress: Progress | None = None,
) -> SurfaceDepth:
    """Dense depth of every registered photo.

    Args:
        scene: the sparse map; its points give search ranges, neighbours and the alignment of the samples.
        photos: pixels, sensor depth and masks by photo name.
        depth_samples: a checkpoint's depth per photo, any number of sources. Untrusted samples neither narrow the
            search nor fill holes unless ``options.fill`` is ``always``.
        store: keeps the maps; what it already holds isn't computed again.
        progress: called with (steps done, steps): two per photo.

    Raises:
        SurfaceError: no photo got any depth.
    """
    work = DepthStages(scene, photos, depth_samples, options, store)
    total = 2 * len(scene.views)
    for index, view in enumerate(scene.views):
        work.photometric(view.name)
        if progress is not None:
            progress(index + 1, total)
    finished, rejected = [], []
    for index, view in enumerate(scene.views):
        final = work.final(view.name)
        if np.isfinite(final.depth_m).any():
            finished.append(view.name)
        else:
            rejected.append(Rejected(view.name, work.reason(view.name)))
        if progress is not None:
            progress(len(scene.views) + index + 1, total)
    if not finished:
        raise SurfaceError(
            f"none of {len(scene.views)} registered photos got a dense depth map"
            + (f" ({rejected[0].name}: {rejected[0].reason})" if rejected else "")
        )
    return SurfaceDepth(StoredDepthMaps(store, "final", finished), tuple(rejected))


def build_cloud(depth_maps: Sequence[DepthMap], options: FuseOptions, progress: Progress | None = None) -> PointCloud:
    """Fuse depth maps into a point cloud with colours and normals.

    Raises:
        SurfaceError: the maps support no surface.
    """
    return fuse_cloud(depth_maps, options, plan_grid(depth_maps, options).voxel_m, progress)
