"""Scores a checkpoint's metric depth on procedural rooms it has never seen, beside the best constant guess.

    python -m benchmarks.embedded_depth --model embedded --split test --rooms 200

The measuring is that of ``vlm3-recon eval depth --data synthetic:SPLIT`` (``benchmarks.eval_embedded`` does all tasks).
The constants are the best on these very rooms: no constant does better.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.eval_embedded import checkpoint_folder, record
from benchmarks.provenance import provenance
from pipelines.eval.command import Options as EvalOptions
from pipelines.eval.command import evaluate
from pipelines.models import ModelOptions


@dataclass(frozen=True)
class Options:
    model: str = "embedded"
    """Checkpoint folder, hub id, or 'embedded'."""
    split: Literal["validation", "test"] = "validation"
    """Rooms to score on; test is for final figures, never for choices."""
    rooms: int = 200
    """How many rooms, one photo each."""
    first: int = 0
    """Index of the first room in the split."""
    questions: int = 20
    """Questions per photo, at random pixels."""
    out: Path | None = None
    """JSON file to write."""
    record: bool = False
    """Write the figures into the checkpoint folder's profile: from validation rooms the error (log_sigma) that answers
    are given, from test rooms the figures for the record."""


def main(options: Options) -> dict[str, Any]:
    """Runs the benchmark; returns what is written."""
    report = evaluate(
        EvalOptions(
            "depth",
            data=f"synthetic:{options.split}",
            scenes=options.rooms,
            first=options.first,
            questions=options.questions,
            models=ModelOptions(model=options.model),
        )
    ).to_json()
    constants = report["best_constants_in_hindsight"]
    count = report["questions"]
    command = (
        f"python -m benchmarks.embedded_depth --model {options.model} --split {options.split} --rooms {options.rooms}"
    )
    result: dict[str, Any] = {
        **provenance(command),
        "split": options.split,
        "rooms": options.rooms,
        "questions_per_room": options.questions,
        "model": {"count": count, **report["figures"]},
        "intervals_95": report["intervals_95"],
        "constant_for_delta1": {"count": count, **constants["for_delta1"]},
        "constant_for_abs_rel": {"count": count, **constants["for_abs_rel"]},
        "seconds_answering": report["seconds_answering_in_this_run"],
    }
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if options.record:
        record(checkpoint_folder(options.model), options.split, {"depth": report})
    return result


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=2))
