"""Curated files as sources of training samples: lessons teach the labels, and bad items are told, never trained on."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from recon.errors import BadInputError
from recon.questions.dialects import get_dialect
from recon.questions.parse import parse_answer
from recon.training.sources import OPENERS, BadSampleError, SampleSource, SourceSpec
from recon.types import Question, Task
from tests.interop.curated import photo
from tests.interop.test_curated_files import ENTRY, GOOD, PAIR

DIALECT = get_dialect("vlm3-released")


def _open(path: Path, format_: str, task: Task, strict: bool = False, questions: int = 8) -> SampleSource:
    return OPENERS[format_](SourceSpec("mine", format_, task, path, questions, strict))


def _write(folder: Path, *rows: object) -> Path:
    photo(folder / "a.png")
    photo(folder / "b.png", seed=1)
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_depth_lessons_teach_the_labels_and_depend_on_nothing_else(tmp_path: Path) -> None:
    source = _open(_write(tmp_path, GOOD, {**GOOD, "image": "b.png"}), "depthlm-jsonl", "depth")
    assert len(source) == 2
    sample = source.sample(DIALECT, 5, np.random.default_rng(1))
    assert sample.dataset == "mine"
    assert [lesson.answer for lesson in sample.lessons] == [
        "<think> The point is around 1.50 meters away from the camera. </think> <answer> 1.50 </answer>",
        "<think> The point is around 2.50 meters away from the camera. </think> <answer> 2.50 </answer>",
    ]
    # the middle of the first pixel in a photo that is enlarged from a focal length of 60 (and 61) px to 1000
    assert "(15, 20)" in sample.lessons[0].question
    again = source.sample(DIALECT, 5, np.random.default_rng(1))
    assert again.lessons == sample.lessons
    assert sample.images[0].camera.focal_px == pytest.approx(1000)


def test_at_most_so_many_questions_are_drawn(tmp_path: Path) -> None:
    source = _open(_write(tmp_path, GOOD), "depthlm-jsonl", "depth", questions=1)
    drawn = {source.sample(DIALECT, 0, np.random.default_rng(k)).lessons[0].answer for k in range(12)}
    assert len(drawn) == 2


def test_match_lessons_leave_hidden_points_to_dialects_that_can_deny(tmp_path: Path) -> None:
    source = _open(_write(tmp_path, PAIR), "pairs", "match")
    assert len(source.sample(DIALECT, 0, np.random.default_rng(0)).lessons) == 1
    ours = source.sample(get_dialect("recon-1"), 0, np.random.default_rng(0))
    # 6.5 px of 48, in a picture of int(48 * 224 / 61) = 176 px: 6.5 * 224 / 61 / 176
    assert [lesson.answer for lesson in ours.lessons] == ["x86 y136", "not visible"]
    first, second = ours.images
    assert first.camera.width_px == second.camera.width_px


def test_pose_lessons_leave_out_what_is_not_known(tmp_path: Path) -> None:
    unscaled = {**PAIR, "metric": False}
    still = {**PAIR, "cam1_from_cam2": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]}
    source = _open(_write(tmp_path, PAIR, unscaled, still), "pairs", "pose")
    lessons = [source.sample(DIALECT, turn, np.random.default_rng(0)).lessons for turn in range(3)]
    assert [len(part) for part in lessons] == [4, 3, 3]
    assert lessons[0][0].answer == "Rotation angle: 90.0 degrees"
    assert not any("distance" in lesson.answer for lesson in lessons[1])
    assert not any("unit vector" in lesson.answer for lesson in lessons[2])


def test_object_lessons_write_regions_in_the_dialects_words(tmp_path: Path) -> None:
    source = _open(_write(tmp_path, ENTRY), "spatialrgpt", "object")
    sample = source.sample(DIALECT, 0, np.random.default_rng(0))
    lesson = sample.lessons[0]
    assert lesson.question.startswith("Is bounding box region (0, 0, ")
    assert "Region [" not in lesson.question + lesson.answer
    parsed = parse_answer(Question("object", "object_polarity", DIALECT.name, ""), lesson.answer, sample.images)
    assert parsed.value == (0.0,)


def test_bad_lines_are_counted_on_opening_or_stop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = _write(tmp_path, GOOD, {**GOOD, "image": "gone.png"}, {**GOOD, "depth": [1.0]})
    with caplog.at_level(logging.WARNING):
        assert len(_open(path, "depthlm-jsonl", "depth")) == 1
    assert "2 lines left out (line 2: " in caplog.text
    assert "line 3: " in caplog.text
    with pytest.raises(BadInputError, match="line 2"):
        _open(path, "depthlm-jsonl", "depth", strict=True)


def test_what_shows_only_on_decoding_is_a_bad_sample_with_its_line(tmp_path: Path) -> None:
    source = _open(_write(tmp_path, GOOD, PAIR | {"image": "a.png"}, GOOD), "depthlm-jsonl", "depth")
    (tmp_path / "a.png").write_bytes(b"damaged")
    with pytest.raises(BadSampleError, match=r"labels.jsonl line 3: .*not a readable photo"):
        source.sample(DIALECT, 1, np.random.default_rng(0))


@pytest.mark.parametrize(("format_", "task"), [("depthlm-jsonl", "pose"), ("pairs", "depth"), ("spatialrgpt", "match")])
def test_a_format_without_labels_for_the_task_is_refused(tmp_path: Path, format_: str, task: Task) -> None:
    with pytest.raises(BadInputError, match=f"no labels for {task}"):
        _open(_write(tmp_path, GOOD), format_, task)
