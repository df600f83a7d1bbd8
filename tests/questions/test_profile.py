from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recon.errors import BadInputError, CheckpointError
from recon.questions.profile import PUBLIC_PROFILES, CheckpointProfile, default_profile, load_profile, with_thinking
from recon.types import Task

GOOD: dict[str, Any] = {
    "format": 1,
    "name": "embedded",
    "dialect": "recon-1",
    "license": "Apache-2.0",
    "trained_on": "procedural rooms",
    "trusted_on_photos": False,
    "tasks": {
        "depth": {
            "image": {"mode": "focal", "target_px": 224},
            "depth_kind": "z",
            "range_m": [0.1, 50],
            "log_sigma": 0.3,
            "max_new_tokens": 12,
        },
        "match": {"image": {"mode": "focal", "target_px": 224}, "sigma_px": 4.0, "max_new_tokens": 8},
    },
}


PUBLIC_PAIRS: tuple[tuple[str, Task], ...] = (("corr", "match"), ("pose", "pose"))


def test_reads_what_it_writes(tmp_path: Path) -> None:
    for profile in [*PUBLIC_PROFILES.values(), default_profile("recon-1", "x"), CheckpointProfile.from_json(GOOD)]:
        path = tmp_path / "vlm3_profile.json"
        path.write_text(json.dumps(profile.to_json()), encoding="utf-8")
        assert load_profile(path) == profile


def test_thinking_needs_room() -> None:
    thinking = with_thinking(PUBLIC_PROFILES["facebook/VLM3-corr"])
    assert (thinking.match.think, thinking.match.max_new_tokens) == (True, 2048)
    assert CheckpointProfile.from_json(thinking.to_json()) == thinking
    with pytest.raises(BadInputError, match="'recon-1' has no match question"):
        with_thinking(default_profile("recon-1", "x"))


def test_offers_only_its_tasks() -> None:
    profile = CheckpointProfile.from_json(GOOD)
    assert profile.depth.range_m == (0.1, 50.0)
    with pytest.raises(CheckpointError, match=r"'embedded' answers no pose questions, only: depth, match"):
        _ = profile.pose


def test_coarse_answers_are_known_by_their_measured_errors() -> None:
    profile = default_profile("recon-1", "x")
    match, pose = profile.match, profile.pose
    fine = replace(match, sigma_px=0.029 * match.image.target_px), replace(pose, rotation_sigma_deg=9.9)
    coarse = replace(match, sigma_px=0.07 * match.image.target_px), replace(pose, rotation_sigma_deg=15.2)
    for (matches, poses), said in ((fine, ("", "")), (coarse, ("7.0% of the focal length", "15 degrees"))):
        changed = replace(profile, tasks={**profile.tasks, "match": matches, "pose": poses})
        for task, words in zip(("match", "pose"), said, strict=True):
            assert words in changed.too_coarse(task)
            assert bool(changed.too_coarse(task)) == bool(words)
        assert not changed.too_coarse("depth")
    assert not any(PUBLIC_PROFILES[f"facebook/VLM3-{name}"].too_coarse(task) for name, task in PUBLIC_PAIRS)


def _changed(path: list[str], value: object) -> dict[str, Any]:
    data = copy.deepcopy(GOOD)
    target = data
    for key in path[:-1]:
        target = target[key]
    if value is None:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], 2, "format 2 is not readable; accepted: 1"),
        (["name"], 5, r"name: found 5; accepted: a text"),
        (["name"], None, "missing name"),
        (["extra"], 1, "unknown extra"),
        (["dialect"], "klingon", "dialect 'klingon' is unknown; accepted: vlm3-released, vlm3-paper, recon-1"),
        (["trusted_on_photos"], 1, "accepted: true or false"),
        (["tasks"], {}, "offers no task"),
        (["tasks"], [], "expected a JSON object, found list"),
        (["tasks", "colour"], {}, "unknown colour"),
        (["tasks", "depth", "log_sigma"], None, r"tasks.depth: missing log_sigma"),
        (["tasks", "depth", "log_sigma"], -1, r"tasks.depth.log_sigma: found -1; accepted: a positive number"),
        (["tasks", "depth", "log_sigma"], float("nan"), "accepted: a positive number"),
        (["tasks", "depth", "sigma"], 1, "unknown sigma"),
        (["tasks", "depth", "range_m"], [5, 1], r"\[smallest, largest\]"),
        (["tasks", "depth", "depth_kind"], "sonar", "accepted: z, ray, auto"),
        (["tasks", "depth", "max_new_tokens"], 1.5, "a positive whole number"),
        (["tasks", "depth", "image", "mode"], "fisheye", "accepted: focal, long_edge"),
        (["tasks", "depth", "image", "target_px"], 0, "a positive number"),
        (["tasks", "depth", "image", "sharpen"], True, "unknown sharpen"),
        (["tasks", "match", "think"], "yes", "true or false"),
        (["measured"], {"delta1": "good"}, "names and numbers"),
    ],
)
def test_names_what_is_wrong(path: list[str], value: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        CheckpointProfile.from_json(_changed(path, value), "folder/vlm3_profile.json")
    assert str(caught.value).startswith("folder/vlm3_profile.json")
    assert "\n" not in str(caught.value)


def test_tasks_must_be_in_the_dialect() -> None:
    data = _changed(["dialect"], "vlm3-paper")
    data["tasks"]["object"] = {"image": {"mode": "focal", "target_px": 1000}, "max_new_tokens": 12}
    with pytest.raises(CheckpointError, match="'vlm3-paper' has no object questions"):
        CheckpointProfile.from_json(data)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]"])
def test_unreadable_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vlm3_profile.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"vlm3_profile\.json"):
        load_profile(path)


def test_missing_file_and_unknown_dialect(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.json"):
        load_profile(tmp_path / "nowhere.json")
    with pytest.raises(BadInputError, match="accepted: vlm3-released"):
        default_profile("klingon", "x")
