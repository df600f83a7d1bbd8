"""Depth answers become measurements at the right pixels of the photo, in the right kind, with honest errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recon.errors import CheckpointError
from recon.evidence.depth import ask_depth, sensor_samples, z_depth_m
from recon.questions.profile import PUBLIC_PROFILES, CheckpointProfile, default_profile
from recon.types import DepthSamples, Question
from tests.evidence.oracle import DISTORTED, OracleEngine, pair, plane_z


def profile_with(dialect: str, **depth_settings) -> CheckpointProfile:
    profile = default_profile(dialect, "oracle")
    depth = dataclasses.replace(profile.depth, **depth_settings)
    return dataclasses.replace(profile, tasks={**profile.tasks, "depth": depth})


def ask(profile: CheckpointProfile, budget: int = 200, mask=None, **engine_options) -> DepthSamples:
    first = pair()[0]
    engine = OracleEngine(profile, pair(), **engine_options)
    return ask_depth(engine, first.view, first.pixels, first.camera, budget, mask)


@pytest.mark.parametrize("dialect", ["vlm3-released", "vlm3-paper", "recon-1"])
@pytest.mark.parametrize("kind", ["z", "ray"])
def test_samples_agree_with_the_scene(dialect: str, kind: str) -> None:
    samples = ask(profile_with(dialect, depth_kind=kind), depth_kind=kind)
    assert samples.depth_kind == kind
    assert not samples.depth_kind_is_assumed
    assert 100 < len(samples.depth_m) <= samples.num_asked == samples.num_parsed <= 200
    truth = plane_z(DISTORTED, samples.pixels, np.eye(3, 4))
    # two decimals; the photo's pixels carry no error beyond the lens model's
    np.testing.assert_allclose(z_depth_m(samples, DISTORTED), truth, atol=0.0055)
    assert (samples.pixels >= 0).all()
    assert (samples.pixels < [DISTORTED.width_px, DISTORTED.height_px]).all()
    assert samples.focal_px == DISTORTED.focal_px
    np.testing.assert_allclose(samples.log_sigma, 0.3)
    assert samples.source == "vlm:oracle"


def test_a_refined_focal_length_rescales_metric_answers() -> None:
    samples = ask(profile_with("recon-1", depth_kind="z"))
    longer = dataclasses.replace(DISTORTED, params=(1040.0, 1030.0, *DISTORTED.params[2:]))
    np.testing.assert_allclose(z_depth_m(samples, longer), 2 * samples.depth_m)


def test_unusable_answers_are_left_out_and_counted() -> None:
    texts = iter(["far away", "-2.00", "1e400", "", "0.01", "700.00", "NaN"] * 1000)

    def spoil(question: Question, text: str) -> str:
        return next(texts) if hash(question.text) % 2 == 0 else text

    samples = ask(profile_with("recon-1", depth_kind="z"), distort_text=spoil)
    assert 0 < len(samples.depth_m) < samples.num_parsed < samples.num_asked
    truth = plane_z(DISTORTED, samples.pixels, np.eye(3, 4))
    np.testing.assert_allclose(samples.depth_m, truth, atol=0.0055)


def test_nothing_usable_is_an_empty_result() -> None:
    samples = ask(profile_with("recon-1"), distort_text=lambda question, text: "no idea")
    assert (len(samples.depth_m), samples.num_parsed) == (0, 0)
    assert samples.pixels.shape == (0, 2)


def test_unsure_answers_have_larger_errors() -> None:
    samples = ask(profile_with("recon-1"), confidence=0.25)
    np.testing.assert_allclose(samples.log_sigma, 0.6)


def test_masks_are_of_the_photo() -> None:
    mask = np.zeros((480, 640), dtype=bool)
    mask[100:300, 50:200] = True
    samples = ask(profile_with("recon-1"), mask=mask)
    column, row = samples.pixels.astype(int).T
    # a text coordinate is up to half a step from the wanted pixel: allow that at the mask's border
    assert mask[row, column].mean() > 0.95
    assert len(samples.depth_m) > 150
    assert len(ask(profile_with("recon-1"), mask=np.zeros_like(mask)).depth_m) == 0
    with pytest.raises(ValueError, match="photo's shape"):
        ask(profile_with("recon-1"), mask=mask.T)


def test_questions_coarse_to_fine_know_the_answers_before_them() -> None:
    first, profile = pair()[0], profile_with("recon-1", depth_kind="z")
    asked = {}
    for planning in ("uniform", "coarse-to-fine"):
        engine = OracleEngine(profile, pair())
        samples = ask_depth(engine, first.view, first.pixels, first.camera, 200, planning=planning)
        asked[planning] = (engine.num_calls, samples)
    assert {planning: calls for planning, (calls, _) in asked.items()} == {"uniform": 1, "coarse-to-fine": 3}
    planned = asked["coarse-to-fine"][1]
    assert 150 < len(planned.depth_m) <= planned.num_asked <= 200
    # three quarters of the budget lie on a coarser grid than all of it
    coarse = ask(profile, budget=150)
    np.testing.assert_array_equal(planned.pixels[: len(coarse.pixels)], coarse.pixels)


def test_checkpoints_without_depth_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"facebook/VLM3-pose.*--depth-model"):
        ask(PUBLIC_PROFILES["facebook/VLM3-pose"])


def test_sensor_depth() -> None:
    first = pair()[0]
    depth_m = np.full((480, 640), np.nan, dtype=np.float32)
    depth_m[100:, :] = np.arange(640, dtype=np.float32)[None] / 100 + 1
    samples = sensor_samples(first.view, depth_m, 300)
    assert 200 < len(samples.depth_m) <= 300
    np.testing.assert_allclose(samples.depth_m, np.floor(samples.pixels[:, 0]) / 100 + 1, rtol=1e-6)
    np.testing.assert_array_equal(z_depth_m(samples, DISTORTED.resized(64, 48)), samples.depth_m)
    assert samples.trusted
