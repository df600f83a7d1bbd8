"""COLMAP models read for comparison: cameras, poses and point positions, without tracks, in little memory.

The layouts are COLMAP's ``src/colmap/scene/reconstruction_io.cc``; models with rigs and frames hold every image's own
``cam_from_world`` too. Counts are checked against the file's length before anything is made, so that a damaged or
hostile file is refused instead of exhausting the memory. :func:`recon.interop.colmap.read_model` reads whole scenes.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.errors import BadInputError
from recon.interop.point_records import RECORD_BYTES, read_chosen
from recon.interop.result import check_photo_name, check_poses
from recon.surface.types import PointCloud
from recon.types import Camera

# id, name, number of parameters; src/colmap/sensor/models.h
_MODELS = (
    (0, "SIMPLE_PINHOLE", 3), (1, "PINHOLE", 4), (2, "SIMPLE_RADIAL", 4), (3, "RADIAL", 5), (4, "OPENCV", 8),
    (5, "OPENCV_FISHEYE", 8), (6, "FULL_OPENCV", 12), (7, "FOV", 5), (8, "SIMPLE_RADIAL_FISHEYE", 4),
    (9, "RADIAL_FISHEYE", 5), (10, "THIN_PRISM_FISHEYE", 12),
)  # fmt: skip
_NUM_PARAMS = {name: count for _, name, count in _MODELS}
_BY_ID = {number: (name, count) for number, name, count in _MODELS}


def model_folder(folder: Path) -> Path | None:
    """The folder with a model's files: the given one, its ``sparse/0`` or its ``sparse``; None when there is none."""
    for candidate in (folder, folder / "sparse" / "0", folder / "sparse"):
        if any(
            (candidate / f"cameras{s}").is_file() and (candidate / f"images{s}").is_file() for s in (".bin", ".txt")
        ):
            return candidate
    return None


def read_cameras_and_poses(folder: Path) -> tuple[dict[str, Camera], dict[str, NDArray[np.float64]]]:
    """Cameras and ``cam_from_world`` [3, 4] by photo name of a model folder (binary before text).

    Raises:
        BadInputError: a file is missing, damaged or inconsistent.
    """
    suffix = ".bin" if (folder / "cameras.bin").is_file() else ".txt"
    cameras_path, images_path = folder / f"cameras{suffix}", folder / f"images{suffix}"
    try:
        cameras = dict(_cameras_bin(cameras_path) if suffix == ".bin" else _cameras_txt(cameras_path))
        images = list(_images_bin(images_path) if suffix == ".bin" else _images_txt(images_path))
    except (ValueError, IndexError, struct.error, UnicodeDecodeError, OSError, OverflowError) as error:
        raise BadInputError(
            f"{folder}: no readable COLMAP model ({error}); accepted: cameras, images and points3D as .bin or .txt"
        ) from error
    by_name: dict[str, Camera] = {}
    quaternions, translations = [], []
    for name, camera_id, quaternion, translation in images:
        name = check_photo_name(name, images_path)
        if name in by_name:
            raise BadInputError(f"{images_path}: holds the photo {name} twice")
        if camera_id not in cameras:
            raise BadInputError(f"{images_path}: photo {name} refers to camera {camera_id}, which there is not")
        by_name[name] = cameras[camera_id]
        quaternions.append(quaternion)
        translations.append(translation)
    if not by_name:
        raise BadInputError(f"{folder}: the COLMAP model has no registered image")
    rotation = _rotations(np.array(quaternions), images_path)
    poses = check_poses(np.concatenate([rotation, np.array(translations)[:, :, None]], axis=2), images_path)
    return by_name, dict(zip(by_name, poses))


def count_points(folder: Path) -> int:
    """Number of 3D points of a model folder as its file declares it; 0 without a file."""
    path = folder / "points3D.bin"
    if path.is_file():
        with open(path, "rb") as file:
            head = file.read(8)
        return int(struct.unpack("<Q", head)[0]) if len(head) == 8 else 0
    path = folder / "points3D.txt"
    if not path.is_file():
        return 0
    with open(path, encoding="utf-8", errors="replace") as file:
        return sum(1 for line in file if line.strip() and not line.startswith("#"))


def read_points(folder: Path, max_points: int, seed: int = 0) -> PointCloud:
    """At most ``max_points`` of a model's points, drawn at random.

    Raises:
        BadInputError: the file is damaged.
    """
    suffix = ".bin" if (folder / "points3D.bin").is_file() else ".txt"
    path = folder / f"points3D{suffix}"
    try:
        count = count_points(folder)
        if suffix == ".bin" and path.stat().st_size < 8 + count * RECORD_BYTES:
            raise ValueError(f"{count} points declared, {path.stat().st_size} bytes there")
        wanted = min(count, max_points)
        chosen = np.sort(np.random.default_rng(seed).choice(count, wanted, replace=False)) if count else np.arange(0)
        rows = read_chosen(path, count, chosen) if suffix == ".bin" else _chosen_txt(path, chosen)
    except (ValueError, IndexError, struct.error, OSError, OverflowError, MemoryError) as error:
        raise BadInputError(f"{path}: not readable as COLMAP points ({error})") from error
    if not np.isfinite(rows).all():
        raise BadInputError(f"{path}: holds points that are not finite")
    return PointCloud(rows[:, :3], rows[:, 3:].clip(0, 255).astype(np.uint8))


# ---------------------------------------------------------------------------------------------------------------------
# binary


class _Reader:
    """A file mapped into memory, read from the front; a read beyond its end raises ValueError."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # ValueError for an empty file
        self.offset, self.name = 0, path.name

    def unpack(self, layout: struct.Struct) -> tuple:
        try:
            values = layout.unpack_from(self.data, self.offset)
        except struct.error as error:
            raise ValueError(f"{self.name} is truncated") from error
        self.offset += layout.size
        return values

    def skip(self, size: int) -> None:
        self.offset += size
        if self.offset > len(self.data):
            raise ValueError(f"{self.name} is truncated")

    def text(self) -> str:
        end = self.data.find(b"\0", self.offset, self.offset + 4096)
        if end < 0:
            raise ValueError(f"{self.name} ends within a name")
        value = self.data[self.offset : end].decode("utf-8", "surrogateescape")
        self.offset = end + 1
        return value

    def count(self, item_bytes: int) -> int:
        (count,) = self.unpack(_U64)
        if count * item_bytes > len(self.data) - self.offset:
            raise ValueError(f"{self.name} declares {count} entries, more than it has room for")
        return count


_U64 = struct.Struct("<Q")
_CAMERA = struct.Struct("<iiQQ")
_IMAGE = struct.Struct("<I7dI")


def _cameras_bin(path: Path) -> Iterator[tuple[int, Camera]]:
    reader = _Reader(path)
    for _ in range(reader.count(_CAMERA.size)):
        camera_id, model_id, width, height = reader.unpack(_CAMERA)
        if model_id not in _BY_ID:
            raise ValueError(f"camera model number {model_id} is not supported")
        model, count = _BY_ID[model_id]
        yield camera_id, _camera(model, width, height, reader.unpack(struct.Struct(f"<{count}d")))


def _images_bin(path: Path) -> Iterator[tuple[str, int, tuple[float, ...], tuple[float, ...]]]:
    reader = _Reader(path)
    for _ in range(reader.count(_IMAGE.size + 9)):
        values = reader.unpack(_IMAGE)
        name = reader.text()
        reader.skip(24 * reader.count(24))
        yield name, values[8], values[1:5], values[5:8]


# ---------------------------------------------------------------------------------------------------------------------
# text


def _rows(path: Path, keep_empty: bool = False) -> Iterator[str]:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if not line.startswith("#") and (keep_empty or line.strip()):
                yield line.rstrip("\n")


def _cameras_txt(path: Path) -> Iterator[tuple[int, Camera]]:
    for line in _rows(path):
        words = line.split()
        if len(words) < 5:
            raise ValueError(f"{path.name}: {line[:60]!r} is not 'CAMERA_ID MODEL WIDTH HEIGHT PARAMS...'")
        yield int(words[0]), _camera(words[1], int(words[2]), int(words[3]), tuple(map(float, words[4:])))


def _images_txt(path: Path) -> Iterator[tuple[str, int, tuple[float, ...], tuple[float, ...]]]:
    # two lines per photo, of which the second (its points) may be empty
    lines = list(_rows(path, keep_empty=True))
    while lines and not lines[0].strip():
        lines.pop(0)
    for line in lines[::2]:
        words = line.split(maxsplit=9)
        if len(words) != 10:
            raise ValueError(f"{path.name}: {line[:60]!r} is not 'IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME'")
        yield words[9].strip(), int(words[8]), tuple(map(float, words[1:5])), tuple(map(float, words[5:8]))


def _chosen_txt(path: Path, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    wanted = set(chosen.tolist())
    rows = []
    for line in (line for number, line in enumerate(_rows(path)) if number in wanted):
        words = line.split(maxsplit=7)
        if len(words) < 7:
            raise ValueError(f"{line[:60]!r} is not 'POINT3D_ID X Y Z R G B ERROR TRACK...'")
        rows.append(tuple(map(float, words[1:7])))
    return np.array(rows, dtype=np.float64).reshape(-1, 6)


def _camera(model: str, width: int, height: int, params: tuple[float, ...]) -> Camera:
    if _NUM_PARAMS.get(model) != len(params):
        raise ValueError(f"camera model {model!r} with {len(params)} parameters; accepted: {', '.join(_NUM_PARAMS)}")
    camera = Camera(model, width, height, tuple(params), "given")
    fx, fy, _, _ = camera.fx_fy_cx_cy
    if min(width, height) <= 0 or not np.isfinite(params).all() or min(fx, fy) <= 0:
        raise ValueError(f"{width}x{height} with parameters {params} is not a camera")
    return camera


def _rotations(quaternions: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    """Rotation matrices [N, 3, 3] of quaternions [N, 4] (w x y z), normalised first."""
    length = np.linalg.norm(quaternions, axis=1, keepdims=True)
    if not (np.isfinite(length) & (length > 1e-9)).all():
        raise BadInputError(f"{path}: holds a rotation that is none")
    w, x, y, z = (quaternions / length).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)
