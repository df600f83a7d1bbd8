"""Whether a checkpoint means z-depth or distance along the ray by "how far from the camera".

The public training labels mix both, and at the corner of a phone photo the two differ by 30 %. Profiles that don't know
say ``auto``; agreement with triangulated points then decides.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from recon.cameras.pinhole import ray_from_z
from recon.types import Camera, DepthKind, DepthSamples, PosedView, Scene

_LOGGER = logging.getLogger(__name__)

_NEIGHBOUR_SHARE = 0.02  # of the longer side: a map point this near to a sample tells its depth


@dataclass(frozen=True)
class DepthKindEvidence:
    """What a checkpoint means by distance, judged against triangulated points.

    Attributes:
        kind: ``z`` or ``ray``.
        slope: of ln(answer / z) over ln(ray / z): 0 for z-depth, 1 for distance along the ray.
        slope_sigma: its standard error.
        num_points: how many answers were compared.
        is_clear: the slope (within [0, 1]) is two standard errors from the middle; otherwise the kind is a guess.
    """

    kind: DepthKind
    slope: float
    slope_sigma: float
    num_points: int
    is_clear: bool


def choose_depth_kind(
    samples: Sequence[DepthSamples], z_depths: Sequence[ArrayLike], cameras: Sequence[Camera]
) -> DepthKindEvidence:
    """Decides between z-depth and distance along the ray by agreement with a map, whatever the scale.

    The logarithm of answer over triangulated z-depth is constant over a photo if the answers are z-depths and grows
    like ln(ray / z) towards the corners if they are distances: its slope, with an offset of its own per photo and
    Huber weights, tells which.

    Args:
        samples: of any number of photos, all by one checkpoint.
        z_depths: for each, ``[N]`` z-depths of the map at the samples' pixels, in any one unit, NaN where unknown.
        cameras: for each, the photo's camera.
    """
    offsets: list[NDArray[np.float64]] = []
    growths: list[NDArray[np.float64]] = []
    for sample, z_depth, camera in zip(samples, z_depths, cameras, strict=True):
        z = np.asarray(z_depth, dtype=np.float64)
        ray_over_z = ray_from_z(camera, sample.pixels, np.ones(len(z)))
        with np.errstate(invalid="ignore", divide="ignore"):
            log_ratio, growth = np.log(np.asarray(sample.depth_m) / z), np.log(ray_over_z)
        good = np.isfinite(log_ratio) & np.isfinite(growth)
        if np.count_nonzero(good) >= 3:  # fewer say nothing beside their own offset
            offsets.append(log_ratio[good])
            growths.append(growth[good])
    num_points = sum(len(growth) for growth in growths)
    if num_points == 0:
        return DepthKindEvidence("z", float("nan"), float("inf"), 0, False)
    slope, sigma = _robust_slope(growths, offsets)
    # clipped: a slope far outside [0, 1] with a large error is noise, not evidence
    is_clear = bool(abs(np.clip(slope, 0.0, 1.0) - 0.5) > 2 * sigma)
    return DepthKindEvidence("ray" if slope > 0.5 else "z", slope, sigma, num_points, is_clear)


def with_depth_kind(samples: DepthSamples, kind: DepthKind) -> DepthSamples:
    """The same answers with their kind decided."""
    return dataclasses.replace(samples, depth_kind=kind, depth_kind_is_assumed=False)


def settle_depth_kind(samples: Sequence[DepthSamples], scene: Scene) -> tuple[list[DepthSamples], list[str]]:
    """Decides the kind of all samples whose kind is assumed, checkpoint by checkpoint, by agreement with a map.

    Args:
        samples: of any photos and sources; those whose kind is known stay as they are.
        scene: the map, in any unit.

    Returns:
        The samples in the same order, and one line per checkpoint that says what was decided and why. Without clear
        evidence the kind stays assumed (z).
    """
    views = {view.name: view for view in scene.views}
    settled = list(samples)
    notes: list[str] = []
    open_sources = dict.fromkeys(sample.source for sample in samples if sample.depth_kind_is_assumed)
    for source in open_sources:
        rows = [i for i, s in enumerate(samples) if s.source == source and s.depth_kind_is_assumed]
        seen = [samples[i] for i in rows if samples[i].name in views]
        z_depths = [map_z_depths(views[sample.name], scene, sample) for sample in seen]
        evidence = choose_depth_kind(seen, z_depths, [views[sample.name].camera for sample in seen])
        finding = (
            f"slope {evidence.slope:.2f} +- {evidence.slope_sigma:.2f} (0 z-depth, 1 along the ray) over "
            f"{evidence.num_points} answers near map points"
        )
        if evidence.is_clear:
            notes.append(f"{source} means {evidence.kind}: {finding}")
            for i in rows:
                settled[i] = with_depth_kind(samples[i], evidence.kind)
        else:
            notes.append(f"{source}: z or ray is not clear and z is assumed: {finding}")
        _LOGGER.info("%s", notes[-1])
    return settled, notes


def map_z_depths(view: PosedView, scene: Scene, samples: DepthSamples) -> NDArray[np.float64]:
    """z-depths ``[N]`` of the map at the samples' pixels, from the nearest map point seen in the view; NaN where none
    is within 2 % of the photo's longer side or the nearest lies behind the camera."""
    z_depth = np.full(len(samples.depth_m), np.nan)
    if len(view.point_ids) == 0 or len(z_depth) == 0:
        return z_depth
    points_world = scene.points_world[view.point_ids]  # [M, 3]
    z_points = points_world @ view.cam_from_world[2, :3] + view.cam_from_world[2, 3]  # [M]
    radius_px = _NEIGHBOUR_SHARE * max(view.camera.width_px, view.camera.height_px)
    distance_px, nearest = cKDTree(view.pixels).query(samples.pixels, distance_upper_bound=radius_px)
    near = np.isfinite(distance_px)
    z_depth[near] = z_points[nearest[near]]
    z_depth[~(z_depth > 0)] = np.nan
    return z_depth


def _robust_slope(x_groups: list[NDArray[np.float64]], y_groups: list[NDArray[np.float64]]) -> tuple[float, float]:
    """Slope common to all groups (each with its own offset) and its standard error, by reweighted least squares."""
    group = np.repeat(np.arange(len(x_groups)), [len(x) for x in x_groups])
    x, y = np.concatenate(x_groups), np.concatenate(y_groups)
    weight = np.ones_like(x)
    slope, sigma = 0.0, float("inf")
    for _ in range(30):
        x0, y0 = _centred(x, weight, group), _centred(y, weight, group)
        strength = float((weight * x0 * x0).sum())
        if strength <= 1e-12:  # all at the same angle: nothing to tell
            return 0.0, float("inf")
        updated = float((weight * x0 * y0).sum()) / strength
        residual = y0 - updated * x0
        scale = max(1.4826 * float(np.median(np.abs(residual))), 1e-9)
        weight = np.minimum(1.0, 1.345 * scale / np.maximum(np.abs(residual), 1e-300))
        # sandwich estimate: holds though the weights and the errors differ from point to point
        sigma = float(np.sqrt(((weight * x0 * residual) ** 2).sum())) / strength
        if abs(updated - slope) < 1e-9:
            break
        slope = updated
    return slope, sigma


def _centred(values: NDArray[np.float64], weight: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.float64]:
    means = np.bincount(group, weight * values) / np.bincount(group, weight)
    return values - means[group]
