"""Mixtures: reproducible by index, weights respected, files checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from recon.errors import BadInputError
from recon.questions.dialects import Dialect
from recon.training.datasets import RoomDataset
from recon.training.encode import Encoder, Lesson, Sample
from recon.training.mixture import BLOCK, Mixture, MixtureDataset
from recon.training.mixture_file import load_mixture, parse_mixture
from recon.training.sources import BadSampleError, SourceSpec
from recon.training.tokenizer import build_image_processor
from recon.types import UnifiedImage

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
    dataset = load_mixture(path).datasets[0]
    assert isinstance(dataset, RoomDataset)
    assert dataset.pool == tmp_path / "p"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "tuned"}, "accepted: uniform, by-size, explicit"),
        ({"seed": -1}, "seed is -1"),
        ({"dialect": "klingon"}, r"m\.yaml: dialect is 'klingon'"),
        ({"dialect": ["recon-1"]}, "dialect is"),
        ({"datasets": {}}, "at least one data set"),
        ({"colour": 1}, "unknown colour"),
        ({"group": 0}, "group is 0"),
        (
            {"datasets": {"a": {"task": "depth", "rooms": 1, "pool": "p", "views": "things"}}},
            "things are for task object",
        ),
        (
            {"datasets": {"a": {"task": "pose", "rooms": 1, "pool": "p", "image": {"mode": "wide", "target_px": 9}}}},
            r"datasets\.a\.image: .*mode 'wide' is unknown",
        ),
        ({"datasets": {"a": {"task": "pose", "rooms": 1, "pool": "p", "image": {"mode": "focal"}}}}, "target_px"),
        ({"strict": 1}, "strict is 1"),
        (
            {"dialect": "vlm3-paper", "datasets": {"a": {"task": "pose", "rooms": 1, "pool": "p"}}},
            "has no pose questions",
        ),
        ({"datasets": {"a": {"format": "xml", "task": "depth", "path": "p"}}}, "a.format: found 'xml'; accepted"),
        ({"datasets": {"a": {"task": "match", "rooms": 1, "pool": "p", "layout": "loose"}}}, "packed, turns"),
        ({"datasets": {"a": {"task": "match", "rooms": 1, "pool": "p", "round_m": 1}}}, "round_m: it is for depth"),
        ({"datasets": {"a": {"task": "depth", "rooms": True, "pool": "p"}}}, "wrong kind"),
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
    path.write_text("datasets:\n  a: {task: depth, rooms: 1, pool: p}\n  a: {task: pose, rooms: 1, pool: p}\n")
    with pytest.raises(BadInputError, match=r"m\.yaml.*'a' stands twice.*line 3"):
        load_mixture(path)


# ---------------------------------------------------------------------------------------------------------------------
# turns, shards, real data


def _entry(weight: float) -> dict[str, Any]:
    return {"task": "depth", "rooms": 10, "pool": "p", "weight": weight}


@pytest.mark.parametrize("group", [1, 4])
def test_every_block_holds_the_exact_shares_and_turns_have_no_gaps(tmp_path: Path, group: int) -> None:
    entries = {"a": _entry(0.7), "b": _entry(0.29), "c": _entry(0.01), "rare": _entry(1e-6), "off": _entry(0)}
    mixture = parse_mixture({"datasets": entries, "group": group, "seed": 5}, tmp_path, "m.yaml")
    for block in range(2):
        places = [mixture.place_of(index) for index in range(block * BLOCK * group, (block + 1) * BLOCK * group)]
        chosen = np.array([place[0] for place in places])
        counts = np.bincount(chosen, minlength=5) / group
        np.testing.assert_allclose(counts / BLOCK, mixture.shares, atol=1.5 / BLOCK)
        assert counts[3] == 1  # a rare one comes all the same
        assert counts[4] == 0
        for number in range(4):
            turns = [turn for dataset, turn in places if dataset == number]
            first = int(block * counts[number] * group)
            assert sorted(turns) == list(range(first, first + len(turns)))
        assert (chosen.reshape(-1, group) == chosen[::group, None]).all()


def test_shards_together_are_the_whole_and_any_place_can_be_resumed(
    mixture: Mixture, tokenizer: PreTrainedTokenizerFast
) -> None:
    encoder = Encoder(tokenizer, build_image_processor(), int(tokenizer.convert_tokens_to_ids("<|image_pad|>")))
    whole = MixtureDataset(mixture, encoder, 10)
    shards = [MixtureDataset(mixture, encoder, 10, rank, 3) for rank in range(3)]
    assert [len(shard) for shard in shards] == [4, 3, 3]
    for index in reversed(range(10)):
        expected, found = whole[index], shards[index % 3][index // 3]
        assert expected.dataset == found.dataset
        for one, other in zip(expected.suffixes, found.suffixes, strict=True):
            assert one.tolist() == other.tolist()
    with pytest.raises(ValueError, match="rank must be from 0 to 2"):
        MixtureDataset(mixture, encoder, 10, 3, 3)


class _Flawed:
    """A source of five items of which items 1 and 2 are broken."""

    def __init__(self, image: UnifiedImage, broken: tuple[int, ...] = (1, 2)) -> None:
        self.image, self.broken = image, broken

    def __len__(self) -> int:
        return 5

    def sample(self, dialect: Dialect, turn: int, rng: np.random.Generator) -> Sample:
        if turn % 5 in self.broken:
            raise BadSampleError(f"labels.jsonl line {turn % 5 + 1}: the image is damaged")
        return Sample((self.image,), (Lesson(f"item {turn % 5}?", "yes"),), "")


def _real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: _Flawed, **keys: Any) -> Mixture:
    seen: list[SourceSpec] = []

    def opener(spec: SourceSpec) -> _Flawed:
        seen.append(spec)
        return source

    monkeypatch.setattr("recon.training.mixture_file.OPENERS", {"flawed": opener})
    entry = {"format": "flawed", "task": "depth", "path": "labels.jsonl", "questions": 3}
    mixture = parse_mixture({"datasets": {"real": entry | keys}} | keys, tmp_path, "m.yaml")
    assert seen == [SourceSpec("real", "flawed", "depth", tmp_path / "labels.jsonl", 3, keys.get("strict", False))]
    return mixture


def test_unusable_items_are_passed_over_with_a_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, views: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("recon.training.mixture._told", set())
    mixture = _real(monkeypatch, tmp_path, _Flawed(views[0].image))
    drawn = {mixture.place_of(index)[1] % 5: mixture.draw(index) for index in range(60)}
    assert {turn: d.skipped for turn, d in drawn.items()} == {0: 0, 1: 2, 2: 1, 3: 0, 4: 0}
    assert drawn[1].sample.lessons[0].question == "item 3?"
    assert drawn[1].sample.dataset == "real"
    # told once, however often it comes round
    assert caplog.text.count("data set real: passed over: labels.jsonl line 2: the image is damaged") == 1
    hopeless = _real(monkeypatch, tmp_path, _Flawed(views[0].image, (0, 1, 2, 3, 4)))
    with pytest.raises(BadInputError, match=r"real: 100 unusable items in a row; the last: labels\.jsonl line"):
        hopeless.draw(0)


def test_a_strict_mixture_stops_at_the_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, views: list[Any]) -> None:
    mixture = _real(monkeypatch, tmp_path, _Flawed(views[0].image), strict=True)
    bad = next(index for index in range(60) if mixture.place_of(index)[1] % 5 == 1)
    with pytest.raises(BadSampleError, match="line 2"):
        mixture.draw(bad)


def test_all_tasks_of_a_file_give_samples(pool: Path) -> None:
    entries = {
        task: {"task": task, "rooms": 2, "pool": str(pool), "questions": 5, "layout": layout}
        for task, layout in (("depth", "packed"), ("match", "turns"), ("pose", "packed"), ("object", "turns"))
    }
    mixture = parse_mixture({"datasets": entries, "weights": "uniform"}, pool, "m.yaml")
    seen = {}
    for index in range(40):
        name = mixture.dataset_of(index).name
        if name not in seen:
            seen[name] = mixture.sample(index)
    assert {name: len(sample.images) for name, sample in seen.items()} == {
        "depth": 1,
        "match": 2,
        "pose": 2,
        "object": 1,
    }
    assert {name: sample.layout for name, sample in seen.items()} == {n: e["layout"] for n, e in entries.items()}
    assert len(seen["pose"].lessons) == 4


def test_images_may_differ_from_the_dialect_s(tmp_path: Path) -> None:
    """A long edge instead of a focal length: what the ablation of focal unification needs."""
    image = {"mode": "long_edge", "target_px": 96}
    entry = {"task": "depth", "rooms": 3, "pool": "p", "questions": 2, "image": image}
    mixture = parse_mixture({"datasets": {"a": entry}}, tmp_path, "m.yaml")
    cameras = [mixture.sample(index).images[0].camera for index in range(8)]
    assert {max(camera.width_px, camera.height_px) for camera in cameras} == {96}
    assert max(camera.focal_px for camera in cameras) > 1.05 * min(camera.focal_px for camera in cameras)


def test_the_documented_mixture_is_accepted(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "training-data.md").read_text(encoding="utf-8")
    data = yaml.safe_load(text.split("```yaml")[1].split("```")[0])
    with pytest.raises(BadInputError, match=r"curated/labels\.jsonl"):  # that file is not there
        parse_mixture(data, tmp_path, "m.yaml")
    del data["datasets"]["indoor-photos"]
    mixture = parse_mixture(data, tmp_path, "m.yaml")
    assert {dataset.task for dataset in mixture.datasets} == {"depth", "match", "pose", "object"}
