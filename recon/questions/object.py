"""Questions about regions of a photo (SpatialRGPT style): regions as text boxes, and forms to ask in.

A user may ask in free words with ``<mask>`` or ``Region [k]`` where the regions belong, or pick one of :data:`FORMS`.
The kinds of question differ in what can be read from the answer:

* ``object_polarity``: yes (1) or no (0); * ``object_length``: metres; * ``object_clock``: hour on the clock face;
* ``object``: anything; the text is the answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recon.cameras.unify import to_unified_pixels
from recon.errors import BadInputError
from recon.questions.dialects import Dialect, ObjectForm
from recon.questions.object_answers import straighten
from recon.questions.reading import FLAGS
from recon.types import Question, UnifiedImage

ObjectKind = Literal["object", "object_polarity", "object_length", "object_clock"]


@dataclass(frozen=True)
class Form:
    """One way to ask about one or two regions (``{a}``, ``{b}``) and how a teacher answers.

    ``yes``/``no`` for ``object_polarity``; otherwise ``answer`` with ``{value}``.
    """

    kind: ObjectKind
    prompt: str
    yes: str = ""
    no: str = ""
    answer: str = ""

    @property
    def num_regions(self) -> int:
        return 2 if "{b}" in self.prompt else 1


def _polarity(prompt: str, statement: str, denial: str) -> Form:
    return Form("object_polarity", prompt, yes=f"Correct, {statement}.", no=f"Incorrect, {denial}.")


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "smaller": _polarity(
            "Can you confirm if {a} is smaller than {b}?",
            "{a} is smaller in size than {b}",
            "{a} is not smaller in size than {b}",
        ),
        "bigger": _polarity("Is {a} bigger than {b}?", "{a} is bigger than {b}", "{a} is not bigger than {b}"),
        "wider": _polarity("Is {a} wider than {b}?", "{a} is wider than {b}", "{a} is not wider than {b}"),
        "thinner": _polarity("Is {a} thinner than {b}?", "{a} is thinner than {b}", "{a} is not thinner than {b}"),
        "taller": _polarity("Is {a} taller than {b}?", "{a} is taller than {b}", "{a} is not taller than {b}"),
        "shorter": _polarity("Is {a} shorter than {b}?", "{a} is shorter than {b}", "{a} is not shorter than {b}"),
        "left": _polarity("Is {a} to the left of {b}?", "{a} is to the left of {b}", "{a} is not to the left of {b}"),
        "right": _polarity(
            "Is {a} to the right of {b}?", "{a} is to the right of {b}", "{a} is not to the right of {b}"
        ),
        "above": _polarity("Is {a} above {b}?", "{a} is above {b}", "{a} is not above {b}"),
        "below": _polarity("Is {a} below {b}?", "{a} is below {b}", "{a} is not below {b}"),
        "behind": _polarity("Is {a} behind {b}?", "{a} is behind {b}", "{a} is not behind {b}"),
        "front": _polarity("Is {a} in front of {b}?", "{a} is in front of {b}", "{a} is not in front of {b}"),
        "width": Form("object_length", "What is the width of {a}?", answer="The width of {a} is {value} meters."),
        "height": Form("object_length", "What is the height of {a}?", answer="The height of {a} is {value} meters."),
        "distance": Form(
            "object_length",
            "What is the distance between {a} and {b}?",
            answer="{a} and {b} are {value} meters apart.",
        ),
        "horizontal": Form(
            "object_length",
            "What is the horizontal distance between {a} and {b}?",
            answer="The horizontal distance between {a} and {b} is {value} meters.",
        ),
        "vertical": Form(
            "object_length",
            "What is the vertical distance between {a} and {b}?",
            answer="The vertical distance between {a} and {b} is {value} meters.",
        ),
        "direction": Form(
            "object_clock",
            "If you are at {a}, where will you find {b}?",
            answer="You will find {b} at {value} o'clock.",
        ),
    }
)

# ---------------------------------------------------------------------------------------------------------------------
# regions


def read_box(text: str, width_px: int, height_px: int, option: str = "--box") -> tuple[float, float, float, float]:
    """A user's region ``x1,y1,x2,y2`` (pixels of the upright photo, as image viewers count them, both corners inside).

    Returns:
        The corner-based box (left, top, right, bottom) that covers both corner pixels wholly.

    Raises:
        BadInputError: not four finite numbers, empty, or outside the photo; names ``option``.
    """
    accepted = f"accepted: x1,y1,x2,y2 in pixels with x1 < x2 < {width_px} and y1 < y2 < {height_px}"
    parts = text.split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
        raise BadInputError(f"{option} {text[:80]!r} is not a region; {accepted}")
    x1, y1, x2, y2 = numbers
    if not (0 <= x1 < x2 < width_px and 0 <= y1 < y2 < height_px):
        raise BadInputError(f"{option} {text[:80]!r} is empty or reaches outside the photo; {accepted}")
    return x1, y1, min(x2 + 1.0, float(width_px)), min(y2 + 1.0, float(height_px))


def region_text(dialect: Dialect, unified: UnifiedImage, box: ArrayLike) -> str:
    """How a box of the photo (corner-based left, top, right, bottom; pixels of the *photo*) is written in a question.

    The box is taken into the unified image (the box around its outline there, where the lens bends it) and clipped.

    Raises:
        BadInputError: the dialect has no object questions, or the box lies outside the unified image.
    """
    form = _form(dialect)
    camera = unified.camera
    outline = to_unified_pixels(unified, _outline(np.asarray(box, dtype=np.float64)))
    outline = outline[np.isfinite(outline).all(axis=1)]
    size = np.array([camera.width_px, camera.height_px], dtype=np.float64)
    low, high = (outline.min(axis=0), outline.max(axis=0)) if len(outline) else (size, size)
    low, high = np.clip(low, 0, size), np.clip(high, 0, size)
    if (low >= high).any():
        raise BadInputError(f"region {np.asarray(box).tolist()} lies outside the unified photo; give one inside it")
    corners = np.stack([low, high])
    if form.coordinates.convention == "index":  # the indices of the first and the last pixel of a box
        corners = np.stack([low + 0.5, np.maximum(high - 0.5, low + 0.5)])
    (x1, y1), (x2, y2) = form.coordinates.write(corners, camera).tolist()
    return form.region.format(x1=x1, y1=y1, x2=x2, y2=y2)


def _outline(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points around the box's border, [36, 2]."""
    t = np.linspace(0.0, 1.0, 9)
    left, top, right, bottom = box
    x, y = left + t * (right - left), top + t * (bottom - top)
    return np.concatenate(
        [
            np.stack([x, np.full_like(x, top)], axis=1),
            np.stack([x, np.full_like(x, bottom)], axis=1),
            np.stack([np.full_like(y, left), y], axis=1),
            np.stack([np.full_like(y, right), y], axis=1),
        ]
    )


# ---------------------------------------------------------------------------------------------------------------------
# asking

_PLACEHOLDER = re.compile(r"<mask>|\bRegion \[(\d{1,4})\]")


def ask(dialect: Dialect, unified: UnifiedImage, text: str, boxes: Sequence[ArrayLike] = ()) -> Question:
    """A question in the user's words; ``<mask>`` (in order) or ``Region [k]`` (from 0) stand for the boxes.

    The kind, and with it what is read from the answer, comes from the wording (:func:`kind_of`).

    Raises:
        BadInputError: empty text; placeholders and boxes do not fit; see :func:`region_text`.
    """
    if not text.strip():
        raise BadInputError("the question is empty; give it in words, with <mask> where a region belongs")
    regions = [region_text(dialect, unified, box) for box in boxes]
    used: set[int] = set()
    next_mask = 0

    def replace(found: re.Match[str]) -> str:
        nonlocal next_mask
        if found[1] is None:
            index, next_mask = next_mask, next_mask + 1
        else:
            index = int(found[1])
        if index >= len(regions):
            raise BadInputError(
                f"the question names region {index} but {len(regions)} region(s) were given; give one per <mask>, or "
                "Region [0] for the first"
            )
        used.add(index)
        return regions[index]

    written = _PLACEHOLDER.sub(replace, text.strip())
    if len(used) < len(regions):
        raise BadInputError(
            f"{len(regions)} region(s) were given but the question names {len(used)}; write <mask> or Region [k] where "
            "each belongs"
        )
    _form(dialect)
    return Question("object", kind_of(text), dialect.name, written)


def named_regions(text: str) -> list[int]:
    """Numbers of the regions that a question or an answer names as ``Region [k]``, in order."""
    return [int(found[1]) for found in _PLACEHOLDER.finditer(text) if found[1] is not None]


def with_regions(text: str, written: Callable[[int], str]) -> str:
    """The text with every ``Region [k]`` replaced by ``written(k)``; ``<mask>`` stays."""
    return _PLACEHOLDER.sub(lambda found: found[0] if found[1] is None else written(int(found[1])), text)


def ask_form(dialect: Dialect, unified: UnifiedImage, form_name: str, boxes: Sequence[ArrayLike]) -> Question:
    """A question in one of :data:`FORMS` about one or two boxes; raises BadInputError naming what is accepted."""
    form = get_form(form_name)
    if len(boxes) != form.num_regions:
        raise BadInputError(f"question {form_name!r} is about {form.num_regions} region(s), found {len(boxes)}")
    return Question("object", form.kind, dialect.name, _fill(form.prompt, dialect, unified, boxes))


def answer_text(
    dialect: Dialect, unified: UnifiedImage, form_name: str, boxes: Sequence[ArrayLike], value: float
) -> str:
    """The answer that teaches a value: truth (0 or 1), metres, or the hour (1 to 12), by the form's kind."""
    form, brief = get_form(form_name), _form(dialect).brief_answers
    if form.kind == "object_polarity":
        if brief:
            return "Correct." if value else "Incorrect."
        return _fill(form.yes if value else form.no, dialect, unified, boxes)
    if form.kind == "object_clock":
        hour = str(round(value) % 12 or 12)
        return f"{hour} o'clock." if brief else _fill(form.answer.replace("{value}", hour), dialect, unified, boxes)
    metres = f"{value:.2f}"
    return f"{metres} meters." if brief else _fill(form.answer.replace("{value}", metres), dialect, unified, boxes)


def get_form(name: str) -> Form:
    """The form of that name; raises BadInputError naming the known ones."""
    if name not in FORMS:
        raise BadInputError(f"question form {name!r} is unknown; accepted: {', '.join(FORMS)}")
    return FORMS[name]


def _fill(template: str, dialect: Dialect, unified: UnifiedImage, boxes: Sequence[ArrayLike]) -> str:
    regions = dict(zip("ab", (region_text(dialect, unified, box) for box in boxes)))
    return template.format(**regions)


_CLOCK_QUESTION = re.compile(r"o'clock|\bwhere (?:will|would|can|do) you (?:find|see)\b|\bclock\b", FLAGS)
_LENGTH_QUESTION = re.compile(
    r"\bhow (?:far|wide|tall|high|long|much|close|big|thick|deep)\b|\b(?:distance|width|height|gap)\b", FLAGS
)
_POLARITY_QUESTION = re.compile(r"\A\s*+(?:is|are|does|do|can|could|has|have|was|were)\b", FLAGS)
_CHOICE_QUESTION = re.compile(r"\b(?:which|who)\b|\bor\b", FLAGS)


def kind_of(text: str) -> ObjectKind:
    """What the answer to a question in free words will hold, from the wording; ``object`` when it is not clear."""
    cleaned = straighten(text)
    if _CLOCK_QUESTION.search(cleaned):
        return "object_clock"
    if _POLARITY_QUESTION.search(cleaned) and not _CHOICE_QUESTION.search(cleaned):
        # "Can you tell me the width ..." begins like a yes/no question but asks for a length
        asks_for_value = re.match(r"\s*+(?:can|could) you (?!confirm)", cleaned, FLAGS)
        if not asks_for_value:
            return "object_polarity"
    if _LENGTH_QUESTION.search(cleaned) and not _CHOICE_QUESTION.search(cleaned):
        return "object_length"
    return "object"


def _form(dialect: Dialect) -> ObjectForm:
    dialect.require("object")
    assert dialect.object is not None
    return dialect.object
