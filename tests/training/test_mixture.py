"""Mixtures: reproducible by index, weights respected, files checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from recon.errors import BadInputError
from recon.training.mixture import Mixture, load_mixture, parse_mixture

TWO = {
    "small": {"task": "depth", "rooms": 10, "pool": "p", "weight": 1},
    "large": {"task": "depth", "rooms": 30, "pool": "p", "weight": 9},
}


@pytest.mark.parametrize(("weights", "share"), [("uniform", 0.5), ("by-size", 0.75), ("explicit", 0.9)])
def test_shares_follow_the_weighting(tmp_path: Path, weights: str, share: float) -> None:
    mixture = parse_mixture({"weights": weights, "datasets": TWO}, tmp_path, "m.yaml")
    np.testing.assert_allclose(mixture.shares, [1 - share, share])
    drawn = np.mean([mixture.dataset_of(index).name == "large" for index in range(4000)])
    assert abs(drawn - share) < 0.03  # 4 standard deviations of a share of 0.5 in 4000 draws


def test_a_sample_is_a_function_of_its_index(mixture: Mixture) -> None:
    forward = [mixture.sample(index) for index in range(6)]
    backward = [mixture.sample(index) for index in reversed(range(6))][::-1]
    for first, second in zip(forward, backward, strict=True):
        assert first.lessons == second.lessons
        assert first.dataset == second.dataset
        np.testing.assert_array_equal(first.images[0].pixels, second.images[0].pixels)
    assert forward[0].lessons != forward[4].lessons  # the same room again: other questions


def test_mirrored_views_have_mirrored_depth_and_camera(views: list[Any]) -> None:
    view, mirrored = views[0], views[0].flipped()
    camera, other = view.image.camera, mirrored.image.camera
    assert other.fx_fy_cx_cy[2] == pytest.approx(camera.width_px - camera.fx_fy_cx_cy[2])
    np.testing.assert_array_equal(mirrored.depth_m[:, 0], view.depth_m[:, -1])
    np.testing.assert_array_equal(mirrored.image.pixels[5, 0], view.image.pixels[5, -1])


def test_pools_are_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(yaml.safe_dump({"datasets": TWO}))
    assert load_mixture(path).datasets[0].pool == tmp_path / "p"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "tuned"}, "accepted: uniform, by-size, explicit"),
        ({"seed": -1}, "seed is -1"),
        ({"dialect": "klingon"}, "klingon"),
        ({"datasets": {}}, "at least one data set"),
        ({"colour": 1}, "unknown colour"),
        ({"datasets": {"a": {"task": "smell", "rooms": 1, "pool": "p"}}}, "datasets.a.task: found 'smell'"),
        ({"datasets": {"a": {"task": "depth", "pool": "p"}}}, "missing rooms"),
        ({"datasets": {"a": {"task": "depth", "rooms": 0, "pool": "p"}}}, "rooms: found 0"),
        ({"datasets": {"a": {"task": "depth", "rooms": "many", "pool": "p"}}}, "wrong kind"),
        ({"datasets": {"a": {"task": "depth", "rooms": 1, "pool": "p", "split": "test"}}}, "train, validation"),
        ({"datasets": {"a": {"task": "depth", "rooms": 1, "pool": "p", "weight": -1}}}, "not negative"),
        ({"datasets": {"a": {"task": "depth", "rooms": 1, "pool": "p", "round_m": -1}}}, "round_m: found -1"),
    ],
)
def test_bad_mixtures_are_refused_with_the_reason(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        parse_mixture({"datasets": TWO} | change, tmp_path, "m.yaml")


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("a: [1")
    with pytest.raises(BadInputError, match=r"m\.yaml"):
        load_mixture(path)
