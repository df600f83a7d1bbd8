"""Stages are redone exactly when something they depend on changed; interrupted work is never taken for finished."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipelines import stages as stages_module
from pipelines.progress import Progress
from pipelines.stages import Stages
from pipelines.workspace import Workspace, open_workspace
from recon.errors import BadInputError, OutputError
from recon.types import Camera, Matches, Rejected

CAMERA = Camera("PINHOLE", 4, 3, (2.0, 2.0, 2.0, 1.5))


class Counting:
    """A stage's work that counts how often it was done."""

    def __init__(self, result: Camera = CAMERA, output: Path | None = None) -> None:
        self.calls = 0
        self.result, self.output = result, output

    def __call__(self, progress: Progress) -> Camera:
        self.calls += 1
        if self.output:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self.output.write_text("content")
        progress(1, 1)
        return self.result


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def run(workspace: Workspace, work: Counting, *inputs: object, **options: object) -> tuple[Camera, str]:
    runner = Stages(workspace)
    outputs = [work.output] if work.output else []
    result = runner.run("s", Camera, inputs, work, room="cameras", outputs=outputs, **options)  # type: ignore[arg-type]
    return result, runner.reports[0].status


def test_an_unchanged_stage_is_read_back(workspace: Workspace) -> None:
    work = Counting()
    assert run(workspace, work, 1, "a") == (CAMERA, "done")
    assert run(workspace, work, 1, "a") == (CAMERA, "reused")
    assert work.calls == 1


def test_changed_inputs_redo_a_stage(workspace: Workspace) -> None:
    work = Counting()
    run(workspace, work, CAMERA)
    assert run(workspace, work, dataclasses.replace(CAMERA, width_px=5))[1] == "done"
    assert work.calls == 2


def test_changed_code_redoes_a_stage(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Counting()
    run(workspace, work)
    monkeypatch.setattr(stages_module, "code_version", lambda room: "new")
    assert run(workspace, work)[1] == "done"


def test_code_of_later_rooms_does_not_matter() -> None:
    assert stages_module.code_version("capture") != stages_module.code_version("surface")


@pytest.mark.parametrize("damage", ["remove", "cut"])
def test_missing_or_cut_outputs_redo_a_stage(workspace: Workspace, damage: str) -> None:
    output = workspace.root / "images" / "x"
    work = Counting(output=output)
    run(workspace, work)
    assert run(workspace, work)[1] == "reused"
    output.unlink() if damage == "remove" else output.write_text("cont")
    assert run(workspace, work)[1] == "done"
    assert output.read_text() == "content"


class Interrupted(BaseException):
    """Stands for kill -9: nothing after it runs."""


@pytest.mark.parametrize("resumable", [True, False])
def test_interrupted_stages(workspace: Workspace, resumable: bool) -> None:
    """Only a resumable stage finds its partial outputs, and only when it does the same again."""
    partial = workspace.root / "database.db"
    found: list[str] = []

    def work(progress: Progress) -> Camera:
        found.append(partial.read_text() if partial.exists() else "")
        partial.write_text(found[-1] + "half ")
        if len(found) < 3:
            raise Interrupted
        return CAMERA

    def attempt(value: int) -> None:
        Stages(workspace).run("s", Camera, [value], work, room="cameras", outputs=[partial], resumable=resumable)

    for value in (1, 1):
        with pytest.raises(Interrupted):
            attempt(value)
    attempt(2)
    assert found == ["", "half " if resumable else "", ""]


def test_a_finished_stage_is_not_resumed_with_foreign_outputs(workspace: Workspace) -> None:
    """Done, redone with other inputs and interrupted there: going back to the first inputs starts anew."""
    output = workspace.root / "database.db"

    def work(progress: Progress) -> Camera:
        assert not output.exists()
        output.write_text("x")
        return CAMERA

    def broken(progress: Progress) -> Camera:
        output.write_text("foreign")
        raise Interrupted

    def attempt(value: int, job: object) -> None:
        Stages(workspace).run("s", Camera, [value], job, room="cameras", outputs=[output], resumable=True)  # type: ignore[arg-type]

    attempt(1, work)
    with pytest.raises(Interrupted):
        attempt(2, broken)
    attempt(1, work)
    assert output.read_text() == "x"


def matches(name: str) -> Matches:
    return Matches(name, "b", np.zeros((1, 2)), np.zeros((1, 2)), np.ones(1), "test")


def test_items_are_kept_one_by_one(workspace: Workspace) -> None:
    done: list[str] = []

    def ask(name: str) -> Matches:
        done.append(name)
        if name == "c" and done.count("c") == 1:
            raise Interrupted
        return matches(name)

    items = {name: [name] for name in "abcd"}
    with pytest.raises(Interrupted):
        Stages(workspace).each("ask", Matches, items, ask, room="evidence")
    runner = Stages(workspace)
    results = runner.each("ask", Matches, items, ask, room="evidence")
    assert list(results) == list("abcd")
    assert done == list("abc") + list("cd")
    assert runner.reports[0].status == "resumed"
    again = Stages(workspace)
    again.each("ask", Matches, items, ask, room="evidence")
    assert again.reports[0].status == "reused"
    assert len(done) == 5


def test_a_bad_item_leaves_the_others(workspace: Workspace) -> None:
    def ask(name: str) -> Matches:
        if name == "b":
            raise BadInputError("b.png: can't be read")
        return matches(name)

    runner = Stages(workspace)
    assert list(runner.each("ask", Matches, {n: [n] for n in "abc"}, ask, room="evidence")) == ["a", "c"]
    assert [(r.name, r.reason) for r in runner.reports[0].rejected] == [("b", "b.png: can't be read")]


def test_a_rejected_item_is_an_outcome_that_is_kept(workspace: Workspace) -> None:
    calls: list[str] = []

    def ask(name: str) -> Matches | Rejected:
        calls.append(name)
        return Rejected(name, "the answers contradict one another")

    for status in ("done", "reused"):
        runner = Stages(workspace)
        assert runner.each("ask", Matches, {"a": [1]}, ask, room="evidence") == {}
        assert runner.reports[0].status == status
        assert runner.reports[0].rejected == (Rejected("a", "the answers contradict one another"),)
    assert calls == ["a"]


def test_a_full_disk_ends_the_stage(workspace: Workspace) -> None:
    def ask(name: str) -> Matches:
        raise OutputError("disk full")

    runner = Stages(workspace)
    with pytest.raises(OutputError):
        runner.each("ask", Matches, {"a": []}, ask, room="evidence")
    assert runner.reports[0].status == "failed"
    assert runner.reports[0].reason == "disk full"


def test_workspace_is_locked_and_emptied(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "w") as workspace:
        (workspace.root / "images").mkdir()
        (workspace.root / "database.db").write_text("x")
        with (
            pytest.raises(BadInputError, match="another run is using it"),
            open_workspace(tmp_path / "w"),
        ):
            pass
    with open_workspace(tmp_path / "w") as workspace:
        assert workspace.database.exists()
    with open_workspace(tmp_path / "w", overwrite=True) as workspace:
        assert [p.name for p in workspace.root.iterdir()] == [".vlm3-recon"]


def test_a_folder_with_other_files_is_never_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(BadInputError, match="holds other files"), open_workspace(tmp_path, overwrite=True):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "precious"
