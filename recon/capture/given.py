"""Intrinsics that lie beside the photos: COLMAP ``cameras.*`` (and ``images.*``) or nerfstudio ``transforms.json``.

Both count pixels from the image's corner, as this project does, so nothing is shifted.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from recon.errors import BadInputError
from recon.types import Camera

# ids of COLMAP's binary format (src/colmap/sensor/models.h) and the number of parameters
_COLMAP_MODELS: dict[int, tuple[str, int]] = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
}
_NUM_PARAMS = dict(_COLMAP_MODELS.values())
_MAX_ENTRIES = 10_000_000  # of a binary file: a larger count means that the file is damaged


@dataclass(frozen=True)
class GivenIntrinsics:
    """Cameras by photo, as found in ``source``.

    ``by_name`` maps the photo's path below ``images/`` to its camera; ``shared`` is the one camera of all other photos
    (a file with a single camera and no list of photos), or None.
    """

    source: Path
    by_name: dict[str, Camera] = field(default_factory=dict)
    shared: Camera | None = None

    def lookup(self, relative: PurePosixPath) -> Camera | None:
        """Camera of a photo by its path, else by its unique file name, else the shared one."""
        name = str(relative)
        if name in self.by_name:
            return self.by_name[name]
        same_file = [camera for other, camera in self.by_name.items() if PurePosixPath(other).name == relative.name]
        return same_file[0] if len(same_file) == 1 else self.shared


def find_intrinsics(roots: list[Path]) -> GivenIntrinsics | None:
    """The first known intrinsics in ``root/sparse/0``, ``root/sparse``, ``root`` of the given folders, or None.

    Raises:
        BadInputError: a file is there but can't be understood.
    """
    for root in roots:
        for folder in (root / "sparse" / "0", root / "sparse", root):
            for suffix in (".bin", ".txt"):
                if (folder / f"cameras{suffix}").is_file():
                    return _read_colmap(folder, suffix)
        if (root / "transforms.json").is_file():
            return _read_nerfstudio(root / "transforms.json")
    return None


def fit_to_photo(camera: Camera, width_px: int, height_px: int) -> Camera | None:
    """The camera for a photo of this size: as it is, or scaled when the aspect ratio agrees; None otherwise."""
    if (camera.width_px, camera.height_px) == (width_px, height_px):
        return camera
    scale = width_px / camera.width_px
    if abs(camera.height_px * scale - height_px) <= 1.0:
        return camera.resized(width_px, height_px)
    return None


# ---------------------------------------------------------------------------------------------------------------------
# COLMAP


def _read_colmap(folder: Path, suffix: str) -> GivenIntrinsics:
    path = folder / f"cameras{suffix}"
    images_path = folder / f"images{suffix}"
    try:
        cameras = dict(_colmap_cameras_bin(path) if suffix == ".bin" else _colmap_cameras_txt(path))
        by_name: dict[str, Camera] = {}
        if images_path.is_file():
            names = _colmap_images_bin(images_path) if suffix == ".bin" else _colmap_images_txt(images_path)
            for name, camera_id in names:
                if camera_id not in cameras:
                    raise ValueError(f"photo {name!r} refers to camera {camera_id}, which {path.name} does not have")
                by_name[name] = cameras[camera_id]
    except (ValueError, IndexError, struct.error, UnicodeDecodeError, OSError, OverflowError) as error:
        raise BadInputError(
            f"{path}: not readable as COLMAP cameras ({error}); accepted: COLMAP's cameras{suffix} and images{suffix} "
            f"with the models {', '.join(_NUM_PARAMS)}; correct or remove it"
        ) from error
    if not cameras:
        raise BadInputError(f"{path}: holds no camera; add one or remove the file")
    if not by_name and len(cameras) > 1:
        raise BadInputError(
            f"{path}: holds {len(cameras)} cameras, but no images{suffix} beside it says which photo has which; "
            f"add it, or keep a single camera for all photos"
        )
    return GivenIntrinsics(path, by_name, next(iter(cameras.values())) if len(cameras) == 1 else None)


def _colmap_cameras_txt(path: Path) -> Iterator[tuple[int, Camera]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 5:
            raise ValueError(f"line {line!r} is not 'CAMERA_ID MODEL WIDTH HEIGHT PARAMS...'")
        yield int(words[0]), _camera(words[1], int(words[2]), int(words[3]), [float(word) for word in words[4:]])


def _colmap_images_txt(path: Path) -> Iterator[tuple[str, int]]:
    # two lines per photo; the second (its points) may be empty, so blank lines count
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    while lines and not lines[0].strip():
        lines.pop(0)
    for line in lines[::2]:
        words = line.split(maxsplit=9)
        if not words:
            continue
        if len(words) != 10:
            raise ValueError(f"line {line[:60]!r} of {path.name} is not 'IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME'")
        yield words[9].strip(), int(words[8])


def _colmap_cameras_bin(path: Path) -> Iterator[tuple[int, Camera]]:
    with open(path, "rb") as handle:
        for _ in range(_count(handle)):
            camera_id, model_id, width, height = _unpack(handle, "<iiQQ")
            if model_id not in _COLMAP_MODELS:
                raise ValueError(f"camera model number {model_id} is not supported")
            model, num_params = _COLMAP_MODELS[model_id]
            yield camera_id, _camera(model, width, height, list(_unpack(handle, f"<{num_params}d")))


def _colmap_images_bin(path: Path) -> Iterator[tuple[str, int]]:
    with open(path, "rb") as handle:
        for _ in range(_count(handle)):
            camera_id = _unpack(handle, "<i7di")[-1]
            name = bytearray()
            while (byte := handle.read(1)) != b"\x00":
                if not byte or len(name) > 4096:
                    raise ValueError(f"{path.name} ends within a name")
                name += byte
            handle.seek(24 * _count(handle), 1)
            yield name.decode("utf-8"), camera_id


def _count(handle: BinaryIO) -> int:
    count = int(_unpack(handle, "<Q")[0])
    if count > _MAX_ENTRIES:
        raise ValueError(f"a count of {count} is not plausible")
    return count


def _unpack(handle: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, handle.read(struct.calcsize(layout)))


def _camera(model: str, width: int, height: int, params: list[float]) -> Camera:
    if model not in _NUM_PARAMS:
        raise ValueError(f"camera model {model!r} is not supported")
    if len(params) != _NUM_PARAMS[model]:
        raise ValueError(f"{model} takes {_NUM_PARAMS[model]} parameters, found {len(params)}")
    camera = Camera(model, width, height, tuple(params), "given")
    fx, fy, _, _ = camera.fx_fy_cx_cy
    if width <= 0 or height <= 0 or not all(map(math.isfinite, params)) or fx <= 0 or fy <= 0:
        raise ValueError(f"{width}x{height} with parameters {params} is not a camera")
    return camera


# ---------------------------------------------------------------------------------------------------------------------
# nerfstudio


_NERFSTUDIO_MODELS = ("OPENCV", "OPENCV_FISHEYE", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE")


def _read_nerfstudio(path: Path) -> GivenIntrinsics:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError("the top level is not an object")
        frames = data.get("frames", [])
        by_name: dict[str, Camera] = {}
        for frame in frames:
            camera = _nerfstudio_camera({**data, **frame})
            if camera is not None and "file_path" in frame:
                parts = PurePosixPath(str(frame["file_path"]).removeprefix("./")).parts
                by_name["/".join(parts[1:] if len(parts) > 1 and parts[0] == "images" else parts)] = camera
        shared = _nerfstudio_camera(data)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BadInputError(
            f"{path}: not readable as nerfstudio transforms ({error}); accepted: fl_x, fl_y, cx, cy, w, h and "
            f"optionally k1 k2 k3 k4 p1 p2 with a camera_model of {', '.join(_NERFSTUDIO_MODELS)}; correct or remove it"
        ) from error
    if not by_name and shared is None:
        raise BadInputError(f"{path}: holds no intrinsics (fl_x, w, h); add them or remove the file")
    return GivenIntrinsics(path, by_name, shared)


def _nerfstudio_camera(entry: dict[str, Any]) -> Camera | None:
    """Camera of a frame's (or the file's) keys, None when it has no focal length or size."""
    if not ("w" in entry and "h" in entry and ("fl_x" in entry or "camera_angle_x" in entry)):
        return None
    width, height = int(entry["w"]), int(entry["h"])
    model = str(entry.get("camera_model", "OPENCV")).upper()
    if model not in _NERFSTUDIO_MODELS:
        raise ValueError(f"camera_model {model!r} is not supported")
    fx = float(entry["fl_x"]) if "fl_x" in entry else width / 2 / math.tan(float(entry["camera_angle_x"]) / 2)
    fy = float(entry.get("fl_y", fx))
    head = [fx, fy, float(entry.get("cx", width / 2)), float(entry.get("cy", height / 2))]
    k1, k2, k3, k4, p1, p2 = (float(entry.get(key, 0.0)) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    if model == "OPENCV_FISHEYE":
        return _camera(model, width, height, [*head, k1, k2, k3, k4])
    if k4:
        raise ValueError(f"k4 = {k4} is only supported with the camera_model OPENCV_FISHEYE")
    if k3:
        return _camera("FULL_OPENCV", width, height, [*head, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0])
    if k1 or k2 or p1 or p2:
        return _camera("OPENCV", width, height, [*head, k1, k2, p1, p2])
    return _camera("PINHOLE", width, height, head)
