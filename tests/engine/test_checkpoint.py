"""Loading a checkpoint, and the one-line reasons why one can't be loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from recon.engine.checkpoint import Checkpoint, load_checkpoint
from recon.engine.engine import Engine, EngineOptions
from recon.errors import BadInputError, CheckpointError
from recon.training.tokenizer import save_processor
from tests.engine.conftest import Case


@pytest.fixture(scope="session")
def saved(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    checkpoint.model.save_pretrained(folder)
    save_processor(checkpoint.tokenizer, checkpoint.image_processor, folder)
    profile = json.dumps(checkpoint.profile.to_json())
    (folder / "vlm3_profile.json").write_text(profile)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_a_saved_folder_answers_as_the_model_in_memory(saved: Path, cases: list[Case]) -> None:
    loaded = load_checkpoint(str(saved), device="cpu")
    assert loaded.dtype == torch.float32
    assert loaded.profile.dialect == "recon-1"
    case = cases[1]
    answers = Engine(loaded, EngineOptions(max_new_tokens=14)).ask(case.images, case.questions[:8])
    assert [answer.token_ids for answer in answers] == case.expected[:8]


def write_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lost_shard(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def wider_text(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 4
    (folder / "config.json").write_text(json.dumps(config))


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda f: (f / "config.json").unlink(), "has no config.json; expected a Hugging Face checkpoint folder"),
    (lambda f: (f / "config.json").write_text("{"), "config.json: can't be read"),
    (lambda f: write_config(f, model_type="llama"), "model_type is 'llama'; accepted: 'qwen3_vl'"),
    (only_pickles, r"found only pickled weights \(pytorch_model.bin\); accepted: \*.safetensors"),
    (lambda f: (f / "model.safetensors").unlink(), r"found no weights; accepted: \*.safetensors"),
    (cut_weights, "model.safetensors: damaged safetensors"),
    (lost_shard, r"model-00001-of-00002.safetensors is missing \(named in model.safetensors.index.json\)"),
    (wider_text, "weights are missing or of a wrong shape, the first: "),
    (lambda f: (f / "tokenizer.json").write_text("no"), "the tokenizer can't be loaded"),
    (lambda f: (f / "preprocessor_config.json").write_text("no"), "preprocessor_config.json can't be read"),
    (lambda f: (f / "vlm3_profile.json").write_text("[]"), "vlm3_profile.json"),
    (lambda f: (f / "vlm3_profile.json").unlink(), "name its dialect with --dialect"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES, ids=[reason[-40:] for _, reason in DAMAGES])
def test_a_damaged_folder_is_refused_with_one_line(folder: Path, damage: Callable[[Path], object], reason: str) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=reason) as caught:
        load_checkpoint(str(folder), device="cpu")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_dialect_stands_in_for_a_missing_profile(folder: Path) -> None:
    (folder / "vlm3_profile.json").unlink()
    assert load_checkpoint(str(folder), "cpu", dialect="vlm3-released").profile.dialect == "vlm3-released"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("/nowhere/at/all", "no such folder; accepted: a checkpoint folder, a hub id, or 'embedded'"),
        ("somebody/does-not-exist-here", "not in the local cache|no such checkpoint"),
        (__file__, "is a file; accepted"),
    ],
)
def test_a_missing_source_is_named(source: str, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason) as caught:
        load_checkpoint(source, "cpu", offline=True)
    assert source in str(caught.value)


def test_unknown_devices_and_types_are_refused(saved: Path) -> None:
    with pytest.raises(BadInputError, match="device 'tpu'"):
        load_checkpoint(str(saved), device="tpu")
    with pytest.raises(BadInputError, match="dtype 'int8' is unknown; accepted: auto, float32, bfloat16, float16"):
        load_checkpoint(str(saved), device="cpu", dtype="int8")


def test_settings_that_generate_would_apply_are_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = json.loads((folder / "generation_config.json").read_text()) | {"repetition_penalty": 1.1}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    assert load_checkpoint(str(folder), "cpu").ignored_settings == ("repetition_penalty=1.1",)
    assert "repetition_penalty=1.1" in caplog.text
