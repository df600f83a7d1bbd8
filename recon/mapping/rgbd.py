"""Maps of RGB-D captures: keypoints with measured depth give metric motions of pairs without any baseline needed.

Matched keypoints of two photos, lifted by their sensor depth, are two point sets one rigid motion apart (robustly
fitted by pycolmap); the pose graph makes them consistent, the alignment of the whole depth maps precise. The world is
the first photo's frame, in metres.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.cameras.pinhole import unproject
from recon.capture.folder import load_pixels
from recon.capture.masks import load_sensor_depth
from recon.mapping.bundle import BundleState, Observations, reprojection_errors
from recon.mapping.dense import align_surfaces, surface_map
from recon.mapping.factors import RigidFactors
from recon.mapping.model import MapModel, prune
from recon.mapping.pose_graph import consistent_edges, largest_component, optimise, select, spanning_poses
from recon.mapping.rgbd_pairs import PairMotion, RgbdOptions, RgbdPhoto, pair_motions, read_evidence, with_focal
from recon.mapping.tracks import build_tracks
from recon.types import Camera, Capture, View

_log = logging.getLogger(__name__)

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


def map_with_depth(
    database_path: Path, capture: Capture, cameras: Mapping[str, Camera], options: RgbdOptions | None = None
) -> MapModel | None:
    """The map of the photos that sensor depth can place, metric; None when fewer than two can be.

    Takes keypoints and raw matches (before COLMAP's verification, which a small baseline can fail) from the database.
    """
    options = options or RgbdOptions()
    photos, matches = read_evidence(database_path, capture, options)
    cameras = with_focal(capture, cameras, photos, matches, options)
    motions = pair_motions(capture, cameras, photos, matches, options)
    if not motions:
        return None
    placed = _place(motions, len(capture.views))
    if placed is None:
        return None
    members, poses, motions, edges = placed
    views = [capture.views[m] for m in members]
    surfaces = [surface_map(depth, cameras[v.name], options.dense.grid_px) for v, depth in _depth_maps(views)]
    poses = align_surfaces(poses, surfaces, [cameras[v.name] for v in views], edges, options.dense)
    model = _lift(capture, cameras, photos, motions, members, poses, options)
    return _without_outliers(model, options)


def _depth_maps(views: list[View]) -> Iterator[tuple[View, NDArray[np.float32]]]:
    for view in views:
        depth = load_sensor_depth(view)
        yield view, depth if depth is not None else np.full((view.height_px, view.width_px), np.nan, dtype=np.float32)


def _place(
    motions: list[PairMotion], num_views: int
) -> tuple[IntArray, Float64Array, list[PairMotion], RigidFactors] | None:
    """Views of the largest consistent set, their poses, and the motions among them that agree (also as edges)."""
    strength = np.array([float(len(m.matches)) for m in motions])
    edges = RigidFactors(
        view1=np.array([m.i for m in motions]),
        view2=np.array([m.j for m in motions]),
        cam1_from_cam2=np.array([m.cam_i_from_cam_j for m in motions]),
        rotation_sigma=np.radians(0.3) * np.sqrt(1 + 50 / strength),
        translation_sigma=0.01 * np.sqrt(1 + 50 / strength),
    )
    keep = consistent_edges(edges, num_views)
    edges, strength, motions = select(edges, keep), strength[keep], [m for m, k in zip(motions, keep) if k]
    if not motions:
        return None
    members = largest_component(edges, num_views)
    index = np.full(num_views, -1)
    index[members] = np.arange(len(members))
    inside = index[edges.view1] >= 0
    edges = dataclasses.replace(
        select(edges, inside), view1=index[edges.view1[inside]], view2=index[edges.view2[inside]]
    )
    motions = [m for m, k in zip(motions, inside) if k]
    poses = spanning_poses(edges, strength[inside], len(members), root=0)
    poses, residual = optimise(poses, edges)
    agrees = residual < 10.0
    _log.info("pose graph: %d views, %d of %d motions agree", len(members), int(agrees.sum()), len(agrees))
    return members, poses, [m for m, k in zip(motions, agrees) if k], select(edges, agrees)


def _lift(
    capture: Capture,
    cameras: Mapping[str, Camera],
    photos: list[RgbdPhoto],
    motions: list[PairMotion],
    members: IntArray,
    poses: Float64Array,
    options: RgbdOptions,
) -> MapModel:
    """Tracks of the agreeing matches; points at the mean of their lifted keypoints; colours from the first photo."""
    index = {int(m): i for i, m in enumerate(members)}
    links = {(index[m.i], index[m.j]): m.matches for m in motions}
    counts = np.array([len(photos[m].pixels) for m in members])
    view, keypoint, track = build_tracks(counts, links)
    names = tuple(capture.views[m].name for m in members)
    pixels = np.zeros((len(view), 2))
    depth = np.zeros(len(view))
    lifted = np.zeros((len(view), 3))
    shade = np.zeros((len(view), 3), dtype=np.uint8)
    for i, m in enumerate(members):
        mine = view == i
        pixels[mine] = photos[m].pixels[keypoint[mine]]
        depth[mine] = photos[m].depth_m[keypoint[mine]]
        in_camera = unproject(cameras[names[i]], pixels[mine], depth[mine])
        lifted[mine] = (in_camera - poses[i, :, 3]) @ poses[i, :, :3]
        image = load_pixels(capture.views[m])
        column = np.clip(pixels[mine, 0].astype(int), 0, image.shape[1] - 1)
        row = np.clip(pixels[mine, 1].astype(int), 0, image.shape[0] - 1)
        shade[mine] = image[row, column]
    num_points = int(track.max()) + 1 if len(track) else 0
    known = np.isfinite(lifted).all(axis=1)
    weight = np.maximum(np.bincount(track[known], minlength=num_points), 1)[:, None]
    points = np.stack([np.bincount(track[known], lifted[known, k], minlength=num_points) for k in range(3)], axis=1)
    first = np.unique(track, return_index=True)[1]
    groups = list(dict.fromkeys(cameras[name] for name in names))
    state = BundleState(
        poses=poses,
        cameras=tuple(groups),
        camera_of_view=np.array([groups.index(cameras[name]) for name in names], dtype=np.int64),
        points=points / weight,
    )
    spread = np.where(np.isfinite(depth), options.depth_log_sigma, np.nan)
    return MapModel(names, state, Observations(view, track, pixels, depth, spread), shade[first])


def _without_outliers(model: MapModel, options: RgbdOptions) -> MapModel | None:
    """The model without observations that lie far from where their points project.

    The poses stay those of the depth maps: colour and depth of common sensors disagree by some pixels (their shutters
    and clocks differ), and an adjustment of the colour pixels would bend the depth out of shape.
    """
    for threshold_px in (2 * options.max_error_px, options.max_error_px):
        if len(model.observations.view) == 0:
            return None
        errors = reprojection_errors(model.state, model.observations)
        model = prune(model, errors <= threshold_px)
    return model if len(model.observations.view) else None
