"""Answers that no teacher wrote: every one gets a status and a one-line reason, in linear time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon.questions import depth, match, pose
from recon.questions.dialects import DIALECTS
from recon.questions.parse import parse_answer
from recon.types import Question
from tests.questions.common import PROTOCOL, image

IMAGE = image(640, 480)


def questions() -> list[Question]:
    """One question of every dialect, task and kind."""
    found: list[Question] = []
    for dialect in DIALECTS.values():
        found += depth.ask(dialect, IMAGE, [[10.0, 10.0]]) + match.ask(dialect, IMAGE, IMAGE, [[10.0, 10.0]])
        if dialect.pose is not None:
            found += pose.ask(dialect)
        if dialect.object is not None:
            kinds = ("object", "object_polarity", "object_length", "object_clock")
            found += [Question("object", kind, dialect.name, "?") for kind in kinds]
    return found


def parse(question: Question, text: str):
    images = [IMAGE, IMAGE] if question.task == "match" else [IMAGE]
    return parse_answer(question, text, images)


BY_NAME = {f"{question.dialect}-{question.kind}": question for question in questions()}
ANSWER = {  # how each dialect writes a depth
    "vlm3-released-depth": "<answer> {} </answer>",
    "vlm3-paper-depth": "{} meters",
    "recon-1-depth": "{}",
}


@pytest.mark.parametrize("name", list(ANSWER))
@pytest.mark.parametrize("number", ["-2.35", "\u22122.35", "0", "0.00", "1e400", "1e-400", "9" * 5000, "-1e400"])
def test_impossible_depths_are_out_of_range(name: str, number: str) -> None:
    parsed = parse(BY_NAME[name], ANSWER[name].format(number))
    assert (parsed.status, parsed.value) == ("out_of_range", None)
    assert parsed.reason
    assert len(parsed.reason) < 300
    assert "\n" not in parsed.reason


@pytest.mark.parametrize("name", list(ANSWER))
@pytest.mark.parametrize("number", ["", "far", "NaN", "inf", "two", "1,5", "2.35.1", "x12", "\u0662"])
def test_texts_are_unparsed(name: str, number: str) -> None:
    parsed = parse(BY_NAME[name], ANSWER[name].format(number))
    assert (parsed.status, parsed.value, parsed.span) == ("unparsed", None, None)
    assert "expected" in parsed.reason


@pytest.mark.parametrize("name", list(ANSWER))
def test_the_first_of_several_depths_counts(name: str) -> None:
    text = ANSWER[name].format("2.35") + " " + ANSWER[name].format("9.99")
    assert parse(BY_NAME[name], text).value == (2.35,)


def test_other_units_are_not_metres() -> None:
    assert parse(BY_NAME["vlm3-paper-depth"], "50 mm").status == "unparsed"
    assert parse(BY_NAME["vlm3-released-translation_distance"], "Translation distance: 50 cm").status == "unparsed"
    assert parse(BY_NAME["vlm3-released-rotation_angle"], "Rotation angle: 1.2 radians").status == "unparsed"


@pytest.mark.parametrize("text", ["(1001, 5)", "(5, -1)", "(\u22125, 1)"])
def test_coordinates_outside_the_image_are_out_of_range(text: str) -> None:
    assert parse(BY_NAME["vlm3-released-match"], text).status == "out_of_range"


@pytest.mark.parametrize("text", ["1e3, 5", "1.2.3, 4", "<think> (3, 4)", "x3 y4", "(3; 4)", "not visible"])
def test_no_pair_is_made_up(text: str) -> None:
    assert parse(BY_NAME["vlm3-released-match"], text).status == "unparsed"


def test_our_matches() -> None:
    question = BY_NAME["recon-1-match"]
    assert parse(question, "x500 y500").value == (320.0, 240.0)
    assert parse(question, "x500y500").value == (320.0, 240.0)
    assert parse(question, "x1001 y5").status == "out_of_range"
    assert parse(question, "x12").status == "unparsed"
    assert parse(question, "Not visible").status == "not_visible"
    assert parse(question, "x5 y5 not visible").status == "ok"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("rotation_angle", "Rotation angle: 180.1 degrees"),
        ("rotation_angle", "Rotation angle: -3.0 degrees"),
        ("euler_natural", "Yaw=+181.0\u00b0, Pitch=+2.6\u00b0, Roll=+6.1\u00b0"),
        ("euler_natural", "Yaw=+1.0\u00b0, Pitch=+92.6\u00b0, Roll=+6.1\u00b0"),
        ("translation_direction", "The camera moves left, unit vector (-0.69, +0.02, +0.12)."),
        ("translation_direction", "The camera moves left, unit vector (1e400, +0.02, +0.12)."),
        ("translation_distance", "Translation distance: -1.98 meters"),
        ("translation_distance", "Translation distance: 1e400 meters"),
    ],
)
def test_impossible_poses_are_out_of_range(kind: str, text: str) -> None:
    assert parse(BY_NAME[f"vlm3-released-{kind}"], text).status == "out_of_range"


def test_typographic_signs_are_read() -> None:
    text = "Yaw=\u221289.6\u00ba, Pitch=+2.6 deg, Roll=+6.1 degrees"
    assert parse(BY_NAME["vlm3-released-euler_natural"], text).value == (-89.6, 2.6, 6.1)


def test_cut_off_answers_are_truncated() -> None:
    question = BY_NAME["recon-1-depth"]
    cut = parse_answer(question, "2.3", [IMAGE], is_complete=False)
    assert (cut.status, cut.value) == ("truncated", None)
    assert cut.reason
    complete = parse_answer(question, "2.35 metres or", [IMAGE], is_complete=False)
    assert complete.value == (2.35,)
    thinking = BY_NAME["vlm3-released-depth"]
    assert parse_answer(thinking, "<think> The point", [IMAGE], is_complete=False).status == "truncated"


@pytest.mark.parametrize("question", BY_NAME.values(), ids=BY_NAME)
@given(
    text=st.one_of(
        st.text(max_size=200),
        st.lists(
            st.sampled_from(
                [*"0123456789.-+eE,() \n\u2212'\"", "<think>", "</think>", "<answer>", "</answer>", "meters", "feet",
                 "inches", "Yaw=", "Pitch=", "Roll=", "\u00b0", "x", "y", "not visible", "Translation distance:",
                 "Rotation angle:", "degrees", "o'clock", "Yes", "1e400", "in", "\u0130"]
            ),
            max_size=40,
        ).map("".join),
    )
)  # fmt: skip
def test_any_text_gets_a_consistent_result(question: Question, text: str) -> None:
    parsed = parse(question, text)
    assert (parsed.status == "ok") == (parsed.reason == "" and parsed.status != "not_visible")
    if parsed.value is not None:
        assert parsed.status == "ok"
        assert all(abs(value) < float("inf") for value in parsed.value)
    if parsed.span is not None:
        assert 0 <= parsed.span[0] < parsed.span[1] <= len(text)
    assert "\n" not in parsed.reason


HUGE = 200_000


@pytest.mark.parametrize("question", BY_NAME.values(), ids=BY_NAME)
@pytest.mark.parametrize(
    "unit",
    ["9", "1 ", "1,", "(", "( ", "<think>", "<answer>", "<answer> 1", "1.", "1e", "-", "x1", "not ", "\n", "1'",
     "5 ft ", "yaw=1", "rotation angle ", "(1, 2, ", "1 m", " ", "<answer>1.1"],
)  # fmt: skip
def test_huge_answers_are_read_in_linear_time(question: Question, unit: str) -> None:
    # A quadratic pattern would need hours for this length, so finishing at all is the test.
    parse(question, unit * (HUGE // len(unit)))
    parse(question, unit + " " * HUGE + unit)


PUBLISHED = re.compile(PROTOCOL["depth"]["answer_regex"])


@given(
    st.lists(
        st.sampled_from(["<answer>", "</answer>", " ", ".", "-", "+", "1", "20", "e", "E5", "x", "<think>"]),
        max_size=12,
    ).map("".join)
)
def test_depth_answers_are_read_as_published(text: str) -> None:
    published = PUBLISHED.search(text)
    form = DIALECTS["vlm3-released"].depth
    assert form is not None
    ours = form.pattern.search(text)
    assert (published is None) == (ours is None)
    if published is not None and ours is not None:
        assert published[1] == ours["depth"]
