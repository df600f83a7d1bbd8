"""Real photos from end to end, held to their ground truth. The checkpoint says nothing of use here: it is untrained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.cli import parse
from pipelines.compare import compare_all
from pipelines.options import Options
from pipelines.reconstruct import reconstruct
from pipelines.summary import Summary
from recon.evaluation.compare import CompareOptions
from recon.evaluation.pose import evaluate_poses
from recon.interop.colmap import read_ground_truth
from recon.interop.meshes import read_mesh
from tests.helpers import shared_data

pytestmark = pytest.mark.slow


def run(scene: Path, out: Path, checkpoint: Path, *more: str) -> Summary:
    """Reconstructs with few questions and small depth maps."""
    line = [str(scene), "--out", str(out), "--model", str(checkpoint), "--budget", "1", "--device", "cpu", "--quiet"]
    return reconstruct(parse(Options, "reconstruct", [*line, *more]))


def test_fountain_from_photos_alone(tmp_path: Path, mute_checkpoint: Path) -> None:
    folder = shared_data("fountain-P11")
    out = tmp_path / "fountain.ply"
    options = ["--surface.multiview.work-px", "192", "--mapping.features.max-features", "3000"]
    summary = run(folder / "images", out, mute_checkpoint, *options)
    assert summary.scene is not None
    assert summary.num_registered == 11
    assert not summary.scene.scale.is_known
    cameras, truth, _ = read_ground_truth(folder / "gt" / "cameras.json")
    report = evaluate_poses({view.name: view.cam_from_world for view in summary.scene.views}, truth)
    assert report.auc_exact[5] >= 0.93
    assert summary.scene.views[0].camera.focal_px == pytest.approx(cameras["0000.jpg"].focal_px, rel=0.01)
    assert len(read_mesh(out).faces) == summary.faces > 1000


def test_kitchen_with_sensor_depth(tmp_path: Path, mute_checkpoint: Path) -> None:
    """RGB-D: all frames placed, metric, and a mesh as good as the truth's own poses allow."""
    folder = shared_data("redkitchen-a")
    scene = tmp_path / "scene"
    shutil.copytree(folder / "images", scene / "images")
    shutil.copytree(folder / "gt" / "depth", scene / "depth")
    out = tmp_path / "kitchen.ply"
    summary = run(scene, out, mute_checkpoint, "--surface.multiview.work-px", "320")
    assert summary.scene is not None
    assert summary.num_registered == 30, [row for row in summary.photos() if not row["registered"]]
    assert summary.scene.scale.is_known
    (result,) = compare_all(out, (folder,), CompareOptions(thresholds=(0.05,), points=50_000))
    assert result.scale_error is not None
    assert abs(result.scale_error) < 0.03  # measured -0.003
    assert result.surface is not None
    accuracy, completeness = result.surface.scores.scores.precision[0], result.surface.scores.scores.recall[0]
    assert accuracy > 0.7  # measured 0.93
    assert completeness > 0.7  # measured 0.97
