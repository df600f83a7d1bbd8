"""The pixel of the second image that shows the same point: question, teacher's answer, reading an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from recon.questions.dialects import Dialect, MatchForm
from recon.questions.reading import FLAGS, Parsed, blank_thinking, clean, out_of_range, read_number, unparsed
from recon.types import Question, UnifiedImage


def ask(
    dialect: Dialect, image1: UnifiedImage, image2: UnifiedImage, pixels1: ArrayLike, think: bool = False
) -> list[Question]:
    """One question per pixel ``[N, 2]`` of the first unified image; ``Question.point`` is the pixel the text names.

    Args:
        think: add the request to think step by step first (only dialects that have one).

    Raises:
        BadInputError: the dialect has no match questions.
        ValueError: a pixel is not finite, or the dialect can't ask to think.
    """
    form = _form(dialect)
    if think and not form.think_suffix:
        raise ValueError(f"dialect {dialect.name!r} has no form that asks to think first")
    suffix = form.think_suffix if think else ""
    numbers = form.coordinates.write(pixels1, image1.camera)  # [N, 2]
    points = form.coordinates.read(numbers, image1.camera)  # [N, 2]
    return [
        Question("match", "match", dialect.name, form.prompt.format(x=x, y=y) + suffix, (float(px), float(py)))
        for (x, y), (px, py) in zip(numbers.tolist(), points.tolist(), strict=True)
    ]


def answer_text(dialect: Dialect, image2: UnifiedImage, pixel2: ArrayLike | None) -> str:
    """The answer that teaches a pixel ``[2]`` of the second unified image, or that there is none (None).

    Raises:
        ValueError: the pixel is outside the image, or None in a dialect that can't say "not visible".
    """
    form = _form(dialect)
    if pixel2 is None:
        if form.not_visible is None:
            raise ValueError(f"dialect {dialect.name!r} has no answer for a point that is not visible")
        return form.not_visible
    width, height = image2.camera.width_px, image2.camera.height_px
    pixel = np.asarray(pixel2, dtype=np.float64)
    if not ((pixel >= 0).all() and (pixel <= [width, height]).all()):
        raise ValueError(f"pixel {pixel.tolist()} is outside the second image of {width}x{height}")
    x, y = form.coordinates.write(pixel, image2.camera).tolist()
    return form.answer.format(x=x, y=y)


def parse(dialect: Dialect, question: Question, text: str, images: Sequence[UnifiedImage]) -> Parsed:
    """Reads the first pair after the thinking: value ``(x, y)`` in pixels of the second unified image.

    ``not_visible`` when the dialect's phrase for it comes first. Raises ValueError unless there are two images.
    """
    form = _form(dialect)
    if len(images) != 2:
        raise ValueError(f"a match question is about two images, got {len(images)}")
    cleaned = clean(blank_thinking(text))
    found = form.pattern.search(cleaned)
    if form.not_visible is not None:
        denied = re.search(re.escape(form.not_visible), cleaned, FLAGS)
        if denied is not None and (found is None or denied.start() < found.start()):
            return Parsed("not_visible", None, span=denied.span())
    if found is None:
        return unparsed(text, form.expected)
    range_ = form.coordinates.range_
    numbers = np.array([read_number(found["x"]), read_number(found["y"])])
    span = (found.start("x"), found.end("y"))
    if not ((numbers >= 0).all() and (numbers <= range_).all()):
        return out_of_range(text, span, f"coordinates are between 0 and {range_}")
    x, y = form.coordinates.read(numbers, images[1].camera)
    return Parsed("ok", (float(x), float(y)), span=span)


def _form(dialect: Dialect) -> MatchForm:
    dialect.require("match")
    assert dialect.match is not None
    return dialect.match
