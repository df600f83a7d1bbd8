"""Regions as users give them, questions in free words, and answers with units."""

from __future__ import annotations

import re

import numpy as np
import pytest

from recon.cameras.unify import ImageProfile, to_unified_pixels, unify
from recon.errors import BadInputError
from recon.questions import object
from recon.questions.dialects import get_dialect
from recon.questions.parse import parse_answer
from recon.types import Camera, Question
from tests.questions.common import image

RELEASED = get_dialect("vlm3-released")


def read(kind: str, text: str):
    return parse_answer(Question("object", kind, "vlm3-released", "?"), text, [image(100, 100)])


def test_boxes_hold_both_corner_pixels() -> None:
    assert object.read_box("10, 20,30.5,40", 640, 480) == (10.0, 20.0, 31.5, 41.0)
    assert object.read_box("0,0,639,479", 640, 480) == (0.0, 0.0, 640.0, 480.0)


@pytest.mark.parametrize(
    "text",
    ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "nan,0,5,5", "inf,0,5,5", "5,5,5,9", "9,5,5,9", "-1,0,5,5", "0,0,640,10",
     "0,0,5,1e400", "1;2;3;4"],
)  # fmt: skip
def test_bad_boxes_are_named(text: str) -> None:
    with pytest.raises(BadInputError, match=r"--box .*accepted: x1,y1,x2,y2 in pixels with x1 < x2 < 640") as caught:
        object.read_box(text, 640, 480)
    assert "\n" not in str(caught.value)


def test_regions_follow_the_photo_into_the_unified_image() -> None:
    camera = Camera("SIMPLE_RADIAL", 640, 480, (500.0, 320.0, 240.0, -0.2), "given")
    unified = unify(np.zeros((480, 640, 3), dtype=np.uint8), camera, ImageProfile("focal", 1000))
    box = (100.0, 60.0, 260.0, 300.0)
    numbers = np.array([int(n) for n in re.findall(r"\d+", object.region_text(RELEASED, unified, box))])
    corners = to_unified_pixels(unified, np.array([[100.0, 60], [260, 300], [100, 300], [260, 60]]))
    size = np.array([unified.camera.width_px, unified.camera.height_px])
    low, high = corners.min(axis=0) / size * 1000, corners.max(axis=0) / size * 1000
    assert (np.abs(numbers - [*low, *high]) < 6).all()  # the bent sides reach beyond the corners by a few thousandths
    assert (numbers[:2] <= low + 1).all()
    assert (numbers[2:] >= high - 1).all()


def test_free_words_with_regions() -> None:
    unified = image(1000, 1000)
    boxes = [(0, 0, 100, 200), (500, 500, 900, 900)]
    by_order = object.ask(RELEASED, unified, "Is <mask> behind <mask>?", boxes)
    by_number = object.ask(RELEASED, unified, "Is Region [0] behind Region [1]?", boxes)
    expected = "Is bounding box region (0, 0, 99, 199) behind bounding box region (500, 500, 899, 899)?"
    assert by_order.text == by_number.text == expected
    assert by_order.kind == "object_polarity"
    assert object.ask(RELEASED, unified, "Is Region [1] behind Region [0] or Region [1]?", boxes).kind == "object"
    assert object.ask(RELEASED, unified, "  What is this? ").text == "What is this?"


@pytest.mark.parametrize(
    ("text", "num_boxes", "message"),
    [
        ("", 0, "empty"),
        ("Is <mask> red?", 0, r"names region 0 but 0 region\(s\) were given"),
        ("Is Region [2] red?", 2, "names region 2"),
        ("Is it red?", 1, r"1 region\(s\) were given but the question names 0"),
    ],
)
def test_regions_and_words_must_fit(text: str, num_boxes: int, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        object.ask(RELEASED, image(100, 100), text, [(0, 0, 9, 9)] * num_boxes)


def test_forms_are_checked() -> None:
    unified = image(100, 100)
    with pytest.raises(BadInputError, match="'colour' is unknown; accepted: smaller, bigger, wider"):
        object.ask_form(RELEASED, unified, "colour", [])
    with pytest.raises(BadInputError, match=r"about 2 region\(s\), found 1"):
        object.ask_form(RELEASED, unified, "distance", [(0, 0, 9, 9)])
    with pytest.raises(BadInputError, match="outside the unified photo"):
        object.region_text(RELEASED, unified, (200, 200, 300, 300))
    with pytest.raises(BadInputError, match="has no object questions"):
        object.ask(get_dialect("vlm3-paper"), unified, "What is this?")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("How far is <mask> from <mask>?", "object_length"),
        ("What is the approximate height of <mask>?", "object_length"),
        ("Can you tell me how wide <mask> is?", "object_length"),
        ("Could you measure the distance between <mask> and <mask>?", "object_length"),
        ("Can you confirm if <mask> is smaller than <mask>?", "object_polarity"),
        ("Does <mask> have a greater height compared to <mask>?", "object_polarity"),
        ("If you are at <mask>, where will you find <mask>?", "object_clock"),
        ("At what o’clock is <mask>?", "object_clock"),
        ("Which is wider, <mask> or <mask>?", "object"),
        ("What is this?", "object"),
    ],
)
def test_the_wording_tells_the_kind(text: str, kind: str) -> None:
    assert object.kind_of(text) == kind


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("2.5 meters", 2.5),
        ("It is 2.5 metres wide.", 2.5),
        ("bounding box region (0, 39, 652, 999) is 1.5 m tall", 1.5),
        ("85 cm", 0.85),
        ("85.0 centimeters.", 0.85),
        ("40 millimetres", 0.04),
        ("1.2 kilometers", 1200.0),
        ("10 feet", 3.048),
        ("1 foot", 0.3048),
        ("3.5 ft", 1.0668),
        ("12 inches", 0.3048),
        ("12 in.", 0.3048),
        ("5 feet 3 inches", 1.6002),
        ("5 feet and 3 inches", 1.6002),
        ("5'3\"", 1.6002),
        ("5’3”", 1.6002),
        ("2 yards", 1.8288),
        ("First 2 meters, then 3 feet", 2.0),
        ("First 3 feet, then 2 meters", 0.9144),
    ],
)
def test_lengths_come_in_metres(text: str, metres: float) -> None:
    parsed = read("object_length", text)
    assert parsed.value == (pytest.approx(metres),)


@pytest.mark.parametrize("text", ["", "wide", "2.5", "2,5 meters", "2 in the picture", "meters", "2 meterstick"])
def test_no_length_is_made_up(text: str) -> None:
    assert read("object_length", text).status == "unparsed"


@pytest.mark.parametrize("text", ["-2 meters", "1e400 m", "9" * 400 + " cm", "1e400 feet 2 inches"])
def test_impossible_lengths(text: str) -> None:
    assert read("object_length", text).status == "out_of_range"


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("Yes.", 1.0),
        ("yes, it is", 1.0),
        ("Correct, the region is not hidden.", 1.0),
        ("Indeed, it is.", 1.0),
        ("That is True.", 1.0),
        ("No", 0.0),
        ("Incorrect, it is.", 0.0),
        ("In fact, it might be wider.", 0.0),
        ("Actually, it might be larger.", 0.0),
        ("That's not true.", 0.0),
    ],
)
def test_polarity_is_the_first_word(text: str, truth: float) -> None:
    assert read("object_polarity", text).value == (truth,)


@pytest.mark.parametrize("text", ["", "Maybe.", "Nobody knows", "Yesterday", "The answer is yes"])
def test_no_polarity_is_made_up(text: str) -> None:
    assert read("object_polarity", text).status == "unparsed"


def test_clock_hours() -> None:
    assert read("object_clock", "You will find it at 10 o'clock.").value == (10.0,)
    assert read("object_clock", "around the 3 o’clock direction").value == (3.0,)
    assert read("object_clock", "at 13 o'clock").status == "out_of_range"
    assert read("object_clock", "at 0 o'clock").status == "out_of_range"
    assert read("object_clock", "to the left").status == "unparsed"


def test_free_questions_keep_their_text() -> None:
    parsed = read("object", "  A chair. ")
    assert (parsed.status, parsed.value, parsed.span) == ("ok", None, (2, 10))
    assert read("object", " ").status == "unparsed"
