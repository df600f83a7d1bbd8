"""The evaluation reads and scores real curated data (skipped where they are absent)."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipelines.eval.command import Options, evaluate
from recon.interop.datasets.depth_file import read_depth_file
from recon.interop.datasets.ground_truth_pairs import read_ground_truth_pairs
from recon.questions.pose import rotation_angle_deg
from tests.helpers import shared_data


def test_ibims_labels_are_read_without_fault_and_scored() -> None:
    folder = shared_data("ibims1")
    reading = read_depth_file(folder / "gt" / "labels.jsonl", strict=True)
    assert len(reading.items) == 30
    assert sum(len(item.pixels) for item in reading.items) == 3000
    first = json.loads((folder / "gt" / "labels.jsonl").read_text().splitlines()[0])
    np.testing.assert_allclose(reading.items[0].pixels - 0.5, first["pixel_coords"])
    report = evaluate(Options("depth", data=str(folder), baseline="constant", resamples=20, quiet=True))
    assert report.num_questions == 3000
    # measured: 0.3597 with 2.919 m everywhere
    assert report.scores.figures["delta1"] == pytest.approx(0.3597, abs=1e-3)


def test_scannet_pairs_are_as_wide_as_they_say() -> None:
    folder = shared_data("scannet-pairs")
    path = folder / "gt" / "pairs.json"
    items = read_ground_truth_pairs(path, strict=True).items
    said = json.loads(path.read_text())["pairs"]
    assert len(items) == 8
    for item, pair in zip(items, said, strict=True):
        assert item.cam1_from_cam2 is not None
        assert item.is_metric
        assert rotation_angle_deg(item.cam1_from_cam2[:, :3]) == pytest.approx(pair["angle_deg"], abs=0.05)
        assert np.linalg.norm(item.cam1_from_cam2[:, 3]) == pytest.approx(pair["baseline_m"], abs=1e-3)
