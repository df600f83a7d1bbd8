"""The released dialect against the published protocol: prompts byte for byte, coordinates, answers, conventions."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from recon.cameras.pixels import corner_from_index
from recon.questions import depth, match, object, pose
from recon.questions.dialects import DIALECTS, POSE_KINDS, get_dialect
from recon.questions.parse import parse_answer
from recon.questions.profile import PUBLIC_PROFILES
from tests.helpers import REPOSITORY
from tests.questions.common import PROTOCOL, image

RELEASED = get_dialect("vlm3-released")
PAPER = get_dialect("vlm3-paper")


def test_the_vectors_are_the_published_ones() -> None:
    published = REPOSITORY.parent / "shared" / "protocol" / "vlm3_released.json"
    if not published.is_file():
        pytest.skip("the published protocol is not on this machine")
    assert json.loads(published.read_text(encoding="utf-8")) == PROTOCOL


def test_depth_prompts_and_coordinates_are_byte_exact() -> None:
    vectors = PROTOCOL["vectors"]["depth_normalisation"]
    unified = image(vectors["width"], vectors["height"])
    pixels = corner_from_index([pixel for pixel, _ in vectors["px_to_norm"]])
    questions = depth.ask(RELEASED, unified, pixels)
    template = PROTOCOL["depth"]["prompt"]
    expected = [template.format(nx=x, ny=y) for _, (x, y) in vectors["px_to_norm"]]
    assert [question.text for question in questions] == expected
    named = np.array([question.point for question in questions])
    half_step = np.array([vectors["width"], vectors["height"]]) / 2000 / 2
    assert (np.abs(named - pixels) <= half_step + 1e-9).all()


def test_depth_answer_is_the_published_form() -> None:
    assert depth.answer_text(RELEASED, 2.35) == PROTOCOL["depth"]["likely_answer"]
    unified = image(1215, 920)
    (question,) = depth.ask(RELEASED, unified, [[10.5, 488.5]])
    text = PROTOCOL["depth"]["likely_answer"]
    parsed = parse_answer(question, text, [unified])
    assert (parsed.status, parsed.value) == ("ok", (2.35,))
    assert parsed.span is not None
    assert text[slice(*parsed.span)] == "2.35"
    assert parsed.span[0] > text.index("<answer>")  # the number in the answer, not the one in the thinking


def test_match_prompts_are_byte_exact() -> None:
    first, second = image(1024, 683), image(683, 1024)
    template = PROTOCOL["match"]["prompt"]
    for width, height, (x, y) in [(1024, 683, (440, 60)), (1024, 683, (0, 1000))]:
        pixel = corner_from_index([x / 1000 * width, min(y / 1000 * height, height)])
        (question,) = match.ask(RELEASED, first, second, [pixel])
        assert question.text == template.format(x1=x, y1=y)
        (thinking,) = match.ask(RELEASED, first, second, [pixel], think=True)
        assert thinking.text == template.format(x1=x, y1=y) + PROTOCOL["match"]["think_suffix"]


def test_match_coordinates_follow_the_published_normalisation() -> None:
    vectors = PROTOCOL["vectors"]["match_normalisation"]
    width = vectors["original"][0]
    unified_width, unified_height = vectors["resized"]
    second = image(unified_width, unified_height)
    (question,) = match.ask(RELEASED, second, second, [[1.0, 1.0]])
    for original, norm in vectors["rows_orig_to_norm1000"]:
        parsed = parse_answer(question, f"({norm[0]}, {norm[1]})", [second, second])
        assert parsed.value is not None
        # the published pixels are array indices, scaled by the same factor in both directions
        saved = np.array(original) * (unified_width / width)
        np.testing.assert_allclose(np.array(parsed.value) - 0.5, saved, atol=0.5e-3 * unified_width / 1000)


@pytest.mark.parametrize(
    "text",
    [
        "(512, 371)",
        "512, 371",
        "<think> It is near (1, 2). </think>\n\n(512, 371)",
        "It is near (1, 2). </think> (512, 371)",
        "The pixel is (512.0, 371.00), not (3, 4).",
        "( 512 ,371 )",
    ],
)
def test_match_reads_the_first_pair_after_the_thinking(text: str) -> None:
    second = image(1000, 1000)
    (question,) = match.ask(RELEASED, second, second, [[1.0, 1.0]])
    assert parse_answer(question, text, [second, second]).value == (512.5, 371.5)


def test_pose_prompts_are_byte_exact() -> None:
    questions = pose.ask(RELEASED)
    assert [question.kind for question in questions] == list(PROTOCOL["pose"]["questions"])
    assert [question.text for question in questions] == list(PROTOCOL["pose"]["questions"].values())


def _published_pose() -> np.ndarray:
    vector = PROTOCOL["vectors"]["pose"]
    rotation = Rotation.from_euler("YXZ", [vector[f"{name}_deg"] for name in ("yaw", "pitch", "roll")], degrees=True)
    unit = np.array(vector["unit_vector"])
    centre = vector["distance_m"] * unit / np.linalg.norm(unit)
    return np.concatenate([rotation.as_matrix(), centre[:, None]], axis=1)


@pytest.mark.parametrize("kind", POSE_KINDS)
@pytest.mark.parametrize("name", ["vlm3-released", "recon-1"])
def test_pose_answers_are_the_published_ones(name: str, kind: str) -> None:
    assert pose.answer_text(get_dialect(name), kind, _published_pose()) == PROTOCOL["pose"]["answers"][kind]  # type: ignore[arg-type]


def test_pose_convention_is_the_published_one() -> None:
    vector = PROTOCOL["vectors"]["pose"]
    rotation = pose.rotation_from_euler(vector["yaw_deg"], vector["pitch_deg"], vector["roll_deg"])
    assert pose.rotation_angle_deg(rotation) == pytest.approx(vector["rotation_angle_deg"], abs=1e-4)
    assert pose.direction_words(vector["unit_vector"]) == vector["direction_words"]
    # positive yaw turns right, positive pitch looks up, positive roll banks to the right (camera 2's axes in camera 1)
    assert pose.rotation_from_euler(10, 0, 0)[0, 2] > 0
    assert pose.rotation_from_euler(0, 10, 0)[1, 2] < 0
    assert pose.rotation_from_euler(0, 0, 10)[1, 0] > 0


def test_pose_answers_are_read() -> None:
    answers = PROTOCOL["pose"]["answers"]
    values = {
        question.kind: parse_answer(question, answers[question.kind], []).value for question in pose.ask(RELEASED)
    }
    assert values["rotation_angle"] == (89.7,)
    assert values["euler_natural"] == (89.6, 2.6, 6.1)
    assert values["translation_distance"] == (1.98,)
    direction = np.array(values["translation_direction"])
    np.testing.assert_allclose(direction, np.array([-0.69, 0.02, 0.72]) / np.linalg.norm([-0.69, 0.02, 0.72]))


def test_object_boxes_and_prompt() -> None:
    vectors = PROTOCOL["vectors"]["object_boxes"]
    unified = image(*vectors["resized_wh"])
    for (x1, y1, x2, y2), norm in vectors["px_to_norm1000"]:
        written = object.region_text(RELEASED, unified, (x1, y1, x2 + 1, y2 + 1))
        numbers = [int(number) for number in re.findall(r"\d+", written)]
        assert np.abs(np.array(numbers) - norm).max() <= 1  # the published labels agree within 1, not exactly
        assert written == "bounding box region ({}, {}, {}, {})".format(*numbers)
    regions = [f"bounding box region {tuple(norm)}" for _, norm in vectors["px_to_norm1000"]]
    form = object.FORMS["smaller"]
    assert form.prompt.format(a=regions[0], b=regions[1]) == PROTOCOL["object"]["example_prompt"]
    assert form.no.format(a=regions[0], b=regions[1]) == PROTOCOL["object"]["example_answer"]


def test_object_example_is_read() -> None:
    unified = image(1134, 851)
    question = object.ask(RELEASED, unified, PROTOCOL["object"]["example_prompt"])
    assert question.text == PROTOCOL["object"]["example_prompt"]
    assert parse_answer(question, PROTOCOL["object"]["example_answer"], [unified]).value == (0.0,)


def test_paper_dialect() -> None:
    unified = image(1215, 920)
    (question,) = depth.ask(PAPER, unified, [[10.5, 488.5]])
    assert question.text == PROTOCOL["paper_dialect"]["depth"]["prompt"].format(nx=16, ny=1061)
    assert depth.answer_text(PAPER, 2.35) == PROTOCOL["paper_dialect"]["depth"]["answer"].format(d="2.35")
    (question,) = match.ask(PAPER, unified, unified, [[10.5, 488.5]])
    assert question.text == PROTOCOL["paper_dialect"]["match"]["prompt"].format(x1=8, y1=530)
    assert PAPER.tasks == ("depth", "match")


def test_our_dialect_has_the_coordinates_last() -> None:
    ours = get_dialect("recon-1")
    unified = image(288, 224)
    (question,) = depth.ask(ours, unified, [[288 * 0.512, 224 * 0.371]])
    assert question.text == "Depth in metres at x512 y371"
    assert depth.answer_text(ours, 2.349) == "2.35"
    (question,) = match.ask(ours, unified, unified, [[288 * 0.512, 224 * 0.371]])
    assert question.text == "Second image position of x512 y371"
    assert match.answer_text(ours, unified, [288 * 0.233, 224 * 0.12]) == "x233 y120"
    assert match.answer_text(ours, unified, None) == "not visible"
    assert [q.text for q in pose.ask(ours)] == [
        "Rotation angle",
        "Yaw, pitch, roll",
        "Direction of motion",
        "Distance moved",
    ]


def test_token_limits_and_images_are_the_published_ones() -> None:
    assert RELEASED.depth is not None
    assert RELEASED.match is not None
    assert RELEASED.depth.max_new_tokens == PROTOCOL["depth"]["max_new_tokens"]
    limits = PROTOCOL["match"]["max_new_tokens"]
    assert RELEASED.match.max_new_tokens == limits["without"]
    assert RELEASED.match.max_new_tokens_thinking == limits["with_think"]
    profiles = {name.removeprefix("facebook/VLM3-"): profile for name, profile in PUBLIC_PROFILES.items()}
    assert (profiles["depth"].depth.image.mode, profiles["depth"].depth.image.target_px) == ("focal", 1000)
    assert (profiles["corr"].match.image.mode, profiles["corr"].match.image.target_px) == ("long_edge", 1024)
    assert (profiles["pose"].pose.image.mode, profiles["pose"].pose.image.target_px) == ("focal", 750)
    assert (profiles["object"].object.image.mode, profiles["object"].object.image.target_px) == ("focal", 1000)
    assert profiles["pose"].pose.max_new_tokens == PROTOCOL["pose"]["max_new_tokens"]
    assert profiles["object"].object.max_new_tokens == PROTOCOL["object"]["max_new_tokens"]
    assert {name: profile.dialect for name, profile in PUBLIC_PROFILES.items()} == dict.fromkeys(
        (PROTOCOL[task]["checkpoint"] for task in ("depth", "match", "pose", "object")), "vlm3-released"
    )


def test_dialects_are_known_by_name() -> None:
    assert all(name == dialect.name for name, dialect in DIALECTS.items())
