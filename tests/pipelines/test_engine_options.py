"""The engine's options on the command line: they reach the engine, and wrong ones are refused before anything loads."""

from __future__ import annotations

import pytest

from pipelines.models import ModelOptions, TaskModel
from pipelines.options import Options as ReconstructOptions
from pipelines.query import Options as QueryOptions
from recon.errors import BadInputError
from tests.helpers import REPOSITORY


@pytest.mark.parametrize("options", [ReconstructOptions, QueryOptions])
def test_they_are_on_the_command_line_and_reach_the_engine(options: type) -> None:
    import tyro

    photo = str(REPOSITORY / "photo.jpg")
    line = [photo, *(["--out", "mesh.ply"] if options is ReconstructOptions else ["--at", "1,1"])]
    line += ["--kv-memory", "0.25", "--wave-size", "7", "--stop-after-number", "--no-cuda-graphs", "--device", "cpu"]
    models = tyro.cli(options, args=line).models
    engine = TaskModel(models, "depth").engine
    assert engine.options.kv_memory_bytes == 2**28
    assert engine.options.wave_size == 7
    assert engine.options.stop_after_number
    assert not engine.options.cuda_graphs
    assert engine.prefixes.max_bytes == 2**27


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (ModelOptions(kv_memory_gib=-1), "--kv-memory must be 0 .automatic. or positive, found -1"),
        (ModelOptions(kv_memory_gib=float("nan")), "--kv-memory must be 0"),
        (ModelOptions(wave_size=-3), "--wave-size must be 0"),
    ],
)
def test_wrong_values_are_refused(options: ModelOptions, reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        TaskModel(options, "depth")


def test_answers_of_other_ways_are_other_answers() -> None:
    plain, eight_bits = (TaskModel(ModelOptions(fp8=fp8), "depth").identity for fp8 in (False, True))
    assert plain != eight_bits


def test_thinking_is_asked_of_the_matches_of_a_checkpoint_that_can() -> None:
    options = ModelOptions(model="facebook/VLM3-corr", depth_model="embedded", think=True)
    match = TaskModel(options, "match").profile.match
    assert match.think
    assert match.max_new_tokens == 2048
    assert TaskModel(options, "depth").profile == TaskModel(ModelOptions(), "depth").profile
    with pytest.raises(BadInputError, match=r"--think: dialect 'recon-1' has no match question .* .checkpoint"):
        TaskModel(ModelOptions(think=True), "match")
