"""What one fixed answer scores on pairs, the best in hindsight: those who have not looked at the photos do no better.

The constant place is the best of a grid of 41 x 41 in the second image, once for the median and once for the mean of
the end-point error. The constant pose is the best of the pairs' own true poses (identity rotation with each of their
directions too), by AUC@30.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recon.evaluation.pair_pose import pair_pose_errors, score_pair_poses
from recon.interop.datasets.records import PairItem

_GRID = 41
_NORMALISED = 1000.0


def constant_match(items: Sequence[PairItem]) -> dict[str, dict[str, float]]:
    """Figures of the best constant places on the visible points, in thousandths of the second image's sides."""
    places = []
    for item in items:
        seen = np.isfinite(item.pixels2).all(axis=1)
        size = np.array([item.camera2.width_px, item.camera2.height_px])
        places.append(item.pixels2[seen] / size * _NORMALISED)
    truth = np.concatenate(places)
    steps = np.linspace(0.0, _NORMALISED, _GRID)
    candidates = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    errors = np.linalg.norm(candidates[:, None] - truth[None], axis=2)  # [candidates, points]
    medians, means = np.median(errors, axis=1), errors.mean(axis=1)
    return {
        "for_median": {"epe_median": float(medians.min()), "epe_mean": float(means[medians.argmin()])},
        "for_mean": {"epe_median": float(medians[means.argmin()]), "epe_mean": float(means.min())},
    }


def constant_pose(items: Sequence[PairItem]) -> dict[str, dict[str, float]]:
    """Figures of the constant pose with the best AUC@30."""
    known = [item.cam1_from_cam2 for item in items if item.cam1_from_cam2 is not None]
    truth = np.array(known)
    rotations, centres = truth[:, :, :3], truth[:, :, 3]
    metric = np.array([item.is_metric for item in items if item.cam1_from_cam2 is not None])
    count = len(truth)
    distance = float(np.median(np.linalg.norm(centres, axis=1)))
    best: dict[str, float] = {}
    for rotation in (np.eye(3), None):
        for candidate in truth:
            turned = candidate[:, :3] if rotation is None else rotation
            errors = pair_pose_errors(
                np.repeat(turned[None], count, axis=0), np.repeat(candidate[None, :, 3], count, axis=0),
                np.full(count, distance), rotations, centres, metric,
            )  # fmt: skip
            scores = score_pair_poses(errors, metric)
            if not best or scores.auc_histogram[30] > best["auc_histogram_30"]:
                best = {
                    "auc_histogram_30": float(scores.auc_histogram[30]),
                    "auc_exact_30": float(scores.auc_exact[30]),
                    "median_rotation_deg": float(scores.median_rotation_deg),
                    "median_direction_deg": float(scores.median_direction_deg),
                    "distance_within": float(scores.distance_within),
                }
    return {"for_auc_30": best}
