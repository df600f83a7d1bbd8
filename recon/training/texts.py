"""The texts that our own tokenizer is trained on: every dialect's prompts and answer forms, and the chat's words."""

from __future__ import annotations

from collections.abc import Iterator

from recon.questions.dialects import DIALECTS
from recon.questions.object import FORMS

_WORDS = (
    "user assistant system",
    "The camera moves left, forward, up, down, right, backward, unit vector (-0.69, +0.02, +0.72).",
    "Rotation angle: 89.7 degrees",
    "Yaw=+89.6°, Pitch=+2.6°, Roll=+6.1°",
    "Translation distance: 1.98 meters",
    "not visible",
    "How wide is the height width length of distance between horizontal vertical direct feet inches centimeters meters",
    "Is bounding box region (0, 39, 652, 999) above below left right bigger smaller taller shorter wider thinner "
    "behind in front of bounding box region (6, 380, 228, 562)?",
    "Correct, Incorrect, Yes, No, is not larger in size than. Which of these two, stands taller? o'clock direction",
)


def tokenizer_texts() -> Iterator[str]:
    """All prompts and answer templates of the registered dialects, and common words of their answers."""
    for dialect in DIALECTS.values():
        for form in (dialect.depth, dialect.match):
            if form is not None:
                yield from (form.prompt, form.answer, form.expected)
        if dialect.pose is not None:
            yield from dialect.pose.prompts.values()
        if dialect.object is not None:
            yield dialect.object.region
    for question in FORMS.values():
        yield from (question.prompt, question.yes, question.no, question.answer)
    yield from _WORDS
