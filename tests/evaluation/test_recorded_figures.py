"""What the benchmark of a checkpoint writes into its profile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.eval_embedded import checkpoint_folder, record
from recon.errors import BadInputError
from recon.questions.profile import default_profile, load_profile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    profile = default_profile("recon-1", "test")
    (tmp_path / "vlm3_profile.json").write_text(json.dumps(profile.to_json()), encoding="utf-8")
    return tmp_path


def test_validation_worlds_give_the_errors_that_evidence_is_weighed_by(folder: Path) -> None:
    figures = {
        "depth": {"silog": 31.2},
        "match": {"epe_median_px": 2.3548},
        "pose": {"median_rotation_deg": 2.0, "median_direction_deg": 10.0, "distance_abs_rel": 0.25},
        "object": {"qualitative": 0.9},
    }
    record(checkpoint_folder(str(folder)), "validation", {task: {"figures": part} for task, part in figures.items()})
    profile = load_profile(folder / "vlm3_profile.json")
    assert profile.depth.log_sigma == pytest.approx(0.312)
    assert profile.match.sigma_px == pytest.approx(2.0)  # the median length of a 2-D normal error is 1.1774 sigma
    assert profile.pose.rotation_sigma_deg == pytest.approx(2.97)
    assert profile.pose.direction_sigma_deg == pytest.approx(14.83)
    assert profile.pose.distance_log_sigma == pytest.approx(0.25)
    assert not profile.measured


def test_a_task_that_nothing_was_parsed_of_keeps_its_errors(folder: Path) -> None:
    before = load_profile(folder / "vlm3_profile.json")
    nothing = {"median_rotation_deg": None, "median_direction_deg": None, "distance_abs_rel": None}
    reports = {"match": {"figures": {"epe_median_px": None}}, "pose": {"figures": nothing}}
    reports["depth"] = {"figures": {"silog": None}}
    record(folder, "validation", reports)
    assert load_profile(folder / "vlm3_profile.json") == before


def test_test_worlds_give_figures_for_the_record(folder: Path) -> None:
    depth = {
        "figures": {"delta1": 0.61234, "abs_rel": 0.2},
        "best_constants_in_hindsight": {"for_delta1": {"delta1": 0.4}, "for_abs_rel": {"abs_rel": 0.35}},
    }
    pose = {"figures": {"auc_histogram_30": 0.5, "auc_exact_30": None}}
    record(folder, "test", {"depth": depth, "pose": pose})
    assert load_profile(folder / "vlm3_profile.json").measured == {
        "test_depth_delta1": 0.6123,
        "test_depth_abs_rel": 0.2,
        "test_depth_delta1_of_best_constant": 0.4,
        "test_depth_abs_rel_of_best_constant": 0.35,
        "test_pose_auc30_histogram": 0.5,
    }
    with pytest.raises(BadInputError, match="needs a checkpoint folder"):
        checkpoint_folder("facebook/VLM3-depth")
