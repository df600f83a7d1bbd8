"""What is asked and taught: labels against geometry worked out anew, mirrored pairs, what can't be asked."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recon.questions.dialects import DIALECTS, POSE_KINDS, get_dialect
from recon.questions.object import FORMS
from recon.questions.parse import parse_answer
from recon.questions.pose import rotation_from_euler
from recon.synth.objects import ViewObject
from recon.training.pool import PooledPair, PooledView, pooled_pair
from recon.training.samples import (
    MEASURES,
    depth_sample,
    match_sample,
    named_objects,
    object_sample,
    pose_sample,
)
from recon.training.sources import BadSampleError
from recon.types import Question

RECON = get_dialect("recon-1")


@pytest.fixture(scope="module")
def pairs(pool: Path) -> list[PooledPair]:
    assert RECON.match is not None
    return [pooled_pair(pool, "train", index, RECON.match.image) for index in range(2)]


def _numbers(text: str) -> np.ndarray:
    return np.array([int(word[1:]) for word in text.split() if word[0] in "xy" and word[1:].isdigit()])


def _carried(pair: PooledPair, pixel1: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Pixel in the second view of what the first shows at ``pixel1``, its depth there, and what the map says there."""
    fx, fy, cx, cy = pair.first.image.camera.fx_fy_cx_cy
    column, row = np.minimum(pixel1.astype(int), np.array(pair.first.depth_m.shape)[::-1] - 1)
    depth = float(pair.first.depth_m[row, column])
    point1 = np.array([(pixel1[0] - cx) / fx, (pixel1[1] - cy) / fy, 1.0]) * depth
    relative = pair.cam1_from_cam2
    point2 = relative[:, :3].T @ (point1 - relative[:, 3])
    fx, fy, cx, cy = pair.second.image.camera.fx_fy_cx_cy
    pixel2 = np.array([point2[0] / point2[2] * fx + cx, point2[1] / point2[2] * fy + cy])
    size = np.array(pair.second.depth_m.shape)[::-1]
    column, row = np.clip(pixel2.astype(int), 0, size - 1)
    return pixel2, float(point2[2]), float(pair.second.depth_m[row, column])


def test_match_labels_are_where_geometry_says(pairs: list[PooledPair]) -> None:
    """Depth at the named pixel, carried over by the pose, projects to the answered coordinate."""
    misses = []
    for pair in pairs:
        sample = match_sample(pair, RECON, 60, np.random.default_rng(0))
        assert sample.images == (pair.first.image, pair.second.image)
        sizes = [np.array([image.camera.width_px, image.camera.height_px]) for image in sample.images]
        hidden = 0
        for lesson in sample.lessons:
            pixel2, depth2, shown = _carried(pair, _numbers(lesson.question) / 1000 * sizes[0])
            if lesson.answer == "not visible":
                hidden += 1
                inside = depth2 > 0 and ((pixel2 > 1) & (pixel2 < sizes[1] - 1)).all()
                assert not (inside and abs(shown / depth2 - 1) < 0.002)
            else:
                misses.append(np.abs(_numbers(lesson.answer) / 1000 * sizes[1] - pixel2).max())
        assert hidden <= 15
    assert len(misses) >= 90
    # half a thousandth of rounding is 0.15 px; the depth of the containing pixel is not quite that of the point
    assert np.median(misses) < 0.2
    assert np.quantile(misses, 0.9) < 0.6


def test_dialects_that_can_t_deny_ask_about_visible_points_only(pairs: list[PooledPair]) -> None:
    released = match_sample(pairs[0], DIALECTS["vlm3-released"], 30, np.random.default_rng(0))
    assert len(released.lessons) == 30
    assert all(lesson.answer.startswith("(") for lesson in released.lessons)
    ours = match_sample(pairs[0], RECON, 400, np.random.default_rng(0), hidden_share=0.25)
    assert 0 < np.mean([lesson.answer == "not visible" for lesson in ours.lessons]) <= 0.26


def test_pose_answers_carry_points_from_one_camera_to_the_other(pairs: list[PooledPair]) -> None:
    """The answered numbers, read back, move a point of the second camera's frame to the first's."""
    for pair in pairs:
        sample = pose_sample(pair, RECON)
        values = {}
        for kind, lesson in zip(POSE_KINDS, sample.lessons, strict=True):
            question = Question("pose", kind, "recon-1", lesson.question)
            values[kind] = parse_answer(question, lesson.answer, sample.images).value
        assert all(values.values())
        euler = values["euler_natural"]
        assert euler is not None
        rotation = rotation_from_euler(euler[0], euler[1], euler[2])
        centre = np.array(values["translation_direction"]) * values["translation_distance"]
        world = np.array([0.3, -0.2, 1.1])
        first, second = (view.cam_from_world @ np.append(world, 1.0) for view in (pair.first, pair.second))
        np.testing.assert_allclose(rotation @ second + centre, first, atol=0.03)  # one and two decimals
        back = pair.swapped().cam1_from_cam2
        np.testing.assert_allclose(back[:, :3] @ first + back[:, 3], second, atol=1e-9)


def test_a_mirrored_pair_has_mirrored_answers(pairs: list[PooledPair]) -> None:
    pair, mirrored = pairs[1], pairs[1].flipped()
    plain = {lesson.question: lesson.answer for lesson in pose_sample(pair, RECON).lessons}
    turned = {lesson.question: lesson.answer for lesson in pose_sample(mirrored, RECON).lessons}
    assert plain["Distance moved"] == turned["Distance moved"]
    assert plain["Rotation angle"] == turned["Rotation angle"]
    swap = str.maketrans("+-", "-+")
    yaw, pitch, roll = plain["Yaw, pitch, roll"].split(", ")
    assert turned["Yaw, pitch, roll"] == ", ".join([yaw.translate(swap), pitch, roll.translate(swap)])
    size1, size2 = (np.array([v.image.camera.width_px, v.image.camera.height_px]) for v in (pair.first, pair.second))
    checked = 0
    for lesson in match_sample(mirrored, RECON, 20, np.random.default_rng(1)).lessons:
        if lesson.answer == "not visible":
            continue
        asked, answered = _numbers(lesson.question) / 1000, _numbers(lesson.answer) / 1000
        pixel2, _, _ = _carried(pair, np.array([1 - asked[0], asked[1]]) * size1)
        checked += np.abs(pixel2 - np.array([1 - answered[0], answered[1]]) * size2).max() < 1.0
    assert checked >= 13


def test_sky_has_no_depth_and_is_not_asked(views: list[PooledView]) -> None:
    depth_m = views[0].depth_m.copy()
    depth_m[: len(depth_m) // 2] = np.nan
    sample = depth_sample(replace(views[0], depth_m=depth_m), RECON, 20, np.random.default_rng(0))
    assert len(sample.lessons) == 20
    assert all(_numbers(lesson.question)[1] >= 499 for lesson in sample.lessons)
    with pytest.raises(BadSampleError, match="none of"):
        depth_sample(replace(views[0], depth_m=depth_m * np.nan), RECON, 5, np.random.default_rng(0))


# ---------------------------------------------------------------------------------------------------------------------
# objects

# middles (0, 0.5, 3) and (2, -0.5, 3 + 2 sqrt 3); sizes 1 x 0.6 x 1 and 0.4 x 2 x 0.4 (right, down, forward)
TABLE = ViewObject("table", (10, 100, 60, 140), (-0.5, 0.2, 2.5), (0.5, 0.8, 3.5), 1.0, 0.05)
LAMP = ViewObject("lamp", (100, 20, 120, 120), (1.8, -1.5, 2.8 + 2 * 3**0.5), (2.2, 0.5, 3.2 + 2 * 3**0.5), 1.0, 0.05)
EXPECTED = {
    "bigger": 1.0, "smaller": 0.0, "wider": 1.0, "thinner": 0.0, "taller": 0.0, "shorter": 1.0, "left": 1.0,
    "right": 0.0, "above": 0.0, "below": 1.0, "behind": 0.0, "front": 1.0, "width": 1.0, "height": 0.6,
    "distance": 17**0.5, "horizontal": 4.0, "vertical": 1.0, "direction": 1.0,
}  # fmt: skip


def test_measures_equal_hand_computed_values() -> None:
    assert set(MEASURES) == set(FORMS) == set(EXPECTED)
    for name, expected in EXPECTED.items():
        assert MEASURES[name](TABLE, LAMP) == pytest.approx(expected), name
    assert MEASURES["direction"](LAMP, TABLE) == 7.0  # the other way round: 180 degrees on
    assert MEASURES["left"](LAMP, TABLE) == 0.0


def test_unclear_comparisons_are_not_asked() -> None:
    near = replace(TABLE, low_m=(-0.45, 0.2, 2.55), high_m=(0.55, 0.81, 3.55))
    unclear = [name for name in MEASURES if MEASURES[name](TABLE, near) is None]
    assert set(MEASURES) - set(unclear) == {"width", "height"}


def _gap(box: np.ndarray, thing: ViewObject) -> float:
    return float(np.abs(np.array(thing.box_px) - box).max())


def test_object_questions_name_boxes_of_visible_things_and_are_true(views: list[PooledView]) -> None:
    kinds = set()
    for number, view in enumerate(views):
        things = named_objects(view)
        if len(things) < 2:
            continue
        sample = object_sample(view, RECON, 12, np.random.default_rng(number))
        assert len({lesson.question for lesson in sample.lessons}) == len(sample.lessons) >= 6
        size = np.array([view.image.camera.width_px, view.image.camera.height_px] * 2)
        for lesson in sample.lessons:
            boxes = _numbers(lesson.question.replace("?", "").replace(",", "")).reshape(-1, 4) / 1000 * size
            found = [min(things, key=functools.partial(_gap, box)) for box in boxes]
            assert all(np.abs(np.array(t.box_px) - b).max() < 0.3 for t, b in zip(found, boxes, strict=True))
            name = next(
                n for n, form in FORMS.items()
                if form.prompt.format(a="{}", b="{}").split("{}")[0] in lesson.question
                and all(part in lesson.question for part in form.prompt.format(a="{}", b="{}").split("{}"))
            )  # fmt: skip
            kinds.add(name)
            question = Question("object", FORMS[name].kind, "recon-1", lesson.question)
            value = MEASURES[name](found[0], found[-1])
            parsed = parse_answer(question, lesson.answer, sample.images).value
            assert parsed == pytest.approx((value,), abs=0.0051)
    assert len(kinds) > 8


def test_a_view_of_nothing_can_t_be_asked(views: list[PooledView]) -> None:
    with pytest.raises(BadSampleError, match="nothing that can be asked"):
        object_sample(replace(views[0], objects=()), RECON, 5, np.random.default_rng(0))
    hidden = replace(views[0], objects=(replace(TABLE, visible=0.2), replace(LAMP, pixels=1e-4)))
    assert named_objects(hidden) == ()
