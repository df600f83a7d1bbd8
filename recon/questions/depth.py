"""Metric depth of a pixel: the question, the answer a teacher writes, and reading an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from numpy.typing import ArrayLike

from recon.questions.dialects import DepthForm, Dialect
from recon.questions.reading import Parsed, clean, out_of_range, read_number, unparsed
from recon.types import Question, UnifiedImage

DECIMALS = 2


def ask(dialect: Dialect, unified: UnifiedImage, pixels: ArrayLike) -> list[Question]:
    """One question per pixel ``[N, 2]`` of the unified image; ``Question.point`` is the pixel that the text names.

    Raises:
        BadInputError: the dialect has no depth questions.
        ValueError: a pixel is not finite.
    """
    form = _form(dialect)
    numbers = form.coordinates.write(pixels, unified.camera)  # [N, 2]
    points = form.coordinates.read(numbers, unified.camera)  # [N, 2]
    return [
        Question("depth", "depth", dialect.name, form.prompt.format(x=x, y=y), (float(px), float(py)))
        for (x, y), (px, py) in zip(numbers.tolist(), points.tolist(), strict=True)
    ]


def answer_text(dialect: Dialect, depth_m: float) -> str:
    """The answer that teaches a depth in metres (two decimals).

    Raises:
        ValueError: the depth is not a finite positive number.
    """
    if not (math.isfinite(depth_m) and depth_m > 0):
        raise ValueError(f"a depth must be a finite positive number of metres, got {depth_m}")
    return _form(dialect).answer.format(depth=f"{depth_m:.{DECIMALS}f}")


def parse(dialect: Dialect, question: Question, text: str, images: Sequence[UnifiedImage]) -> Parsed:
    """Reads the first depth of the dialect's form: value ``(metres,)``, as the checkpoint means it (z or ray)."""
    form = _form(dialect)
    cleaned = clean(text)
    found = form.pattern.search(cleaned)
    if found is None:
        return unparsed(text, form.expected)
    depth_m = read_number(found["depth"])
    if not (math.isfinite(depth_m) and depth_m > 0):
        return out_of_range(text, found.span("depth"), "a depth is a finite positive number of metres")
    return Parsed("ok", (depth_m,), span=found.span("depth"))


def _form(dialect: Dialect) -> DepthForm:
    dialect.require("depth")
    assert dialect.depth is not None
    return dialect.depth
