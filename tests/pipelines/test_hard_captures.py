"""Photos that are of no use are named with their reason; what the others show becomes what was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipelines.cli import parse
from pipelines.options import Options
from pipelines.reconstruct import reconstruct
from recon.errors import BadInputError
from recon.interop.meshes import read_mesh
from recon.surface.edges import is_closed
from tests.pipelines.conftest import corner_photos


def line(scene: Path, out: Path, checkpoint: Path, *more: str) -> Options:
    fixed = ["--model", str(checkpoint), "--budget", "64", "--device", "cpu", "--quiet", "--no-report"]
    return parse(Options, "reconstruct", [str(scene), "--out", str(out), *fixed, *more])


@pytest.mark.slow
def test_two_photos_between_useless_ones_become_a_closed_mesh(tmp_path: Path, mute_checkpoint: Path) -> None:
    folder = tmp_path / "scene" / "images"
    folder.mkdir(parents=True)
    first, second, third = (Image.fromarray(photo) for photo in corner_photos(3))
    first.save(folder / "a.png")
    second.save(folder / "b.png")
    Image.fromarray(np.zeros((240, 320, 3), np.uint8)).save(folder / "black.png")
    third.filter(ImageFilter.GaussianBlur(20)).save(folder / "blurred.png")
    out = tmp_path / "corner.ply"

    summary = reconstruct(line(tmp_path / "scene", out, mute_checkpoint, "--watertight"))

    assert summary.scene is not None
    assert {view.name for view in summary.scene.views} == {"a.png", "b.png"}
    reasons = {photo.name: photo.reason for photo in summary.scene.unregistered}
    assert set(reasons) == {"black.png", "blurred.png"}
    assert all("keypoints found: blurred, empty or masked" in reason for reason in reasons.values())
    assert is_closed(read_mesh(out).faces)
    notices = json.loads((tmp_path / "corner-workspace" / "summary.json").read_text())["notices"]
    assert any("the mesh is watertight" in notice and "made up" in notice for notice in notices)


def test_what_only_meshes_have_is_not_asked_of_clouds(tmp_path: Path, mute_checkpoint: Path) -> None:
    for option in (["--watertight"], ["--target-faces", "1000"]):
        with pytest.raises(BadInputError, match=f"{option[0]} is about meshes; found --as cloud"):
            line(tmp_path, tmp_path / "cloud.ply", mute_checkpoint, "--as", "cloud", *option).check()
