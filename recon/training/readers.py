"""Real data as a source of training samples: the curated files of :mod:`recon.interop.datasets` behind the interface of
:mod:`recon.training.sources`.

What is wrong with a line is found when the file is opened and left out with a count, or stops the training
(``strict``); what shows only when a photo is decoded raises :class:`BadSampleError`, which the mixture counts.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from recon.cameras.unify import to_unified_pixels, unify
from recon.errors import BadInputError
from recon.interop.datasets.depth_file import read_depth_file
from recon.interop.datasets.object_file import read_object_file
from recon.interop.datasets.pair_file import read_pair_file
from recon.interop.datasets.reading import Reading
from recon.interop.datasets.records import DepthItem, ObjectItem, PairItem, load_pixels
from recon.questions import depth, match, object, pose
from recon.questions.dialects import POSE_KINDS, Dialect
from recon.training.encode import Lesson, Sample
from recon.training.sources import BadSampleError, SampleSource, SourceSpec
from recon.types import Camera, Task, UnifiedImage

_LOGGER = logging.getLogger(__name__)
T = TypeVar("T")


def open_depthlm(spec: SourceSpec) -> SampleSource:
    """Depth labels (``depthlm-jsonl``)."""
    _check_task(spec, "depth")
    return DepthSource(spec, _opened(spec, read_depth_file(spec.path, strict=spec.strict)))


def open_pairs(spec: SourceSpec) -> SampleSource:
    """Matches or motions of pairs (``pairs``). The distance of a pair whose scene has no metric scale is not asked."""
    _check_task(spec, "match", "pose")
    task: Literal["match", "pose"] = "match" if spec.task == "match" else "pose"
    return PairSource(spec, _opened(spec, read_pair_file(spec.path, strict=spec.strict, task=task)))


def open_spatialrgpt(spec: SourceSpec) -> SampleSource:
    """Questions about regions (``spatialrgpt``), in the file's words."""
    _check_task(spec, "object")
    return ObjectSource(spec, _opened(spec, read_object_file(spec.path, strict=spec.strict)))


@dataclass(frozen=True)
class DepthSource:
    """A photo per turn, with depth questions about some of its labelled pixels."""

    spec: SourceSpec
    reading: Reading[DepthItem]

    def __len__(self) -> int:
        return len(self.reading.items)

    def sample(self, dialect: Dialect, turn: int, rng: np.random.Generator) -> Sample:
        """See :class:`recon.training.sources.SampleSource`. Labels are taught as the file means depth (z or ray)."""
        item = _item(self.reading, turn)
        try:
            image = _unified(item.image, item.camera, dialect, "depth")
            rows = _some(len(item.pixels), self.spec.questions, rng)
            questions = depth.ask(dialect, image, to_unified_pixels(image, item.pixels[rows]))
        except (BadInputError, ValueError) as error:
            raise _bad(self.reading.path, item.line, error) from error
        lessons = tuple(
            Lesson(question.text, depth.answer_text(dialect, float(depth_m)))
            for question, depth_m in zip(questions, item.depth_m[rows], strict=True)
        )
        return Sample((image,), lessons, self.spec.name)


@dataclass(frozen=True)
class PairSource:
    """A pair per turn, with match questions about some of its points or the questions about its motion."""

    spec: SourceSpec
    reading: Reading[PairItem]

    def __len__(self) -> int:
        return len(self.reading.items)

    def sample(self, dialect: Dialect, turn: int, rng: np.random.Generator) -> Sample:
        """See :class:`recon.training.sources.SampleSource`."""
        task = self.spec.task
        item = _item(self.reading, turn)
        try:
            first = _unified(item.image1, item.camera1, dialect, task)
            second = _unified(item.image2, item.camera2, dialect, task)
            lessons = _match_lessons(item, first, second, dialect, self.spec.questions, rng) if task == "match" else ()
        except (BadInputError, ValueError) as error:
            raise _bad(self.reading.path, item.line, error) from error
        return Sample((first, second), lessons or _pose_lessons(item, dialect), self.spec.name)


@dataclass(frozen=True)
class ObjectSource:
    """A photo per turn, with its questions about regions."""

    spec: SourceSpec
    reading: Reading[ObjectItem]

    def __len__(self) -> int:
        return len(self.reading.items)

    def sample(self, dialect: Dialect, turn: int, rng: np.random.Generator) -> Sample:
        """See :class:`recon.training.sources.SampleSource`."""
        item = _item(self.reading, turn)
        try:
            image = _unified(item.image, item.camera, dialect, "object")
            chosen = [item.turns[k] for k in _some(len(item.turns), self.spec.questions, rng)]
            lessons = tuple(
                Lesson(_written(question, item, image, dialect), _written(answer, item, image, dialect))
                for question, answer in chosen
            )
        except (BadInputError, ValueError) as error:
            raise _bad(self.reading.path, item.line, error) from error
        return Sample((image,), lessons, self.spec.name)


def _match_lessons(
    item: PairItem,
    first: UnifiedImage,
    second: UnifiedImage,
    dialect: Dialect,
    most: int,
    rng: np.random.Generator,
) -> tuple[Lesson, ...]:
    assert dialect.match is not None
    places = to_unified_pixels(second, item.pixels2)
    size = (second.camera.width_px, second.camera.height_px)
    visible = np.isfinite(places[:, 0])
    places = np.where(visible[:, None], np.clip(places, 0, size), np.nan)
    usable = np.arange(len(places)) if dialect.match.not_visible is not None else np.flatnonzero(visible)
    if len(usable) == 0:
        raise BadInputError("no point is visible in the second photo, and the dialect can't say so")
    rows = usable[_some(len(usable), most, rng)]
    questions = match.ask(dialect, first, second, to_unified_pixels(first, item.pixels1[rows]))
    return tuple(
        Lesson(question.text, match.answer_text(dialect, second, places[row] if visible[row] else None))
        for question, row in zip(questions, rows, strict=True)
    )


def _pose_lessons(item: PairItem, dialect: Dialect) -> tuple[Lesson, ...]:
    relative = item.cam1_from_cam2
    assert relative is not None
    moves = float(np.linalg.norm(relative[:, 3])) > 1e-9
    lessons = []
    for question, kind in zip(pose.ask(dialect), POSE_KINDS, strict=True):
        has_answer = moves if kind == "translation_direction" else item.is_metric or kind != "translation_distance"
        if has_answer:
            lessons.append(Lesson(question.text, pose.answer_text(dialect, kind, relative)))
    return tuple(lessons)


def _written(text: str, item: ObjectItem, image: UnifiedImage, dialect: Dialect) -> str:
    """A question or label with its regions in the dialect's words."""
    return object.with_regions(text, lambda k: object.region_text(dialect, image, item.boxes[k]))


def _unified(path: Path, camera: Camera, dialect: Dialect, task: Task) -> UnifiedImage:
    dialect.require(task)
    form = getattr(dialect, task)
    return unify(load_pixels(path, camera), camera, form.image)


def _some(count: int, most: int, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.permutation(count)[:most])


def _item(reading: Reading[T], turn: int) -> T:
    try:
        return reading.items[turn % len(reading.items)]
    except BadInputError as error:  # its line or photo is not what it was when the file was opened
        raise BadSampleError(str(error)) from error


def _bad(path: Path, line: int, error: Exception) -> BadSampleError:
    return BadSampleError(f"{path} line {line}: {error}")


def _check_task(spec: SourceSpec, *tasks: Task) -> None:
    if spec.task not in tasks:
        raise BadInputError(
            f"data set {spec.name!r}: format {spec.format} has no labels for {spec.task}; accepted: {', '.join(tasks)}"
        )


def _opened(spec: SourceSpec, reading: Reading[T]) -> Reading[T]:
    if reading.num_faults:
        _LOGGER.warning("data set %s: %s", spec.name, reading.faults_in_words())
    return reading
