"""COLMAP's own dense depth maps: ``stereo/depth_maps/*.bin`` of an undistorted workspace.

Layout (COLMAP ``scripts/python/read_write_dense.py``): the text ``width&height&channels&``, then float32 row by row, 0
where unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.errors import BadInputError
from recon.surface.types import DepthMap
from recon.types import Camera


def read_colmap_depth(
    folder: Path, model: Path, cameras: Mapping[str, Camera], poses: Mapping[str, NDArray[np.float64]]
) -> tuple[tuple[str, ...], Callable[[str], DepthMap] | None]:
    """Photos with a depth map beside the model of an undistorted workspace, and how to read one.

    Geometric maps are preferred to photometric ones. The maps belong to undistorted photos: they're taken only when
    the model beside them is ``folder``'s own and its cameras have no distortion.
    """
    maps = folder / "stereo" / "depth_maps"
    if not maps.is_dir() or any(camera.model not in {"PINHOLE", "SIMPLE_PINHOLE"} for camera in cameras.values()):
        return (), None
    files: dict[str, Path] = {}
    for name in sorted(poses):
        for step in ("geometric", "photometric"):
            path = maps / f"{name}.{step}.bin"
            if path.is_file():
                files.setdefault(name, path)

    def load(name: str) -> DepthMap:
        depth = read_depth_array(files[name])
        height, width = depth.shape
        camera = cameras[name].resized(width, height)
        depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
        black = np.zeros((height, width, 3), dtype=np.uint8)
        return DepthMap(name, depth, np.ones_like(depth), camera, poses[name], black, f"COLMAP ({model.name})")

    return tuple(files), load if files else None


def read_depth_array(path: Path) -> NDArray[np.float32]:
    """One ``.bin`` map [H, W].

    Raises:
        BadInputError: the header is none, or doesn't fit the file's length.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(64).split(b"&", 3)
            if len(head) != 4 or not all(part.isdigit() for part in head[:3]):
                raise ValueError("no 'width&height&channels&'")
            width, height, channels = (int(part) for part in head[:3])
            offset = sum(len(part) + 1 for part in head[:3])
            size = path.stat().st_size - offset
            if channels != 1 or width < 1 or height < 1 or size != 4 * width * height:
                raise ValueError(f"{width}x{height}x{channels} declared, {size} bytes there")
            file.seek(offset)
            values = np.frombuffer(file.read(size), dtype="<f4")
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: not a COLMAP depth map ({error})") from error
    return values.reshape(height, width).astype(np.float32)
