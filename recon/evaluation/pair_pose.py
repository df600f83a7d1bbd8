"""Scores of relative-pose answers about single pairs: the pair's error is the larger of the angle of the rotation error
and the angle between the directions of motion; both published AUC protocols of :mod:`recon.evaluation.pose`.

An unparsed rotation or direction is an infinite error. Directions are compared with their sign (a camera that moved the
other way is 180 degrees off; VGGT's code folds that to 0, since an essential matrix does not know it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recon.evaluation.pose import angle_deg, auc_exact, auc_histogram, direction_deg

THRESHOLDS_DEG = (5, 10, 20, 30)
WITHIN = 0.25  # of the true distance


@dataclass(frozen=True)
class PairPoseErrors:
    """Errors of P pairs: angles in degrees ``[P]`` (infinite where unparsed), and ``ratio`` ``[P]``, answered over true
    distance (NaN where either is unknown)."""

    rotation_deg: NDArray[np.float64]
    direction_deg: NDArray[np.float64]
    ratio: NDArray[np.float64]

    @property
    def worst_deg(self) -> NDArray[np.float64]:
        """The larger of the two angles ``[P]``."""
        return np.maximum(self.rotation_deg, self.direction_deg)


@dataclass(frozen=True)
class PairPoseScores:
    """Scores of P pairs. AUCs map a threshold in degrees to an area in [0, 1]: ``auc_exact`` (SuperGlue, LoFTR ...),
    ``auc_histogram`` (PoseDiffusion, VGGT, Depth-Anything-3), ``auc_rotation`` and ``auc_direction`` (histogram, each
    error alone). Medians are over all pairs, an unparsed one being infinite. Distances are scored where the truth is
    metric: ``distance_count`` pairs, the share of them within 25 % (unparsed is wrong), and AbsRel of the parsed.
    """

    count: int
    parse_rate: float
    auc_exact: Mapping[int, float]
    auc_histogram: Mapping[int, float]
    auc_rotation: Mapping[int, float]
    auc_direction: Mapping[int, float]
    median_rotation_deg: float
    median_direction_deg: float
    distance_count: int
    distance_within: float
    distance_abs_rel: float

    def to_json(self) -> dict[str, object]:
        """The scores by name."""
        return asdict(self)


def pair_pose_errors(
    rotation: ArrayLike,
    direction: ArrayLike,
    distance_m: ArrayLike,
    true_rotation: ArrayLike,
    true_centre: ArrayLike,
    is_metric: ArrayLike,
) -> PairPoseErrors:
    """Errors of answered relative poses.

    Args:
        rotation, true_rotation: ``cam1_from_cam2`` rotations ``[P, 3, 3]``; NaN in the answered ones where unparsed.
        direction: answered direction towards camera 2's centre in camera 1's frame ``[P, 3]``; NaN where unparsed.
        distance_m: answered distances ``[P]``; NaN where unparsed.
        true_centre: camera 2's centre in camera 1's frame ``[P, 3]``.
        is_metric: ``[P]`` whether the true centre is in metres.
    """
    answered, pointed = np.asarray(rotation, np.float64), np.asarray(direction, np.float64)
    truth, centre = np.asarray(true_rotation, np.float64), np.asarray(true_centre, np.float64)
    if answered.shape != truth.shape or answered.shape[1:] != (3, 3) or pointed.shape != centre.shape:
        raise ValueError(f"rotations {answered.shape} and {truth.shape}, directions {pointed.shape} and {centre.shape}")
    rotated = angle_deg(answered @ truth.swapaxes(-1, -2))
    moved = direction_deg(pointed, centre)
    moved = np.where(np.isfinite(pointed).all(axis=1), moved, np.inf)
    true_distance = np.where(np.asarray(is_metric, bool), np.linalg.norm(centre, axis=1), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(distance_m, np.float64) / np.where(true_distance > 1e-9, true_distance, np.nan)
    return PairPoseErrors(np.where(np.isfinite(rotated), rotated, np.inf), moved, ratio)


def score_pair_poses(errors: PairPoseErrors, has_distance: ArrayLike) -> PairPoseScores:
    """Scores of P pairs; ``has_distance`` ``[P]`` says which true distances are metric and not zero."""
    worst = errors.worst_deg
    if len(worst) == 0:
        raise ValueError("no pairs to score")
    scored = np.asarray(has_distance, bool)
    ratio = errors.ratio[scored]
    parsed = ratio[np.isfinite(ratio)]
    return PairPoseScores(
        count=len(worst),
        parse_rate=float(np.isfinite(worst).mean()),
        auc_exact={t: auc_exact(worst, t) for t in THRESHOLDS_DEG},
        auc_histogram={t: auc_histogram(worst, t) for t in THRESHOLDS_DEG},
        auc_rotation={t: auc_histogram(errors.rotation_deg, t) for t in THRESHOLDS_DEG},
        auc_direction={t: auc_histogram(errors.direction_deg, t) for t in THRESHOLDS_DEG},
        median_rotation_deg=float(np.median(errors.rotation_deg)),
        median_direction_deg=float(np.median(errors.direction_deg)),
        distance_count=int(scored.sum()),
        distance_within=float((np.abs(ratio - 1) <= WITHIN).mean()) if len(ratio) else float("nan"),
        distance_abs_rel=float(np.abs(parsed - 1).mean()) if len(parsed) else float("nan"),
    )
