"""Four pose answers become one pose, or a reason why not."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from recon.evidence.poses import ask_pose
from recon.questions.pose import rotation_angle_deg, rotation_from_euler
from recon.questions.profile import PUBLIC_PROFILES, default_profile
from recon.types import Question, Rejected, RelativePose
from tests.evidence.oracle import OracleEngine, pair


def ask(changes: dict[str, str] | None = None, profile=None, swapped: bool = False, confidence: float = 1.0):
    rejected: list[Rejected] = []
    a, b = pair()[::-1] if swapped else pair()

    def change(question: Question, text: str) -> str:
        return (changes or {}).get(question.kind, text)

    engine = OracleEngine(
        profile or PUBLIC_PROFILES["facebook/VLM3-pose"], pair(), confidence=confidence, distort_text=change
    )
    result = ask_pose(engine, a.view, a.pixels, a.camera, b.view, b.pixels, b.camera, rejected.append)
    return result, rejected


@pytest.mark.parametrize("profile", [PUBLIC_PROFILES["facebook/VLM3-pose"], default_profile("recon-1", "ours")])
def test_pose_agrees_with_the_scene(profile) -> None:
    result, rejected = ask(profile=profile)
    assert isinstance(result, RelativePose)
    assert rejected == []
    centre = np.array([-0.6, 0.1, 0.3])
    assert rotation_angle_deg(result.rotation_cam1_from_cam2.T @ rotation_from_euler(9.0, -4.0, 5.0)) < 0.15
    assert result.direction1 @ centre / np.linalg.norm(centre) > np.cos(np.radians(0.75))
    assert np.linalg.norm(result.direction1) == pytest.approx(1.0)
    assert result.distance_m == pytest.approx(np.linalg.norm(centre), abs=0.0051)
    assert result.rotation_sigma_deg == profile.pose.rotation_sigma_deg
    assert (result.name1, result.name2) == ("0.jpg", "1.jpg")


def test_the_other_order_gives_the_inverse() -> None:
    forward, _ = ask()
    backward, _ = ask(swapped=True)
    assert rotation_angle_deg(forward.rotation_cam1_from_cam2 @ backward.rotation_cam1_from_cam2) < 0.3
    np.testing.assert_allclose(-forward.rotation_cam1_from_cam2.T @ forward.direction1, backward.direction1, atol=0.02)


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("rotation_angle", "Rotation angle: 89.7 degrees", "89.7 degrees disagrees"),
        ("rotation_angle", "it turned", "rotation_angle: the answer is 'it turned'"),
        ("euler_natural", "Yaw=+1e400°, Pitch=+2.6°, Roll=+6.1°", "euler_natural: .* out of range"),
        ("euler_natural", "", "euler_natural: the answer is empty"),
        ("translation_direction", "unit vector (-2.00, +0.16, +0.44).", "has length 1"),
        ("translation_direction", "The camera moves right, unit vector (-0.89, +0.15, +0.44).", "is called 'right'"),
    ],
)
def test_contradictions_are_rejected_with_the_reason(kind: str, text: str, reason: str) -> None:
    result, rejected = ask({kind: text})
    assert result is None
    (rejection,) = rejected
    assert rejection.name == "0.jpg - 1.jpg"
    assert re.search(reason, rejection.reason)
    assert "\n" not in rejection.reason


@pytest.mark.parametrize("text", ["Translation distance: 0.00 meters", "Translation distance: -3 meters", "unsure"])
def test_an_unusable_distance_leaves_the_pose_without_scale(text: str) -> None:
    result, _ = ask({"translation_distance": text})
    assert np.isnan(result.distance_m)
    assert np.isinf(result.distance_log_sigma)


def test_unsure_answers_have_larger_errors() -> None:
    sure, _ = ask()
    unsure, _ = ask(confidence=0.25)
    for name in ("rotation_sigma_deg", "direction_sigma_deg", "distance_log_sigma"):
        assert getattr(unsure, name) == pytest.approx(2 * getattr(sure, name))


def test_trust_comes_from_the_profile() -> None:
    doubtful = dataclasses.replace(default_profile("recon-1", "ours"), trusted_on_photos=False)
    result, _ = ask(profile=doubtful)
    assert (result.trusted, result.source) == (False, "vlm:ours")
