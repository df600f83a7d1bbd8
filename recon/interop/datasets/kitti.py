"""KITTI depth (Uhrig et al., 3DV 2017), in two layouts.

The annotated depth beside the raw drives::

    <root>/<date>/calib_cam_to_cam.txt                                       P_rect_02 ...
           <date>/<date>_drive_0001_sync/image_02/data/0000000005.png
    <root>/{train,val}/<date>_drive_0001_sync/proj_depth/groundtruth/image_02/0000000005.png

or the selection for validation::

    <root>/.../val_selection_cropped/{image,groundtruth_depth,intrinsics}/

Depth is z-depth of the rectified camera: 16 bits, 1/256 m, 0 unknown. Centres are index-based. There are no poses here.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from recon.cameras.pixels import corner_from_index
from recon.errors import BadInputError
from recon.interop.datasets.frames import Frame, FrameDepth, SceneFrames, depth_of_map
from recon.interop.datasets.maps import png_depth
from recon.interop.datasets.records import image_size
from recon.types import Camera

_UNITS_PER_METRE = 256.0


def read_kitti(root: Path, work: Path) -> list[SceneFrames]:
    """The photos with annotated depth, by drive, or those of the selection. Nothing is written to ``work``."""
    selections = sorted(path.parent for path in root.glob("**/val_selection_cropped/image"))
    if selections:
        return [SceneFrames(folder.name, _selection(root, folder)) for folder in selections]
    drives: dict[str, list[Frame]] = {}
    for depth in sorted(root.glob("*/*_sync/proj_depth/groundtruth/image_0[23]/*.png")):
        drive, which = depth.parents[3].name, depth.parent.name
        date = drive[:10]  # 2011_09_26
        image = root / date / drive / which / "data" / depth.name
        if image.is_file():
            camera = _rectified(root / date / "calib_cam_to_cam.txt", which[-2:], image)
            frame = Frame(image.relative_to(root).as_posix(), image, camera, partial(_load, depth, camera))
            drives.setdefault(drive, []).append(frame)
    return [SceneFrames(drive, tuple(frames)) for drive, frames in drives.items()]


def _selection(root: Path, folder: Path) -> tuple[Frame, ...]:
    frames = []
    for image in sorted((folder / "image").glob("*.png")):
        depth = folder / "groundtruth_depth" / image.name.replace("_image_", "_groundtruth_depth_", 1)
        calibration = folder / "intrinsics" / f"{image.stem}.txt"
        if depth.is_file() and calibration.is_file():
            matrix = _numbers(calibration, calibration.read_text(encoding="utf-8", errors="replace"), 9)
            camera = _camera(image, matrix.reshape(3, 3))
            frames.append(Frame(image.relative_to(root).as_posix(), image, camera, partial(_load, depth, camera)))
    return tuple(frames)


def _rectified(path: Path, which: str, image: Path) -> Camera:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise BadInputError(f"{path}: can't be read ({error.strerror}); KITTI's raw calibration is needed") from error
    for line in lines:
        if line.startswith(f"P_rect_{which}:"):
            return _camera(image, _numbers(path, line.partition(":")[2], 12).reshape(3, 4)[:, :3])
    raise BadInputError(f"{path}: has no P_rect_{which}")


def _camera(image: Path, matrix: np.ndarray) -> Camera:
    cx, cy = corner_from_index(matrix[:2, 2]).tolist()
    return Camera.pinhole(*image_size(image), float(matrix[0, 0]), float(matrix[1, 1]), cx, cy)


def _numbers(path: Path, text: str, count: int) -> np.ndarray:
    try:
        values = np.array([float(part) for part in text.split()])
    except ValueError:
        values = np.zeros(0)
    if len(values) != count or not np.isfinite(values).all():
        raise BadInputError(f"{path}: expected {count} numbers of a camera matrix, found {text[:60]!r}")
    return values


def _load(path: Path, camera: Camera) -> FrameDepth:
    depth = png_depth(path, _UNITS_PER_METRE)
    if depth.shape != (camera.height_px, camera.width_px):
        raise BadInputError(
            f"{path}: is {depth.shape[1]}x{depth.shape[0]}, its photo {camera.width_px}x{camera.height_px}"
        )
    return depth_of_map(depth, camera)
