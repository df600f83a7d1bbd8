"""What is evaluated: labelled photos and pairs of a file or folder, and the questions about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recon.cameras.unify import to_source_pixels, to_unified_pixels, unify
from recon.errors import BadInputError
from recon.interop.datasets.depth_file import read_depth_file
from recon.interop.datasets.ground_truth_pairs import read_ground_truth_pairs
from recon.interop.datasets.object_file import read_object_file
from recon.interop.datasets.pair_file import read_pair_file
from recon.interop.datasets.reading import Reading
from recon.interop.datasets.records import DepthItem, ObjectItem, PairItem, load_pixels
from recon.questions import depth, match, object, pose
from recon.questions.dialects import get_dialect
from recon.questions.profile import CheckpointProfile
from recon.types import Answer, DepthKind, Question, Task, UnifiedImage

Item = DepthItem | PairItem | ObjectItem

# Where a folder keeps its labels: names that are tried in turn.
FILES: dict[Task, tuple[str, ...]] = {
    "depth": ("depth.jsonl", "labels.jsonl", "gt/labels.jsonl"),
    "match": ("pairs.jsonl",),
    "pose": ("pairs.jsonl", "gt/pairs.json"),
    "object": ("object.json", "object.jsonl"),
}


@dataclass(frozen=True)
class Reply:
    """An answer as it is stored and scored.

    ``value`` is as in :class:`recon.types.Answer`, a match's in pixels of the second *photo*. ``confidence`` is NaN
    where the answerer has none (a baseline).
    """

    text: str
    status: str
    value: tuple[float, ...] | None
    confidence: float

    def to_json(self) -> dict[str, Any]:
        """What the answers' file holds."""
        data = asdict(self)
        data["confidence"] = None if np.isnan(self.confidence) else round(self.confidence, 6)
        return data

    @staticmethod
    def from_json(data: dict[str, Any]) -> Reply:
        """The reply of a stored one; raises KeyError, TypeError or ValueError for anything else."""
        value = data["value"]
        confidence = data["confidence"]
        return Reply(
            str(data["text"]),
            str(data["status"]),
            None if value is None else tuple(float(number) for number in value),
            float("nan") if confidence is None else float(confidence),
        )


def find_labels(path: Path, task: Task) -> Path:
    """The label file: the path itself, or one of the task's usual names in a folder.

    Raises:
        BadInputError: there is none.
    """
    if path.is_file():
        return path
    for name in FILES[task]:
        if (path / name).is_file():
            return path / name
    found = "no such file or folder" if not path.exists() else "the folder holds none of them"
    raise BadInputError(
        f"--data {path}: {found}; accepted for {task}: a label file, a folder with {' or '.join(FILES[task])}, or "
        "synthetic:test, synthetic:validation"
    )


def read_items(
    path: Path, task: Task, images: Path | None, depth_kind: DepthKind, strict: bool
) -> Reading[DepthItem] | Reading[PairItem] | Reading[ObjectItem]:
    """The items of a label file that the task has labels for; raises BadInputError when there are none."""
    if task == "depth":
        return read_depth_file(path, images, depth_kind, strict)
    if task == "object":
        return read_object_file(path, images, strict)
    if path.suffix == ".json" and task == "pose":
        return read_ground_truth_pairs(path, images, strict)
    return read_pair_file(path, images, strict, task)


def chosen_labels(item: Item, most: int, seed: int, profile: CheckpointProfile | None) -> Item:
    """The item with at most ``most`` (0: all) of its labels, drawn by the seed and the item's line.

    Where the checkpoint's dialect can't say "not visible", only visible points are asked.
    """
    rng = np.random.default_rng([seed, item.line])
    if isinstance(item, ObjectItem):
        return item if most == 0 else replace(item, turns=item.turns[:most])
    if isinstance(item, DepthItem):
        rows = _some(np.arange(len(item.pixels)), most, rng)
        return replace(item, pixels=item.pixels[rows], depth_m=item.depth_m[rows])
    rows = np.arange(len(item.pixels1))
    form = get_dialect(profile.dialect).match if profile is not None else None
    if form is not None and form.not_visible is None:
        rows = rows[np.isfinite(item.pixels2).all(axis=1)]
    rows = _some(rows, most, rng)
    return replace(item, pixels1=item.pixels1[rows], pixels2=item.pixels2[rows])


def _some(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return rows if most == 0 or len(rows) <= most else np.sort(rng.permutation(rows)[:most])


def num_questions(item: Item, task: Task) -> int:
    """How many questions an item makes."""
    if isinstance(item, DepthItem):
        return len(item.pixels)
    if isinstance(item, ObjectItem):
        return len(item.turns)
    return len(item.pixels1) if task == "match" else 4


def group_of(item: Item) -> str:
    """What the bootstrap draws: the photo, or the scene of a pair."""
    return item.scene if isinstance(item, PairItem) else item.name


def write_questions(
    item: Item, task: Task, profile: CheckpointProfile
) -> tuple[tuple[UnifiedImage, ...], list[Question]]:
    """The unified images and the questions about an item, in the order of its labels.

    Raises:
        BadInputError: a photo can't be read or unified, or a region can't be named.
    """
    dialect, settings = get_dialect(profile.dialect), profile.task(task).image
    if isinstance(item, PairItem):
        first = unify(load_pixels(item.image1, item.camera1), item.camera1, settings)
        second = unify(load_pixels(item.image2, item.camera2), item.camera2, settings)
        if task == "pose":
            return (first, second), pose.ask(dialect)
        pixels = to_unified_pixels(first, item.pixels1)
        _check_inside(pixels, item.name1)
        return (first, second), match.ask(dialect, first, second, pixels, profile.match.think)
    image = unify(load_pixels(item.image, item.camera), item.camera, settings)
    if isinstance(item, ObjectItem):
        return (image,), [_object_question(dialect, image, text, item.boxes) for text, _ in item.turns]
    pixels = to_unified_pixels(image, item.pixels)
    _check_inside(pixels, item.name)
    return (image,), depth.ask(dialect, image, pixels)


def _object_question(
    dialect: Any, image: UnifiedImage, text: str, boxes: Sequence[tuple[float, float, float, float]]
) -> Question:
    """The question with the boxes that it names as ``Region [k]``."""
    named = list(dict.fromkeys(object.named_regions(text)))
    if named and max(named) >= len(boxes):
        raise BadInputError(f"the question names region {max(named)}, there are {len(boxes)}")
    place = {k: index for index, k in enumerate(named)}  # ask() wants every region that it is given to be used
    renumbered = object.with_regions(text, lambda k: f"Region [{place[k]}]")
    return object.ask(dialect, image, renumbered, [boxes[k] for k in named])


def with_region_numbers(reply: Reply, item: ObjectItem, image: UnifiedImage, profile: CheckpointProfile) -> Reply:
    """The reply with regions written as in the labels (``Region [k]``) instead of the dialect's way."""
    text, dialect = reply.text, get_dialect(profile.dialect)
    for k, box in enumerate(item.boxes):
        text = text.replace(object.region_text(dialect, image, box), f"Region [{k}]")
    return replace(reply, text=text)


def _check_inside(pixels: np.ndarray, name: str) -> None:
    if not np.isfinite(pixels).all():
        raise BadInputError(f"{name}: a labelled pixel lies where its lens shows nothing")


def reply_of(question: Question, answer: Answer, images: Sequence[UnifiedImage]) -> Reply:
    """What is stored of an answer."""
    value = answer.value
    if question.kind == "match" and value is not None:
        x, y = to_source_pixels(images[1], [value])[0].tolist()
        value = (x, y)
    return Reply(answer.text, answer.status, value, answer.confidence)
