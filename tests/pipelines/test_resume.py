"""kill -9 at any stage, then the same command again: the result is that of a run that was never interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recon.interop.meshes import read_mesh
from tests.helpers import REPOSITORY
from tests.pipelines.conftest import Command, Finished

# Small enough for a test: few questions, small depth maps. SIFT finds less on small photos.
SMALL = ["--budget", "4", "--surface.multiview.work-px", "96", "--surface.multiview.num-neighbours", "2", "--quiet"]


def arguments(scene: Path, out: Path, checkpoint: Path) -> list[str]:
    return [str(scene), "--out", str(out), "--model", str(checkpoint), "--device", "cpu", *SMALL]


def kill_when(condition: Callable[[], bool], line: list[str], timeout: float = 400) -> None:
    """Starts the command and kills it -9 as soon as the condition holds, which must not hold before."""
    assert not condition()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *line],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'kernels'}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, f"ended with {process.returncode} before it was to be killed"
        assert time.monotonic() < deadline, "the moment to kill did not come"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def summary_of(out: Path) -> dict[str, Any]:
    return json.loads((out.parent / f"{out.stem}-workspace" / "summary.json").read_text())


def status_of(out: Path) -> dict[str, str]:
    return {stage["name"]: stage["status"] for stage in summary_of(out)["stages"]}


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, few_photos: Path, mute_checkpoint: Path, command: Command
) -> Path:
    """The mesh of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "mesh.ply"
    done = command(*arguments(few_photos, out, mute_checkpoint))
    assert done == Finished(0, "", ""), done
    return out


@pytest.mark.slow
def test_an_uninterrupted_run_is_complete(uninterrupted: Path) -> None:
    summary = summary_of(uninterrupted)
    assert summary["status"] == "done"
    assert summary["photos_registered"] == summary["photos_given"] == 5
    assert summary["scale"]["known"] is False
    assert summary["scale"]["metres_per_unit"] is None
    mesh = read_mesh(uninterrupted)
    assert summary["mesh"] == {"vertices": len(mesh.vertices_world_m), "faces": len(mesh.faces)}
    workspace = uninterrupted.parent / "mesh-workspace"
    for name in ("images/0.png", "database.db", "sparse/0/images.bin", "sparse/0/points3D.bin", "run.log"):
        assert (workspace / name).is_file()
    assert not [p for p in workspace.rglob("*") if p.suffix in (".part", ".tmp")]


@pytest.mark.slow
def test_running_again_does_nothing_again(
    uninterrupted: Path, few_photos: Path, mute_checkpoint: Path, command: Command
) -> None:
    before = uninterrupted.stat().st_mtime_ns
    assert command(*arguments(few_photos, uninterrupted, mute_checkpoint)).code == 0
    status = status_of(uninterrupted)
    assert {status[name] for name in ("depth answers", "features", "map", "scale", "mesh")} == {"reused"}
    assert uninterrupted.stat().st_mtime_ns == before


@pytest.mark.slow
def test_kills_at_every_stage_change_nothing(
    uninterrupted: Path, few_photos: Path, mute_checkpoint: Path, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "mesh.ply"
    line = arguments(few_photos, out, mute_checkpoint)
    workspace = tmp_path / "mesh-workspace"
    for mark in (
        workspace / "images" / "2.png",  # in the middle of importing
        workspace / "stages" / "features.db",
        workspace / "evidence" / "depth answers",  # after the first photo's answers
        workspace / "stages" / "map.started",
        workspace / "dense",
        workspace / "stages" / "mesh.started",
    ):
        kill_when(mark.exists, line)
        assert not out.exists()
    done = command(*line)
    assert done == Finished(0, "", ""), done
    assert status_of(out)["depth answers"] in ("resumed", "reused")

    whole, resumed = summary_of(uninterrupted), summary_of(out)
    assert resumed["photos_registered"] == whole["photos_registered"]
    assert resumed["points"] == whole["points"]
    assert resumed["mesh"] == whole["mesh"]
    first, second = read_mesh(uninterrupted), read_mesh(out)
    np.testing.assert_array_equal(first.vertices_world_m, second.vertices_world_m)
    np.testing.assert_array_equal(first.faces, second.faces)


@pytest.mark.slow
def test_changed_options_redo_only_what_depends_on_them(
    few_photos: Path, mute_checkpoint: Path, command: Command, uninterrupted: Path
) -> None:
    out = uninterrupted.with_name("metric.ply")
    workspace = ["--workspace", str(uninterrupted.parent / "mesh-workspace")]
    known = ["--known-distance", "0.png", "4.png", "1.25"]
    assert command(*arguments(few_photos, out, mute_checkpoint), *workspace, *known).code == 0
    summary = json.loads((uninterrupted.parent / "mesh-workspace" / "summary.json").read_text())
    status = {stage["name"]: stage["status"] for stage in summary["stages"]}
    assert status["depth answers"] == status["features"] == status["map"] == "reused"
    assert status["scale"] == status["dense depth"] == status["mesh"] == "done"
    assert summary["scale"]["known"] is True
    asked = {"source": str(mute_checkpoint), "tasks": ["depth"], "licence": "not stated", "stated_in": ""}
    assert summary["checkpoints"] == [asked]
    plain, metric = read_mesh(uninterrupted), read_mesh(out)
    spread = [float(np.linalg.norm(np.ptp(m.vertices_world_m, axis=0))) for m in (plain, metric)]
    assert spread[1] / spread[0] == pytest.approx(summary["scale"]["metres_per_unit"], rel=0.1)


@pytest.mark.slow
def test_overwrite_starts_anew(uninterrupted: Path, few_photos: Path, mute_checkpoint: Path, tmp_path: Path) -> None:
    """A killed --overwrite run leaves no earlier stage to be believed."""
    workspace = tmp_path / "mesh-workspace"
    line = arguments(few_photos, tmp_path / "mesh.ply", mute_checkpoint)
    kill_when((workspace / "stages" / "map.started").exists, line)
    answers, first, last = (workspace / p for p in ("evidence/depth answers", "images/0.png", "images/4.png"))
    assert len(list(answers.iterdir())) == 5
    first.write_bytes(b"rubbish")
    last.unlink()
    kill_when(last.exists, [*line, "--overwrite"])
    assert not answers.exists() or len(list(answers.iterdir())) <= 1
    assert first.read_bytes() != b"rubbish"


def test_a_second_run_at_the_same_time_is_refused(
    few_photos: Path, mute_checkpoint: Path, command: Command, tmp_path: Path
) -> None:
    from pipelines.workspace import open_workspace

    with open_workspace(tmp_path / "mesh-workspace"):
        done = command(*arguments(few_photos, tmp_path / "mesh.ply", mute_checkpoint))
    root = tmp_path / "mesh-workspace"
    assert (done.code, done.stderr) == (
        1,
        f"error: --workspace {root}: another run is using it; wait for it or name another\n",
    )
