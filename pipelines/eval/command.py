"""``vlm3-recon eval``: how good a checkpoint is at a task, on labelled files or on worlds that it has never seen.

Labels (``items``) are asked through the engine and the answers stored (``answers``), scored
(``scores``) and reported (``report``). A reconstruction's agreement with ground truth is another thing:
``vlm3-recon compare``.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from tyro.conf import OmitArgPrefixes, Positional

from pipelines.eval.answers import (
    Answered,
    Answerer,
    AnswerFile,
    Checkpoint,
    ConstantDepth,
    SamePlace,
    Sift,
    answer_all,
    labels_digest,
)
from pipelines.eval.items import Item, chosen_labels, find_labels, num_questions, read_items
from pipelines.eval.report import Report, as_text, write_report
from pipelines.eval.scores import score
from pipelines.hardware import hardware
from pipelines.models import ModelOptions, TaskModel
from pipelines.progress import progress_bar
from pipelines.workspace import check_output_folder
from recon.cameras.unify import ImageProfile
from recon.errors import BadInputError
from recon.evaluation.depth import best_constants
from recon.interop.datasets.records import DepthItem
from recon.types import DepthKind, Task

Baseline = Literal["none", "constant", "same-place", "sift"]
_BASELINE_OF: dict[Baseline, Task] = {"constant": "depth", "same-place": "match", "sift": "pose"}
_SYNTHETIC_QUESTIONS = 20
_BASELINE_IMAGE = ImageProfile("focal", 224)  # what synthetic photos are rendered for when no checkpoint is asked


@dataclass(frozen=True)
class Options:
    """How good is a checkpoint at depth, match, pose or object questions?

    Asks about labelled photos (files of DepthLM's curation, pair files, SpatialRGPT's JSON; see docs/evaluation.md) or
    about procedural worlds that no training has seen. With --out the answers are kept: the same command continues an
    interrupted run, and writes results.json, report.md, report.html and pictures.
    """

    task: Positional[Literal["depth", "match", "pose", "object"]]
    """what to ask"""
    data: str = "synthetic:validation"
    """a label file, a folder with one, synthetic:validation, or synthetic:test (for final figures only)"""
    images: Path | None = None
    """folder that photo names start at (default: the label file's)"""
    out: Path | None = None
    """folder for answers and report; without it only the table is printed"""
    baseline: Baseline = "none"
    """instead of a checkpoint: the best constant (depth), the same place (match), SIFT (pose)"""
    questions: int | None = None
    """most questions per photo or pair (default: 20 synthetic ones, all labels of a file)"""
    limit: int | None = None
    """only the first so many photos or pairs"""
    scenes: int = 200
    """synthetic worlds, one photo or pair each"""
    first: int = 0
    """index of the first synthetic world in its split"""
    scenery: Literal["room", "block"] = "room"
    """kind of synthetic worlds"""
    depth_kind: DepthKind = "z"
    """what labels without depth_kind mean by depth"""
    strict: bool = False
    """stop at the first line or photo that can't be used, instead of leaving it out with a count"""
    resamples: int = 1000
    """of the bootstrap, over photos or scenes"""
    pictures: int = 6
    """photos with answers in the report"""
    seed: int = 0
    """which labels are asked when there are more than --questions"""
    json: bool = False
    """print results.json instead of the table"""
    overwrite: bool = False
    """forget stored answers"""
    quiet: bool = False
    """no progress bars"""
    models: OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)

    def check(self) -> None:
        """Raises BadInputError for values that can't work."""
        for name, least in (("scenes", 1), ("first", 0), ("resamples", 2), ("pictures", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise BadInputError(f"--{name} must be at least {least}, found {getattr(self, name)}")
        for name in ("questions", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInputError(f"--{name} must be at least 1, found {value}")
        if self.baseline != "none" and _BASELINE_OF[self.baseline] != self.task:
            raise BadInputError(
                f"--baseline {self.baseline} answers {_BASELINE_OF[self.baseline]} questions, not {self.task}; "
                f"accepted: {', '.join(name for name, task in _BASELINE_OF.items() if task == self.task) or 'none'}"
            )
        if self.out is not None:
            check_output_folder(self.out, "--out")


def run(options: Annotated[Options, tyro.conf.arg(name="")]) -> None:
    """Evaluates and prints. Raises ReconError with one line about what is wrong."""
    report = evaluate(options)
    print(json.dumps(report.to_json(), indent=1) if options.json else as_text(report))
    if options.out is not None and not options.json:
        print(f"\nreport: {options.out / 'report.html'}")


def evaluate(options: Options) -> Report:
    """The whole evaluation; writes into ``options.out`` when it is given."""
    options.check()
    task: Task = options.task
    model = TaskModel(options.models, task) if options.baseline == "none" else None
    if model is not None:
        model.profile.task(task)  # says which tasks it answers when this is none of them
        if model.notice and not options.quiet:
            print(f"note: {model.notice}", file=sys.stderr)
    with _data(options, task, model) as (items, left_out):
        answerer, depth_kind = _answerer(options, task, model, items)
        about = _about(options, task, model, items)
        file = AnswerFile(options.out / "answers.jsonl" if options.out else None, about, options.overwrite)
        with progress_bar("asking", "photos" if task in ("depth", "object") else "pairs", options.quiet) as update:
            answered, faults, seconds = answer_all(items, answerer, file, options.strict, update, time.perf_counter)
        if model is not None:
            model.release()
        if not answered:
            raise BadInputError(f"--data {options.data}: none of {len(items)} items could be asked; {faults[0].reason}")
        report = _report(options, task, model, answered, faults, left_out, depth_kind, about, seconds)
        if options.out is not None:
            write_report(report, answered, options.out, options.pictures)
    return report


@contextlib.contextmanager
def _data(options: Options, task: Task, model: TaskModel | None) -> Iterator[tuple[list[Item], str]]:
    """The items to ask, and what was left out in words."""
    from pipelines.eval.synthetic import split_of_source, write_synthetic

    split = split_of_source(options.data)
    profile = model.profile if model is not None else None
    with contextlib.ExitStack() as stack:
        if split is None:
            path = find_labels(Path(options.data), task)
            images, most = options.images, options.questions or 0
        else:
            folder = options.out / "data" if options.out else Path(stack.enter_context(_scratch()))
            image = profile.task(task).image if profile is not None else _BASELINE_IMAGE
            most = options.questions or _SYNTHETIC_QUESTIONS
            path = write_synthetic(
                folder, task, image, split, options.first, options.scenes, most, options.scenery, options.quiet
            )
            images = folder
        reading = read_items(path, task, images, options.depth_kind, options.strict)
        items = [chosen_labels(item, most, options.seed, profile) for item in reading.items[: options.limit]]
        items = [item for item in items if num_questions(item, task) > 0]
        if not items:
            raise BadInputError(f"{path}: nothing to ask: all its points are hidden and the checkpoint can't say so")
        yield items, reading.faults_in_words()


def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="vlm3-recon-")


def _answerer(
    options: Options, task: Task, model: TaskModel | None, items: list[Item]
) -> tuple[Answerer, DepthKind | None]:
    """Who answers, and what it means by depth (None: what the labels mean)."""
    if model is not None:
        kind = model.profile.depth.depth_kind if task == "depth" else "auto"
        return Checkpoint(model, task), None if kind == "auto" else kind
    if options.baseline == "sift":
        return Sift(), None
    if options.baseline == "same-place":
        return SamePlace(), None
    truth = np.concatenate([item.depth_m for item in items if isinstance(item, DepthItem)])
    return ConstantDepth(best_constants(truth).for_delta1_m), None


def _about(options: Options, task: Task, model: TaskModel | None, items: list[Item]) -> dict[str, Any]:
    """What the answers depend on."""
    about: dict[str, Any] = {"task": task, "data": options.data, "labels": labels_digest(items)}
    if model is None:
        return {**about, "baseline": options.baseline}
    return {**about, "model": model.identity}


def _report(
    options: Options,
    task: Task,
    model: TaskModel | None,
    answered: list[Answered],
    faults: list[Any],
    left_out: str,
    depth_kind: DepthKind | None,
    about: dict[str, Any],
    seconds: float,
) -> Report:
    scores = score(answered, task, depth_kind, options.resamples)
    about = {key: value for key, value in about.items() if key in ("labels", "baseline")}
    if model is not None:
        about |= {"model": model.source, "dialect": model.profile.dialect, "dtype": options.models.dtype}
        if task == "depth":
            about |= {"depth_kind_of_answers": depth_kind or "taken as the labels'"}
    return Report(
        task=task,
        answerer=model.source if model is not None else f"baseline {options.baseline}",
        about=about,
        data=options.data,
        num_items=len(answered),
        num_questions=sum(len(entry.replies) for entry in answered),
        scores=scores,
        faults=faults,
        left_out=left_out,
        seconds=seconds,
        provenance={"hardware": hardware(), "versions": _versions()},
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("vlm3-recon", "numpy", "torch", "transformers", "pycolmap")}
