"""``vlm3-recon train``: options are checked before anything heavy; a run ends with a checkpoint the engine loads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
import yaml
from PIL import Image

from pipelines.train import TrainOptions, train
from pipelines.train_vision import school_tower
from recon.engine.checkpoint import load_checkpoint
from recon.engine.engine import Engine, EngineOptions
from recon.errors import BadInputError, CheckpointError, OutputError
from recon.questions import depth
from recon.questions.dialects import get_dialect
from recon.training.export import load_parts
from recon.training.matching import has_matching
from recon.training.mixture_file import load_mixture
from recon.training.pool import PooledView


@pytest.fixture
def options(pool: Path, tmp_path: Path) -> TrainOptions:
    path = tmp_path / "mixture.yaml"
    path.write_text(
        yaml.safe_dump({"datasets": {"d": {"task": "depth", "rooms": 4, "pool": str(pool), "questions": 3}}})
    )
    return TrainOptions(
        out=tmp_path / "run", mixture=path, steps=1, config="tiny", batch=1, warmup=0, decay=1, loader_processes=0,
        quiet=True,
    )  # fmt: skip


def test_a_run_ends_with_a_checkpoint_that_answers_and_can_be_trained_on(
    options: TrainOptions, views: list[PooledView]
) -> None:
    train(options)
    final = options.out / "final"
    checkpoint = load_checkpoint(str(final), device="cpu", dtype="float32")
    engine = Engine(checkpoint, EngineOptions())
    answers = engine.ask([views[0].image], depth.ask(get_dialect("recon-1"), views[0].image, np.array([[10.0, 20.0]])))
    assert len(answers) == 1
    assert 1 <= len(answers[0].token_ids) <= checkpoint.profile.depth.max_new_tokens

    again = replace(options, out=options.out.parent / "more", config=None, from_=str(final))
    train(again)
    assert (again.out / "final" / "model.safetensors").exists()


def test_a_dry_run_states_memory_and_trains_nothing(options: TrainOptions, capsys: pytest.CaptureFixture[str]) -> None:
    for change in ({"config": "qwen3-vl-4b"}, {"config": None, "from_": "embedded"}):
        train(replace(options, dry_run=True, bf16=True, gradient_checkpointing=True, **change))
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[-4:]] == ["1", "2", "4", "8"]
        totals = [float(line.split()[-1]) for line in lines[-4:]]
        assert totals == sorted(totals, reverse=True)
    assert not options.out.exists()
    with pytest.raises(CheckpointError, match=r"nowhere: config\.json"):
        train(replace(options, dry_run=True, config=None, from_="nowhere"))


def test_a_new_tower_is_schooled_once_and_kept(options: TrainOptions) -> None:
    schooled = replace(options, school_vision=2, distil=True)
    train(schooled)
    kept = options.out / "vision.safetensors"
    before = kept.read_bytes()
    train(replace(schooled, steps=2, resume=True))
    assert kept.read_bytes() == before
    kept.write_bytes(b"damaged")
    with pytest.raises(BadInputError, match=r"vision\.safetensors"):
        train(replace(schooled, steps=3, resume=True))


def test_matching_is_added_schooled_with_pairs_and_asked(options: TrainOptions, pool: Path, tmp_path: Path) -> None:
    """The embedded checkpoint's way: depth first, then all four tasks in a wider model."""
    shape = tmp_path / "shape.json"
    sizes = {"text_hidden": 64, "text_mlp": 64, "vision_layers": 1, "vision_hidden": 48, "vision_heads": 3}
    shape.write_text(json.dumps({**sizes, "vision_mlp": 64, "deepstack": [0]}), encoding="utf-8")
    narrow = replace(options, config=str(shape), steps=1)
    train(narrow)
    tasks = {
        "depth": {"task": "depth", "rooms": 2, "pool": str(pool), "questions": 2},
        "object": {"task": "object", "rooms": 2, "pool": str(pool), "questions": 2, "coarse": True, "regions": True},
        "match": {"task": "match", "rooms": 2, "pool": str(tmp_path / "pairs"), "questions": 2},
        "pose": {"task": "pose", "rooms": 2, "pool": str(tmp_path / "pairs")},
    }
    mixture = tmp_path / "four.yaml"
    mixture.write_text(yaml.safe_dump({"seed": 0, "weights": "uniform", "datasets": tasks}), encoding="utf-8")
    four = replace(
        narrow, config=None, from_=str(narrow.out / "final"), out=tmp_path / "four", mixture=mixture,
        add_matching=True, add_regions=True, school_vision=2, distil=True, hold_structure=True, average=2, bf16=True,
        vision_scale=0.0, matrix_rate=2e-3,
    )  # fmt: skip
    train(four)
    train(replace(four, steps=2, resume=True))
    assert [path.name for path in (four.out / "taught").iterdir()].count("object") == 0  # shares the views of depth
    assert (four.out / "vision-motion.safetensors").is_file()
    assert not (four.out / "vision-state.pt").exists()
    checkpoint = load_checkpoint(str(four.out / "final"), device="cpu", dtype="float32")
    assert set(checkpoint.profile.tasks) == {"depth", "object", "match", "pose"}
    assert checkpoint.model.config.text_config.hidden_size == 64 + 64
    assert checkpoint.model.config.text_config.intermediate_size == 64 + 18
    with pytest.raises(BadInputError, match="--add-matching"):
        train(replace(four, from_=str(four.out / "final"), out=tmp_path / "again"))
    _school_again(replace(four, from_=str(four.out / "final"), out=tmp_path / "on", add_matching=False, resume=False))


def _school_again(options: TrainOptions) -> None:
    """A checkpoint that matches gets a better tower; its text side stays what it was, but for two readings."""
    mixture, parts = load_mixture(options.mixture), load_parts(str(options.from_))
    options.out.mkdir()
    before = {name: parameter.detach().clone() for name, parameter in parts.model.named_parameters()}
    school_tower(parts, mixture, options)
    moved = {name for name, parameter in parts.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert "model.visual.blocks.0.attn.qkv.weight" in moved
    readings = {f"model.language_model.layers.{layer}.self_attn.o_proj.weight" for layer in (1, 2)}
    assert {name for name in moved if ".visual." not in name} == readings
    train(options)
    train(replace(options, steps=2, resume=True))
    assert has_matching(load_parts(str(options.out / "final")).model)
    depth_alone = {"datasets": {"d": yaml.safe_load(options.mixture.read_text())["datasets"]["depth"]}}
    alone = options.out / "alone.yaml"
    alone.write_text(yaml.safe_dump(depth_alone), encoding="utf-8")
    with pytest.raises(BadInputError, match="needs pairs as well"):
        train(replace(options, mixture=alone, out=options.out / "more"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"add_matching": True}, "--add-matching widens"),
        ({"add_regions": True}, "--add-regions adds"),
        ({"config": None, "from_": "embedded", "add_regions": True, "lora_rank": 2}, "not go with --add-regions"),
        ({"config": None}, "exactly one of --config"),
        ({"from_": "embedded"}, "exactly one of --config"),
        ({"steps": 0}, "--steps is 0"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"warmup": -1}, "--warmup is -1"),
        ({"school_rate": 0.0}, "--school-rate is 0"),
        ({"config": "huge"}, "small, tiny"),
        ({"distil": True}, "--distil needs"),
        ({"lora_rank": 2, "hold_structure": True}, "--lora-rank"),
        ({"config": "qwen3-vl-4b"}, "no weights to begin from"),
        ({"mixture": Path("nowhere.yaml")}, r"--mixture nowhere\.yaml: no such file"),
    ],
)
def test_bad_options_are_named(options: TrainOptions, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        train(replace(options, **change))


def test_a_tower_is_not_schooled_by_several_processes(options: TrainOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInputError, match=r"--school-vision works in one process.*--resume"):
        train(replace(options, school_vision=2))


def test_what_a_loader_process_finds_is_one_line(options: TrainOptions, tmp_path: Path) -> None:
    """A photo that shows its damage only when it is decoded, in the process that prepares samples."""
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(photo)
    photo.write_bytes(photo.read_bytes()[:9000])
    label = {"image": photo.name, "intrinsics": [80.0, 80.0, 48.0, 32.0], "pixel_coords": [[5, 9]], "depth": [2.0]}
    (tmp_path / "labels.jsonl").write_text(json.dumps(label))
    real = {"format": "depthlm-jsonl", "task": "depth", "path": "labels.jsonl"}
    options.mixture.write_text(yaml.safe_dump({"strict": True, "datasets": {"real": real}}))
    with pytest.raises(BadInputError, match=r"labels\.jsonl line 1: .*photo\.png: not a readable photo") as caught:
        train(replace(options, loader_processes=1))
    assert "Traceback" not in str(caught.value)


def test_an_output_that_is_a_file_is_named(options: TrainOptions, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(OutputError, match="--out"):
        train(replace(options, out=path))


def test_options_make_a_command_line() -> None:
    parsed = tyro.cli(TrainOptions, args=["--out", "o", "--mixture", "m", "--steps", "5", "--from", "embedded"])
    assert parsed.from_ == "embedded"
    assert parsed.config is None
