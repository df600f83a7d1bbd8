"""``vlm3-recon query``: ask the checkpoint about a photo or a pair and see what it says, word by word."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from pipelines.models import ModelOptions, TaskModel
from pipelines.summary import known_numbers
from recon.cameras.intrinsics import CameraOptions, initial_cameras
from recon.cameras.pixels import corner_from_index, index_from_corner
from recon.cameras.unify import to_source_pixels, to_unified_pixels, unify
from recon.capture.folder import load_pixels, read_capture
from recon.errors import BadInputError
from recon.questions import depth, match, object, pose
from recon.questions.dialects import get_dialect
from recon.types import Answer, Question, Task, UnifiedImage

# How the value of each kind of question reads.
UNITS = {
    "depth": "{} m",
    "rotation_angle": "{} degrees",
    "euler_natural": "yaw, pitch, roll {} degrees",
    "translation_direction": "unit vector {}",
    "translation_distance": "{} m",
    "object_length": "{} m",
    "object_polarity": "{} (1 yes, 0 no)",
    "object_clock": "{} o'clock",
}


@dataclass(frozen=True)
class Options:
    """Ask the checkpoint about photos.

    One photo with --at: how far is that pixel. Two photos with --at: where is the first one's pixel in the second. Two
    photos alone: how did the camera move. --ask: a question in words, about regions given as --box.
    """

    photos: Positional[tuple[Path, ...]]
    """one photo, or two"""
    at: Annotated[tuple[str, ...], tyro.conf.arg(metavar="X,Y ...")] = ()
    """pixels of the (first) upright photo, counted from 0 as image viewers do"""
    ask: str | None = None
    """a question in words, <mask> or Region [0] standing where a region belongs; or the name of one: width, height,
    distance, horizontal, vertical, direction, left, right, above, below, behind, front, bigger, smaller, wider,
    thinner, taller, shorter"""
    box: Annotated[tuple[str, ...], tyro.conf.arg(metavar="X1,Y1,X2,Y2 ...")] = ()
    """regions that the question speaks of, in pixels of the photo"""
    json: bool = False
    """print JSON instead of text"""
    models: OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)
    cameras: OmitArgPrefixes[CameraOptions] = field(default_factory=CameraOptions)


@dataclass(frozen=True)
class Replied:
    """A question, its answer, and the answer's value in words (pixels are the photo's, as viewers count them)."""

    question: Question
    answer: Answer
    value: str


def run(options: Options) -> None:
    """Asks and prints. Raises ReconError with one line about what is wrong."""
    task = _task(options)
    model = TaskModel(options.models, task)
    model.profile.task(task)  # says which tasks it answers when this is none of them
    replies = ask(options, task, model)
    if options.json:
        print(json.dumps({"model": model.source, "task": task, "answers": [_as_json(r) for r in replies]}, indent=1))
        return
    if model.notice:
        print(f"note: {model.notice}")
    for reply in replies:
        print(f"asked       {reply.question.text}\nanswered    {reply.answer.text}")
        print(f"understood  {reply.value} (confidence {reply.answer.confidence:.2f})")


def ask(options: Options, task: Task, model: TaskModel) -> list[Replied]:
    """The answers to what the command line asks."""
    for path in options.photos:
        if not path.is_file():
            raise BadInputError(f"{path}: no such photo")
    with tempfile.TemporaryDirectory(prefix="vlm3-recon-") as folder:
        capture = read_capture(list(options.photos), Path(folder) / "images")
        if len(capture.views) != len(options.photos):
            raise BadInputError(f"{capture.rejected[0].name}: {capture.rejected[0].reason}")
        cameras = initial_cameras(capture, options.cameras)
        profile = model.profile.task(task).image
        images = [unify(load_pixels(view), cameras[view.name], profile) for view in capture.views]
    questions = write_questions(options, task, model, images)
    answers = model.engine.ask(images, questions)
    return [Replied(q, *_understood(q, a, images)) for q, a in zip(questions, answers, strict=True)]


def write_questions(options: Options, task: Task, model: TaskModel, images: Sequence[UnifiedImage]) -> list[Question]:
    """The text of what is asked."""
    dialect = get_dialect(model.profile.dialect)
    if task == "pose":
        return pose.ask(dialect)
    size = images[0].source_camera.width_px, images[0].source_camera.height_px
    if task == "object":
        boxes = [object.read_box(text, *size) for text in options.box]
        if options.ask is not None and options.ask in object.FORMS:
            return [object.ask_form(dialect, images[0], options.ask, boxes)]
        return [object.ask(dialect, images[0], options.ask or "", boxes)]
    pixels = to_unified_pixels(images[0], corner_from_index([_read_pixel(text, *size) for text in options.at]))
    if task == "depth":
        return depth.ask(dialect, images[0], pixels)
    return match.ask(dialect, images[0], images[1], pixels, model.profile.match.think)


def _task(options: Options) -> Task:
    accepted = "accepted: PHOTO --at X,Y; PHOTO1 PHOTO2 --at X,Y; PHOTO1 PHOTO2; PHOTO --ask TEXT [--box X1,Y1,X2,Y2]"
    num_photos = len(options.photos)
    if options.box and options.ask is None:
        raise BadInputError(f"--box needs a question in words (--ask); {accepted}")
    if options.ask is not None and not options.at and num_photos == 1:
        return "object"
    if options.ask is None and num_photos in (1, 2) and options.at:
        return "depth" if num_photos == 1 else "match"
    if options.ask is None and num_photos == 2:
        return "pose"
    raise BadInputError(f"found {num_photos} photos, --at {len(options.at)} times, --ask {options.ask!r}; {accepted}")


def _read_pixel(text: str, width_px: int, height_px: int) -> tuple[float, float]:
    """``X,Y`` of a pixel inside the photo, index-based."""
    accepted = f"accepted: X,Y with X up to {width_px - 1} and Y up to {height_px - 1}"
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise BadInputError(f"--at {text!r} is not a pixel; {accepted}") from None
    if not (0 <= x <= width_px - 1 and 0 <= y <= height_px - 1):
        raise BadInputError(f"--at {text!r} lies outside the photo; {accepted}")
    return x, y


def _understood(question: Question, answer: Answer, images: Sequence[UnifiedImage]) -> tuple[Answer, str]:
    """The answer, its pixel taken into the second photo (index-based), and its value in words with units."""
    if answer.status == "not_visible":
        return answer, "not visible in the second photo"
    if answer.status != "ok" or answer.value is None:
        return answer, answer.text if answer.status == "ok" else f"nothing: {answer.status} ({answer.reason})"
    value = answer.value
    if question.kind == "match":
        x, y = index_from_corner(to_source_pixels(images[1], [value]))[0].tolist()
        return dataclasses.replace(answer, value=(x, y)), f"pixel {x:.1f},{y:.1f} of the second photo"
    return answer, UNITS.get(question.kind, "{}").format(
        ", ".join(f"{number:+g}" if len(value) > 1 else f"{number:g}" for number in value)
    )


def _as_json(reply: Replied) -> dict[str, Any]:
    answer = reply.answer
    return known_numbers(
        {
            "kind": reply.question.kind,
            "question": reply.question.text,
            "answer": answer.text,
            "status": answer.status,
            "value": list(answer.value) if answer.value is not None else None,
            "understood": reply.value,
            "confidence": answer.confidence,
            "reason": answer.reason,
        }
    )
