"""Reading any answer: finds the parser by the question's dialect and task."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from recon.questions import depth, match, object_answers, pose
from recon.questions.dialects import get_dialect
from recon.questions.reading import Parsed
from recon.types import Question, UnifiedImage

_PARSERS = {
    "depth": depth.parse,
    "match": match.parse,
    "pose": pose.parse,
    "object": object_answers.parse,
}


def parse_answer(question: Question, text: str, images: Sequence[UnifiedImage], is_complete: bool = True) -> Parsed:
    """Reads the value of an answer, never raising for what the text holds.

    Args:
        question: what was asked.
        text: the decoded answer without special tokens.
        images: the unified images that were asked about (one, or two in order), for pixels.
        is_complete: False when decoding stopped at the token limit instead of the end token. Then an answer without a
            value, or with a value that ends where the text was cut, is ``truncated``.

    Raises:
        BadInputError: the question's dialect is unknown.
        ValueError: the number of images does not fit the task.
    """
    parsed = _PARSERS[question.task](get_dialect(question.dialect), question, text, images)
    if is_complete:
        return parsed
    cut_off = parsed.status == "unparsed" or (parsed.span is not None and parsed.span[1] >= len(text.rstrip()))
    if not cut_off:
        return parsed
    reason = parsed.reason or "the answer was cut off at the token limit within its value"
    return dataclasses.replace(parsed, status="truncated", value=None, reason=reason)
