"""What ``vlm3-recon info`` says of scenes and runs is what is there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import info
from pipelines.asking import AskOptions
from pipelines.info import Options, duration, run_info, scene_info
from recon.errors import BadInputError
from recon.surface.options import MultiviewOptions, SurfaceOptions
from tests.pipelines.finished_run import make_run


def photos(folder: Path, count: int, size: tuple[int, int] = (64, 48)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        exif = Image.Exif()
        exif[0x010F], exif[0x0110] = "Maker", "Model"
        exif.get_ifd(0x8769)[0xA405] = 28  # 35 mm equivalent focal length
        Image.fromarray(np.full((size[1], size[0], 3), i, np.uint8)).save(folder / f"{i}.jpg", exif=exif)


def test_a_scene(tmp_path: Path) -> None:
    photos(tmp_path / "images", 5)
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no photo")
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(tmp_path / "masks" / "2.jpg.png")
    found = scene_info(tmp_path, Options(tmp_path, asking=AskOptions(budget=10, match_budget=3)))
    assert (found.photos, found.pairs) == (5, 10)
    assert found.sizes == {"64x48": 5}
    assert (found.with_exif_focal, found.with_gps, found.with_mask, found.with_depth) == (5, 0, 1, 0)
    assert [line.split(":")[0] for line in found.unreadable] == ["broken.jpg"]
    assert next(iter(found.cameras)).lower().startswith("maker")
    assert set(found.questions.values()) <= {0, 50, 30, 40}
    text = info.scene_text(tmp_path, found)
    assert "10 pairs of photos" in text
    assert "broken.jpg" in text


def test_nothing_is_estimated_for_photos_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    text = info.scene_text(tmp_path, scene_info(tmp_path, Options(tmp_path)))
    assert [line.split()[0] for line in text.splitlines()] == ["scene", "photos", "unreadable", "note"]


def test_more_and_larger_photos_take_longer(tmp_path: Path) -> None:
    photos(tmp_path / "small", 3)
    photos(tmp_path / "large", 3, (640, 480))
    photos(tmp_path / "many", 9)
    small, large, many = (scene_info(tmp_path / name, Options(tmp_path / name)) for name in ("small", "large", "many"))
    assert large.seconds["features"] > small.seconds["features"]
    assert large.memory_mib > small.memory_mib
    assert sum(many.seconds.values()) > sum(small.seconds.values())


def test_steps_that_reduce_photos_cost_what_they_work_on(tmp_path: Path) -> None:
    photos(tmp_path, 3, (4000, 3000))
    usual = scene_info(tmp_path, Options(tmp_path))
    assert usual.seconds["dense depth"] == pytest.approx(3 * 0.640 * 0.480 * 15, abs=0.1)
    assert usual.seconds["features"] == pytest.approx(3 * 2.0 * 1.5 * 1.3 + 3 * 0.08, abs=0.1)
    surface = SurfaceOptions(multiview=MultiviewOptions(work_px=320))
    assert scene_info(tmp_path, Options(tmp_path, surface=surface)).seconds["dense depth"] < 4


def test_a_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mesh = make_run(tmp_path)
    for path in (mesh, tmp_path / "mesh-workspace"):
        content = run_info(tmp_path / "mesh-workspace")
        assert (content["photos"], content["points"], content["depth_maps"]) == (6, 40, 6)
        info.run(Options(path))
        text = capsys.readouterr().out
        for part in ("6 of 7 registered", "photo_99.jpg: the file is empty", "-3.0 % to +3.0 %, from gps",
                     "169 vertices, 288 faces", "photos 1.0 s"):  # fmt: skip
            assert part in text


def test_a_run_that_has_not_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, depth=False)
    workspace = tmp_path / "mesh-workspace"
    (workspace / "summary.json").unlink()
    info.run(Options(workspace, json=True))
    content = json.loads(capsys.readouterr().out)
    assert content["status"] == "no run has ended here yet"
    assert content["has_map"]
    (workspace / "summary.json").write_text("{")
    with pytest.raises(BadInputError, match=r"summary\.json: damaged"):
        run_info(workspace)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="does not exist"):
        info.run(Options(tmp_path / "absent"))
    with pytest.raises(BadInputError, match="holds no photo"):
        info.run(Options(tmp_path))


def test_durations_are_as_precise_as_estimates() -> None:
    assert [duration(s) for s in (0.2, 59, 600, 7200)] == ["1 s", "59 s", "10 min", "2.0 h"]
