"""Rigid motions of pairs of RGB-D photos: matched keypoints lifted by their sensor depth, and the focal length.

Two photos' keypoints with depth are two point sets one rigid motion apart, whatever the baseline.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from recon.cameras.pinhole import project, unproject
from recon.capture.masks import load_sensor_depth
from recon.mapping.dense import DenseOptions
from recon.types import Camera, Capture, View

_log = logging.getLogger(__name__)

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class RgbdOptions:
    """What is expected of a depth sensor.

    Attributes:
        depth_log_sigma: spread of ln(depth) of a good reading.
        max_step: a keypoint whose surroundings differ in depth by more than this fraction lies on an edge: no depth.
        min_inliers: matches that must agree with a pair's rigid motion.
        max_error_px: how far a lifted keypoint may land from its match in the other photo.
        focal_factors: other focal lengths tried where it is only a guess, as multiples of the guess.
        dense: of the alignment of whole depth maps.
        seed: of RANSAC.
    """

    depth_log_sigma: float = 0.01
    max_step: float = 0.05
    min_inliers: int = 12
    max_error_px: float = 8.0
    focal_factors: tuple[float, ...] = (0.5, 0.58, 0.67, 0.77, 0.88, 1.0, 1.15, 1.32, 1.52, 1.75)
    dense: DenseOptions = field(default_factory=DenseOptions)
    seed: int = 0


@dataclass(frozen=True)
class RgbdPhoto:
    pixels: Float64Array  # [K, 2] all keypoints
    depth_m: Float64Array  # [K] NaN where the sensor is silent or at an edge


@dataclass(frozen=True)
class PairMotion:
    i: int
    j: int
    cam_i_from_cam_j: Float64Array
    matches: IntArray  # [K, 2] inliers


def depth_at(depth_m: NDArray[np.float32], pixels: Float64Array, max_step: float) -> Float64Array:
    """Measured z-depth [N] at continuous pixels [N, 2]: median of the 3x3 readings, NaN across depth edges."""
    height, width = depth_m.shape
    column, row = np.floor(pixels[:, 0]).astype(int), np.floor(pixels[:, 1]).astype(int)
    offset_row, offset_column = np.mgrid[-1:2, -1:2].reshape(2, 9)
    rows, columns = row[:, None] + offset_row, column[:, None] + offset_column  # [N, 9]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    window = np.where(inside, depth_m[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)], np.nan)
    known = np.isfinite(window).sum(axis=1) >= 5
    result = np.full(len(pixels), np.nan)
    if known.any():
        window = window[known]
        middle = np.nanmedian(window, axis=1)
        step = (np.nanmax(window, axis=1) - np.nanmin(window, axis=1)) / middle
        result[known] = np.where(step <= max_step, middle, np.nan)
    return result


def read_evidence(
    database_path: Path, capture: Capture, options: RgbdOptions
) -> tuple[list[RgbdPhoto], dict[tuple[int, int], IntArray]]:
    photos: list[RgbdPhoto] = []
    matches: dict[tuple[int, int], IntArray] = {}
    with pycolmap.Database.open(database_path) as database:
        index = {}
        for i, view in enumerate(capture.views):
            image_id = database.read_image_with_name(view.name).image_id
            index[image_id] = i
            pixels = np.array(database.read_keypoints(image_id), dtype=np.float64).reshape(-1, 6)[:, :2]
            photos.append(RgbdPhoto(pixels, _sensor_at(view, pixels, options)))
        for pair_id, links in zip(*database.read_all_matches(), strict=True):
            i, j = (index[k] for k in pycolmap.pair_id_to_image_pair(pair_id))
            if len(links):
                matches[i, j] = np.asarray(links, dtype=np.int64)
    return photos, matches


def _sensor_at(view: View, pixels: Float64Array, options: RgbdOptions) -> Float64Array:
    depth = load_sensor_depth(view) if view.depth_path is not None else None
    return depth_at(depth, pixels, options.max_step) if depth is not None else np.full(len(pixels), np.nan)


def _motion(
    camera_i: Camera, camera_j: Camera, photo_i: RgbdPhoto, photo_j: RgbdPhoto, links: IntArray, options: RgbdOptions
) -> tuple[Float64Array, NDArray[np.bool_], Float64Array] | None:
    """Rigid motion ``cam_i_from_cam_j`` of a pair: pose, inliers among ``links``, their errors in pixels."""
    both = np.isfinite(photo_i.depth_m[links[:, 0]]) & np.isfinite(photo_j.depth_m[links[:, 1]])
    if both.sum() < options.min_inliers:
        return None
    k, l = links[both].T
    in_i = unproject(camera_i, photo_i.pixels[k], photo_i.depth_m[k])
    in_j = unproject(camera_j, photo_j.pixels[l], photo_j.depth_m[l])
    ransac = pycolmap.RANSACOptions()
    ransac.random_seed = options.seed
    ransac.min_inlier_ratio = 0.05
    ransac.max_num_trials = 3000
    median_depth = float(np.median(in_i[:, 2]))
    ransac.max_error = median_depth * (options.max_error_px / camera_i.focal_px + 2 * options.depth_log_sigma)
    fit = pycolmap.estimate_rigid3d_robust(in_j, in_i, ransac)
    if fit is None:
        return None
    pose = np.asarray(fit["tgt_from_src"].matrix())
    error = np.linalg.norm(project(camera_i, in_j @ pose[:, :3].T + pose[:, 3]) - photo_i.pixels[k], axis=1)
    range_error = np.abs(np.log(np.maximum((in_j @ pose[:, :3].T + pose[:, 3])[:, 2], 1e-9) / in_i[:, 2]))
    good = (error <= options.max_error_px) & (range_error <= 5 * options.depth_log_sigma)
    inliers = np.zeros(len(links), dtype=bool)
    inliers[np.flatnonzero(both)[good]] = True
    return pose, inliers, error[good]


def with_focal(
    capture: Capture,
    cameras: Mapping[str, Camera],
    photos: list[RgbdPhoto],
    matches: dict[tuple[int, int], IntArray],
    options: RgbdOptions,
) -> dict[str, Camera]:
    """Cameras whose guessed focal lengths are replaced by the one under which most matches are rigid."""
    names = [view.name for view in capture.views]
    guessed = {name for name in names if cameras[name].focal_source == "prior"}
    if not guessed:
        return dict(cameras)
    strongest = sorted(matches, key=lambda pair: len(matches[pair]), reverse=True)[:20]
    best, best_factor = -np.inf, 1.0
    for factor in options.focal_factors:
        scaled = {n: _refocused(c, factor) if n in guessed else c for n, c in cameras.items()}
        merit = 0.0
        for i, j in strongest:
            found = _motion(scaled[names[i]], scaled[names[j]], photos[i], photos[j], matches[i, j], options)
            if found is not None:
                # truncated quadratic in angles: pixels grow with the focal length, angles do not
                angle = found[2] / scaled[names[i]].focal_px / (options.max_error_px / cameras[names[i]].focal_px)
                merit += float((1 - np.minimum(angle, 1.0) ** 2).sum())
        if merit > best:
            best, best_factor = merit, factor
    _log.info("focal length: %.2f times the guess fits the sensor depth best", best_factor)
    return {n: _refocused(c, best_factor) if n in guessed else c for n, c in cameras.items()}


def _refocused(camera: Camera, factor: float) -> Camera:
    num_focals = len(camera.params) - len(camera.distortion) - 2
    params = tuple(p * factor if k < num_focals else p for k, p in enumerate(camera.params))
    return dataclasses.replace(camera, params=params)


def pair_motions(
    capture: Capture,
    cameras: Mapping[str, Camera],
    photos: list[RgbdPhoto],
    matches: dict[tuple[int, int], IntArray],
    options: RgbdOptions,
) -> list[PairMotion]:
    names = [view.name for view in capture.views]
    result = []
    for (i, j), links in sorted(matches.items()):
        found = _motion(cameras[names[i]], cameras[names[j]], photos[i], photos[j], links, options)
        if found is not None and found[1].sum() >= options.min_inliers:
            result.append(PairMotion(i, j, found[0], links[found[1]]))
    return result
