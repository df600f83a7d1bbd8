"""Every bad file is left out with a reason that says what is accepted; the others are still imported."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recon.capture.folder import CaptureOptions, load_pixels, read_capture
from recon.errors import BadInputError
from tests.capture.photos import picture, save_photo


def jpeg_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(1, 200, 150)).save(buffer, "JPEG")
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def png_bytes(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def float_tiff() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((48, 64), np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


BAD_FILES = {
    "empty.jpg": (b"", r"empty \(0 bytes\); accepted: JPEG, PNG, TIFF, WebP or HEIC"),
    "truncated.jpg": (jpeg_bytes()[:1500], "damaged .*truncated.* needs a complete JPEG"),
    "header_only.jpg": (jpeg_bytes()[:20], "damaged|not an image"),
    "text.jpg": (b"These are my holiday notes.\n" * 20, "is a text file; accepted: JPEG"),
    "random.png": (np.random.default_rng(0).bytes(5000), "not an image of an accepted kind; accepted: JPEG"),
    "one_pixel.png": (png_bytes(1, 1), "1x1 is too small; accepted: sides of at least 32 px"),
    "thin.png": (png_bytes(500, 31), "500x31 is too small; accepted: sides of at least 32 px"),
    "bomb.png": (png_header(30000, 30000), "accepted: at most 150 megapixels"),
    "large.png": (png_header(14000, 12000), "14000x12000 is too many pixels .* at most 150 megapixels"),
    "claims_more.png": (png_header(400, 300), "damaged .* needs a complete JPEG"),
    "float.tif": (float_tiff(), "32-bit float; accepted: 8 or 16 bits"),
    "raw.cr2": (b"II*\0" + b"\0" * 100, r"\.cr2 files are not read; accepted: JPEG"),
    "animation.gif": (b"GIF89a", r"\.gif files are not read; accepted: JPEG"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named_with_what_is_accepted(tmp_path, name):
    data, reason = BAD_FILES[name]
    scene = tmp_path / "scene"
    good = save_photo(scene / "good.jpg")
    (scene / name).write_bytes(data)
    capture = read_capture(scene, tmp_path / "workspace" / "images")
    assert [view.name for view in capture.views] == [good.name]
    (rejected,) = capture.rejected
    assert rejected.name == name
    assert "\n" not in rejected.reason
    assert re.search(reason, rejected.reason), rejected.reason
    assert sorted(path.name for path in (tmp_path / "workspace" / "images").iterdir()) == ["good.jpg"]


def test_only_bad_files_are_an_error_that_names_the_first(tmp_path):
    scene = tmp_path / "scene"
    scene.mkdir()
    (scene / "a.jpg").write_bytes(b"")
    (scene / "b.jpg").write_bytes(b"x")
    with pytest.raises(BadInputError, match=r"none of 2 files is a usable photo \(a\.jpg: the file is empty"):
        read_capture(scene, tmp_path / "workspace" / "images")


@pytest.mark.parametrize("files", [[], ["notes.txt", ".hidden.jpg"]])
def test_a_folder_without_photos(tmp_path, files):
    scene = tmp_path / "scene"
    scene.mkdir()
    for name in files:
        (scene / name).write_text("x")
    with pytest.raises(BadInputError, match="scene: holds no photo; accepted: JPEG, PNG, TIFF, WebP or HEIC files"):
        read_capture(scene, tmp_path / "workspace" / "images")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(BadInputError, match="nowhere: does not exist; accepted: a folder of photos or a video"):
        read_capture(tmp_path / "nowhere", tmp_path / "workspace" / "images")


def test_an_empty_list_of_files(tmp_path):
    with pytest.raises(BadInputError, match="no photo was given"):
        read_capture([], tmp_path / "workspace" / "images")


def test_the_second_of_two_identical_photos_is_left_out(tmp_path):
    scene = tmp_path / "scene"
    save_photo(scene / "a.jpg")
    (scene / "copy of a.jpg").write_bytes((scene / "a.jpg").read_bytes())
    save_photo(scene / "c.jpg", picture(2))
    for _ in range(2):  # and again when resuming
        capture = read_capture(scene, tmp_path / "workspace" / "images")
        assert [view.name for view in capture.views] == ["a.jpg", "c.jpg"]
        (rejected,) = capture.rejected
        assert rejected.name == "copy of a.jpg"
        assert rejected.reason == "has exactly the same pixels as a.jpg, of which one copy is enough"
        assert sorted(path.name for path in (tmp_path / "workspace" / "images").iterdir()) == ["a.jpg", "c.jpg"]


def test_a_file_that_cannot_be_read(tmp_path):
    scene = tmp_path / "scene"
    save_photo(scene / "a.jpg")
    (scene / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (rejected,) = read_capture(scene, tmp_path / "workspace" / "images").rejected
    assert rejected.name == "gone.jpg"
    assert "can't be read (No such file or directory); needs a readable file" in rejected.reason


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission(tmp_path):
    scene = tmp_path / "scene"
    save_photo(scene / "a.jpg")
    save_photo(scene / "secret.jpg", picture(2)).chmod(0)
    (rejected,) = read_capture(scene, tmp_path / "workspace" / "images").rejected
    assert "can't be read (Permission denied); needs a readable file" in rejected.reason


def test_a_forbidden_file_is_left_out(tmp_path, monkeypatch):
    """The same as above for test machines that run as root."""
    import recon.capture.folder as folder_module

    scene = tmp_path / "scene"
    save_photo(scene / "a.jpg")
    save_photo(scene / "secret.jpg", picture(2))
    original = folder_module.file_sha256

    def forbidden(path: Path) -> str:
        if path.name == "secret.jpg":
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(folder_module, "file_sha256", forbidden)
    capture = read_capture(scene, tmp_path / "workspace" / "images")
    assert [view.name for view in capture.views] == ["a.jpg"]
    assert "can't be read (Permission denied); needs a readable file" in capture.rejected[0].reason


def test_limits_are_options(tmp_path):
    save_photo(tmp_path / "scene" / "a.jpg", picture(1, 64, 48))
    with pytest.raises(BadInputError, match="64x48 is too small; accepted: sides of at least 50 px"):
        read_capture(tmp_path / "scene", tmp_path / "w" / "images", CaptureOptions(min_side_px=50))
    with pytest.raises(BadInputError, match=r"at most 0.002 megapixels"):
        read_capture(tmp_path / "scene", tmp_path / "w" / "images", CaptureOptions(max_megapixels=0.002))
    with pytest.raises(BadInputError, match="min_side_px must be positive, found 0"):
        CaptureOptions(min_side_px=0)


def test_a_stored_photo_damaged_later_is_named(tmp_path):
    save_photo(tmp_path / "scene" / "a.jpg")
    (view,) = read_capture(tmp_path / "scene", tmp_path / "w" / "images").views
    view.path.write_bytes(view.path.read_bytes()[:300])
    with pytest.raises(BadInputError, match=r"a\.jpg: the stored photo can't be read"):
        load_pixels(view)
