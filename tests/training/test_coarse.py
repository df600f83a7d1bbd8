"""Coarse labels: within their steps of the exact ones, and written as answers that can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recon.errors import BadInputError
from recon.questions import pose
from recon.questions.dialects import POSE_KINDS, get_dialect
from recon.training.coarse import DIRECTIONS, DISTANCES_M, coarse_length, coarse_motion
from recon.training.mixture_file import parse_mixture


@pytest.mark.parametrize(
    ("metres", "expected"), [(0.01, 0.05), (0.33, 0.35), (0.61, 0.6), (1.26, 1.3), (2.49, 2.5), (3.31, 3.4)]
)
def test_lengths_are_rounded_to_about_a_tenth(metres: float, expected: float) -> None:
    assert coarse_length(metres) == pytest.approx(expected)


def test_some_direction_is_near_any() -> None:
    assert DIRECTIONS.shape == (42, 3)
    np.testing.assert_allclose(np.linalg.norm(DIRECTIONS, axis=1), 1.0)
    drawn = np.random.default_rng(0).normal(size=(4000, 3))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    assert np.degrees(np.arccos((drawn @ DIRECTIONS.T).max(axis=1))).max() < 21


def test_coarse_motions_stay_near_and_can_be_read() -> None:
    rng, dialect = np.random.default_rng(1), get_dialect("recon-1")
    for _ in range(50):
        exact = np.column_stack([pose.rotation_from_euler(*rng.uniform(-40, 40, 3)), rng.normal(0, 0.7, 3)])
        coarse = coarse_motion(exact)
        turned = np.array(pose.euler_from_rotation(coarse[:, :3])) - pose.euler_from_rotation(exact[:, :3])
        assert np.abs(turned).max() <= 2 + 1e-6
        ratio = np.linalg.norm(coarse[:, 3]) / np.clip(np.linalg.norm(exact[:, 3]), DISTANCES_M[0], DISTANCES_M[-1])
        assert abs(np.log(ratio)) < 0.21  # half the widest step, from 0.1 to 0.15
        again = coarse_motion(coarse)
        np.testing.assert_allclose(again, coarse, atol=1e-6)
        for question, kind in zip(pose.ask(dialect), POSE_KINDS, strict=True):
            parsed = pose.parse(dialect, question, pose.answer_text(dialect, kind, coarse), [])
            assert parsed.status == "ok"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"task": "depth", "coarse": True}, "coarse: it is for pose and object"),
        ({"task": "pose", "hidden": 0.1}, "hidden: it is for match"),
        ({"task": "match", "hidden": 1.5}, "hidden: found 1.5; accepted: 0 to 1"),
    ],
)
def test_options_of_other_tasks_are_refused(entry: dict[str, Any], message: str) -> None:
    data = {"datasets": {"d": {"rooms": 1, "pool": "p", **entry}}}
    with pytest.raises(BadInputError, match=message):
        parse_mixture(data, Path(), "m.yaml")
