"""Whatever is wrong with a scene, a disk or a checkpoint: one line, the right exit code, and the rest still done."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.cli import main
from pipelines.stages import Stages
from recon.types import Capture
from tests.pipelines.conftest import corner_photos


def say(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    return code, captured.err


def save(folder: Path, **photos: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, photo in photos.items():
        Image.fromarray(photo).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, mute_checkpoint: Path) -> Any:
    """Reconstructs a scene into ``tmp_path/mesh.ply``: exit code, stderr, summary."""

    def reconstruct(scene: Path, *more: object) -> tuple[int, str, dict[str, Any]]:
        line = [scene, "--out", tmp_path / "mesh.ply", "--model", mute_checkpoint, "--budget", 2, "--quiet", *more]
        code, error = say(capsys, *line)
        path = tmp_path / "mesh-workspace" / "summary.json"
        return code, error, json.loads(path.read_text()) if path.exists() else {}

    return reconstruct


def test_empty_folder(run: Any, tmp_path: Path) -> None:
    scene = save(tmp_path / "scene")
    code, error, summary = run(scene)
    assert code == 1
    assert error.startswith(f"error: {scene}: holds no photo; accepted: ")
    assert error.count("\n") == 1
    assert summary["status"] == "failed"
    assert f"error: {summary['reason']}\n" == error


def test_one_photo(run: Any, tmp_path: Path) -> None:
    scene = save(tmp_path / "scene", a=corner_photos(1)[0])
    code, error, summary = run(scene)
    assert (code, error) == (
        1,
        f"error: {scene}: found one usable photo; a map takes at least 2 photos that overlap (one alone needs "
        "sensor depth or a depth checkpoint that was trained on photos)\n",
    )
    assert summary["photos"][0]["registered"] is False
    assert "2 photos" in summary["photos"][0]["reason"]


def test_two_identical_photos(run: Any, tmp_path: Path) -> None:
    photo = corner_photos(1)[0]
    code, error, summary = run(save(tmp_path / "scene", a=photo, b=photo))
    assert code == 1
    assert "one usable photo" in error
    reasons = {row["name"]: row["reason"] for row in summary["photos"]}
    assert "same pixels as a.png" in reasons["b.png"]


def test_nothing_but_rubbish(run: Any, tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    scene.mkdir()
    (scene / "empty.jpg").touch()
    (scene / "text.jpg").write_text("not a photo")
    (scene / "video.jpg").write_bytes(b"\0" * 100)
    code, error, _ = run(scene)
    assert code == 1
    assert error.startswith(f"error: {scene}: none of 3 files is a usable photo (empty.jpg: ")
    assert error.count("\n") == 1


def test_photos_that_share_nothing(run: Any, tmp_path: Path) -> None:
    """Flat colours: no keypoints, no map; every photo is named with its reason."""
    grey = [np.full((120, 160, 3), value, np.uint8) for value in (90, 130)]
    code, error, summary = run(save(tmp_path / "scene", a=grey[0], b=grey[1]))
    assert code == 1
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert [row["registered"] for row in summary["photos"]] == [False, False]
    assert [stage["status"] for stage in summary["stages"] if stage["name"] == "map"] == ["failed"]


@pytest.mark.slow
def test_bad_files_among_good_ones(run: Any, tmp_path: Path, few_photos: Path) -> None:
    """The bad are named with their reasons, the good become a mesh."""
    scene = tmp_path / "scene"
    shutil.copytree(few_photos / "images", scene)
    whole = (scene / "0.png").read_bytes()
    (scene / "cut.png").write_bytes(whole[: len(whole) // 3])
    (scene / "empty.jpg").touch()
    (scene / "text.jpg").write_text("not a photo")
    Image.new("RGB", (1, 1)).save(scene / "dot.png")
    with open(bytes(scene) + b"/\xff\xfe name.png", "wb") as file:
        file.write((scene / "3.png").read_bytes())
    (scene / "3.png").unlink()
    (scene / ("long" * 55 + ".png")).write_bytes((scene / "4.png").read_bytes())
    (scene / "4.png").unlink()
    code, error, summary = run(scene, "--surface.multiview.work-px", 96, "--surface.multiview.num-neighbours", 2)
    assert (code, error) == (0, "")
    rows = {row["name"]: row for row in summary["photos"]}
    assert {name for name, row in rows.items() if not row["registered"]} == {
        "cut.png", "empty.jpg", "text.jpg", "dot.png",
    }  # fmt: skip
    assert all(row["reason"] for row in rows.values() if not row["registered"])
    assert summary["photos_registered"] == 5


def test_known_distance_names_photos(run: Any, tmp_path: Path) -> None:
    a, b = corner_photos(2)
    code, error, _ = run(save(tmp_path / "scene", a=a, b=b), "--known-distance", "a.png", "c.png", 1)
    assert (code, error) == (1, "error: --known-distance c.png: no such photo; accepted: a.png, b.png\n")


def test_a_full_disk(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_photos: Path) -> None:
    import pipelines.records

    real = pipelines.records.write_atomically

    def full(path: Path, content: bytes) -> None:
        if "depth answers" in str(path):
            raise OSError(28, "No space left on device", str(path))
        real(path, content)

    monkeypatch.setattr("pipelines.records.write_atomically", full)
    code, error, summary = run(few_photos)
    assert code == 1
    assert error.endswith(": the disk is full; free some space and run the same command again, it continues\n")
    assert error.count("\n") == 1
    assert summary["status"] == "failed"


def test_a_full_disk_as_sqlite_says_it(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise RuntimeError("SQLite error: database or disk is full")

    monkeypatch.setattr("pipelines.reconstruct.extract_features", full)
    a, b = corner_photos(2)
    code, error, _ = run(save(tmp_path / "scene", a=a, b=b))
    advice = "free some space and run the same command again, it continues"
    assert (code, error) == (1, f"error: the disk is full; {advice}\n")


def test_a_nearly_full_disk_is_noticed_in_time(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite under COLMAP aborts the process on a full disk, so there has to be room before it starts."""
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr("pipelines.workspace.shutil.disk_usage", lambda path: usage)
    a, b = corner_photos(2)
    code, error, summary = run(save(tmp_path / "scene", a=a, b=b))
    assert code == 1
    assert error.startswith(f"error: {tmp_path}/mesh-workspace: 1 MB are free, about 19 MB are needed next; free some")
    assert summary["status"] == "failed"


def test_a_tiny_disk(capsys: pytest.CaptureFixture[str], few_photos: Path, mute_checkpoint: Path) -> None:
    """/dev/full takes nothing, and is not a folder."""
    code, error = say(capsys, few_photos, "--out", "/dev/full/mesh.ply", "--model", mute_checkpoint)
    assert (code, error) == (1, "error: --out /dev/full: /dev/full is a file, a folder is needed\n")


def test_a_failed_stage_is_in_the_log(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Stages, *arguments: object, **options: object) -> Capture:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Stages, "each", broken)
    code, error, _ = run(save(tmp_path / "scene", a=corner_photos(2)[0], b=corner_photos(2)[1]))
    log = tmp_path / "mesh-workspace" / "run.log"
    assert (code, error) == (1, f"error: unexpected RuntimeError: a defect; details in {log}\n")
    assert "Traceback (most recent call last)" in log.read_text()


# ---------------------------------------------------------------------------------------------------------------------
# checkpoints


@pytest.fixture
def two_photos(tmp_path: Path) -> Path:
    a, b = corner_photos(2, 64, 48, 60.0)
    return save(tmp_path / "two", a=a, b=b)


def broken_copy(checkpoint: Path, target: Path, **files: bytes | None) -> Path:
    """A copy of a checkpoint with files replaced or (None) removed; ``__`` in a name stands for a dot."""
    shutil.copytree(checkpoint, target)
    for name, content in files.items():
        path = target / name.replace("__", ".")
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
    return target


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"config__json": None}, "{folder}: has no config.json; expected a Hugging Face checkpoint folder"),
        (
            {"config__json": b'{"model_type": "llava"}'},
            "{folder}/config.json: model_type is 'llava'; accepted: 'qwen3_vl'",
        ),
        ({"model__safetensors": None}, "{folder}: found no weights; accepted: *.safetensors"),
        (
            {"model__safetensors": None, "pytorch_model__bin": pickle.dumps({"weight": 1})},
            "{folder}: found only pickled weights (pytorch_model.bin); accepted: *.safetensors",
        ),
        ({"model__safetensors": b"\x10" * 500}, "{folder}/model.safetensors: damaged safetensors ("),
        ({"vlm3_profile__json": None}, "{folder}: has no vlm3_profile.json and is not a public VLM3 checkpoint; name"),
        ({"vlm3_profile__json": b"{"}, "{folder}/vlm3_profile.json: not a readable profile ("),
    ],
)  # fmt: skip
def test_wrong_checkpoints(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, mute_checkpoint: Path, two_photos: Path,
    files: dict[str, bytes | None], line: str,
) -> None:  # fmt: skip
    folder = broken_copy(mute_checkpoint, tmp_path / "broken", **files)
    code, error = say(capsys, "query", two_photos / "a.png", "--at", "3,4", "--model", folder)
    assert code == 1
    assert error.startswith("error: " + line.format(folder=folder))
    assert error.count("\n") == 1


def test_a_wrong_checkpoint_ends_a_reconstruction(
    run: Any, tmp_path: Path, two_photos: Path, mute_checkpoint: Path
) -> None:
    folder = broken_copy(mute_checkpoint, tmp_path / "broken", model__safetensors=b"")
    code, error, summary = run(two_photos, "--depth-model", folder)
    assert code == 1
    assert error.startswith(f"error: {folder}/model.safetensors: damaged safetensors (")
    assert summary["status"] == "failed"


# ---------------------------------------------------------------------------------------------------------------------
# query


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "found 0 photos, --at 0 times, --ask None; accepted: PHOTO --at X,Y; "),
        (["{a}"], "found 1 photos, --at 0 times, --ask None; accepted: PHOTO --at X,Y; "),
        (["{a}", "--at", "3"], "--at '3' is not a pixel; accepted: X,Y with X up to 63 and Y up to 47"),
        (["{a}", "--at", "64,0"], "--at '64,0' lies outside the photo; accepted: X,Y with X up to 63 and Y up to 47"),
        (["{a}", "--at", "nan,0"], "--at 'nan,0' lies outside the photo; accepted: X,Y with X up to 63 and Y up to 47"),
        (["nothing.png", "--at", "1,1"], "nothing.png: no such photo"),
        (["{a}", "--box", "1,1,2,2"], "--box needs a question in words (--ask); accepted: "),
        (["{a}", "{b}"], "checkpoint 'test' answers no pose questions, only: depth; give one that does with "),
    ],
)  # fmt: skip
def test_wrong_questions(
    capsys: pytest.CaptureFixture[str], two_photos: Path, mute_checkpoint: Path, arguments: list[str], line: str
) -> None:
    given = [a.format(a=two_photos / "a.png", b=two_photos / "b.png") for a in arguments]
    code, error = say(capsys, "query", *given, "--model", mute_checkpoint)
    assert code == 1
    assert error.startswith(f"error: {line}")
    assert error.count("\n") == 1


def test_query_prints_question_and_answer(
    capsys: pytest.CaptureFixture[str], two_photos: Path, mute_checkpoint: Path
) -> None:
    line = ["query", str(two_photos / "a.png"), "--at", "3,4", "60,40", "--model", str(mute_checkpoint), "--json"]
    assert main(line) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "depth"
    assert [a["question"].startswith("Depth in metres at x") for a in found["answers"]] == [True, True]
    assert all(a["status"] in ("ok", "unparsed", "truncated", "out_of_range") for a in found["answers"])
    assert main(line[:-1]) == 0
    assert "asked       Depth in metres at x" in capsys.readouterr().out
