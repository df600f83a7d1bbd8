"""The demo and its comparison with the ground truth."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipelines.asking import AskOptions
from pipelines.compare import compare_all
from pipelines.demo import ROOM, demo_options
from pipelines.reconstruct import reconstruct
from recon.evaluation.compare import CompareOptions


@pytest.mark.slow
def test_the_demo_reconstructs_the_room(tmp_path: Path) -> None:
    """As `make demo` does, with fewer questions."""
    out = tmp_path / "room.ply"
    options = dataclasses.replace(demo_options(out), asking=AskOptions(budget=48), quiet=True)
    summary = reconstruct(options)
    assert summary.scene is not None
    assert summary.scene.scale.is_known
    # the checkpoint answers these too, but by its own measured errors too coarsely for a map
    reasons = {stage.name: stage.reason for stage in summary.stages if stage.status == "skipped"}
    assert "--match-model embedded" in reasons["match answers"]
    assert "--pose-model embedded" in reasons["pose answers"]
    (result,) = compare_all(out, (ROOM,), CompareOptions(points=20_000))
    assert result.poses is not None
    assert result.poses.num_registered == 16
    assert result.poses.auc_exact[5] > 0.95  # measured 0.981
    assert result.scale_error is not None
    assert abs(result.scale_error) < 0.25
