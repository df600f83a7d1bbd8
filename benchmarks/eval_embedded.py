"""Figures of a checkpoint on procedural worlds that it has never seen, in all tasks that it offers.

    python -m benchmarks.eval_embedded --model embedded --split test --scenes 200

One report per task (``vlm3-recon eval``) goes into one JSON file. ``--record`` writes into the checkpoint folder's
profile: from validation worlds the errors that evidence is weighed by, from test worlds the figures for the record.
Test worlds are for final figures, never for choices.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

import recon
from benchmarks.pair_constants import constant_match, constant_pose
from benchmarks.provenance import provenance
from pipelines.eval.command import Options as EvalOptions
from pipelines.eval.command import evaluate
from pipelines.eval.items import read_items
from pipelines.models import ModelOptions, find_profile, local_folder
from recon.errors import BadInputError
from recon.interop.datasets.records import PairItem
from recon.questions.profile import PROFILE_FILE, CheckpointProfile, load_profile
from recon.types import Task

RESULTS = Path(__file__).parent / "results" / "eval_embedded.json"
# What is kept of a task's figures in the profile: our name -> the profile's.
RECORDED: dict[Task, dict[str, str]] = {
    "depth": {"delta1": "delta1", "abs_rel": "abs_rel"},
    "match": {"epe_mean": "epe_mean", "epe_median": "epe_median", "pck_25": "pck_25"},
    "pose": {"auc_histogram_30": "auc30_histogram", "auc_exact_30": "auc30_exact"},
    "object": {"qualitative": "qualitative", "quantitative": "quantitative", "abs_rel": "abs_rel"},
}
# Which of the best constants a figure is compared with.
CONSTANTS: dict[Task, dict[str, str]] = {
    "depth": {"delta1": "for_delta1", "abs_rel": "for_abs_rel"},
    "match": {"epe_mean": "for_mean", "epe_median": "for_median"},
    "pose": {"auc_histogram_30": "for_auc_30", "auc_exact_30": "for_auc_30"},
    "object": {"qualitative": "in_every_category", "quantitative": "in_every_category"},
}
_MEDIAN_OF_RAYLEIGH = 1.1774  # a 2-D error of standard deviation 1 per axis has this median length


@dataclass(frozen=True)
class Options:
    model: str = "embedded"
    """Checkpoint folder, hub id, or 'embedded'."""
    split: Literal["validation", "test"] = "validation"
    """Worlds to score on."""
    scenes: int = 200
    """How many, one photo or pair each."""
    questions: int = 20
    """Per photo or pair."""
    tasks: tuple[Task, ...] = ()
    """Which tasks (default: all that the checkpoint offers)."""
    keep: Path | None = None
    """Folder for photos, answers and reports of every task: a killed run continues there."""
    out: Path | None = None
    """JSON file to write."""
    record: bool = False
    """Write the figures into the checkpoint folder's profile."""


def main(options: Options) -> dict[str, Any]:
    """Runs the benchmark; returns what is written."""
    offered = tuple(find_profile(options.model, local_folder(options.model), None).tasks)
    result: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        keep = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vlm3-recon-")))
        for task in options.tasks or offered:
            result[task] = _report(options, task, keep / task)
    command = (
        f"python -m benchmarks.eval_embedded --model {options.model} --split {options.split} --scenes {options.scenes} "
        f"--questions {options.questions}"
    )
    written = {**provenance(command), "split": options.split, "scenes": options.scenes, "tasks": result}
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    if options.record:
        record(checkpoint_folder(options.model), options.split, result)
    return written


def _report(options: Options, task: Task, keep: Path) -> dict[str, Any]:
    report = evaluate(
        EvalOptions(
            task,
            data=f"synthetic:{options.split}",
            scenes=options.scenes,
            questions=options.questions,
            out=keep,
            models=ModelOptions(model=options.model),
        )
    ).to_json()
    if task in ("match", "pose"):  # those of depth and objects the report has
        items = read_items(keep / "data" / "pairs.jsonl", task, keep / "data", "z", strict=True).items
        pairs = [item for item in items if isinstance(item, PairItem)]
        report["best_constants_in_hindsight"] = constant_match(pairs) if task == "match" else constant_pose(pairs)
    return report


def checkpoint_folder(model: str) -> Path:
    """The folder whose profile is written; raises BadInputError for a checkpoint that is not on this machine."""
    folder = Path(recon.__file__).parent / "assets" / "embedded" if model == "embedded" else Path(model)
    if not (folder / PROFILE_FILE).is_file():
        raise BadInputError(f"--record needs a checkpoint folder with {PROFILE_FILE}, found {model!r}")
    return folder


def record(folder: Path, split: str, reports: dict[str, Any]) -> None:
    """Writes figures into ``vlm3_profile.json`` of a checkpoint folder."""
    path = folder / PROFILE_FILE
    profile = load_profile(path)
    for task, report in reports.items():
        if split == "validation":
            profile = with_errors(profile, task, report["figures"])
        else:
            profile = with_figures(profile, task, report)
    path.write_text(json.dumps(profile.to_json(), indent=2) + "\n", encoding="utf-8")


def with_figures(profile: CheckpointProfile, task: str, report: dict[str, Any]) -> CheckpointProfile:
    """The profile with a task's figures ``test_TASK_NAME``, and beside them those of the best constants."""
    names = RECORDED[task]  # type: ignore[index]
    measured = {f"test_{task}_{name}": report["figures"][key] for key, name in names.items()}
    constants = report.get("best_constants_in_hindsight") or {}
    for figure, best_for in CONSTANTS[task].items():  # type: ignore[index]
        if best_for in constants:
            measured[f"test_{task}_{names[figure]}_of_best_constant"] = constants[best_for][figure]
    known = {name: round(value, 4) for name, value in measured.items() if value is not None}
    return replace(profile, measured={**profile.measured, **known})


def with_errors(profile: CheckpointProfile, task: str, figures: dict[str, Any]) -> CheckpointProfile:
    """The profile with a task's standard deviations, from the answers that were given."""
    tasks = dict(profile.tasks)
    if task == "depth" and figures["silog"]:
        # with its tails, not the robust one: evidence is weighed by it
        tasks["depth"] = replace(profile.depth, log_sigma=round(figures["silog"] / 100, 3))
    elif task == "match" and figures["epe_median_px"]:
        sigma_px = figures["epe_median_px"] / _MEDIAN_OF_RAYLEIGH  # synthetic photos are unified already
        tasks["match"] = replace(profile.match, sigma_px=round(sigma_px, 2))
    elif task == "pose" and figures["median_rotation_deg"] and figures["median_direction_deg"]:
        # medians of absolute errors, as standard deviations of a normal distribution
        tasks["pose"] = replace(
            profile.pose,
            rotation_sigma_deg=round(1.4826 * figures["median_rotation_deg"], 2),
            direction_sigma_deg=round(1.4826 * figures["median_direction_deg"], 2),
            distance_log_sigma=round(figures["distance_abs_rel"] or profile.pose.distance_log_sigma, 3),
        )
    return replace(profile, tasks=tasks)


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=1))
