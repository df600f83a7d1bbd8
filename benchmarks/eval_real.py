"""Evaluates on real curated data: depth on iBims-1 (a part of it), relative pose on wide ScanNet pairs.

    python -m benchmarks.eval_real --ibims FOLDER --scannet-pairs FOLDER

The data are not part of the project (their licences forbid it): the folders hold ``gt/labels.jsonl`` (DepthLM's
curation, z-depth) and ``gt/pairs.json`` beside ``images/``. Only figures are written.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.provenance import provenance
from pipelines.eval.command import Options as EvalOptions
from pipelines.eval.command import evaluate
from pipelines.models import ModelOptions, TaskModel, local_folder
from recon.types import Task

WEIGHTS = "model.safetensors"
RESULTS = Path(__file__).parent / "results" / "eval_real.json"


@dataclass(frozen=True)
class Options:
    ibims: Path
    """Folder of the iBims-1 part."""
    scannet_pairs: Path
    """Folder of the ScanNet pairs."""
    model: str = "embedded"
    """Checkpoint folder, hub id, or 'embedded'."""
    out: Path = RESULTS
    """JSON file to write."""


def main(options: Options) -> dict[str, Any]:
    """Runs what the checkpoint offers, and the baselines; returns what is written."""
    models = ModelOptions(model=options.model)
    result: dict[str, Any] = {}
    depth = {"ibims1 (30 of 100 photos, 100 points each)": options.ibims}
    for name, folder in depth.items():
        result[f"depth of {name} by {options.model}"] = _figures("depth", folder, models)
    pairs = f"{options.scannet_pairs.name} (8 pairs, 32 to 172 degrees apart)"
    if TaskModel(models, "pose").offers_task:
        result[f"pose of {pairs} by {options.model}"] = _figures("pose", options.scannet_pairs, models)
    result[f"pose of {pairs} by SIFT"] = _figures("pose", options.scannet_pairs, models, "sift")
    command = f"python -m benchmarks.eval_real --ibims FOLDER --scannet-pairs FOLDER --model {options.model}"
    written = {**provenance(command), "weights_sha256": _weights_digest(options.model), "results": result}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return written


def _weights_digest(model: str) -> str | None:
    """SHA-256 of a local checkpoint's weights, so that one sees which weights the figures are of."""
    folder = local_folder(model)
    file = folder / WEIGHTS if folder is not None else None
    return hashlib.sha256(file.read_bytes()).hexdigest() if file is not None and file.is_file() else None


def _figures(task: Task, folder: Path, models: ModelOptions, baseline: Any = "none") -> dict[str, Any]:
    report = evaluate(EvalOptions(task, data=str(folder), models=models, baseline=baseline, quiet=True)).to_json()
    kept = ("items", "questions", "figures", "intervals_95", "reliability", "best_constants_in_hindsight", "notes")
    return {key: report[key] for key in kept if report[key]}


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=1))
