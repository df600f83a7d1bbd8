"""What all answer parsers share: the result type, the number pattern, and reading one number safely.

All patterns use possessive quantifiers and may only start at a token's beginning, so that their time is linear in the
length of the answer, whatever a checkpoint produces.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from recon.types import AnswerStatus

NUMBER = r"[-+]?(?:\d++(?:\.\d++)?|\.\d++)(?:[eE][-+]?\d++)?"
"""A decimal number as in the published answer pattern ``[-+]?\\d*\\.?\\d+(?:[eE][-+]?\\d+)?``, without backtracking."""

FLAGS = re.ASCII | re.IGNORECASE

_MAX_NUMBER_LENGTH = 40  # float64 needs at most 25 characters; more is a model that got stuck on one digit
_EXCERPT_LENGTH = 60

# One character each, so that positions in the cleaned text are positions in the original.
_LOOKALIKES = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2010": "-", "\u2011": "-", "\u00ba": "\u00b0"})


@dataclass(frozen=True)
class Parsed:
    """The value read from an answer's text.

    Attributes:
        status, value, reason: as in :class:`recon.types.Answer`.
        span: character range ``[start, end)`` of the text that carries the value; None when there is none.
    """

    status: AnswerStatus
    value: tuple[float, ...] | None
    reason: str = ""
    span: tuple[int, int] | None = None


def clean(text: str) -> str:
    """The text with typographic minus and degree signs replaced by the plain ones; same length."""
    return text.translate(_LOOKALIKES)


def blank_thinking(text: str) -> str:
    """The text with ``<think>...</think>`` replaced by blanks; same length.

    A block that is never closed is blanked to the end (the answer was cut off while thinking); a closing tag without
    an opening one (chat templates of thinking models write the opening tag into the prompt) blanks all before it.
    """
    opening, closing = "<think>", "</think>"
    parts: list[str] = []
    position = 0
    first_close, first_open = text.find(closing), text.find(opening)
    if first_close >= 0 and not 0 <= first_open < first_close:
        position = first_close + len(closing)
        parts.append(" " * position)
    while (start := text.find(opening, position)) >= 0:
        end = text.find(closing, start)
        end = len(text) if end < 0 else end + len(closing)
        parts += [text[position:start], " " * (end - start)]
        position = end
    parts.append(text[position:])
    return "".join(parts)


def read_number(digits: str) -> float:
    """A matched number as float; ``inf`` where it overflows or is absurdly long (``1e400``, thousands of digits)."""
    return float(digits) if len(digits) <= _MAX_NUMBER_LENGTH else math.inf


def excerpt(text: str) -> str:
    """The beginning of an answer on one line, quoted, for a reason."""
    flat = " ".join(text[: 4 * _EXCERPT_LENGTH].split())
    return repr(flat if len(flat) <= _EXCERPT_LENGTH else flat[:_EXCERPT_LENGTH] + "...")


def unparsed(text: str, expected: str) -> Parsed:
    """The result for an answer that holds no value of the expected form."""
    found = "the answer is empty" if not text.strip() else f"the answer is {excerpt(text)}"
    return Parsed("unparsed", None, f"{found}; expected {expected}")


def out_of_range(text: str, span: tuple[int, int], accepted: str) -> Parsed:
    """The result for a value of the right form that can't be true."""
    return Parsed("out_of_range", None, f"the answer {excerpt(text[slice(*span)])} is out of range; {accepted}", span)
