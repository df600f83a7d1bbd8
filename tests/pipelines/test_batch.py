"""Batches: which scenes there are, what a failing one costs the others, and what is said in the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import fields
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from pipelines.batch import Options, Outcome, batch, find_scenes, in_own_process, run, table
from pipelines.making import MakingOptions
from pipelines.options import Options as SceneOptions
from recon.errors import BadInputError, MappingError
from recon.surface.options import SurfaceOptions
from tests.pipelines.conftest import Command


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    folder = tmp_path / "scenes"
    for name in ("barn", "attic"):
        (folder / name).mkdir(parents=True)
    (folder / "walk.MP4").write_bytes(b"")
    (folder / ".hidden").mkdir()
    (folder / "notes.txt").write_text("not a scene")
    (folder / "attic-workspace").mkdir()
    (folder / "attic-workspace" / ".vlm3-recon").write_text("")
    return folder


def write_summary(options: SceneOptions, **values: object) -> None:
    options.workspace_folder.mkdir(parents=True, exist_ok=True)
    (options.workspace_folder / "summary.json").write_text(json.dumps(values))


def finish(options: SceneOptions) -> Outcome:
    scale = {"known": True, "metres_per_unit": 2.0, "low": 1.9, "high": 2.2}
    write_summary(options, photos_given=9, photos_registered=8, scale=scale, mesh={"vertices": 70, "faces": 90},
                  seconds=12.4)  # fmt: skip
    return "done", ""


def test_which_scenes_there_are(scenes: Path) -> None:
    assert [path.name for path in find_scenes(scenes, scenes.parent / "out")] == ["attic", "barn", "walk.MP4"]
    assert [path.name for path in find_scenes(scenes, scenes / "barn")] == ["attic", "walk.MP4"]  # the results' folder
    (scenes / "Walk").mkdir()
    with pytest.raises(BadInputError, match=r"walk\.MP4: its results would have the name of those of .*Walk; rename"):
        find_scenes(scenes, scenes.parent / "out")
    with pytest.raises(BadInputError, match="holds no scene"):
        find_scenes(scenes / "barn", scenes)
    with pytest.raises(BadInputError, match="is no folder"):
        find_scenes(scenes / "walk.MP4", scenes)


def test_a_failing_scene_stops_no_other(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = scenes.parent / "out"
    asked: list[SceneOptions] = []

    def work(options: SceneOptions) -> Outcome:
        asked.append(options)
        if options.scene.name == "barn":
            write_summary(options, photos_given=3)
            return "failed", "found one usable photo"
        return finish(options)

    rows = batch(Options(scenes, out, format="glb"), work)
    assert [(row.scene, row.status) for row in rows] == [("attic", "done"), ("barn", "failed"), ("walk", "done")]
    assert [options.out for options in asked] == [out / "attic.glb", out / "barn.glb", out / "walk.glb"]
    assert rows[0].scale == (0.95, 1.1)
    assert rows[1].photos_given == 3
    stored = json.loads((out / "batch.json").read_text())
    assert [row["reason"] for row in stored["scenes"]] == ["", "found one usable photo", ""]
    assert stored["left"] == 0
    text = capsys.readouterr().out
    assert text.strip() == table(rows)
    assert "attic       8 of 9   -5.0 % to +10.0 %          70      12 s" in text
    assert "barn   failed: found one usable photo" in text


def test_every_scene_is_made_as_the_batch_was_told(scenes: Path) -> None:
    told = {"as_": "cloud", "voxel_m": 0.02, "quiet": True, "no_report": True, "surface": SurfaceOptions(planes=False)}
    options = Options(scenes, scenes.parent / "out", format="ply", **told)  # type: ignore[arg-type]
    made = options.of_scene(scenes / "barn")
    for entry in fields(MakingOptions):
        assert getattr(made, entry.name) == getattr(options, entry.name)
    assert {name: getattr(made, name) for name in told} == told
    assert made.surface_options.fuse.voxel_m == 0.02


def test_the_command_fails_when_a_scene_did(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(scenes, scenes.parent / "out", quiet=True)
    monkeypatch.setattr("pipelines.batch.in_own_process", lambda _: ("failed", "why"))
    with pytest.raises(MappingError, match=r"3 of 3 scenes failed: attic, barn, walk; reasons in .*batch\.json"):
        run(options)
    monkeypatch.setattr("pipelines.batch.in_own_process", finish)
    run(options)


def test_an_interruption_ends_the_batch_and_is_recorded(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(scenes, scenes.parent / "out", quiet=True)

    def work(options: SceneOptions) -> Outcome:
        if options.scene.name == "barn":
            raise KeyboardInterrupt
        return finish(options)

    assert [row.status for row in batch(options, work)] == ["done", "interrupted", "interrupted"]
    monkeypatch.setattr("pipelines.batch.in_own_process", work)
    with pytest.raises(KeyboardInterrupt):
        run(options)


def test_what_cannot_work_is_said_before_anything_is_done(scenes: Path) -> None:
    def work(options: SceneOptions) -> Outcome:
        raise AssertionError("was done")

    with pytest.raises(BadInputError, match=r"\.pcd.*can't hold a mesh"):
        batch(Options(scenes, scenes.parent / "out", format="pcd"), work)


def _die(options: SceneOptions, sender: Connection) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_that_dies_is_a_failed_scene(tmp_path: Path) -> None:
    options = SceneOptions(tmp_path / "a", tmp_path / "a.ply")
    status, reason = in_own_process(options, _die)
    assert status == "failed"
    assert "SIGKILL (the memory was used up?)" in reason


@pytest.mark.slow
def test_two_real_scenes_one_of_which_fails(
    tmp_path: Path, few_photos: Path, mute_checkpoint: Path, command: Command
) -> None:
    scenes = tmp_path / "scenes"
    shutil.copytree(few_photos, scenes / "corner")
    (scenes / "lonely").mkdir()
    shutil.copyfile(few_photos / "images" / "0.png", scenes / "lonely" / "0.png")
    arguments = ["batch", scenes, "--out", tmp_path / "out", "--model", mute_checkpoint, "--budget", 4,
                 "--surface.multiview.work-px", 96]  # fmt: skip
    ended = command(*arguments)
    assert ended.code == 1
    assert "1 of 2 scenes failed: lonely" in ended.stderr
    rows = {row["scene"]: row for row in json.loads((tmp_path / "out" / "batch.json").read_text())["scenes"]}
    assert rows["corner"]["status"] == "done"
    assert rows["corner"]["photos_registered"] == 5
    assert (tmp_path / "out" / "corner.ply").is_file()
    assert "at least 2 photos" in rows["lonely"]["reason"]
    assert "Traceback" not in ended.stderr
