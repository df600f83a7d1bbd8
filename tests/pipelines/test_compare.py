"""``vlm3-recon compare`` from the command line: tables, JSON, ground truth among several, one-line refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines import cli
from recon.interop.meshes import write_mesh
from tests.interop.toy import colmap_model, toy, wall, write_da3, write_photos, write_truth, write_vggt
from tests.pipelines.finished_run import STRAIGHT, make_run

SCENE = toy()
FEW = ("--points", "2000")


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    write_truth(tmp_path / "truth", SCENE)
    write_mesh(wall(), tmp_path / "truth" / "gt" / "mesh.ply")
    return tmp_path / "truth"


def test_a_run_against_everything(tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mesh = make_run(tmp_path, STRAIGHT)
    vggt, da3, colmap = tmp_path / "vggt", tmp_path / "da3", tmp_path / "colmap"
    for folder in (vggt, da3):
        write_photos(folder, SCENE)
    write_vggt(vggt / "predictions.npz", SCENE)
    write_da3(da3 / "exports" / "mini_npz" / "results.npz", SCENE)
    colmap.mkdir()
    colmap_model(SCENE).write_binary(colmap)
    out = tmp_path / "comparison.json"
    others = [part for folder in (truth, vggt, da3, colmap) for part in ("--with", str(folder))]
    assert cli.main(["compare", str(mesh), *others, *FEW, "--json", str(out)]) == 0
    text = capsys.readouterr().out
    data = json.loads(out.read_text())
    comparisons = data["comparisons"]
    # the run against each of four, and the three tools against the ground truth
    assert [(c["result_kind"], c["reference_kind"]) for c in comparisons] == [
        ("our run", "ground truth"), ("our run", "VGGT predictions"), ("our run", "Depth-Anything-3"),
        ("our run", "COLMAP model"), ("VGGT predictions", "ground truth"), ("Depth-Anything-3", "ground truth"),
        ("COLMAP model", "ground truth"),
    ]  # fmt: skip
    for c in comparisons:
        assert c["poses"]["auc_exact"]["5"] == pytest.approx(1, abs=1e-3)
        assert c["similarity"]["ate"]["rmse"] == pytest.approx(0, abs=1e-6)
    first = comparisons[0]
    assert first["scale_error"] == pytest.approx(0, abs=1e-9)
    assert first["alignment"] == "rigid, centres of 6 cameras"
    assert first["depth"]["as_is"]["abs_rel"] < 1e-3
    # the depth maps see the wall but not the block on it: that part of the truth is left out
    assert first["surface"]["scores"]["scores"]["recall"] == [1, 1, 1, 1, 1]
    assert any("the ground truth is reduced to" in note for note in first["notes"])
    assert comparisons[4]["depth"]["by_median"]["delta1"] > 0.99
    assert comparisons[4]["scale_error"] is None
    for part in ("pose AUC", "exact", "histogram", "ATE", "RPE", "scale error", "precision", "normal consistency",
                 "aligned by   rigid, centres of 6 cameras", "focal"):  # fmt: skip
        assert part in text


def test_quiet_prints_nothing_and_icp_is_said(tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(truth), "--with", str(truth), *FEW, "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main(["compare", str(truth), "--with", str(truth), *FEW, "--icp", "--align", "similarity"]) == 0
    text = capsys.readouterr().out
    assert "then ICP on the surfaces" in text
    assert "ICP turned" in text


def test_a_shrunk_world_is_reported_in_percent(tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "small"
    poses = SCENE.poses.copy()
    poses[:, :, 3] *= 0.96
    write_truth(small, type(SCENE)(SCENE.names, poses, SCENE.depth * np.float32(0.96)))
    assert cli.main(["compare", str(small), "--with", str(truth), *FEW]) == 0
    text = capsys.readouterr().out
    assert "scale error  +4.17 % (lengths to be multiplied by 1.0417)" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{truth}"], "with"),
        (["{truth}", "--with", "absent"], "absent: does not exist; accepted: a workspace"),
        (["absent", "--with", "{truth}"], "absent: does not exist"),
        (["{truth}", "--with", "{truth}", "--points", "1"], "--points must be between"),
        (["{truth}", "--with", "{truth}", "--json", "{truth}/gt/cameras.json/x.json"], "--json"),
    ],
)
def test_refusals_are_one_line(
    truth: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert cli.main(["compare", *(a.format(truth=truth) for a in arguments)]) in {1, 2}
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
