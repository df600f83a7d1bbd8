"""Match answers become verified correspondences of the photos; wrong ones do not survive the way back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recon.cameras.pinhole import project, unproject
from recon.evidence.matches import ask_matches
from recon.questions.profile import CheckpointProfile, default_profile
from recon.types import Matches, Question
from tests.evidence.oracle import OracleEngine, pair, plane_z


def profile_with(dialect: str, sigma_px: float = 4.0) -> CheckpointProfile:
    profile = default_profile(dialect, "oracle")
    return dataclasses.replace(
        profile, tasks={**profile.tasks, "match": dataclasses.replace(profile.match, sigma_px=sigma_px)}
    )


def ask(profile: CheckpointProfile, budget: int = 150, swapped: bool = False, masks=(None, None), **options) -> Matches:
    a, b = pair()[::-1] if swapped else pair()
    engine = OracleEngine(profile, pair(), **options)
    return ask_matches(
        engine, a.view, a.pixels, a.camera, b.view, b.pixels, b.camera, budget, masks[0], masks[1], progress=None
    )


def true_partners(matches: Matches, swapped: bool = False) -> np.ndarray:
    a, b = pair()[::-1] if swapped else pair()
    points_a = unproject(a.camera, matches.pixels1, plane_z(a.camera, matches.pixels1, a.cam_from_cam1))
    points_1 = (points_a - a.cam_from_cam1[:, 3]) @ a.cam_from_cam1[:, :3]
    return project(b.camera, points_1 @ b.cam_from_cam1[:, :3].T + b.cam_from_cam1[:, 3])


@pytest.mark.parametrize("swapped", [False, True])
def test_matches_agree_with_the_scene(swapped: bool) -> None:
    matches = ask(profile_with("recon-1"), swapped=swapped)
    assert (matches.name1, matches.name2) == (("1.jpg", "0.jpg") if swapped else ("0.jpg", "1.jpg"))
    assert 40 < len(matches.score) <= matches.num_asked == matches.num_parsed <= 150
    error_px = np.linalg.norm(true_partners(matches, swapped) - matches.pixels2, axis=1)
    assert error_px.max() < 0.75  # half a text step is 0.3 px of these photos in each direction, plus the lens
    assert (matches.score > 0.9).all()
    assert (matches.score <= 1).all()


def test_released_dialect() -> None:
    # every point must be visible: the released dialect can't say otherwise
    first = pair()[0]
    mask = np.zeros((first.camera.height_px, first.camera.width_px), dtype=bool)
    mask[150:330, 250:400] = True
    matches = ask(profile_with("vlm3-released", sigma_px=12.0), masks=(mask, None))
    assert len(matches.score) > 100
    error_px = np.linalg.norm(true_partners(matches) - matches.pixels2, axis=1)
    assert error_px.max() < 0.75


def test_wrong_answers_do_not_come_back() -> None:
    rng = np.random.default_rng(0)

    def spoil(question: Question, text: str) -> str:
        return f"x{rng.integers(1001)} y{rng.integers(1001)}" if rng.random() < 0.3 else text

    matches = ask(profile_with("recon-1"), distort_text=spoil)
    spoiled = ask(profile_with("recon-1"), distort_text=lambda question, text: f"x{rng.integers(1001)} y5")
    error_px = np.linalg.norm(true_partners(matches) - matches.pixels2, axis=1)
    assert len(matches.score) > 20
    assert np.mean(error_px < 1) > 0.95
    assert len(spoiled.score) < 0.1 * spoiled.num_asked


def test_the_score_falls_with_confidence() -> None:
    sure, unsure = ask(profile_with("recon-1")), ask(profile_with("recon-1"), confidence=0.5)
    np.testing.assert_allclose(unsure.score, 0.5 * sure.score)


def test_masks_hold_in_both_photos() -> None:
    first, second = pair()
    mask1 = np.zeros((first.camera.height_px, first.camera.width_px), dtype=bool)
    mask1[:, 200:] = True
    mask2 = np.ones((second.camera.height_px, second.camera.width_px), dtype=bool)
    mask2[320:, :] = False
    matches = ask(profile_with("recon-1"), masks=(mask1, mask2))
    assert len(matches.score) > 10
    assert (matches.pixels1[:, 0] > 198).all()
    assert (matches.pixels2[:, 1] < 322).all()


@pytest.mark.parametrize("text", ["not visible", "no idea"])
def test_nothing_visible_is_an_empty_result(text: str) -> None:
    matches = ask(profile_with("recon-1"), distort_text=lambda question, _: text)
    assert len(matches.score) == 0
    assert matches.pixels1.shape == matches.pixels2.shape == (0, 2)
    assert matches.num_parsed == (matches.num_asked if text == "not visible" else 0)


def test_progress_counts_both_ways() -> None:
    a, b = pair()
    calls: list[tuple[int, int]] = []
    engine = OracleEngine(profile_with("recon-1"), pair())
    ask_matches(
        engine, a.view, a.pixels, a.camera, b.view, b.pixels, b.camera, 30,
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    done = [call[0] for call in calls]
    assert done == list(range(1, len(done) + 1))
    assert calls[-1][0] == calls[-1][1]
    assert engine.num_calls == 2
