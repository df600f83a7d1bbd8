"""Constants for pairs: the best in hindsight, on cases that can be worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.pair_constants import constant_match, constant_pose
from recon.interop.datasets.records import PairItem
from recon.questions.pose import rotation_from_euler
from recon.types import Camera

CAMERA = Camera.pinhole(200, 100, 150.0, 150.0, 100.0, 50.0)


def _pair(pixels2: list[tuple[float, float]], yaw_deg: float = 0.0, direction: tuple[float, float, float] = (1, 0, 0),
          distance_m: float = 1.0) -> PairItem:  # fmt: skip
    places = np.array(pixels2, np.float64).reshape(-1, 2)
    pose = np.column_stack([rotation_from_euler(yaw_deg, 0, 0), np.array(direction, np.float64) * distance_m])
    nowhere = Path("none.png")
    return PairItem("a", "b", nowhere, nowhere, CAMERA, CAMERA, np.zeros_like(places), places, pose, True, "s", 1)


def test_the_best_constant_place() -> None:
    # in thousandths: (500, 500) twice and (500, 900); hidden points do not count
    pairs = [_pair([(100, 50), (np.nan, np.nan)]), _pair([(100, 50), (100, 90)])]
    found = constant_match(pairs)
    assert found["for_median"]["epe_median"] == pytest.approx(0.0)
    assert found["for_mean"]["epe_mean"] == pytest.approx(400 / 3)


def test_the_best_constant_pose() -> None:
    pairs = [_pair([], yaw_deg=10.0), _pair([], yaw_deg=10.0), _pair([], yaw_deg=-80.0, direction=(0, 0, 1))]
    found = constant_pose(pairs)["for_auc_30"]
    # two of three are met exactly
    assert found["auc_histogram_30"] == pytest.approx(2 / 3)
    assert found["median_rotation_deg"] == pytest.approx(0.0, abs=1e-6)
    assert found["distance_within"] == pytest.approx(1.0)
