"""From placed photos to a map: tracks of all verified matches, triangulated and adjusted from coarse to fine."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon.capture.folder import load_pixels
from recon.evidence.features import image_ids
from recon.mapping.answers import Placement
from recon.mapping.bundle import BundleOptions, BundleState, Observations, adjust, reprojection_errors
from recon.mapping.factors import PoseFactors
from recon.mapping.model import MapModel, prune
from recon.mapping.pose_graph import compose, inverse
from recon.mapping.tracks import build_tracks
from recon.mapping.triangulate import triangulate
from recon.mapping.veto import epipolar_px
from recon.types import Camera, Capture, Matches

_log = logging.getLogger(__name__)

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

# A placed photo may be degrees off at first: errors that are kept, and the noise assumed, round by round, in pixels.
_ROUNDS = ((40.0, 8.0), (15.0, 3.0), (6.0, 1.0))
_MIN_ANGLE_DEG = 1.0  # between the rays of a point
_BAND_PX = 15.0  # matches count when they are this near their epipolar lines under the placed poses
_MIN_FITTING = 0.7  # share of a verified pair's matches that must be: otherwise its geometry is another one


def complete_map(
    database_path: Path,
    capture: Capture,
    cameras: Mapping[str, Camera],
    placement: Placement,
    model: MapModel | None,
    answers: Sequence[Matches],
    factors: PoseFactors | None,
    constant_intrinsics: bool,
) -> MapModel | None:
    """The map of all placed photos; None when their matches give no point.

    Args:
        database_path: holds keypoints and verified matches.
        capture: the photos.
        cameras: initial intrinsics by photo name.
        placement: where the photos are.
        model: of the photos that were in the map already; its cameras are better than the initial ones.
        answers: refined matches of a checkpoint; those of pairs that failed verification (too few for it) count where
            they fit the poses, as do verified ones.
        factors: relative poses by row of ``placement.names``.
        constant_intrinsics: the user knows the cameras.
    """
    lenses = _cameras(capture, cameras, placement.names, model)
    groups = list(dict.fromkeys(lenses))
    state = BundleState(
        placement.poses,
        tuple(groups),
        np.array([groups.index(lens) for lens in lenses], dtype=np.int64),
        np.zeros((0, 3)),
    )
    keypoints, links = _links(database_path, placement.names, state, answers)
    view, keypoint, track = build_tracks(np.array([len(k) for k in keypoints]), links)
    if len(view) == 0:
        return None
    pixels = np.concatenate([keypoints[v][k][None] for v, k in zip(view, keypoint, strict=True)])
    for round_, (limit_px, sigma_px) in enumerate(_ROUNDS):
        fitted = _observed(state, view, track, pixels, limit_px)
        if fitted is None:
            return None
        state, observations = fitted
        last = round_ == len(_ROUNDS) - 1
        bundle = BundleOptions(
            refine_focal=last and not constant_intrinsics,
            refine_distortion=False,
            pixel_sigma=sigma_px,
            max_iterations=15,
        )
        state = adjust(state, observations, bundle, factors).state
    fitted = _observed(state, view, track, pixels, _ROUNDS[-1][0])
    if fitted is None:
        return None
    state, observations = fitted
    result = MapModel(placement.names, state, observations, np.zeros((len(state.points), 3), dtype=np.uint8))
    return _coloured(result, capture)


def _cameras(
    capture: Capture, cameras: Mapping[str, Camera], names: Sequence[str], model: MapModel | None
) -> list[Camera]:
    """The model's camera where it has one of the same ``camera_key``, else the initial one."""
    refined: dict[tuple[str, int, int], Camera] = {}
    if model is not None:
        for name, k in zip(model.names, model.state.camera_of_view, strict=True):
            view = capture.view(name)
            refined[view.camera_key, view.width_px, view.height_px] = model.state.cameras[k]
    views = [capture.view(name) for name in names]
    return [refined.get((v.camera_key, v.width_px, v.height_px), cameras[v.name]) for v in views]


def _links(
    database_path: Path, names: Sequence[str], state: BundleState, answers: Sequence[Matches]
) -> tuple[list[Float64Array], dict[tuple[int, int], IntArray]]:
    """Keypoints [K, 2] of every photo and the linked ones of every pair."""
    ids = image_ids(database_path)
    row = {ids[name]: i for i, name in enumerate(names)}
    links: dict[tuple[int, int], IntArray] = {}
    with pycolmap.Database.open(database_path) as database:
        keypoints = [
            np.array(database.read_keypoints(ids[name]), dtype=np.float64).reshape(-1, 6)[:, :2] for name in names
        ]
        verified = dict(zip(*database.read_two_view_geometries(), strict=True))
        for pair_id, matched in zip(*database.read_all_matches(), strict=True):
            i, j = (row.get(k, -1) for k in pycolmap.pair_id_to_image_pair(pair_id))
            if i < 0 or j < 0:
                continue
            # too few for verification, the matches of a pair may still agree with poses that are known otherwise
            good = verified[pair_id].inlier_matches if pair_id in verified else matched
            found = np.asarray(good if len(good) else matched, dtype=np.int64).reshape(-1, 2)
            fits = _epipolar_px(state, i, j, keypoints[i][found[:, 0]], keypoints[j][found[:, 1]]) <= _BAND_PX
            if len(found) and fits.mean() >= _MIN_FITTING:  # what looks alike verifies well, at another pose
                links[i, j] = found[fits]
    index = {name: i for i, name in enumerate(names)}
    for pair in answers:
        i, j = index.get(pair.name1, -1), index.get(pair.name2, -1)
        if min(i, j) < 0 or (i, j) in links or (j, i) in links or len(pair.pixels1) == 0:
            continue
        distance1, k = cKDTree(keypoints[i]).query(pair.pixels1)
        distance2, l = cKDTree(keypoints[j]).query(pair.pixels2)
        near = (distance1 <= 1.0) & (distance2 <= 1.0)
        near &= _epipolar_px(state, i, j, pair.pixels1, pair.pixels2) <= _BAND_PX
        if near.any():
            links[i, j] = np.unique(np.column_stack([k, l])[near], axis=0)
    return keypoints, links


def _epipolar_px(
    state: BundleState, i: int, j: int, pixels1: NDArray[np.floating], pixels2: NDArray[np.floating]
) -> Float64Array:
    motion = compose(state.poses[i], inverse(state.poses[j]))
    camera1, camera2 = (state.cameras[state.camera_of_view[k]] for k in (i, j))
    return epipolar_px(motion, camera1, camera2, pixels1, pixels2)


def _observed(
    state: BundleState, view: IntArray, track: IntArray, pixels: Float64Array, limit_px: float
) -> tuple[BundleState, Observations] | None:
    """Points of the tracks at the present poses and the observations within ``limit_px`` of them."""
    num = int(track.max()) + 1
    points, angle = triangulate(state, view, track, pixels, num)
    known = np.isfinite(points[:, 0]) & (angle >= _MIN_ANGLE_DEG)
    keep = known[track]
    if keep.sum() < 2:
        return None
    nothing = np.full(len(view), np.nan)
    observations = Observations(view, track, pixels, nothing, nothing.copy()).select(keep)
    full = MapModel(
        tuple(str(k) for k in range(len(state.poses))),
        dataclasses.replace(state, points=np.nan_to_num(points)),
        observations,
        np.zeros((num, 3), dtype=np.uint8),
    )
    errors = reprojection_errors(full.state, observations)
    full = prune(full, errors <= limit_px)
    return (full.state, full.observations) if len(full.observations.view) else None


def _coloured(model: MapModel, capture: Capture) -> MapModel:
    """The model with each point's colour from the first photo that sees it."""
    colors = model.colors.copy()
    seen = np.zeros(len(colors), dtype=bool)
    for i, name in enumerate(model.names):
        mine = model.observations.view == i
        point, pixels = model.observations.point[mine], model.observations.pixels[mine]
        new = ~seen[point]
        if not new.any():
            continue
        image = load_pixels(capture.view(name))
        column = np.clip(pixels[new, 0].astype(int), 0, image.shape[1] - 1)
        line = np.clip(pixels[new, 1].astype(int), 0, image.shape[0] - 1)
        colors[point[new]] = image[line, column]
        seen[point[new]] = True
    return dataclasses.replace(model, colors=colors)
