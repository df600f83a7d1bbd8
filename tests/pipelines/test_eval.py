"""``vlm3-recon eval``: a teacher that knows the labels scores full marks, what is stored is not asked again, bad data
is counted, and baselines answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipelines.cli import main
from pipelines.eval import command as eval_command
from pipelines.eval.command import Options, evaluate
from pipelines.eval.items import Reply, find_labels
from pipelines.eval.report import as_text
from pipelines.eval.scores import object_answer
from pipelines.eval.synthetic import write_synthetic
from recon.cameras.unify import ImageProfile
from recon.errors import BadInputError
from recon.interop.datasets.depth_file import read_depth_file
from recon.interop.datasets.object_file import read_object_file
from recon.interop.datasets.pair_file import read_pair_file
from recon.questions.dialects import get_dialect
from recon.questions.parse import parse_answer
from recon.questions.profile import CheckpointProfile, default_profile
from recon.training.sources import OPENERS, SourceSpec
from recon.types import Answer, Question, Task, UnifiedImage
from tests.helpers import REPOSITORY
from tests.interop.curated import HEIGHT, WIDTH, photo
from tests.interop.test_curated_files import INTRINSICS

DIALECT = "vlm3-released"
FORMATS = {"depth": "depthlm-jsonl", "match": "pairs", "pose": "pairs", "object": "spatialrgpt"}


class Teacher:
    """A model and its engine that answers with the lessons that training makes of the same file."""

    source, notice = "teacher", ""

    def __init__(self, path: Path, task: Task, dialect: str = DIALECT) -> None:
        self.profile: CheckpointProfile = default_profile(dialect, "teacher")
        self.identity = {"name": "teacher"}
        self.engine = self
        self.asked = 0
        self.stop_after = 10**9
        source = OPENERS[FORMATS[task]](SourceSpec("s", FORMATS[task], task, path, 10**6, False))
        self._taught: dict[tuple[bytes, str], str] = {}
        for turn in range(len(source)):
            sample = source.sample(get_dialect(dialect), turn, np.random.default_rng(turn))
            for lesson in sample.lessons:
                self._taught[sample.images[0].pixels.tobytes(), lesson.question] = lesson.answer

    def ask(
        self, images: Sequence[UnifiedImage], questions: Sequence[Question], progress: object = None
    ) -> list[Answer]:
        if self.asked >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += 1
        answers = []
        for question in questions:
            text = self._taught.get((images[0].pixels.tobytes(), question.text), "I don't know")
            parsed = parse_answer(question, text, images)
            answers.append(Answer(text, (), parsed.status, parsed.value, parsed.reason, -1.0, 0.9))
        return answers

    def release(self) -> None:
        pass


@pytest.fixture
def teach(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a teacher in the place of the checkpoint."""

    def use(path: Path, task: Task, dialect: str = DIALECT) -> Teacher:
        teacher = Teacher(path, task, dialect)
        monkeypatch.setattr(eval_command, "TaskModel", lambda options, task: teacher)
        return teacher

    return use


def _depth_file(folder: Path, count: int = 4) -> Path:
    rows = []
    for k in range(count):
        photo(folder / "images" / f"{k}.png", seed=k)
        pixels = [[u, v] for u in range(2, WIDTH, 9) for v in range(3, HEIGHT, 11)]
        depth = [round(1.0 + 0.05 * i + k, 2) for i in range(len(pixels))]
        rows.append({"image": f"images/{k}.png", "intrinsics": INTRINSICS, "pixel_coords": pixels, "depth": depth})
    path = folder / "depth.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _pair_file(folder: Path) -> Path:
    rows = []
    for k in range(3):
        photo(folder / f"{k}a.png", seed=2 * k)
        photo(folder / f"{k}b.png", seed=2 * k + 1)
        angle = np.radians(10.0 * (k + 1))
        turn = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        pose = np.column_stack([turn, [0.6, 0.0, 0.8 * (k + 1)]]).tolist()
        rows.append({
            "image1": f"{k}a.png", "image2": f"{k}b.png", "intrinsics1": INTRINSICS, "intrinsics2": INTRINSICS,
            "pixels1": [[u, 5] for u in range(0, 60, 6)], "pixels2": [[u + 3, 9] for u in range(0, 54, 6)] + [None],
            "cam1_from_cam2": pose, "metric": True, "scene": f"room {k}",
        })  # fmt: skip
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _object_file(folder: Path) -> Path:
    asked = [
        ("Is <mask> above <mask>?", "Yes, Region [0] is above Region [1].", "above_predicate", "qualitative"),
        ("Is <mask> wider than <mask>?", "No, Region [0] is not wider.", "wide_predicate", "qualitative"),
        ("Who is taller, <mask> or <mask>?", "Region [1] is taller.", "tall_choice", "qualitative"),
        ("What is the width of <mask>?", "Region [0] is 12.5 feet wide.", "width_data", "quantitative"),
        ("If you are at <mask>, where will you find <mask>?", "Region [1] is at 2 o'clock.", "direction",
         "quantitative"),
        ("Describe <mask>.", "A chair.", "caption", "qualitative"),
    ]  # fmt: skip
    photo(folder / "0.png")
    photo(folder / "1.png", seed=1)
    entries = [
        {
            "image": f"{k}.png", "intrinsics": INTRINSICS, "bbox": [[2, 3, 20, 30], [30, 4, 60, 40]],
            "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": label}],
            "qa_info": {"type": kind, "category": category},
        }
        for k in range(2)
        for question, label, category, kind in asked
    ]  # fmt: skip
    path = folder / "object.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def _options(task: Task, data: Path | str, out: Path | None = None, **more: Any) -> Options:
    return Options(task, data=str(data), out=out, quiet=True, resamples=20, **more)


# ---------------------------------------------------------------------------------------------------------------------


def test_a_teacher_of_depth_scores_full_marks_and_is_reported(tmp_path: Path, teach: Any) -> None:
    teach(_depth_file(tmp_path / "data"), "depth")
    out = tmp_path / "out"
    report = evaluate(_options("depth", tmp_path / "data", out))
    figures = report.scores.figures
    assert (figures["delta1"], figures["scaled_delta1"], figures["parse_rate"]) == (1.0, 1.0, 1.0)
    assert figures["abs_rel"] < 1e-9
    assert report.scores.constants["for_delta1"]["delta1"] < 0.7
    assert report.num_items == 4
    results = json.loads((out / "results.json").read_text())
    assert results["figures"]["delta1"] == 1.0
    assert results["intervals_95"]["delta1"] == [1.0, 1.0]
    assert {part["of"] for part in results["published_by_the_papers_authors"]} >= {"VLM3 4B, iBims-1"}
    assert (out / "reliability.svg").read_text().startswith("<svg")
    assert (out / "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((out / "pictures").glob("*.jpg"))) == 4
    assert "| delta1 | 1.000 |" in (out / "report.md").read_text()
    assert "not measured here" in as_text(report)
    assert "<td>delta1</td><td>1.000</td>" in (out / "report.html").read_text()


def test_ray_answers_are_compared_as_rays(tmp_path: Path, teach: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = teach(_depth_file(tmp_path, 1), "depth")
    plain = evaluate(_options("depth", tmp_path))
    ray = replace(teacher.profile.depth, depth_kind="ray")
    teacher.profile = replace(teacher.profile, tasks={**teacher.profile.tasks, "depth": ray})
    as_ray = evaluate(_options("depth", tmp_path))
    assert as_ray.scores.figures["abs_rel"] > plain.scores.figures["abs_rel"] + 0.01
    both = evaluate(_options("depth", tmp_path, depth_kind="ray"))
    assert both.scores.figures["abs_rel"] < 1e-9


def test_a_teacher_of_matches_scores_up_to_the_rounding_of_the_text(tmp_path: Path, teach: Any) -> None:
    teach(_pair_file(tmp_path), "match", "recon-1")
    report = evaluate(_options("match", tmp_path, tmp_path / "out"))
    figures = report.scores.figures
    assert figures["epe_mean"] < 1.0  # a text coordinate is one of 1000
    assert figures["pck_5"] == figures["hidden_recognised"] == figures["answered"] == 1.0
    assert report.num_questions == 30


def test_hidden_points_are_not_asked_of_a_dialect_that_cannot_deny(tmp_path: Path, teach: Any) -> None:
    teach(_pair_file(tmp_path), "match")
    report = evaluate(_options("match", tmp_path))
    assert report.num_questions == 27
    assert report.scores.figures["epe_mean"] < 1.0


def test_a_teacher_of_pose_scores_full_marks_by_both_protocols(tmp_path: Path, teach: Any) -> None:
    teach(_pair_file(tmp_path), "pose")
    figures = evaluate(_options("pose", tmp_path, tmp_path / "out")).scores.figures
    assert figures["median_rotation_deg"] < 0.1
    assert figures["auc_histogram_30"] == 1.0
    assert figures["auc_exact_30"] > 0.97
    assert figures["distance_within"] == 1.0


def test_a_teacher_of_objects_scores_full_marks_in_every_category(tmp_path: Path, teach: Any) -> None:
    teach(_object_file(tmp_path), "object")
    report = evaluate(_options("object", tmp_path, tmp_path / "out"))
    figures = report.scores.figures
    assert figures["qualitative"] == figures["quantitative"] == figures["lengths"] == 1.0
    assert figures["abs_rel"] < 1e-6
    assert set(report.scores.categories) == {"above_predicate", "wide_predicate", "tall_choice", "width_data",
                                             "direction"}  # fmt: skip
    assert report.scores.constants["in_every_category"]["qualitative"] == 1.0  # both photos have the same labels
    assert report.scores.notes == ("2 questions left out: their labels hold no readable value",)


@pytest.mark.parametrize(
    ("text", "label", "answer", "right"),
    [
        ("Is Region [0] above Region [1]?", "In fact, Region [0] is below.", "No.", True),
        ("Is Region [0] above Region [1]?", "Yes.", "mumble", False),
        ("Which is above, Region [0] or Region [1]?", "Region [1] is above.", "Positioned higher is Region [1].", True),
        ("Which is above, Region [0] or Region [1]?", "Region [1] is above.", "Region [0] or Region [1].", False),
    ],
)
def test_object_answers_are_judged_by_rules(text: str, label: str, answer: str, right: bool) -> None:
    yes_or_no = {"No.": (0.0,), "Yes.": (1.0,)}.get(answer)
    reply = Reply(answer, "ok" if yes_or_no or "Region" in answer else "unparsed", yes_or_no, 0.5)
    judged = object_answer("c", text, label, reply)
    assert judged is not None
    assert judged.is_right is right


# ---------------------------------------------------------------------------------------------------------------------
# resuming and bad data


def test_a_killed_run_asks_only_what_is_left(tmp_path: Path, teach: Any) -> None:
    path, out = _depth_file(tmp_path / "data"), tmp_path / "out"
    teach(path, "depth")
    whole = evaluate(_options("depth", path, tmp_path / "whole"))
    teacher = teach(path, "depth")
    teacher.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        evaluate(_options("depth", path, out))
    with open(out / "answers.jsonl", "a", encoding="utf-8") as file:
        file.write('{"line": 3, "repl')  # the kill tore a line
    teacher = teach(path, "depth")
    again = evaluate(_options("depth", path, out))
    assert teacher.asked == 2
    assert again.scores.figures == whole.scores.figures
    assert (out / "answers.jsonl").read_text() == (tmp_path / "whole" / "answers.jsonl").read_text()


def test_answers_to_other_questions_are_not_mixed_in(tmp_path: Path, teach: Any) -> None:
    path, out = _depth_file(tmp_path / "data"), tmp_path / "out"
    teach(path, "depth")
    evaluate(_options("depth", path, out))
    with pytest.raises(BadInputError, match=r"another labels.*--overwrite"):
        evaluate(_options("depth", path, out, questions=3))
    assert evaluate(_options("depth", path, out, questions=3, overwrite=True)).num_questions == 12
    (out / "answers.jsonl").write_text("what", encoding="utf-8")
    with pytest.raises(BadInputError, match="is no file of answers"):
        evaluate(_options("depth", path, out))


def test_bad_lines_and_photos_are_counted_or_stop(tmp_path: Path, teach: Any) -> None:
    path = _depth_file(tmp_path)
    teach(path, "depth")
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"image": "none.png"}\n')
    (tmp_path / "images" / "2.png").write_bytes(b"damaged")
    report = evaluate(_options("depth", path, tmp_path / "out"))
    assert report.num_items == 3
    assert [fault.line for fault in report.faults] == [3]
    assert "1 line left out (line 5: " in report.left_out
    text = as_text(report)
    assert "line 3" in text
    assert "line 5" in text
    with pytest.raises(BadInputError, match="line 5"):
        evaluate(_options("depth", path, strict=True))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]), encoding="utf-8")
    with pytest.raises(BadInputError, match=r"line 3.*not a readable photo"):
        evaluate(_options("depth", path, strict=True))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["depth", "--data", "synthetic:train"], "synthetic:test, synthetic:validation"),
        (["depth", "--data", "/none"], "no such file or folder"),
        (["depth", "--baseline", "sift"], "answers pose questions, not depth; accepted: constant"),
        (["match", "--data", "x", "--questions", "0"], "--questions must be at least 1"),
        (["object", "--model", "/none"], "no such folder"),
        (["colours"], "colours"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *arguments, "--quiet"]) in (1, 2)
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_a_folder_without_labels_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"depth.jsonl or labels.jsonl or gt/labels.jsonl"):
        find_labels(tmp_path, "depth")


def test_names_from_files_can_do_nothing_in_the_report(tmp_path: Path, teach: Any) -> None:
    path = _depth_file(tmp_path, 2)
    name = "images/<script>alert(1)<|b].png"
    photo(tmp_path / "images" / "0.png").rename(tmp_path / name)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["image"] = name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    teach(path, "depth")
    evaluate(_options("depth", path, tmp_path / "out"))
    for report in ("report.html", "report.md"):
        assert "<script>" not in (tmp_path / "out" / report).read_text()


# ---------------------------------------------------------------------------------------------------------------------
# baselines and synthetic data


def test_constant_and_same_place_answer(tmp_path: Path) -> None:
    depth = evaluate(_options("depth", _depth_file(tmp_path), baseline="constant"))
    assert depth.scores.figures["delta1"] == depth.scores.constants["for_delta1"]["delta1"]
    assert depth.scores.reliability is None
    match = evaluate(_options("match", _pair_file(tmp_path), baseline="same-place"))
    # three columns and four rows away
    expected = np.hypot(3 / WIDTH, 4 / HEIGHT) * 1000
    assert match.scores.figures["epe_mean"] == pytest.approx(expected)


@pytest.mark.slow
def test_sift_finds_the_motion_between_photos_of_the_example(tmp_path: Path) -> None:
    room = REPOSITORY / "examples" / "room"
    shots = json.loads((room / "gt" / "cameras.json").read_text())["images"][:2]
    first, second = (np.column_stack([shot["R_cw"], shot["t_cw"]]) for shot in shots)
    rotation = first[:, :3] @ second[:, :3].T
    row: dict[str, Any] = {
        "cam1_from_cam2": np.column_stack([rotation, first[:, 3] - rotation @ second[:, 3]]).tolist(),
        "metric": True,
    }
    for number, shot in enumerate(shots, start=1):
        row[f"image{number}"] = shot["file"]
        row[f"intrinsics{number}"] = [shot[key] for key in ("fx", "fy", "cx", "cy", "width", "height")]
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    figures = evaluate(_options("pose", tmp_path, images=room, baseline="sift")).scores.figures
    assert figures["median_rotation_deg"] < 1.0
    assert figures["median_direction_deg"] < 5.0
    assert np.isnan(figures["distance_abs_rel"])  # two photos know no distance


TINY = ImageProfile("focal", 48)


def test_synthetic_labels_are_those_of_the_worlds(tmp_path: Path, teach: Any) -> None:
    path = write_synthetic(tmp_path / "d", "depth", TINY, "validation", 0, 2, 6)
    items = read_depth_file(path, strict=True).items
    assert [len(item.pixels) for item in items] == [6, 6]
    assert items[0].camera.focal_px == pytest.approx(48)
    before = path.read_bytes()
    marker = next((tmp_path / "d" / "scenes").iterdir())
    stamp = marker.stat().st_mtime_ns
    write_synthetic(tmp_path / "d", "depth", TINY, "validation", 0, 2, 6)  # nothing is rendered again
    assert (path.read_bytes(), marker.stat().st_mtime_ns) == (before, stamp)


@pytest.mark.slow
def test_synthetic_pairs_and_objects_can_be_asked(tmp_path: Path, teach: Any) -> None:
    path = write_synthetic(tmp_path / "m", "match", TINY, "validation", 0, 2, 10)
    pairs = read_pair_file(path, strict=True).items
    assert all(5 <= np.isfinite(item.pixels2[:, 0]).sum() <= 10 for item in pairs)
    teach(path, "match", "recon-1")
    assert evaluate(_options("match", path, images=tmp_path / "m")).scores.figures["epe_mean"] < 1.0
    path = write_synthetic(tmp_path / "o", "object", TINY, "validation", 0, 3, 6)
    assert all(len(item.turns) == 1 for item in read_object_file(path, strict=True).items)
    teach(path, "object", "recon-1")
    figures = evaluate(_options("object", path)).scores.figures
    assert figures["parse_rate"] == 1.0
    assert min(figures["qualitative"], figures["quantitative"]) == 1.0


def test_the_options_hold_what_the_model_offers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profile = default_profile("vlm3-paper", "two tasks")
    fake = SimpleNamespace(profile=profile, notice="", source="two tasks")
    monkeypatch.setattr(eval_command, "TaskModel", lambda options, task: fake)
    with pytest.raises(Exception, match="answers no pose questions"):
        evaluate(_options("pose", tmp_path))


@pytest.mark.slow
def test_a_checkpoint_that_only_mumbles_is_wrong_everywhere(
    tmp_path: Path, mute_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command with a real engine: nothing that random weights say can be read, and all of it counts."""
    model = tmp_path / "mute"
    shutil.copytree(mute_checkpoint, model)
    profile = default_profile("recon-1", "mute")
    short = {task: replace(settings, max_new_tokens=3) for task, settings in profile.tasks.items()}
    (model / "vlm3_profile.json").write_text(json.dumps(replace(profile, tasks=short).to_json()), encoding="utf-8")
    data: dict[Task, Path] = {"match": _pair_file(tmp_path), "pose": tmp_path, "object": _object_file(tmp_path)}
    for task, path in data.items():
        out = tmp_path / task
        line = ["eval", task, "--data", path, "--model", model, "--out", out, "--resamples", "10", "--quiet"]
        assert main([str(part) for part in line]) == 0
        said = capsys.readouterr().out
        assert f"{task} by {model}" in said
        results = json.loads((out / "results.json").read_text())
        assert results["figures"]["parse_rate"] == 0.0
        right = {"match": "pck_50", "pose": "auc_exact_30", "object": "qualitative"}[task]
        assert results["figures"][right] == 0.0
        assert results["reliability"]["ece"] == 0.0  # unread answers have no confidence, and are wrong
