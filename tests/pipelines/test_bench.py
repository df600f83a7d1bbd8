"""``vlm3-recon bench engine`` on a tiny checkpoint: every way is asked, all tokens agree, the data is written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from pipelines import bench
from pipelines.bench.engine import load_image
from recon.errors import BadInputError
from recon.training.tokenizer import save_processor
from tests.engine.conftest import make_checkpoint


def test_all_ways_give_the_same_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_checkpoint()
    checkpoint.model.save_pretrained(tmp_path / "model")
    save_processor(checkpoint.tokenizer, checkpoint.image_processor, tmp_path / "model")
    profile = json.dumps(checkpoint.profile.to_json())
    (tmp_path / "model" / "vlm3_profile.json").write_text(profile)
    out = tmp_path / "results"
    few = bench.Options(
        "engine", str(tmp_path / "model"), num_questions=12, num_baseline=4, repeats=1, device="cpu", threads=1
    )
    bench.run(dataclasses.replace(few, out=out))
    data = json.loads((out / "engine_cpu_1_threads.json").read_text())
    assert data["gpu_figures"] == "not measured"
    assert data["times_faster"]["(a)"] == data["rows"][3]["questions_per_s"] / data["rows"][0]["questions_per_s"]
    assert list(data["times_faster"]) == ["(a)", "(b)", "(c)"]
    assert [row["name"][:3] for row in data["rows"]] == ["(a)", "(b)", "(c)"] + ["(d)"] * 6
    assert all(row["same_tokens_as_a"] == 1.0 for row in data["rows"])
    assert [row["num_questions"] for row in data["rows"]] == [4] + [12] * 8
    said = capsys.readouterr().out
    assert "(a) generate per question" in said
    assert str(out / "engine_cpu_1_threads.json") in said


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="--num-questions"):
        bench.run(bench.Options("engine", num_questions=1))
    with pytest.raises(BadInputError, match=r"--image .*: not a readable image"):
        load_image(str(tmp_path / "none.png"))
