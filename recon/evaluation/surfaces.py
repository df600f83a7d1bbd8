"""Surfaces of two results: samples with normals, optional ICP, distances and normal consistency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon.errors import BadInputError
from recon.evaluation.cloud import CloudScores, compare_points, sample_mesh
from recon.evaluation.pose import Similarity, align
from recon.surface.types import Mesh, PointCloud

Float64Array = NDArray[np.float64]

METRIC_THRESHOLDS_M = (0.01, 0.02, 0.05, 0.1, 0.2)
RELATIVE_THRESHOLDS = (0.001, 0.002, 0.005, 0.01, 0.02)  # of the reference's size, where it has no metres
_NORMAL_NEIGHBOURS = 12
_ICP_POINTS = 20_000


@dataclass(frozen=True)
class Sample:
    """Random points [N, 3] of a surface and unit normals [N, 3] (of arbitrary sign where ``normals_estimated``)."""

    points: Float64Array
    normals: Float64Array
    normals_estimated: bool


@dataclass(frozen=True)
class IcpMove:
    """What ICP changed: a turn, a shift of the surface's middle and a factor; inlier distance before and after."""

    turn_deg: float
    shift: float
    scale: float
    distance_before: float
    distance_after: float
    iterations: int


@dataclass(frozen=True)
class SurfaceScores:
    """``scores`` in the reference's unit; ``normal_consistency``: mean absolute cosine between a point's normal and
    that of the nearest reference point, over points within the largest threshold (NaN when there are none)."""

    scores: CloudScores
    normal_consistency: float
    normals_estimated: bool


def sample(surface: Mesh | PointCloud, num_points: int, seed: int = 0) -> Sample:
    """Points and normals of a surface: a mesh is sampled evenly by area, a cloud's points are drawn at random.

    Raises:
        BadInputError: the surface has no area, or no point.
    """
    generator = np.random.default_rng(seed)
    if isinstance(surface, PointCloud):
        points = np.asarray(surface.points_world_m, dtype=np.float64)
        normals = None if surface.normals is None else np.asarray(surface.normals, dtype=np.float64)
        if len(points) == 0:
            raise BadInputError("the cloud has no points")
        if len(points) > num_points:
            chosen = generator.choice(len(points), num_points, replace=False)
            points, normals = points[chosen], None if normals is None else normals[chosen]
        if normals is None or not np.isfinite(normals).all() or (np.linalg.norm(normals, axis=1) < 0.5).any():
            return Sample(points, estimate_normals(points), True)
        return Sample(points, normals / np.linalg.norm(normals, axis=1, keepdims=True), False)
    return Sample(*sample_mesh(surface, num_points, generator), False)


def estimate_normals(points: Float64Array) -> Float64Array:
    """Unit normals [N, 3] of arbitrary sign: the least direction of each point's nearest neighbours."""
    count = min(_NORMAL_NEIGHBOURS, len(points))
    if count < 3:
        return np.tile([0.0, 0.0, 1.0], (len(points), 1))
    _, index = cKDTree(points).query(points, count, workers=-1)
    normals = np.empty_like(points)
    for start in range(0, len(points), 1 << 15):
        near = points[index[start : start + (1 << 15)]]  # [B, K, 3]
        near = near - near.mean(axis=1, keepdims=True)
        normals[start : start + (1 << 15)] = np.linalg.eigh(near.transpose(0, 2, 1) @ near)[1][:, :, 0]
    return normals


def moved(sample_: Sample, transform: Similarity) -> Sample:
    """The sample in the world that ``transform`` leads to."""
    return Sample(transform.apply(sample_.points), sample_.normals @ transform.rotation.T, sample_.normals_estimated)


def size_of(points: Float64Array) -> float:
    """Diagonal of the box around the middle 90 % of the points in each direction: stray points don't count."""
    low, high = np.percentile(points, [5, 95], axis=0)
    return float(np.linalg.norm(high - low))


def refine_by_icp(
    points: Float64Array, reference: Float64Array, with_scale: bool, keep: float = 0.8, max_iterations: int = 50
) -> tuple[Similarity, IcpMove]:
    """Trimmed point-to-point ICP (Chetverikov et al., 2002) of [N, 3] onto [M, 3]: the nearest ``keep`` count.

    Raises:
        BadInputError: fewer than 3 points on a side.
    """
    source = points[:: max(1, len(points) // _ICP_POINTS)]
    if len(source) < 3 or len(reference) < 3:
        raise BadInputError(f"ICP takes 3 points or more, found {len(source)} and {len(reference)}")
    tree = cKDTree(reference)
    transform = Similarity(1.0, np.eye(3), np.zeros(3))
    before, error, iterations = float("nan"), float("inf"), 0
    for iterations in range(1, max_iterations + 1):
        distance, index = tree.query(transform.apply(source), workers=-1)
        near = np.argsort(distance)[: max(3, int(keep * len(source)))]
        new_error = float(np.sqrt((distance[near] ** 2).mean()))
        before = new_error if iterations == 1 else before
        if new_error > error * (1 - 1e-4):
            break
        error = new_error
        transform = align(source[near], reference[index[near]], with_scale)
    distance, _ = tree.query(transform.apply(source), workers=-1)
    after = float(np.sqrt((np.sort(distance)[: max(3, int(keep * len(source)))] ** 2).mean()))
    middle = source.mean(axis=0)
    angle = np.degrees(np.arccos(np.clip((np.trace(transform.rotation) - 1) / 2, -1, 1)))
    shift = float(np.linalg.norm(transform.apply(middle[None])[0] - middle))
    return transform, IcpMove(float(angle), shift, transform.scale, before, after, iterations)


def score_surfaces(estimate: Sample, reference: Sample, thresholds: tuple[float, ...]) -> SurfaceScores:
    """Distances both ways and normal consistency, both samples in the reference's world."""
    scores = compare_points(estimate.points, reference.points, thresholds)
    distance, index = cKDTree(reference.points).query(estimate.points, workers=-1)
    near = distance <= max(thresholds)
    cosine = np.abs((estimate.normals[near] * reference.normals[index[near]]).sum(axis=1))
    consistency = float(cosine.mean()) if near.any() else float("nan")
    return SurfaceScores(scores, consistency, estimate.normals_estimated or reference.normals_estimated)
