"""The settings for many GPUs that docs offer: accelerate reads them, the layers they name are the model's, and two
processes that share a model by them (on CPUs) do what one does alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from transformers import Qwen3VLForConditionalGeneration

from pipelines.train import train
from recon.questions.profile import PROFILE_FILE, load_profile
from recon.training.export import build_parts
from tests.training.fsdp_process import SETTINGS, STEPS, environment, options_for

ROOT = Path(__file__).resolve().parents[2]


def test_accelerate_reads_the_settings_and_the_model_has_the_layers() -> None:
    config = load_config_from_file(str(SETTINGS))
    assert str(config.distributed_type) in ("FSDP", "DistributedType.FSDP")
    assert config.fsdp_config["fsdp_version"] == 2
    assert config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    wrapped = set(config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(","))
    model = build_parts("tiny", 0).model
    layers = {type(model.model.language_model.layers[0]).__name__, type(model.model.visual.blocks[0]).__name__}
    assert wrapped == layers


@pytest.mark.slow
def test_two_processes_with_shares_learn_save_resume_and_finish_as_one(tmp_path: Path, pool: Path) -> None:
    mixture = tmp_path / "mixture.yaml"
    datasets = {
        "few": {"task": "depth", "rooms": 4, "pool": str(pool), "questions": 3},
        "many": {"task": "depth", "rooms": 4, "pool": str(pool), "questions": 9},
    }
    mixture.write_text(yaml.safe_dump({"seed": 5, "weights": "uniform", "datasets": datasets}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "two"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.fsdp_process", str(out), str(mixture)],
            env={**os.environ, **environment(rank, 2, port)}, cwd=ROOT, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said[0][-2000:] + said[1][-2000:]
    assert all("--average needs whole matrices on every GPU" in text for text in said)

    train(options_for(tmp_path / "one", mixture, batch=2))
    one = _log(tmp_path / "one" / "checkpoint-4")
    two, resumed = _log(out / "whole"), _log(out / "checkpoint-4")
    assert [entry.get("samples/many", 0) + entry.get("samples/few", 0) for entry in two] == [2, 2, 2, 2]
    assert 1 in [entry.get("samples/many") for entry in two]  # a step with unequal numbers of answers is among them
    for step in range(STEPS):
        for key, bound in (("loss", 1e-4), ("grad_norm", 1e-3), ("answer_tokens/many", 0)):  # measured: 3e-5 of a norm
            assert two[step].get(key, 0) == pytest.approx(one[step].get(key, 0), rel=bound), (step, key)
        assert resumed[step]["loss"] == pytest.approx(two[step]["loss"], rel=1e-6)
    alone, together = (_weights(folder / "final") for folder in (tmp_path / "one", out))
    moved = (alone - torch.cat([w.flatten() for w in build_parts("tiny", 0).model.state_dict().values()])).abs().mean()
    assert (together - alone).abs().mean() < 0.1 * moved  # AdamW turns rounding of small gradients into whole steps
    assert load_profile(out / "final" / PROFILE_FILE).tasks.keys() == {"depth"}


def _log(checkpoint: Path) -> list[dict[str, float]]:
    history = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [entry for entry in history if "loss" in entry]


def _weights(folder: Path) -> torch.Tensor:
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype="float32")
    return torch.cat([weight.flatten() for weight in model.state_dict().values()])
