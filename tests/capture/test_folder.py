"""Importing usable photos: upright RGB, names, hashes, resuming."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import recon.capture.folder as folder_module
from recon.capture.folder import CaptureOptions, load_pixels, read_capture
from recon.capture.sources import WORKSPACE_MARKER
from recon.errors import BadInputError, OutputError
from tests.capture.photos import make_exif, picture, save_photo


def importing(source, tmp_path: Path, **options):
    return read_capture(source, tmp_path / "workspace" / "images", CaptureOptions(**options))


def test_ordinary_photos_are_copied_byte_for_byte(tmp_path):
    scene = tmp_path / "scene"
    first = save_photo(scene / "b.jpg", picture(1))
    second = save_photo(scene / "sub" / "a.png", picture(2))
    capture = importing(scene, tmp_path)
    assert [view.name for view in capture.views] == ["b.jpg", "sub/a.png"]
    assert not capture.rejected
    for view, original in zip(capture.views, (first, second), strict=True):
        assert view.path.read_bytes() == original.read_bytes()
        assert view.path == tmp_path / "workspace" / "images" / view.name
        assert view.notes == ()
        np.testing.assert_array_equal(load_pixels(view), np.asarray(Image.open(original)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    stored = picture(3)
    path = save_photo(tmp_path / "scene" / f"photo{suffix}", stored, exif=make_exif({0x0112: orientation}))
    (view,) = importing(tmp_path / "scene", tmp_path).views
    pixels = load_pixels(view)
    expected = {  # row and column 0 of the stored image are at: (EXIF 2.3, table 6)
        1: stored,  # top, left
        2: stored[:, ::-1],  # top, right
        3: stored[::-1, ::-1],  # bottom, right
        4: stored[::-1],  # bottom, left
        5: stored.transpose(1, 0, 2),  # left, top
        6: np.rot90(stored, -1),  # right, top
        7: stored[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
        8: np.rot90(stored, 1),  # left, bottom
    }[orientation]
    assert pixels.shape == expected.shape == (view.height_px, view.width_px, 3)
    error = np.abs(pixels.astype(int) - expected)
    assert error.mean() < 5 if suffix == ".jpg" else error.max() == 0  # a wrong turn gives about 80
    with Image.open(view.path) as image:  # nobody turns it a second time
        assert image.getexif().get(0x0112, 1) == 1
    assert path.exists()


@pytest.mark.parametrize(
    ("mode", "suffix", "note"),
    [
        ("CMYK", ".jpg", "CMYK converted"),
        ("CMYK", ".tif", "CMYK converted"),
        ("L", ".jpg", "grey converted"),
        ("L", ".png", "grey converted"),
        ("1", ".png", "black and white converted"),
        ("P", ".png", "palette converted"),
        ("RGB", ".webp", ""),
        ("RGB", ".tif", ""),
        ("YCbCr", ".tif", ""),
    ],
)
def test_other_kinds_become_rgb(tmp_path, mode, suffix, note):
    image = Image.fromarray(picture(4)).convert(mode)
    path = tmp_path / "scene" / f"photo{suffix}"
    path.parent.mkdir()
    image.save(path)
    with Image.open(path) as stored:
        expected = np.asarray(stored.convert("RGB")).astype(int)
    (view,) = importing(tmp_path / "scene", tmp_path).views
    error = np.abs(load_pixels(view) - expected)
    assert error.mean() < 3 if suffix in (".jpg", ".webp") else error.max() == 0
    assert note in " ".join(view.notes)
    with Image.open(view.path) as image:
        assert image.mode == "RGB"
        assert image.format in ("JPEG", "PNG")


def test_16_bit_photos_keep_their_brightness(tmp_path):
    import cv2

    scene = tmp_path / "scene"
    scene.mkdir()
    grey = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    cv2.imwrite(str(scene / "grey.png"), grey)
    cv2.imwrite(str(scene / "colour.png"), np.stack([grey, grey[::-1], grey[:, ::-1]], axis=-1))
    cv2.imwrite(str(scene / "colour.tif"), np.stack([grey, grey[::-1], grey.T.reshape(48, 64)], axis=-1))
    capture = importing(scene, tmp_path)
    assert capture.views[0].name == "colour.png"
    by_source = {view.name: view for view in capture.views}
    assert not capture.rejected
    np.testing.assert_array_equal(load_pixels(by_source["grey.png"])[..., 0], grey >> 8)
    colour = load_pixels(by_source["colour.png"])
    assert np.abs(colour[..., 2].astype(int) - (grey >> 8)).max() <= 1
    for view in capture.views:
        assert "16" in " ".join(view.notes)
        with Image.open(view.path) as image:
            assert "16" not in str(image.tile[0].args)


def test_transparency_becomes_black_and_is_noted(tmp_path):
    rgba = np.dstack([picture(5), np.full((48, 64), 255, np.uint8)])
    save_photo(tmp_path / "scene" / "opaque.png", rgba)
    rgba[:, :20, 3] = 0
    save_photo(tmp_path / "scene" / "clear.png", rgba)
    clear, opaque = importing(tmp_path / "scene", tmp_path).views
    np.testing.assert_array_equal(load_pixels(opaque), rgba[..., :3])
    assert (load_pixels(clear)[:, :20] == 0).all()
    np.testing.assert_array_equal(load_pixels(clear)[:, 20:], rgba[:, 20:, :3])
    assert "transparency" in " ".join(clear.notes)
    assert "transparency" not in " ".join(opaque.notes)


def test_heic_photos_are_read(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    scene = tmp_path / "scene"
    scene.mkdir()
    pillow_heif.from_pillow(Image.fromarray(picture(6, 128, 96))).save(scene / "IMG_1.HEIC", quality=95)
    (view,) = importing(scene, tmp_path).views
    assert view.name == "IMG_1.jpg"
    assert np.abs(load_pixels(view).astype(int) - picture(6, 128, 96)).mean() < 4


def test_a_wrong_extension_is_corrected_in_the_workspace(tmp_path):
    path = tmp_path / "scene" / "photo.png"
    path.parent.mkdir()
    Image.fromarray(picture()).save(path, format="JPEG")
    (view,) = importing(tmp_path / "scene", tmp_path).views
    assert view.name == "photo.jpg"
    assert "stored as photo.jpg" in view.notes


def test_mixed_sizes_and_orientations_share_cameras_only_when_equal(tmp_path):
    scene = tmp_path / "scene"
    for index, (width, height) in enumerate([(64, 48), (48, 64), (64, 48), (80, 60)]):
        save_photo(scene / f"{index}.jpg", picture(index, width, height))
    views = importing(scene, tmp_path).views
    assert views[0].camera_key == views[2].camera_key
    assert len({view.camera_key for view in views}) == 3


def test_strange_names_become_valid_unique_names(tmp_path):
    scene = tmp_path / "scene"
    scene.mkdir()
    names = [
        os.fsdecode(b"caf\xe9 \xff.jpg"),  # Latin-1, not UTF-8
        "x" * 240 + ".jpg",
        "two words.jpg",
        "two_words.jpg",
        "line\nbreak.jpg",
        "日本語.jpg",
        "-dash;$(rm).jpg",
    ]
    for seed, name in enumerate(names):
        save_photo(tmp_path / "plain.jpg", picture(seed)).rename(scene / name)
    capture = importing(scene, tmp_path)
    assert not capture.rejected
    assert len(capture.views) == len({view.name for view in capture.views}) == len(names)
    for view in capture.views:
        assert view.path.is_file()
        view.name.encode("utf-8")
        assert len(view.name) < 130
        assert not any(char in view.name for char in " \n;$")
        load_pixels(view)
    assert {"two_words.jpg", "日本語.jpg"} <= {view.name for view in capture.views}
    # a second run finds the same names
    assert importing(scene, tmp_path) == capture


def test_equal_names_of_different_formats_stay_apart(tmp_path):
    scene = tmp_path / "scene"
    save_photo(scene / "a.png", picture(1))
    save_photo(scene / "a.tif", picture(2))
    save_photo(scene / "a.jpg", picture(3))
    views = importing(scene, tmp_path).views
    assert len({view.name for view in views}) == 3
    for view in views:
        load_pixels(view)


def test_a_workspace_with_images_is_read_from_there(tmp_path):
    save_photo(tmp_path / "scene" / "images" / "cam1" / "a.jpg")
    save_photo(tmp_path / "scene" / "thumbnail.jpg", picture(9))
    (view,) = importing(tmp_path / "scene", tmp_path).views
    assert view.name == "cam1/a.jpg"


def test_a_list_of_files(tmp_path):
    one, two = save_photo(tmp_path / "p" / "a.jpg", picture(1)), save_photo(tmp_path / "q" / "a.jpg", picture(2))
    capture = importing([one, two], tmp_path)
    assert [view.name for view in capture.views] == ["p/a.jpg", "q/a.jpg"]
    assert [view.name for view in importing([one], tmp_path).views] == ["a.jpg"]
    assert [view.name for view in importing(one, tmp_path).views] == ["a.jpg"]


def test_the_hash_is_of_the_stored_pixels(tmp_path):
    save_photo(tmp_path / "scene" / "a.jpg", exif=make_exif({0x0112: 6}))  # encoded anew
    (view,) = importing(tmp_path / "scene", tmp_path).views
    assert view.content_hash == folder_module.content_hash(load_pixels(view))
    wide, tall = np.zeros((2, 8, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    assert folder_module.content_hash(wide) != folder_module.content_hash(tall)


def test_a_second_run_decodes_nothing(tmp_path, monkeypatch):
    scene = tmp_path / "scene"
    for index in range(3):
        save_photo(scene / f"{index}.tif", picture(index))
    first = importing(scene, tmp_path)
    decoded: list[str] = []
    original = folder_module.decode_photo

    def counted(path: Path, options: CaptureOptions):
        decoded.append(path.name)
        return original(path, options)

    monkeypatch.setattr(folder_module, "decode_photo", counted)
    assert importing(scene, tmp_path) == first
    assert decoded == []
    save_photo(scene / "1.tif", picture(7))  # changed
    second = importing(scene, tmp_path)
    assert decoded == ["1.tif"]
    assert second.views[1].content_hash != first.views[1].content_hash
    (tmp_path / "workspace" / "images" / "2.png").write_bytes(b"damaged")
    assert importing(scene, tmp_path) == second
    assert decoded == ["1.tif", "2.tif"]
    next((tmp_path / "workspace" / "imports").glob("*.json")).write_text("{")
    assert importing(scene, tmp_path) == second
    assert len(decoded) == 3


def test_a_killed_run_leaves_nothing_that_is_read(tmp_path, monkeypatch):
    scene = tmp_path / "scene"
    for index in range(3):
        save_photo(scene / f"{index}.tif", picture(index))

    class KilledError(BaseException):
        pass

    def killed(image, path, *args, **kwargs):
        Path(path).write_bytes(b"half a file")
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", killed)
        patch.setattr(Path, "unlink", lambda *args, **kwargs: None)  # a killed process cleans nothing up
        with pytest.raises(KilledError):
            importing(scene, tmp_path)
    images = tmp_path / "workspace" / "images"
    assert [path.name.startswith(".import-") for path in images.iterdir()] == [True]
    capture = importing(scene, tmp_path)
    assert sorted(path.name for path in images.iterdir()) == ["0.png", "1.png", "2.png"]
    assert len(capture.views) == 3


def test_photos_that_are_gone_leave_the_workspace(tmp_path):
    scene = tmp_path / "scene"
    for index in range(2):
        save_photo(scene / f"{index}.jpg", picture(index))
    importing(scene, tmp_path)
    foreign = save_photo(tmp_path / "workspace" / "images" / "foreign.jpg", picture(8))
    (scene / "0.jpg").unlink()
    assert [view.name for view in importing(scene, tmp_path).views] == ["1.jpg"]
    assert sorted(path.name for path in foreign.parent.iterdir()) == ["1.jpg", "foreign.jpg"]


def test_earlier_results_inside_the_scene_are_not_photos(tmp_path):
    scene = tmp_path / "scene"
    save_photo(scene / "a.jpg", picture(1))
    images = scene / "mesh-workspace" / "images"
    for _ in range(2):
        assert [view.name for view in read_capture(scene, images).views] == ["a.jpg"]


def test_the_workspace_of_another_run_inside_the_scene_is_not_photos(tmp_path):
    scene = tmp_path / "scene"
    save_photo(scene / "a.jpg", picture(1))
    save_photo(scene / "other-workspace" / "images" / "a.jpg", picture(2))
    (scene / "other-workspace" / WORKSPACE_MARKER).touch()
    assert [view.name for view in importing(scene, tmp_path).views] == ["a.jpg"]


@pytest.mark.parametrize("layout", ["images", ""])
def test_the_scene_is_never_its_own_workspace(tmp_path, layout):
    photo = save_photo(tmp_path / "scene" / layout / "a.jpg")
    before = photo.read_bytes()
    with pytest.raises(BadInputError, match="is also the workspace"):
        read_capture(tmp_path / "scene", tmp_path / "scene" / "images")
    assert photo.read_bytes() == before


def test_a_full_disk_or_read_only_folder_is_named(tmp_path, monkeypatch):
    save_photo(tmp_path / "scene" / "a.tif")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(OutputError, match=r"a\.png: can't be written \(No space left on device\)"):
            importing(tmp_path / "scene", tmp_path)
    (tmp_path / "workspace2").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="can't make this folder"):
        read_capture(tmp_path / "scene", tmp_path / "workspace2" / "images")


def test_progress_counts_every_file(tmp_path):
    for index in range(3):
        save_photo(tmp_path / "scene" / f"{index}.jpg", picture(index))
    (tmp_path / "scene" / "bad.jpg").write_bytes(b"")
    calls = []
    read_capture(
        tmp_path / "scene", tmp_path / "w" / "images", progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
