"""Errors of camera poses against ground truth, and the area under their recall curve by the two published protocols.

Pairwise: for each pair the angle of the rotation error and the angle between translation *directions*; the pair's error
is the larger. ``exact`` AUC integrates the recall curve by the trapezoid rule between the sorted errors (SuperGlue,
LoFTR, and all papers that follow them). ``histogram`` AUC averages the recall at 1, 2, ... degrees (PoseDiffusion,
VGGT, Depth-Anything-3). A photo without a pose makes every pair that contains it a failure (error infinite).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recon.errors import BadInputError

Float64Array = NDArray[np.float64]

_PAIRS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Similarity:
    """``target = scale * rotation @ source + translation``; the scale is 1 for a rigid alignment."""

    scale: float
    rotation: Float64Array  # [3, 3]
    translation: Float64Array  # [3]

    def apply(self, points: ArrayLike) -> Float64Array:
        """Points ``[N, 3]`` of the source frame in the target frame."""
        return self.scale * np.asarray(points, dtype=np.float64) @ self.rotation.T + self.translation


@dataclass(frozen=True)
class PoseReport:
    """Agreement of poses with ground truth. Lengths are in the ground truth's unit, NaN where nothing is registered.

    ``auc_exact`` and ``auc_histogram`` map a threshold in degrees to the area in [0, 1]. ``scale`` is the factor from
    the estimate's unit to the ground truth's in the similarity alignment of the camera centres. ``recall`` is the curve
    itself: the share of pairs with an error of at most 1, 2, ... degrees, up to the largest threshold.
    """

    num_views: int
    num_registered: int
    num_pairs: int
    auc_exact: dict[int, float]
    auc_histogram: dict[int, float]
    median_rotation_deg: float
    median_direction_deg: float
    ate_rmse: float
    ate_rigid_rmse: float
    extent: float
    scale: float
    recall: tuple[float, ...]


def angle_deg(rotation: ArrayLike) -> Float64Array:
    """Rotation angle in degrees of matrices ``[..., 3, 3]``; exact also near 0 and 180 degrees."""
    matrix = np.asarray(rotation, dtype=np.float64)
    skew = np.stack(
        [
            matrix[..., 2, 1] - matrix[..., 1, 2],
            matrix[..., 0, 2] - matrix[..., 2, 0],
            matrix[..., 1, 0] - matrix[..., 0, 1],
        ],
        axis=-1,
    )
    # atan2 of sine and cosine: arccos of the trace alone has no precision below 1e-6 degrees
    return np.degrees(np.arctan2(np.linalg.norm(skew, axis=-1), np.trace(matrix, axis1=-2, axis2=-1) - 1.0))


def direction_deg(first: ArrayLike, second: ArrayLike) -> Float64Array:
    """Angle in degrees between vectors ``[..., 3]``; 0 where the true one (``second``) has no length."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    angle = np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1)))
    return np.where(np.linalg.norm(b, axis=-1) < 1e-12, 0.0, angle)


def pairwise_errors(
    estimated: Mapping[str, Float64Array],
    truth: Mapping[str, Float64Array],
    pairs: Sequence[tuple[str, str]] | None = None,
) -> tuple[Float64Array, Float64Array]:
    """Rotation and translation-direction errors in degrees, ``[P]`` each, over all (or the given) pairs of ``truth``.

    Both maps hold ``cam_from_world`` ``[3, 4]`` by photo name; a photo that ``estimated`` lacks gives infinity.
    """
    chosen = list(combinations(sorted(truth), 2)) if pairs is None else list(pairs)
    rotation_error = np.full(len(chosen), np.inf)
    direction_error = np.full(len(chosen), np.inf)
    known = [i for i, (name1, name2) in enumerate(chosen) if name1 in estimated and name2 in estimated]
    names = sorted({name for i in known for name in chosen[i]})
    row = {name: k for k, name in enumerate(names)}
    poses_est, poses_true = (np.array([p[name] for name in names]).reshape(-1, 3, 4) for p in (estimated, truth))
    for start in range(0, len(known), _PAIRS_AT_ONCE):  # 1000 photos make half a million pairs
        part = np.array(known[start : start + _PAIRS_AT_ONCE])
        first = np.array([row[chosen[i][0]] for i in part])
        second = np.array([row[chosen[i][1]] for i in part])
        rotation_est, translation_est = _relative(poses_est[first], poses_est[second])
        rotation_true, translation_true = _relative(poses_true[first], poses_true[second])
        rotation_error[part] = angle_deg(rotation_est @ rotation_true.swapaxes(-1, -2))
        direction_error[part] = direction_deg(translation_est, translation_true)
    return rotation_error, direction_error


def auc_exact(errors_deg: ArrayLike, threshold_deg: float) -> float:
    """Area in [0, 1] under the recall curve up to ``threshold_deg``, trapezoid rule between the sorted errors."""
    errors = np.sort(np.asarray(errors_deg, dtype=np.float64))
    if len(errors) == 0:
        return float("nan")
    recall = np.arange(1, len(errors) + 1) / len(errors)
    errors, recall = np.concatenate([[0.0], errors]), np.concatenate([[0.0], recall])
    last = int(np.searchsorted(errors, threshold_deg))  # the first error at or beyond the threshold
    e = np.concatenate([errors[:last], [threshold_deg]])
    r = np.concatenate([recall[:last], [recall[last - 1] if last > 0 else 0.0]])
    return float(np.trapezoid(r, e) / threshold_deg)


def auc_histogram(errors_deg: ArrayLike, threshold_deg: int) -> float:
    """Mean recall over bins of 1 degree up to ``threshold_deg`` (the VGGT and Depth-Anything-3 protocol)."""
    errors = np.asarray(errors_deg, dtype=np.float64)
    if len(errors) == 0:
        return float("nan")
    counts, _ = np.histogram(errors[np.isfinite(errors)], bins=np.arange(threshold_deg + 1))
    return float(np.mean(np.cumsum(counts) / len(errors)))


def align(source: ArrayLike, target: ArrayLike, with_scale: bool = True) -> Similarity:
    """Least-squares alignment of points ``[N, 3]`` (Umeyama, PAMI 1991). Raises BadInputError below 3 points."""
    a, b = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != 3 or len(a) < 3:
        raise BadInputError(f"alignment takes two [N, 3] arrays of at least 3 points, found {a.shape} and {b.shape}")
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    u, singular, vt = np.linalg.svd((b - mean_b).T @ (a - mean_a) / len(a))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])
    rotation = (u * sign) @ vt
    variance = float(((a - mean_a) ** 2).sum() / len(a))
    scale = float((singular * sign).sum() / variance) if with_scale and variance > 0 else 1.0
    return Similarity(scale, rotation, mean_b - scale * rotation @ mean_a)


def evaluate_poses(
    estimated: Mapping[str, Float64Array],
    truth: Mapping[str, Float64Array],
    thresholds_deg: Sequence[int] = (5, 10, 20, 30),
) -> PoseReport:
    """All figures of ``estimated`` against ``truth`` (``cam_from_world`` ``[3, 4]`` by photo name)."""
    rotation_error, direction_error = pairwise_errors(estimated, truth)
    worst = np.maximum(rotation_error, direction_error)
    names = [name for name in sorted(truth) if name in estimated]
    ate = ate_rigid = scale = float("nan")
    true_centres = np.array([_centre(pose) for pose in truth.values()])
    if len(names) >= 3:
        source = np.array([_centre(estimated[name]) for name in names])
        target = np.array([_centre(truth[name]) for name in names])
        similarity = align(source, target)
        ate, ate_rigid = (
            float(np.sqrt(((fit.apply(source) - target) ** 2).sum(axis=1).mean()))
            for fit in (similarity, align(source, target, with_scale=False))
        )
        scale = similarity.scale
    finite = np.isfinite(worst)
    return PoseReport(
        num_views=len(truth),
        num_registered=len(names),
        num_pairs=len(worst),
        auc_exact={t: auc_exact(worst, t) for t in thresholds_deg},
        auc_histogram={t: auc_histogram(worst, t) for t in thresholds_deg},
        median_rotation_deg=float(np.median(rotation_error[finite])) if finite.any() else float("nan"),
        median_direction_deg=float(np.median(direction_error[finite])) if finite.any() else float("nan"),
        ate_rmse=ate,
        ate_rigid_rmse=ate_rigid,
        extent=float(np.linalg.norm(np.ptp(true_centres, axis=0))),
        scale=scale,
        recall=tuple(float((worst <= t).mean()) for t in range(1, max(thresholds_deg) + 1)) if len(worst) else (),
    )


def _relative(cam1_from_world: Float64Array, cam2_from_world: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Rotation [..., 3, 3] and translation [..., 3] of cam2_from_cam1, of poses [..., 3, 4]."""
    rotation = cam2_from_world[..., :3] @ cam1_from_world[..., :3].swapaxes(-1, -2)
    moved = (rotation @ cam1_from_world[..., 3:])[..., 0]
    return rotation, cam2_from_world[..., 3] - moved


def _centre(cam_from_world: Float64Array) -> Float64Array:
    return -cam_from_world[:, :3].T @ cam_from_world[:, 3]
