"""Pose errors and both AUC protocols against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from recon.errors import BadInputError
from recon.evaluation.pose import align, angle_deg, auc_exact, auc_histogram, evaluate_poses, pairwise_errors


def _poses(num: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        f"{i}": np.column_stack([Rotation.random(random_state=i).as_matrix(), rng.normal(size=3)]) for i in range(num)
    }


def test_auc_by_hand() -> None:
    # Recall rises 0 -> 1/2 on [0, 2] along a line, stays 1/2 on [2, 10]: (0.5 * 2 / 2 + 0.5 * 8) / 10 = 0.45.
    assert auc_exact([2.0, np.inf], 10) == pytest.approx(0.45)
    # Recall (0,0) (1,1/2) (3,1) then flat to 5: 0.25 + 1.5 + 2 = 3.75 of 5.
    assert auc_exact([3.0, 1.0], 5) == pytest.approx(0.75)
    # Bins [0,1) .. [4,5]: cumulative recall 0, 1/2, 1/2, 1, 1 (1 falls in the second bin, 3 in the fourth).
    assert auc_histogram([3.0, 1.0], 5) == pytest.approx(0.6)
    assert auc_histogram([0.5, np.inf], 5) == pytest.approx(0.5)
    assert auc_exact([np.inf, np.inf], 5) == 0.0
    assert np.isnan(auc_exact([], 5))


def test_errors_do_not_depend_on_the_world_frame_or_scale() -> None:
    truth = _poses(5)
    turn, shift = Rotation.from_euler("xyz", [0.3, -1.0, 2.0]).as_matrix(), np.array([1.0, -2.0, 3.0])
    moved = {
        name: np.column_stack([pose[:, :3] @ turn.T, 2.5 * pose[:, 3] - pose[:, :3] @ turn.T @ shift])
        for name, pose in truth.items()
    }

    report = evaluate_poses(moved, truth)

    assert report.median_rotation_deg < 1e-6
    assert report.median_direction_deg < 1e-6
    assert report.scale == pytest.approx(0.4)
    assert report.ate_rmse < 1e-9
    assert report.ate_rigid_rmse > 0.1
    assert report.auc_exact[5] == pytest.approx(1.0, abs=1e-6)


def test_known_rotation_error_and_missing_photo() -> None:
    truth = _poses(4)
    estimated = {name: pose for name, pose in truth.items() if name != "3"}
    off = Rotation.from_euler("z", 7, degrees=True).as_matrix()
    centre = -truth["0"][:, :3].T @ truth["0"][:, 3]
    turned = off @ truth["0"][:, :3]
    estimated["0"] = np.column_stack([turned, -turned @ centre])

    rotation, direction = pairwise_errors(estimated, truth, [("0", "1"), ("1", "2"), ("1", "3")])

    np.testing.assert_allclose(rotation, [7.0, 0.0, np.inf], atol=1e-6)
    np.testing.assert_allclose(direction[1:], [0.0, np.inf], atol=1e-6)
    report = evaluate_poses(estimated, truth)
    assert report.num_registered == 3
    assert report.auc_histogram[30] < 0.5  # three of six pairs have the missing photo


def test_angles_are_exact_at_both_ends() -> None:
    for degrees in (0.0, 1e-5, 90.0, 179.9999, 180.0):
        rotation = Rotation.from_rotvec(np.radians(degrees) * np.array([0.6, 0.0, 0.8])).as_matrix()
        assert angle_deg(rotation) == pytest.approx(degrees, abs=1e-6)


def test_alignment_never_mirrors() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 3))
    fit = align(points, points * [1, 1, -1])
    assert np.linalg.det(fit.rotation) == pytest.approx(1.0)
    with pytest.raises(BadInputError, match="at least 3"):
        align(points[:2], points[:2])
