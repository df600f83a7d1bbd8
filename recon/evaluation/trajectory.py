"""Alignment of two sets of cameras, and trajectory errors: ATE and RPE, with and without scale.

Definitions as in evo (github.com/MichaelGrupp/evo), which gives the same numbers: ATE is the distance of aligned camera
centres (Umeyama, PAMI 1991); RPE compares the motion between photos that follow each other in name order, translation
in the reference's unit and rotation in degrees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.evaluation.pose import Similarity, align, angle_deg

Float64Array = NDArray[np.float64]

MIN_SPREAD = 0.01  # second extent of the centres relative to the first, below which they count as a line
IDENTITY = Similarity(1.0, np.eye(3), np.zeros(3))


@dataclass(frozen=True)
class Alignment:
    """``transform`` takes the estimate's world to the reference's; ``method`` says how it was found."""

    transform: Similarity
    method: str

    @property
    def matrix(self) -> Float64Array:
        """[4, 4]: ``reference_from_estimate``."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.transform.scale * self.transform.rotation
        matrix[:3, 3] = self.transform.translation
        return matrix


@dataclass(frozen=True)
class ErrorStats:
    """Root mean square, mean, median and largest of a set of errors; NaN when there are none."""

    rmse: float
    mean: float
    median: float
    max: float

    @staticmethod
    def of(errors: Float64Array) -> ErrorStats:
        if len(errors) == 0:
            nan = float("nan")
            return ErrorStats(nan, nan, nan, nan)
        return ErrorStats(
            float(np.sqrt(np.mean(errors**2))), float(errors.mean()), float(np.median(errors)), float(errors.max())
        )


@dataclass(frozen=True)
class TrajectoryScores:
    """Errors of ``num_photos`` common cameras after one alignment; lengths in the reference's unit.

    ``scale`` is the alignment's factor from the estimate's unit to the reference's (1 for a rigid one).
    """

    num_photos: int
    alignment: str
    scale: float
    ate: ErrorStats
    rpe_translation: ErrorStats
    rpe_rotation_deg: ErrorStats


def centres(poses: Float64Array) -> Float64Array:
    """Camera centres [N, 3] of ``cam_from_world`` [N, 3, 4]."""
    return -np.einsum("nji,nj->ni", poses[:, :, :3], poses[:, :, 3])


def align_cameras(estimated: Float64Array, reference: Float64Array, with_scale: bool) -> Alignment:
    """Takes estimated cameras ``cam_from_world`` [N, 3, 4] onto the reference's [N, 3, 4], in the same order.

    Centres decide where they span a plane at least. Where they don't (two cameras, or all on a line), the turn about
    the line comes from the cameras' orientations; a single camera gives its own pose and no scale.
    """
    kind = "similarity" if with_scale else "rigid"
    if len(estimated) == 0:
        return Alignment(IDENTITY, "none (no photo in common)")
    source, target = centres(estimated), centres(reference)
    if len(estimated) >= 3 and min(_flatness(source), _flatness(target)) > MIN_SPREAD:
        return Alignment(align(source, target, with_scale), f"{kind}, centres of {len(source)} cameras")
    # world_reference_from_world_estimated from each camera, averaged (chordal mean)
    turns = np.einsum("nji,njk->ik", reference[:, :, :3], estimated[:, :, :3])
    u, _, vt = np.linalg.svd(turns)
    rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    moved, spread = source - source.mean(axis=0), target - target.mean(axis=0)
    variance = float((moved**2).sum())
    scale = 1.0
    if with_scale and variance > 0:
        scale = float(np.sqrt((spread**2).sum() / variance)) or 1.0
    translation = target.mean(axis=0) - scale * rotation @ source.mean(axis=0)
    detail = f"orientations and centres of {len(source)} cameras" + (" on a line" if len(source) > 2 else "")
    return Alignment(Similarity(scale, rotation, translation), f"{kind}, {detail}")


def move_cameras(poses: Float64Array, transform: Similarity) -> Float64Array:
    """``cam_from_world`` [N, 3, 4] in the world that ``transform`` leads to (cameras keep their unit baseline)."""
    rotation = poses[:, :, :3] @ transform.rotation.T
    moved = transform.apply(centres(poses))
    return np.concatenate([rotation, -np.einsum("nij,nj->ni", rotation, moved)[:, :, None]], axis=2)


def score_trajectory(estimated: Float64Array, reference: Float64Array, with_scale: bool) -> TrajectoryScores:
    """ATE and RPE of ``cam_from_world`` [N, 3, 4], in the same order; alignment by least squares as evo does it."""
    if len(estimated) == 0:
        nothing = ErrorStats.of(np.zeros(0))
        return TrajectoryScores(0, "none (no photo in common)", float("nan"), nothing, nothing, nothing)
    alignment = align_cameras(estimated, reference, with_scale)
    aligned = move_cameras(estimated, alignment.transform)
    ate = np.linalg.norm(centres(aligned) - centres(reference), axis=1)
    translation, rotation = _relative_errors(aligned, reference)
    return TrajectoryScores(
        len(estimated), alignment.method, alignment.transform.scale, ErrorStats.of(ate), ErrorStats.of(translation),
        ErrorStats.of(rotation),
    )  # fmt: skip


def stack(poses: Mapping[str, Float64Array], names: Sequence[str]) -> Float64Array:
    """Poses of the named photos, [N, 3, 4]."""
    return np.array([poses[name] for name in names], dtype=np.float64).reshape(-1, 3, 4)


def _relative_errors(estimated: Float64Array, reference: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Translation length and angle of (reference step)^-1 (estimated step) between photos that follow each other."""
    rotation_est, translation_est = _steps(estimated)
    rotation_ref, translation_ref = _steps(reference)
    # a step is cam1_from_cam2; the error's translation turned by rotation_ref^T has the same length
    length = np.linalg.norm(translation_est - translation_ref, axis=1)
    return length, angle_deg(rotation_ref.transpose(0, 2, 1) @ rotation_est)


def _steps(poses: Float64Array) -> tuple[Float64Array, Float64Array]:
    first, second = poses[:-1], poses[1:]
    rotation = first[:, :, :3] @ second[:, :, :3].transpose(0, 2, 1)  # cam1_from_cam2
    return rotation, first[:, :, 3] - np.einsum("nij,nj->ni", rotation, second[:, :, 3])


def _flatness(points: Float64Array) -> float:
    singular = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return float(singular[1] / singular[0]) if singular[0] > 0 else 0.0
