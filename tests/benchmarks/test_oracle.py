"""The oracle benchmark goes on where it was stopped, and takes every further option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro

import benchmarks.oracle as oracle
from pipelines.models import TaskModel
from recon.synth.oracle import Oracle, OracleView
from recon.types import Camera


class _Done:
    def __init__(self, value: Any) -> None:
        self._value = value

    def result(self) -> Any:
        return self._value


def test_rows_that_are_there_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[int, str]] = []

    class Pool:
        def __init__(self, *_: object, **__: object) -> None: ...

        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *_: object) -> None: ...

        def submit(self, function: Any, *given: Any) -> _Done:
            if function is oracle.synthetic_scene:
                return _Done(tmp_path / f"room-{given[1]}")
            ran.append((given[2], given[3]))
            return _Done({"registered": 12})

    monkeypatch.setattr(oracle, "ProcessPoolExecutor", Pool)
    out = tmp_path / "rows.json"
    oracle.main(oracle.Options("synthetic", seeds=(0,), variants=("full",), out=out))
    oracle.main(oracle.Options("synthetic", seeds=(0, 1), variants=("full", "no-poses"), out=out))
    assert ran == [(0, "full"), (0, "no-poses"), (1, "full"), (1, "no-poses")]
    oracle.main(oracle.Options("synthetic", seeds=(0,), variants=("full",), budget=1024, out=out))
    rows = json.loads(out.read_text())["runs"]
    assert [(row["seed"], row["variant"], row["budget"]) for row in rows][-2:] == [
        (1, "no-poses", 256),
        (0, "full", 1024),
    ]
    assert all(row["registered"] == 12 and row["commit"] for row in rows)


def test_several_further_options_all_count() -> None:
    """Given twice, the option once took the last only, and a run at another size was taken for the wanted one."""
    options = tyro.cli(oracle.Options, args=["synthetic", "--more=--match-budget=24", "--more=--budget=8"])
    assert options.more == ("--match-budget=24", "--budget=8")
    with pytest.raises(SystemExit, match="no such variant"):
        oracle.main(oracle.Options("synthetic", variants=("best",)))


def test_the_oracle_answers_all_that_is_asked_of_a_checkpoint() -> None:
    """A property that a task's checkpoint gains and the oracle does not have would need options it has none of."""
    view = OracleView(
        "a.png",
        np.zeros((6, 8, 3), np.uint8),
        Camera.pinhole(8, 6, 8, 8, 4, 3),
        np.ones((6, 8), np.float32),
        np.eye(3, 4),
    )
    model = oracle.OracleModel("pose", Oracle([view], oracle.public_profile()), True, "0")
    for name, value in vars(TaskModel).items():
        if isinstance(value, property):
            getattr(model, name)
    assert model.too_coarse == ""
    assert model.trusted
