"""Asking all questions of an evaluation, with answers stored as they come: a killed run continues where it stopped.

``answers.jsonl`` begins with a line that says what was asked of whom; then one line per photo or pair.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipelines.eval.items import Item, Reply, num_questions, reply_of, with_region_numbers, write_questions
from pipelines.models import TaskModel
from pipelines.progress import Progress
from recon.errors import BadInputError, OutputError
from recon.interop.datasets.records import DepthItem, Fault, ObjectItem, PairItem
from recon.questions import pose
from recon.types import Task

_LOGGER = logging.getLogger(__name__)
FORMAT = 1


class Answerer(Protocol):
    """Who is evaluated: a checkpoint or a baseline."""

    def answer(self, items: Sequence[Item]) -> list[list[Reply]]:
        """The replies to every item's questions; the items show the same photos. Raises BadInputError for photos that
        can't be used."""
        ...


@dataclass(frozen=True)
class Answered:
    """An item with its replies, one per question."""

    item: Item
    replies: tuple[Reply, ...]


class Checkpoint:
    """A checkpoint through the engine."""

    def __init__(self, model: TaskModel, task: Task) -> None:
        self._model, self._task = model, task

    def answer(self, items: Sequence[Item]) -> list[list[Reply]]:
        written = [write_questions(item, self._task, self._model.profile) for item in items]
        images = written[0][0]
        questions = [question for _, part in written for question in part]
        answers = iter(self._model.engine.ask(images, questions))
        replies = [[reply_of(question, next(answers), images) for question in part] for _, part in written]
        profile = self._model.profile
        return [
            [with_region_numbers(reply, item, images[0], profile) for reply in part]
            if isinstance(item, ObjectItem)
            else part
            for item, part in zip(items, replies, strict=True)
        ]


class ConstantDepth:
    """The same depth everywhere."""

    def __init__(self, metres: float) -> None:
        self._reply = Reply(f"{metres:.2f}", "ok", (metres,), float("nan"))

    def answer(self, items: Sequence[Item]) -> list[list[Reply]]:
        return [[self._reply] * num_questions(item, "depth") for item in items]


class SamePlace:
    """Every point is in the second photo where it was in the first."""

    def answer(self, items: Sequence[Item]) -> list[list[Reply]]:
        replies = []
        for item in items:
            assert isinstance(item, PairItem)
            scale = [item.camera2.width_px / item.camera1.width_px, item.camera2.height_px / item.camera1.height_px]
            places = (item.pixels1 * scale).tolist()
            replies.append([Reply("same place", "ok", (x, y), float("nan")) for x, y in places])
        return replies


class Sift:
    """Relative pose from SIFT matches: no distance, nothing at all where the photos can't be verified."""

    def answer(self, items: Sequence[Item]) -> list[list[Reply]]:
        from recon.mapping.two_view import two_view_pose

        replies = []
        for item in items:
            assert isinstance(item, PairItem)
            found = two_view_pose(item.image1, item.camera1, item.image2, item.camera2)
            if found is None:
                replies.append([Reply("no verified matches", "unparsed", None, float("nan"))] * 4)
                continue
            rotation = found.rotation_cam1_from_cam2
            values: tuple[tuple[float, ...] | None, ...] = (
                (pose.rotation_angle_deg(rotation),),
                pose.euler_from_rotation(rotation),
                tuple(float(part) for part in found.direction1),
                None,
            )
            text = f"{found.num_inliers} verified matches"
            replies.append([Reply(text, "unparsed" if v is None else "ok", v, float("nan")) for v in values])
        return replies


# ---------------------------------------------------------------------------------------------------------------------
# storing


class AnswerFile:
    """The answers of a run, appended photo by photo.

    Raises:
        BadInputError: the file holds answers to other questions or of another checkpoint.
        OutputError: it can't be written.
    """

    def __init__(self, path: Path | None, about: dict[str, Any], overwrite: bool = False) -> None:
        self._path = path
        self._known: dict[int, list[Reply] | Fault] = {}
        if path is None:
            return
        header = {"format": FORMAT, "about": json.loads(json.dumps(about))}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not overwrite:
                self._read(path, header)
            else:
                path.write_text(json.dumps(header) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: can't be written ({error.strerror or error})") from error

    def get(self, item: Item) -> list[Reply] | Fault | None:
        """The stored replies of an item, or why it has none; None when it was not asked yet."""
        return self._known.get(item.line)

    def put(self, item: Item, result: Sequence[Reply] | Fault) -> None:
        """Stores the replies of an item."""
        self._known[item.line] = result if isinstance(result, Fault) else list(result)
        if self._path is None:
            return
        row: dict[str, Any] = {"line": item.line}
        if isinstance(result, Fault):
            row["fault"] = result.reason
        else:
            row["replies"] = [reply.to_json() for reply in result]
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise OutputError(f"{self._path}: can't be written ({error.strerror or error})") from error

    def _read(self, path: Path, header: dict[str, Any]) -> None:
        lines = path.read_bytes().split(b"\n")
        try:
            found = json.loads(lines[0])
        except ValueError as error:
            raise BadInputError(f"{path}: is no file of answers; choose another --out or --overwrite it") from error
        if found != header:
            raise BadInputError(
                f"{path}: holds answers of another run ({_difference(found, header)}); choose another --out or "
                "--overwrite them"
            )
        whole = b"\n".join(lines[:-1]) + b"\n"
        if lines[-1]:  # a killed run's torn last line
            with open(path, "r+b") as file:
                file.truncate(len(whole))
                file.flush()
                os.fsync(file.fileno())
        for number, line in enumerate(lines[1:-1], start=2):
            try:
                row = json.loads(line)
                key = int(row["line"])
                if "fault" in row:
                    self._known[key] = Fault(key, str(row["fault"]))
                else:
                    self._known[key] = [Reply.from_json(reply) for reply in row["replies"]]
            except (ValueError, KeyError, TypeError) as error:
                raise BadInputError(f"{path} line {number}: damaged; remove the file or --overwrite it") from error


def answer_all(
    items: Sequence[Item],
    answerer: Answerer,
    file: AnswerFile,
    strict: bool,
    progress: Progress | None = None,
    seconds: Callable[[], float] | None = None,
) -> tuple[list[Answered], list[Fault], float]:
    """Asks what is not stored yet.

    Args:
        items: what to ask, in order; neighbours that show the same photos are asked together.
        answerer: who answers.
        file: where answers are stored.
        strict: stop at the first item whose photos can't be used.
        progress: counts items.
        seconds: a clock.

    Returns:
        the answered items in order, those that could not be asked, and the seconds spent answering now.

    Raises:
        BadInputError: see ``strict``.
    """
    faults: list[Fault] = []
    answered: list[Answered] = []
    spent = 0.0
    done = 0
    for group in _same_photos(items):
        left = [item for item in group if file.get(item) is None]
        if left:
            started = seconds() if seconds else 0.0
            try:
                for item, replies in zip(left, answerer.answer(left), strict=True):
                    file.put(item, replies)
            except BadInputError as error:
                if strict:
                    raise BadInputError(f"line {left[0].line}: {error}; without --strict it is skipped") from error
                _LOGGER.warning("line %d left out: %s", left[0].line, error)
                for item in left:
                    file.put(item, Fault(item.line, str(error)))
            spent += (seconds() if seconds else 0.0) - started
        for item in group:
            stored = file.get(item)
            if isinstance(stored, Fault):
                faults.append(stored)
            elif stored is not None:
                answered.append(Answered(item, tuple(stored)))
        done += len(group)
        if progress is not None:
            progress(done, len(items))
    return answered, faults, spent


def _same_photos(items: Sequence[Item]) -> Iterator[list[Item]]:
    group: list[Item] = []
    for item in items:
        if group and not (isinstance(item, ObjectItem) and _photo(item) == _photo(group[0])):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _photo(item: Item) -> object:
    return (item.image, item.camera) if isinstance(item, (ObjectItem, DepthItem)) else (item.image1, item.image2)


def labels_digest(items: Sequence[Item]) -> str:
    """A digest of everything that is asked and of the labels (photos by name and size: the folder may move)."""
    digest = hashlib.sha256()
    for item in items:
        for value in vars(item).values():
            known = value.stat().st_size if isinstance(value, Path) else value
            digest.update(known.tobytes() if isinstance(known, np.ndarray) else str(known).encode())
            digest.update(b"\0")
    return digest.hexdigest()[:16]


def _difference(found: Any, expected: dict[str, Any]) -> str:
    about = found.get("about") if isinstance(found, dict) else None
    if not isinstance(about, dict):
        return "of another format"
    names = [key for key, value in expected["about"].items() if about.get(key) != value]
    return f"another {' and '.join(names)}" if names else "of another format"
