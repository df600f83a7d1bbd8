"""ATE and RPE against evo, alignments against what was done to the cameras, errors worked out by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from recon.evaluation.pose import Similarity
from recon.evaluation.trajectory import align_cameras, centres, move_cameras, score_trajectory
from recon.interop.trajectory import write_tum
from recon.types import Camera, PosedView

CAMERA = Camera.pinhole(64, 48, 50.0, 50.0, 32.0, 24.0)


def cameras(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(count, rng).as_matrix().reshape(count, 3, 3)
    return np.concatenate([rotation, rng.normal(size=(count, 3, 1)) * 3], axis=2)


def similarity(seed: int, scale: float) -> Similarity:
    rng = np.random.default_rng(seed)
    return Similarity(scale, Rotation.random(None, rng).as_matrix(), rng.normal(size=3) * 5)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 1000), count=st.integers(1, 12), scale=st.floats(0.05, 20))
def test_a_moved_world_is_found_again(seed: int, count: int, scale: float) -> None:
    truth = cameras(count, seed)
    true_scale = scale if count > 1 else 1.0
    applied = similarity(seed + 1, true_scale)
    inverse = Similarity(1 / true_scale, applied.rotation.T, -applied.rotation.T @ applied.translation / true_scale)
    found = align_cameras(move_cameras(truth, inverse), truth, with_scale=True).transform
    assert found.scale == pytest.approx(true_scale, rel=1e-6)
    np.testing.assert_allclose(found.rotation, applied.rotation, atol=1e-6)
    np.testing.assert_allclose(found.translation, applied.translation, atol=1e-5 * (1 + true_scale))


def test_cameras_on_a_line_are_turned_by_their_orientations() -> None:
    truth = cameras(5, 3)
    along = np.linspace(0, 4, 5)[:, None] * [1.0, 2.0, -0.5]
    truth[:, :, 3] = -np.einsum("nij,nj->ni", truth[:, :, :3], along)
    applied = similarity(7, 2.0)
    found = align_cameras(move_cameras(truth, applied), truth, with_scale=True)
    assert "on a line" in found.method
    np.testing.assert_allclose(found.transform.rotation, applied.rotation.T, atol=1e-9)
    assert found.transform.scale == pytest.approx(0.5)


def test_scores_by_hand() -> None:
    # three cameras without rotation at (0,0,0), (1,0,0), (1,1,0); the estimate has everything twice as large
    truth = np.tile(np.eye(3, 4), (3, 1, 1))
    truth[:, :, 3] = -np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0]])
    estimate = truth.copy()
    estimate[:, :, 3] *= 2
    free = score_trajectory(estimate, truth, with_scale=True)
    assert free.scale == pytest.approx(0.5)
    assert free.ate.rmse == pytest.approx(0, abs=1e-12)
    assert free.rpe_translation.max == pytest.approx(0, abs=1e-12)
    rigid = score_trajectory(estimate, truth, with_scale=False)
    # rigid: centred points p and 2p differ by |p|; |p|^2 of the three is 5/9, 2/9, 5/9
    assert rigid.ate.rmse == pytest.approx(np.sqrt(12 / 27))
    assert rigid.ate.median == pytest.approx(np.sqrt(5 / 9))
    assert rigid.rpe_translation.rmse == pytest.approx(1.0)  # each step is 1 too long
    assert rigid.rpe_rotation_deg.max == pytest.approx(0, abs=1e-6)


def test_a_turned_camera_shows_in_rotation_only() -> None:
    truth = cameras(6, 5)
    estimate = truth.copy()
    turn = Rotation.from_euler("x", 3, degrees=True).as_matrix()
    estimate[2] = turn @ estimate[2]  # turns about its own centre
    np.testing.assert_allclose(centres(estimate), centres(truth), atol=1e-12)
    scores = score_trajectory(estimate, truth, with_scale=True)
    assert scores.ate.max == pytest.approx(0, abs=1e-9)
    assert scores.rpe_rotation_deg.max == pytest.approx(3.0, abs=1e-6)


@pytest.mark.parametrize("with_scale", [True, False])
def test_agrees_with_evo(with_scale: bool) -> None:
    """The functions behind ``evo_ape`` and ``evo_rpe`` with ``--align`` and ``--align --correct_scale``."""
    from evo import main_ape, main_rpe
    from evo.core.metrics import PoseRelation, Unit
    from evo.core.trajectory import PoseTrajectory3D

    truth = cameras(20, 11)
    noisy = move_cameras(truth, similarity(12, 1.7))
    noise = np.random.default_rng(13).normal(size=(20, 6)) * 0.03
    noisy[:, :, :3] = Rotation.from_rotvec(noise[:, :3]).as_matrix() @ noisy[:, :, :3]
    noisy[:, :, 3] += noise[:, 3:]

    def trajectory(poses: np.ndarray) -> PoseTrajectory3D:
        matrices = np.tile(np.eye(4), (len(poses), 1, 1))
        matrices[:, :3, :3] = poses[:, :, :3].transpose(0, 2, 1)
        matrices[:, :3, 3] = centres(poses)
        return PoseTrajectory3D(poses_se3=list(matrices), timestamps=np.arange(len(poses), dtype=float))

    ours = score_trajectory(noisy, truth, with_scale)
    options = {"align": True, "correct_scale": with_scale}
    ape = main_ape.ape(trajectory(truth), trajectory(noisy), PoseRelation.translation_part, **options)
    for name in ("rmse", "mean", "median", "max"):
        assert getattr(ours.ate, name) == pytest.approx(ape.stats[name], abs=1e-6)
    for relation, errors in (
        (PoseRelation.translation_part, ours.rpe_translation),
        (PoseRelation.rotation_angle_deg, ours.rpe_rotation_deg),
    ):
        rpe = main_rpe.rpe(trajectory(truth), trajectory(noisy), relation, delta=1, delta_unit=Unit.frames, **options)
        for name in ("rmse", "mean", "median", "max"):
            assert getattr(errors, name) == pytest.approx(rpe.stats[name], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["-a"], ["-a", "-s"]])
def test_agrees_with_evos_own_command_on_exported_trajectories(tmp_path: Path, flags: list[str]) -> None:
    truth = cameras(20, 3)
    estimate = move_cameras(truth, similarity(4, 1.0 if flags == ["-a"] else 1.4))
    estimate[:, :, 3] += np.random.default_rng(5).normal(size=(20, 3)) * 0.02
    for name, poses in (("truth", truth), ("estimate", estimate)):
        none = np.empty((0, 2))
        views = [PosedView(f"{i}.jpg", CAMERA, pose, np.empty(0, np.int64), none) for i, pose in enumerate(poses)]
        write_tum(views, tmp_path / f"{name}.txt")
    evo_ape = str(Path(sys.executable).with_name("evo_ape"))
    command = [evo_ape, "tum", "truth.txt", "estimate.txt", *flags, "--save_results", "r.zip"]
    subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, check=True, timeout=300
    )
    with zipfile.ZipFile(tmp_path / "r.zip") as results:
        stats = json.loads(results.read("stats.json"))
    ours = score_trajectory(estimate, truth, with_scale="-s" in flags)
    for name in ("rmse", "mean", "median", "max"):
        assert getattr(ours.ate, name) == pytest.approx(stats[name], abs=1e-6)
