"""The script that measures on a GPU, rehearsed on a tiny model without one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks import engine_gpu


@pytest.mark.slow
def test_every_section_runs_and_is_written(tmp_path: Path) -> None:
    engine_gpu.main(["--tiny", "--device", "cpu", "--out", str(tmp_path)])
    data = json.loads((tmp_path / "engine_gpu_rehearsal.json").read_text())
    assert data["gpu_figures"] == "not measured"
    sections = data["sections"]
    assert list(sections) == list(engine_gpu.SECTIONS)
    assert "FP8 needs an NVIDIA GPU" in sections.pop("fp8")["error"]  # the one section that has to fail here
    assert all("error" not in section for section in sections.values())
    rows = sections["kernel_speed"]["rows"]
    assert all("error" not in row and math.isfinite(row["ms"]) for row in rows)
    assert {row["name"].split(":")[0] for row in rows} == {"peak", "prefill", "decode", "lm_head"}
    assert sections["agreement"]["ours_equal_to_generate"] == 1.0
    assert sections["ratios"]["times_a"] > 1


def test_a_failing_section_leaves_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(bench: engine_gpu.Bench) -> dict[str, object]:
        raise RuntimeError("no such instruction")

    sections = {"broken": broken, "check_kernels": engine_gpu.check_kernels, "late": broken}
    monkeypatch.setattr(engine_gpu, "SECTIONS", sections)
    data = engine_gpu.run(torch.device("cpu"), True, tmp_path, budget_s=1e9)
    assert data["sections"]["broken"]["error"] == "RuntimeError: no such instruction"
    assert max(data["sections"]["check_kernels"]["worst_absolute_error"].values()) < 4e-2
    left_out = engine_gpu.run(torch.device("cpu"), True, tmp_path, budget_s=-1.0)["sections"]
    assert all("left_out" in section for section in left_out.values())


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        engine_gpu.main(["--out", str(tmp_path)])
    assert "no CUDA device was found" in capsys.readouterr().err
