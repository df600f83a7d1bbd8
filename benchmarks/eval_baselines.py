"""What those who know no checkpoint score on procedural test worlds: SIFT on poses, "the same place" on matches.

    python -m benchmarks.eval_baselines --scenes 100

The best constant answers about depths and objects stand in the reports of ``benchmarks.eval_embedded``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.provenance import provenance
from pipelines.eval.command import Baseline, evaluate
from pipelines.eval.command import Options as EvalOptions
from recon.types import Task

RESULTS = Path(__file__).parent / "results" / "eval_baselines.json"
BASELINES: tuple[tuple[Task, Baseline], ...] = (("pose", "sift"), ("match", "same-place"))


@dataclass(frozen=True)
class Options:
    scenes: int = 100
    """Test worlds, one pair each."""
    keep: Path | None = None
    """Folder for photos and answers: a killed run continues there."""
    out: Path = RESULTS
    """JSON file to write."""


def main(options: Options) -> dict[str, Any]:
    """Runs the baselines; returns what is written."""
    result = {}
    for task, baseline in BASELINES:
        out = options.keep / task if options.keep is not None else None
        report = evaluate(EvalOptions(task, "synthetic:test", scenes=options.scenes, baseline=baseline, out=out))
        kept = report.to_json()
        result[f"{task} by {baseline}"] = {key: kept[key] for key in ("items", "questions", "figures", "intervals_95")}
    written = {**provenance(f"python -m benchmarks.eval_baselines --scenes {options.scenes}"), "results": result}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return written


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=1))
