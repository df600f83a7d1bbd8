"""What is asked and answered in any dialect is read back within the rounding of its text."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from recon.errors import BadInputError
from recon.questions import depth, match, object, pose
from recon.questions.dialects import DIALECTS, POSE_KINDS, Dialect
from recon.questions.parse import parse_answer
from tests.questions.common import image

sizes = st.tuples(st.integers(8, 6000), st.integers(8, 6000))
shares = st.tuples(st.floats(0, 1), st.floats(0, 1))
ALL = list(DIALECTS.values())
WITH_POSE = [dialect for dialect in ALL if dialect.pose is not None]


def small_image(size: tuple[int, int]):
    """An image whose camera says ``size`` (its pixels are not looked at)."""
    unified = image(8, 8)
    return type(unified)(unified.pixels, unified.camera.resized(*size), unified.source_camera)


@pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)
@given(size=sizes, share=shares, depth_m=st.floats(0.005, 1000))
def test_depth(dialect: Dialect, size: tuple[int, int], share: tuple[float, float], depth_m: float) -> None:
    assert dialect.depth is not None
    unified = small_image(size)
    pixel = np.array(size) * share
    (question,) = depth.ask(dialect, unified, [pixel])
    # half a step of the text, half a pixel at the image's edge, or (paper) the last number that may be written
    step = np.array(size) / dialect.depth.coordinates.range_
    assert question.point is not None
    assert (np.abs(np.array(question.point) - pixel) <= np.maximum(step, 0.5) + 1e-6).all()
    assert (np.array(question.point) >= 0).all()
    assert (np.array(question.point) <= size).all()
    text = depth.answer_text(dialect, depth_m)
    parsed = parse_answer(question, text, [unified])
    if depth_m >= 0.0051:
        assert parsed.status == "ok"
        assert parsed.value is not None
        assert parsed.value[0] == pytest.approx(depth_m, abs=0.005 + 1e-9)
        assert parsed.span is not None
        assert float(text[slice(*parsed.span)]) == parsed.value[0]


@pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)
@given(size1=sizes, size2=sizes, share1=shares, share2=shares)
def test_match(dialect: Dialect, size1, size2, share1, share2) -> None:
    assert dialect.match is not None
    first, second = small_image(size1), small_image(size2)
    (question,) = match.ask(dialect, first, second, [np.array(size1) * share1])
    pixel2 = np.array(size2) * share2
    parsed = parse_answer(question, match.answer_text(dialect, second, pixel2), [first, second])
    assert parsed.status == "ok"
    assert parsed.value is not None
    half_step = np.array(size2) / dialect.match.coordinates.range_ / 2
    assert (np.abs(np.array(parsed.value) - pixel2) <= np.maximum(half_step, 0.5) + 1e-6).all()


def test_not_visible_is_an_answer_of_its_own() -> None:
    unified = image(288, 224)
    (question,) = match.ask(DIALECTS["recon-1"], unified, unified, [[10.0, 10.0]])
    parsed = parse_answer(question, match.answer_text(DIALECTS["recon-1"], unified, None), [unified, unified])
    assert (parsed.status, parsed.value, parsed.reason) == ("not_visible", None, "")
    with pytest.raises(ValueError, match="not visible"):
        match.answer_text(DIALECTS["vlm3-released"], unified, None)


quaternions = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 1e-3)
centres = st.tuples(*[st.floats(-20, 20)] * 3).filter(lambda c: np.linalg.norm(c) > 0.02)


@pytest.mark.parametrize("dialect", WITH_POSE, ids=lambda dialect: dialect.name)
@given(quaternion=quaternions, centre=centres)
def test_pose(dialect: Dialect, quaternion, centre) -> None:
    rotation = Rotation.from_quat(quaternion).as_matrix()
    transform = np.concatenate([rotation, np.array(centre)[:, None]], axis=1)
    values = {}
    for question in pose.ask(dialect):
        text = pose.answer_text(dialect, question.kind, transform)  # type: ignore[arg-type]
        parsed = parse_answer(question, text, [])
        assert parsed.status == "ok", (text, parsed)
        assert parsed.value is not None
        values[question.kind] = parsed.value
        if question.kind == "translation_direction":
            assert pose.contradicting_word(text, parsed.value) is None
    read = pose.rotation_from_euler(*values["euler_natural"])
    assert pose.rotation_angle_deg(read.T @ rotation) <= 3 * 0.05 + 1e-6
    assert values["rotation_angle"][0] == pytest.approx(pose.rotation_angle_deg(rotation), abs=0.0501)
    distance = np.linalg.norm(centre)
    assert values["translation_distance"][0] == pytest.approx(distance, abs=0.00501)
    cosine = float(np.dot(values["translation_direction"], centre) / distance)
    assert np.degrees(np.arccos(min(cosine, 1.0))) < 0.75


def test_pose_kinds_are_checked() -> None:
    with pytest.raises(ValueError, match="unknown pose question"):
        pose.answer_text(DIALECTS["recon-1"], "speed", np.eye(3, 4))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no direction"):
        pose.answer_text(DIALECTS["recon-1"], "translation_direction", np.eye(3, 4))
    assert set(POSE_KINDS) == {question.kind for question in pose.ask(DIALECTS["recon-1"])}


@pytest.mark.parametrize("pitch", [90.0, -90.0])
def test_euler_angles_at_the_poles(pitch: float) -> None:
    rotation = pose.rotation_from_euler(30.0, pitch, 20.0)
    yaw, found_pitch, roll = pose.euler_from_rotation(rotation)
    assert (found_pitch, roll) == (pitch, 0.0)
    np.testing.assert_allclose(pose.rotation_from_euler(yaw, found_pitch, roll), rotation, atol=1e-6)


@pytest.mark.parametrize("form_name", list(object.FORMS))
@pytest.mark.parametrize("dialect", [DIALECTS["vlm3-released"], DIALECTS["recon-1"]], ids=lambda dialect: dialect.name)
def test_object(dialect: Dialect, form_name: str) -> None:
    unified = image(640, 480)
    form = object.FORMS[form_name]
    boxes = [(10, 20, 110, 220), (300, 40, 420, 400)][: form.num_regions]
    question = object.ask_form(dialect, unified, form_name, boxes)
    region = (
        r"region x\d+ y\d+ x\d+ y\d+" if dialect.name == "recon-1" else r"bounding box region \(\d+, \d+, \d+, \d+\)"
    )
    assert len(re.findall(region, question.text)) == form.num_regions
    assert object.kind_of(question.text) == question.kind == form.kind
    values = {"object_polarity": [0.0, 1.0], "object_length": [0.07, 2.35, 117.0], "object_clock": [1.0, 12.0]}
    for value in values[form.kind]:
        text = object.answer_text(dialect, unified, form_name, boxes, value)
        assert parse_answer(question, text, [unified]).value == (value,)


def test_dialects_say_what_they_lack() -> None:
    with pytest.raises(BadInputError, match=r"'vlm3-paper' has no pose questions; it has: depth, match"):
        pose.ask(DIALECTS["vlm3-paper"])
