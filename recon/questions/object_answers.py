"""Reading answers about regions: yes or no, lengths with units, directions on the clock face."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from recon.questions.dialects import Dialect
from recon.questions.reading import FLAGS, Parsed, clean, out_of_range, read_number, unparsed
from recon.types import Question, UnifiedImage

_UNITS: Mapping[str, float] = MappingProxyType(
    {"millimet": 1e-3, "centimet": 1e-2, "kilomet": 1e3, "met": 1.0, "mm": 1e-3, "cm": 1e-2, "km": 1e3, "m": 1.0}
    | {"inch": 0.0254, "in": 0.0254, '"': 0.0254, "f": 0.3048, "'": 0.3048, "yard": 0.9144}
)
_LENGTH_NUMBER = r"(?:\d++(?:\.\d++)?|\.\d++)(?:e[-+]?\d++)?"
_UNIT = (
    r"millimet(?:er|re)s?+|centimet(?:er|re)s?+|kilomet(?:er|re)s?+|met(?:er|re)s?+|mm|cm|km|m"
    r"|inch(?:es)?+|in(?=\s*+(?:[.,;)]|\Z))|\"|feet|foot|ft|'|yards?+"
)
_LENGTH = re.compile(rf"(?<![\w.,+-])(?P<number>-?{_LENGTH_NUMBER})\s*+(?P<unit>{_UNIT})(?!\w)", FLAGS)
_FEET_INCHES = re.compile(
    rf"(?<![\w.,+-])(?P<feet>{_LENGTH_NUMBER})\s*+(?:feet|foot|ft|')(?:\s*+,)?+(?:\s*+and\b)?+\s*+"
    rf"(?P<inches>{_LENGTH_NUMBER})\s*+(?:inch(?:es)?+|in\b|\")",
    FLAGS,
)
_CLOCK = re.compile(r"(?<![\w.:+-])(?P<hour>\d++)\s*+o\s?+'\s?+clock", FLAGS)
_QUOTES = {ord(curly): straight for curly, straight in zip("\u2019\u2018\u2032\u2033\u201d", "'''\"\"")}
# The first word decides. "Actually" and "In fact" begin denials in the SpatialRGPT answers.
_POLARITY = re.compile(
    r"\A[\s\"'(]*+(?:(?P<yes>yes|yeah|correct|indeed|true|certainly|affirmative|that is (?:true|correct|right)|that's "
    r"(?:true|correct|right))|(?P<no>no|nope|not|incorrect|false|wrong|actually|in fact|negative|that is (?:false|"
    r"incorrect|wrong|not)|that's (?:false|incorrect|wrong|not)))\b",
    FLAGS,
)


def parse(dialect: Dialect, question: Question, text: str, images: Sequence[UnifiedImage]) -> Parsed:
    """Reads what the question's kind asks for (the first value of its form); values as in ``recon.types.Answer``."""
    return read(question.kind, text)


def read_value(kind: str, text: str) -> float | None:
    """The value of a polarity, a length (metres) or a clock direction (hour) in a text; None when there is none."""
    parsed = read(kind, text)
    return parsed.value[0] if parsed.status == "ok" and parsed.value is not None else None


def read(kind: str, text: str) -> Parsed:
    """Reads an answer to a question of this kind; ValueError for a kind that there is not."""
    if not text.strip():
        return unparsed(text, "a text")
    cleaned = straighten(text)
    if kind == "object":
        start = len(text) - len(text.lstrip())
        return Parsed("ok", None, span=(start, len(text.rstrip())))
    if kind == "object_polarity":
        found = _POLARITY.search(cleaned)
        if found is None:
            return unparsed(text, "an answer that begins with yes or no (Correct, Incorrect ...)")
        group = "yes" if found["yes"] else "no"
        return Parsed("ok", (float(group == "yes"),), span=found.span(group))
    if kind == "object_clock":
        found = _CLOCK.search(cleaned)
        if found is None:
            return unparsed(text, "HOUR o'clock")
        hour = read_number(found["hour"])
        if not 1 <= hour <= 12:
            return out_of_range(text, found.span("hour"), "hours are 1 to 12")
        return Parsed("ok", (hour,), span=found.span("hour"))
    if kind == "object_length":
        return _parse_length(text, cleaned)
    raise ValueError(f"unknown object question {kind!r}")


def _parse_length(text: str, cleaned: str) -> Parsed:
    simple, composed = _LENGTH.search(cleaned), _FEET_INCHES.search(cleaned)
    if composed is not None and (simple is None or composed.start() <= simple.start()):
        length_m = 0.3048 * read_number(composed["feet"]) + 0.0254 * read_number(composed["inches"])
        span = (composed.start("feet"), composed.end("inches"))
    elif simple is not None:
        unit = simple["unit"].lower()
        factor = next(factor for prefix, factor in _UNITS.items() if unit.startswith(prefix))
        length_m, span = read_number(simple["number"]) * factor, simple.span("number")
    else:
        return unparsed(text, "a length with its unit (meters, cm, feet, inches ...)")
    if not (math.isfinite(length_m) and length_m >= 0):
        return out_of_range(text, span, "a length is a finite number, not negative")
    return Parsed("ok", (length_m,), span=span)


def straighten(text: str) -> str:
    """Cleaned, with straight quotes; same length."""
    return clean(text).translate(_QUOTES)
