"""The script that measures on a GPU, rehearsed on a tiny model without one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks import engine_gpu
from benchmarks.engine_gpu_model import Bench, Results


@pytest.mark.slow
def test_every_section_runs_and_is_written(tmp_path: Path) -> None:
    engine_gpu.main(["--tiny", "--device", "cpu", "--out", str(tmp_path)])
    data = json.loads((tmp_path / "engine_gpu_rehearsal.json").read_text())
    assert data["gpu_figures"] == "not measured"
    sections = data["sections"]
    assert list(sections) == list(engine_gpu.SECTIONS)
    assert "FP8 needs an NVIDIA GPU" in sections.pop("fp8")["error"]  # the one section that has to fail here
    assert all("error" not in section and "left_out" not in section for section in sections.values())
    rows = [row for rows in sections["kernel_speed"].values() if isinstance(rows, list) for row in rows]
    assert all("error" not in row and math.isfinite(row["ms"]) for row in rows)
    assert {row["name"].split(":")[0] for row in rows} == {"peak", "prefill", "decode", "lm_head"}
    assert sections["agreement"]["ours_equal_to_generate"] == 1.0
    assert sections["ratios"]["times_a"] > 1
    many, few = sections["end_to_end"]["many"], sections["end_to_end"]["few"]
    assert many["work"]["num_prefill_tokens"] > few["work"]["num_prefill_tokens"] > 0
    assert many["work"]["num_steps"] == few["work"]["num_steps"] == many["answer_tokens"] - 1


def test_a_failing_section_leaves_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(bench: Bench) -> Results:
        yield "before", 1
        raise RuntimeError("no such instruction")

    def slow(bench: Bench) -> Results:
        yield "first", 1
        yield "second", 2

    sections = {
        "broken": engine_gpu.Section(broken, 10),
        "slow": engine_gpu.Section(slow, -1),
        "check": engine_gpu.Section(engine_gpu.kernels.check_kernels, 1e9),
    }
    monkeypatch.setattr(engine_gpu, "SECTIONS", sections)
    made = engine_gpu.run(torch.device("cpu"), True, tmp_path, budget_s=1e9)["sections"]
    assert (made["broken"]["before"], made["broken"]["error"]) == (1, "RuntimeError: no such instruction")
    assert made["slow"]["first"] == 1
    assert "whatever would follow 'first'" in made["slow"]["left_out"]
    assert "second" not in made["slow"]
    differences = [value for name, value in made["check"].items() if name != "took_s"]
    assert 0 < max(differences) < 4e-2
    assert json.loads((tmp_path / "engine_gpu_rehearsal.json").read_text())["sections"] == made
    left_out = engine_gpu.run(torch.device("cpu"), True, tmp_path, budget_s=-1.0)["sections"]
    assert all("left_out" in section for section in left_out.values())


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        engine_gpu.main(["--out", str(tmp_path)])
    assert "no CUDA device was found" in capsys.readouterr().err
