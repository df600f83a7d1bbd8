"""Masks and sensor depth beside the photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recon.capture.folder import load_sensor_depth, read_capture
from recon.capture.masks import load_mask
from recon.errors import BadInputError
from recon.types import View
from tests.capture.photos import make_exif, picture, save_photo


@pytest.fixture
def scene(tmp_path) -> Path:
    save_photo(tmp_path / "scene" / "images" / "a.jpg", picture(1))
    save_photo(tmp_path / "scene" / "images" / "sub" / "b.png", picture(2))
    return tmp_path / "scene"


def imported(scene: Path) -> dict[str, View]:
    return {view.name: view for view in read_capture(scene, scene.parent / "w" / "images").views}


def save_grey(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


MASK = np.zeros((48, 64), np.uint8)
MASK[10:20, 5:50] = 255
MASK[30, 30] = 1  # anything but 0 is used
DEPTH_MM = (np.arange(48 * 64, dtype=np.uint16) * 20).reshape(48, 64)


@pytest.mark.parametrize("name", ["a.jpg.png", "a.png"])
def test_masks_are_found_by_either_name(scene, name):
    save_grey(scene / "masks" / name, MASK)
    save_grey(scene / "masks" / "sub" / "b.png", 255 - MASK)
    views = imported(scene)
    np.testing.assert_array_equal(load_mask(views["a.jpg"]), MASK > 0)
    np.testing.assert_array_equal(load_mask(views["sub/b.png"]), MASK < 255)
    # in the workspace they have COLMAP's names
    assert views["a.jpg"].mask_path == scene.parent / "w" / "masks" / "a.jpg.png"
    assert views["sub/b.png"].mask_path == scene.parent / "w" / "masks" / "sub" / "b.png.png"


def test_no_mask_and_no_depth(scene):
    view = imported(scene)["a.jpg"]
    assert load_mask(view) is None
    assert load_sensor_depth(view) is None


def test_sensor_depth_in_metres(scene):
    save_grey(scene / "depth" / "a.png", DEPTH_MM)
    depth_m = load_sensor_depth(imported(scene)["a.jpg"])
    assert depth_m is not None
    assert depth_m.dtype == np.float32
    assert np.isnan(depth_m[0, 0])
    assert np.isnan(depth_m).sum() == 1
    np.testing.assert_allclose(depth_m.ravel()[1:], DEPTH_MM.ravel()[1:] / 1000, rtol=1e-6)


def test_small_sensor_depth_is_sampled_to_the_photo(scene):
    save_grey(scene / "depth" / "a.png", DEPTH_MM[::2, ::2].copy())
    depth_m = load_sensor_depth(imported(scene)["a.jpg"])
    assert depth_m is not None
    assert depth_m.shape == (48, 64)
    expected = DEPTH_MM[::2, ::2].repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_allclose(np.nan_to_num(depth_m), expected / 1000, rtol=1e-6)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_and_depth_turn_with_their_photo(tmp_path, orientation):
    scene = tmp_path / "scene"
    # the photo itself shows mask and depth in its channels, losslessly
    pixels = np.stack([MASK, (DEPTH_MM >> 8).astype(np.uint8), (DEPTH_MM & 255).astype(np.uint8)], axis=-1)
    save_photo(scene / "images" / "a.png", pixels, exif=make_exif({0x0112: orientation}))
    save_grey(scene / "masks" / "a.png", MASK)
    save_grey(scene / "depth" / "a.png", DEPTH_MM)
    view = imported(scene)["a.png"]
    upright = np.asarray(Image.open(view.path)).astype(int)
    np.testing.assert_array_equal(load_mask(view), upright[..., 0] > 0)
    depth_m = load_sensor_depth(view)
    assert depth_m is not None
    np.testing.assert_allclose(np.nan_to_num(depth_m), (upright[..., 1] * 256 + upright[..., 2]) / 1000, rtol=1e-6)


def test_unusable_masks_and_depth_are_noted(scene):
    save_grey(scene / "masks" / "a.png", MASK[:30])
    (scene / "masks" / "sub").mkdir()
    (scene / "masks" / "sub" / "b.png").write_text("not an image")
    save_grey(scene / "depth" / "a.png", DEPTH_MM[:30])
    save_grey(scene / "depth" / "sub" / "b.png", MASK)
    views = imported(scene)
    notes = " ".join(views["a.jpg"].notes + views["sub/b.png"].notes)
    assert "mask a.png is 64x30, the photo 64x48, ignored" in notes
    assert "b.png: not readable as a mask; accepted: 8-bit PNG, 0 = ignore" in notes
    assert "depth a.png is 64x30, the photo 64x48, ignored" in notes
    assert "is of the kind 'L'; accepted: 16-bit grey PNG in millimetres" in notes
    assert all(view.mask_path is None and view.depth_path is None for view in views.values())


def test_files_damaged_after_the_import_are_named(scene):
    save_grey(scene / "masks" / "a.png", MASK)
    save_grey(scene / "depth" / "a.png", DEPTH_MM)
    view = imported(scene)["a.jpg"]
    for path, load in ((view.mask_path, load_mask), (view.depth_path, load_sensor_depth)):
        assert path is not None
        path.write_bytes(b"")
        with pytest.raises(BadInputError, match=r"a\S*\.png: not readable as"):
            load(view)
