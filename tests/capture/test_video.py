"""Frames of a video: sharpest of each window, upright, in order."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageFilter

import recon.capture.video as video_module
from recon.capture.folder import CaptureOptions, load_pixels, read_capture
from recon.capture.video import sharpness_of
from recon.errors import BadInputError

FPS = 10


def texture(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A blocky picture; its left edge is a code of the number: 6 black or white squares from top to bottom."""
    generator = np.random.default_rng(1000 + number)
    blocks = generator.integers(40, 216, (height // 8, width // 8, 3), dtype=np.uint8)
    pixels = blocks.repeat(8, axis=0).repeat(8, axis=1)
    for bit in range(6):
        pixels[bit * 8 : bit * 8 + 8, :16] = 255 * (number >> bit & 1)
    return pixels


def number_in(pixels: np.ndarray) -> int:
    return sum(int(pixels[bit * 8 + 4, 8].mean() > 128) << bit for bit in range(6))


def write_video(path: Path, frames: list[np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.qmin = stream.codec_context.qmax = 1
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def blurred(pixels: np.ndarray, radius: float = 2.0) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


SHARP = {3, 7, 12, 19, 22, 28}  # one in every five frames


@pytest.fixture
def film(tmp_path) -> Path:
    frames = [texture(i) if i in SHARP else blurred(texture(i)) for i in range(30)]
    return write_video(tmp_path / "film.mp4", frames)


def test_the_sharpest_frame_of_each_window_is_taken(film, tmp_path):
    calls = []
    capture = read_capture(
        film,
        tmp_path / "w" / "images",
        CaptureOptions(video_min_spacing_s=0.5),
        progress=lambda done, total: calls.append((done, total)),
    )
    assert capture.is_sequence
    assert [number_in(load_pixels(view)) for view in capture.views] == sorted(SHARP)
    assert [view.name for view in capture.views] == [f"film_{i:05d}.jpg" for i in range(6)]
    assert capture.views[2].notes == ("frame at 1.200 s",)
    assert len({view.camera_key for view in capture.views}) == 1
    assert calls[-1] == (6, 6)


def test_the_number_of_frames_is_limited(film, tmp_path):
    views = read_capture(film, tmp_path / "w" / "images", CaptureOptions(video_max_frames=3)).views
    assert len(views) == 3
    assert [number_in(load_pixels(view)) // 10 for view in views] == [0, 1, 2]


def test_a_second_run_reads_the_record(film, tmp_path, monkeypatch):
    options = CaptureOptions(video_min_spacing_s=0.5)
    first = read_capture(film, tmp_path / "w" / "images", options)
    with monkeypatch.context() as patch:
        patch.setattr(video_module, "choose_frames", lambda *args: pytest.fail("decoded again"))
        assert read_capture(film, tmp_path / "w" / "images", options) == first
    first.views[1].path.unlink()
    assert read_capture(film, tmp_path / "w" / "images", options) == first
    assert len(read_capture(film, tmp_path / "w" / "images", CaptureOptions(video_max_frames=2)).views) == 2


def test_frames_are_reduced_to_the_limit(tmp_path):
    film = write_video(tmp_path / "big.mp4", [blurred(texture(i, 320, 240)) for i in range(4)])
    (view,) = read_capture(
        film, tmp_path / "w" / "images", CaptureOptions(video_max_side_px=160, video_max_frames=1)
    ).views
    assert (view.width_px, view.height_px) == (160, 120)


def turn(path: Path, matrix: tuple[int, ...]) -> None:
    """Writes a display matrix (16.16 fixed point) into the video track's header of an MP4 file."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd")
    assert data[start + 4] == 0  # version 0: the matrix lies 44 bytes after the type
    data[start + 44 : start + 80] = struct.pack(">9i", *matrix)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("matrix", "quarter_turns"),
    [
        ((0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30), -1),  # a phone held upright: show turned right
        ((-(1 << 16), 0, 0, 0, -(1 << 16), 0, 0, 0, 1 << 30), 2),
        ((0, -(1 << 16), 0, 1 << 16, 0, 0, 0, 0, 1 << 30), 1),
    ],
)
def test_the_containers_rotation_is_applied(tmp_path, matrix, quarter_turns):
    pixels = texture(5)
    film = write_video(tmp_path / "turned.mp4", [pixels, pixels])
    turn(film, matrix)
    (view,) = read_capture(film, tmp_path / "w" / "images", CaptureOptions(video_max_frames=1)).views
    expected = np.rot90(pixels, quarter_turns).astype(int)
    found = load_pixels(view).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 12  # a wrong turn gives about 60


def test_a_still_film_gives_one_frame_and_says_why(tmp_path):
    film = write_video(tmp_path / "still.mp4", [np.full((64, 96, 3), 128, np.uint8)] * 20)
    capture = read_capture(film, tmp_path / "w" / "images", CaptureOptions(video_min_spacing_s=0.5))
    assert len(capture.views) == 1
    assert len(capture.rejected) == 3
    assert all(item.reason == "the frame is identical to still_00000.jpg" for item in capture.rejected)


def test_a_single_video_in_a_folder_is_the_scene(film, tmp_path):
    scene = tmp_path / "scene"
    scene.mkdir()
    film.rename(scene / "film.mp4")
    assert read_capture(scene, tmp_path / "w" / "images").is_sequence


def test_a_video_among_photos_is_named(film, tmp_path):
    scene = tmp_path / "scene"
    scene.mkdir()
    film.rename(scene / "film.mp4")
    Image.fromarray(texture(1)).save(scene / "photo.png")
    capture = read_capture(scene, tmp_path / "w" / "images")
    assert [view.name for view in capture.views] == ["photo.png"]
    assert capture.rejected[0].name == "film.mp4"
    assert "give the video file itself" in capture.rejected[0].reason


def test_a_cut_off_video_gives_what_is_there(film, tmp_path):
    data = film.read_bytes()
    mkv = tmp_path / "film.mkv"
    with av.open(str(film)) as source, av.open(str(mkv), "w") as target:  # MP4 keeps its index at the end
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    whole = mkv.read_bytes()
    mkv.write_bytes(whole[: len(whole) // 2])
    views = read_capture(mkv, tmp_path / "w" / "images", CaptureOptions(video_min_spacing_s=0.5)).views
    assert 1 <= len(views) <= 4
    film.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        BadInputError, match=r"film\.mp4: not readable as a video .* accepted: videos that FFmpeg reads"
    ):
        read_capture(film, tmp_path / "w2" / "images")


@pytest.mark.parametrize("data", [b"", b"not a video" * 100])
def test_files_that_are_no_videos(tmp_path, data):
    path = tmp_path / "film.mp4"
    path.write_bytes(data)
    with pytest.raises(BadInputError, match=r"film\.mp4: not readable as a video") as caught:
        read_capture(path, tmp_path / "w" / "images")
    assert "\n" not in str(caught.value)


def test_sharpness_falls_with_blur():
    grey = texture(3)[..., 0]
    values = [sharpness_of(blurred(texture(3), radius)[..., 0]) for radius in (1, 2, 4)]
    assert sharpness_of(grey) > values[0] > values[1] > values[2]
