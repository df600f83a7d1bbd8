"""One photo alone: a partial result in metres where a sensor or a trusted checkpoint knows them, else a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.cli import parse
from pipelines.options import Options
from pipelines.reconstruct import reconstruct
from recon.interop.meshes import read_mesh
from tests.pipelines.conftest import corner_photos

pytestmark = pytest.mark.slow


def test_one_photo_with_sensor_depth_becomes_a_metric_mesh_of_what_it_shows(
    tmp_path: Path, mute_checkpoint: Path
) -> None:
    scene = tmp_path / "scene"
    for folder in ("images", "depth"):
        (scene / folder).mkdir(parents=True)
    Image.fromarray(corner_photos(1)[0]).save(scene / "images" / "a.png")
    height, width = 240, 320
    depth_m = 2.0 + 0.5 * np.arange(width) / width * np.ones((height, 1))  # a wall that recedes to the right
    Image.fromarray((depth_m * 1000).astype(np.uint16)).save(scene / "depth" / "a.png")
    out = tmp_path / "wall.ply"
    line = [str(scene), "--out", str(out), "--model", str(mute_checkpoint), "--budget", "64", "--device", "cpu"]
    summary = reconstruct(parse(Options, "reconstruct", [*line, "--quiet"]))
    assert summary.num_registered == 1
    assert summary.scene is not None
    assert summary.scene.scale.used == ("sensor depth",)
    assert any("one usable photo" in notice for notice in summary.notices)
    z = np.asarray(read_mesh(out).vertices_world_m)[:, 2]
    assert np.percentile(z, 2) > 1.98
    assert np.percentile(z, 98) < 2.52
    assert z.max() - z.min() > 0.4
