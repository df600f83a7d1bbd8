"""Takes the sharpest frames of a video at regular spacing.

The video's time is cut into equal windows, one per wanted frame; of each window the sharpest frame is taken (variance
of the Laplacian, Pech-Pacheco et al., ICPR 2000, on a small grey image). Sharpness is only compared within a window,
where the scene's texture is about the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image

from recon.capture.files import atomic_path, content_hash, file_sha256, printable, safe_name
from recon.capture.options import CaptureOptions
from recon.errors import BadInputError
from recon.types import Capture, ImageArray, Rejected, View

_FORMAT = 1
_SHARPNESS_SIDE_PX = 480
_JPEG_QUALITY = 95
Progress = Callable[[int, int], None]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoFrame:
    """A chosen frame: its time, sharpness and upright pixels ``[H, W, 3]`` uint8."""

    time_s: float
    sharpness: float
    pixels: ImageArray


def read_video(path: Path, images_dir: Path, options: CaptureOptions, progress: Progress | None = None) -> Capture:
    """Imports the chosen frames of a video into ``images_dir`` as ``<video name>_<number>.jpg``, in order of time.

    Args:
        path: video file that FFmpeg reads.
        images_dir: the workspace's ``images/``.
        options: number, spacing and size of frames.
        progress: called with (done, total) frames.

    Raises:
        BadInputError: not a video, or no frame of it can be decoded.
        OutputError: the workspace can't be written.
    """
    record_path = images_dir.parent / "imports" / "video.json"
    try:
        key = _key(file_sha256(path), options)
    except OSError as error:
        raise BadInputError(f"{printable(path)}: can't be read ({error.strerror}); needs a readable file") from error
    known = _read_record(record_path, key, images_dir)
    if known is not None:
        return known
    views: list[View] = []
    rejected: list[Rejected] = []
    names: set[str] = set()
    first_with: dict[str, str] = {}
    total = _num_windows(_duration_s(path), options)
    for index, frame in enumerate(choose_frames(path, options)):
        name = safe_name(_frame_path(path, index), ".jpg", names)
        stored = images_dir / name
        if min(frame.pixels.shape[:2]) < options.min_side_px:
            height, width = frame.pixels.shape[:2]
            raise BadInputError(
                f"{printable(path)}: frames of {width}x{height} are too small; accepted: sides of at least "
                f"{options.min_side_px} px"
            )
        with atomic_path(stored) as temporary:
            image = Image.fromarray(frame.pixels)
            image.save(temporary, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
        with Image.open(stored) as written:
            view = _view(np.asarray(written.convert("RGB")), name, stored, path, frame)
        if view.content_hash in first_with:  # a still picture
            stored.unlink()
            rejected.append(Rejected(name, f"the frame is identical to {first_with[view.content_hash]}"))
        else:
            first_with[view.content_hash] = name
            views.append(view)
        if progress is not None:
            progress(min(index + 1, total), total)
    if not views:
        raise BadInputError(f"{printable(path)}: no frame can be decoded; accepted: videos that FFmpeg reads")
    capture = Capture(tuple(views), tuple(rejected), is_sequence=True)
    _write_record(record_path, key, capture)
    return capture


def choose_frames(path: Path, options: CaptureOptions) -> Iterator[VideoFrame]:
    """Yields the sharpest frame of every window of time, decoding the video once.

    Raises:
        BadInputError: not a video.
    """
    with _open(path) as container:
        pixel_aspect = float(container.streams.video[0].sample_aspect_ratio or 1)
    duration_s = _duration_s(path)
    window_s = duration_s / _num_windows(duration_s, options)
    best: tuple[float, float, Any] | None = None  # sharpness, time, decoded frame
    window = 0
    last_s = -np.inf
    for time_s, frame in _decoded(path):
        index = min(int(time_s / window_s), options.video_max_frames - 1) if window_s > 0 else 0
        if index != window and best is not None:
            yield _finished(best, pixel_aspect, options)
            last_s, best = best[1], None
        window = index
        if time_s - last_s < window_s / 2:
            continue  # the last choice was late in its window: keep a distance
        sharpness = _sharpness(frame)
        if best is None or sharpness > best[0]:
            best = (sharpness, time_s, frame)
    if best is not None:
        yield _finished(best, pixel_aspect, options)


def sharpness_of(grey: np.ndarray) -> float:
    """Variance of the Laplacian of a grey uint8 image ``[H, W]``: larger is sharper."""
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


# ---------------------------------------------------------------------------------------------------------------------


def _num_windows(duration_s: float, options: CaptureOptions) -> int:
    if options.video_min_spacing_s <= 0:
        return options.video_max_frames
    return max(1, min(options.video_max_frames, int(duration_s / options.video_min_spacing_s)))


def _open(path: Path) -> Any:
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise BadInputError(
            f"{printable(path)}: not readable as a video ({' '.join(str(error).split())}); accepted: videos that "
            f"FFmpeg reads, such as MP4 or MOV"
        ) from error
    if not container.streams.video:
        container.close()
        raise BadInputError(f"{printable(path)}: holds no video stream; accepted: videos that FFmpeg reads")
    return container


def _duration_s(path: Path) -> float:
    """Time from the first to the end of the last packet; the header's duration is not always true."""
    with _open(path) as container:
        stream = container.streams.video[0]
        start, end = np.inf, -np.inf
        try:
            for packet in container.demux(stream):
                if packet.pts is not None:
                    start = min(start, float(packet.pts * stream.time_base))
                    end = max(end, float((packet.pts + (packet.duration or 0)) * stream.time_base))
        except av.error.FFmpegError as error:
            logger.warning("%s: damaged after %.1f s (%s)", printable(path), max(end - start, 0.0), error)
        return max(0.0, end - start) if np.isfinite(end) else 0.0


def _decoded(path: Path) -> Iterator[tuple[float, Any]]:
    """Times from the first frame in seconds, and decoded frames; damaged stretches are skipped."""
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        start: float | None = None
        last = 0.0
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                logger.warning("%s: the file is damaged after %.1f s (%s)", printable(path), last, error)
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                logger.warning("%s: a frame near %.1f s is damaged (%s)", printable(path), last, error)
                continue
            for frame in frames:
                if frame.is_corrupt:
                    continue
                time_s = float(frame.time) if frame.time is not None else last + (start or 0.0)
                start = time_s if start is None else start
                last = max(0.0, time_s - start)
                yield last, frame


def _sharpness(frame: Any) -> float:
    scale = min(1.0, _SHARPNESS_SIDE_PX / max(frame.width, frame.height))
    width, height = max(2, round(frame.width * scale)), max(2, round(frame.height * scale))
    return sharpness_of(frame.reformat(width=width, height=height, format="gray").to_ndarray())


def _finished(best: tuple[float, float, Any], pixel_aspect: float, options: CaptureOptions) -> VideoFrame:
    """Upright RGB pixels of a decoded frame: square pixels, limited size, the container's rotation applied."""
    sharpness, time_s, frame = best
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    width, height = image.width * pixel_aspect, float(image.height)
    scale = min(1.0, options.video_max_side_px / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise, as FFmpeg's display matrix
    return VideoFrame(time_s, sharpness, np.ascontiguousarray(np.rot90(np.asarray(image), quarter_turns)))


def _frame_path(path: Path, index: int) -> PurePosixPath:
    return PurePosixPath(f"{path.stem}_{index:05d}.jpg")


def _view(pixels: ImageArray, name: str, stored: Path, path: Path, frame: VideoFrame) -> View:
    height, width = pixels.shape[:2]
    return View(
        name=name,
        path=stored,
        content_hash=content_hash(pixels),
        width_px=width,
        height_px=height,
        camera_key=f"video {printable(path.name)}|{width}x{height}",
        notes=(f"frame at {frame.time_s:.3f} s",),
    )


def _key(source_sha256: str, options: CaptureOptions) -> str:
    text = json.dumps([_FORMAT, source_sha256, dataclasses.asdict(options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _write_record(path: Path, key: str, capture: Capture) -> None:
    fields = ("name", "content_hash", "width_px", "height_px", "camera_key", "notes")
    views = [{field: getattr(view, field) for field in fields} for view in capture.views]
    sizes = [view.path.stat().st_size for view in capture.views]
    rejected = [dataclasses.asdict(item) for item in capture.rejected]
    with atomic_path(path) as temporary:
        data = {"key": key, "views": views, "size_bytes": sizes, "rejected": rejected}
        temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")


def _read_record(path: Path, key: str, images_dir: Path) -> Capture | None:
    """The capture of an earlier import of the same video with the same options, when all its files are there."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["key"] != key:
            return None
        views = []
        for entry, size in zip(data["views"], data["size_bytes"], strict=True):
            view = View(**{**entry, "path": images_dir / Path(entry["name"]).name, "notes": tuple(entry["notes"])})
            if view.path.stat().st_size != size:
                return None
            views.append(view)
        return Capture(tuple(views), tuple(Rejected(**item) for item in data["rejected"]), is_sequence=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None
