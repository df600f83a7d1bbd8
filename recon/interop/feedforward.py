"""What VGGT's and Depth-Anything-3's archives have in common: arrays [N, ...] over the photos, names left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.errors import BadInputError
from recon.interop.archive import NamedArrays
from recon.interop.result import Kind, Reconstructed, Surface, check_poses, placeholder_names
from recon.surface.types import DepthMap, Mesh, PointCloud
from recon.types import Camera

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".heic"}


class DepthFrames:
    """Depth maps in an archive, read one at a time; the next photo in order costs no second pass over the file.

    ``depth_key`` [N, H, W] or [N, H, W, 1]; ``confidence_key`` of the same shape or None.
    """

    def __init__(
        self, arrays: NamedArrays, depth_key: str, confidence_key: str | None, names: Sequence[str],
        cameras: Sequence[Camera], poses: NDArray[np.float64], source: str,
    ) -> None:  # fmt: skip
        self._arrays, self._keys, self._names = arrays, (depth_key, confidence_key), list(names)
        self._cameras, self._poses, self._source = list(cameras), poses, source
        self._next = 0
        self._streams: list | None = None

    def __call__(self, name: str) -> DepthMap:
        index = self._names.index(name)
        if self._streams is None or index < self._next:
            wanted = range(index, len(self._names))
            self._streams = [self._arrays.frames(key, wanted) for key in self._keys if key is not None]
        else:
            for _ in range(self._next, index):
                for stream in self._streams:
                    next(stream)
        frames = [next(stream)[1] for stream in self._streams]
        self._next = index + 1
        camera = self._cameras[index]
        depth = np.array(frames[0], dtype=np.float32).reshape(camera.height_px, camera.width_px)
        depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
        confidence = np.ones_like(depth)
        if len(frames) > 1:
            confidence = np.array(frames[1], dtype=np.float32).reshape(depth.shape)
        black = np.zeros((*depth.shape, 3), dtype=np.uint8)
        return DepthMap(name, depth, confidence, camera, self._poses[index], black, self._source)


def image_size(shape: Sequence[int], path: Path, key: str, count: int) -> tuple[int, int]:
    """(width, height) of depth maps of this shape.

    Raises:
        BadInputError: the shape is no [count, H, W] or [count, H, W, 1].
    """
    trimmed = tuple(shape[:3]) if len(shape) == 4 and shape[3] == 1 else tuple(shape)
    if len(trimmed) != 3 or trimmed[0] != count or min(trimmed) < 1:
        raise BadInputError(
            f"{path}: {key!r} has shape {tuple(shape)}; accepted: [{count}, H, W] or [{count}, H, W, 1]"
        )
    return trimmed[2], trimmed[1]


def pinhole_cameras(matrices: NDArray, size: tuple[int, int], path: Path, count: int) -> list[Camera]:
    """Cameras of calibration matrices [N, 3, 3].

    Raises:
        BadInputError: another shape or number, or focal lengths that are not positive.
    """
    values = np.asarray(matrices, dtype=np.float64)
    if values.shape != (count, 3, 3):
        raise BadInputError(f"{path}: intrinsics have shape {values.shape}; accepted: [{count}, 3, 3]")
    if not np.isfinite(values).all() or (values[:, [0, 1], [0, 1]] <= 0).any():
        raise BadInputError(f"{path}: intrinsics must be finite with positive focal lengths")
    return [Camera.pinhole(*size, float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])) for k in values]


def photo_names(folder: Path, count: int) -> tuple[tuple[str, ...], bool, str]:
    """Names for ``count`` photos: those in ``images/`` of the folder when as many lie there, else placeholders.

    Returns:
        names, whether they are known, and a note.
    """
    images = folder / "images"
    found = sorted(p.name for p in images.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES) if images.is_dir() else []
    if len(found) == count:
        return tuple(found), True, "photo names are those of images/ in sorted order"
    reason = f"images/ beside it holds {len(found)} photos, not {count}" if found else "no images/ beside it"
    return placeholder_names(count), False, f"stores no photo names ({reason})"


def cloud_of_depth(
    names: Sequence[str], load_depth: Callable[[str], DepthMap], confidence_quantile: float
) -> Callable[[int, int], Mesh | PointCloud]:
    """A loader of the cloud of all depth maps, without the pixels of the lowest confidence.

    From each photo an equal number of pixels is drawn at random.
    """

    def load(max_points: int, seed: int) -> PointCloud:
        generator = np.random.default_rng(seed)
        share = max(1, max_points // max(1, len(names)))
        points = []
        for name in names:
            depth_map = load_depth(name)
            known = np.isfinite(depth_map.depth_m)
            if confidence_quantile > 0 and known.any():
                known &= depth_map.confidence >= np.quantile(depth_map.confidence[known], confidence_quantile)
            row, column = np.nonzero(known)
            if len(row) > share:
                chosen = generator.choice(len(row), share, replace=False)
                row, column = row[chosen], column[chosen]
            fx, fy, cx, cy = depth_map.camera.fx_fy_cx_cy
            z = depth_map.depth_m[row, column].astype(np.float64)
            points_cam = np.stack([(column + 0.5 - cx) / fx * z, (row + 0.5 - cy) / fy * z, z], axis=1)  # [N, 3]
            rotation, translation = depth_map.cam_from_world[:, :3], depth_map.cam_from_world[:, 3]
            points.append((points_cam - translation) @ rotation)
        return PointCloud(np.concatenate(points) if points else np.zeros((0, 3)))

    return load


@dataclass(frozen=True)
class Layout:
    """How a tool spells its archive: keys (the first that is there counts), and the share of least confident pixels
    that its own demo leaves out.
    """

    kind: Kind
    tool: str
    poses: tuple[str, ...]
    cameras: tuple[str, ...]
    confidence: str
    dropped: float
    notes: tuple[str, ...] = ()


def read_archive(path: Path, layout: Layout, folder: Path | None = None) -> Reconstructed:
    """Poses, cameras, depth maps and their cloud of an archive; ``images/`` is looked for in ``folder`` or beside it.

    Raises:
        BadInputError: an array is missing, pickled, truncated, or does not fit the others.
    """
    arrays = NamedArrays(path)
    poses = check_poses(arrays.read(arrays.first_of(*layout.poses)), path)
    count = len(poses)
    if count == 0:
        raise BadInputError(f"{path}: holds no photo")
    size = image_size(arrays.shape(arrays.first_of("depth")), path, "depth", count)
    cameras = pinhole_cameras(arrays.read(arrays.first_of(*layout.cameras)), size, path, count)
    confidence = layout.confidence if layout.confidence in arrays.names else None
    if confidence is not None and image_size(arrays.shape(confidence), path, confidence, count) != size:
        raise BadInputError(f"{path}: {confidence!r} and 'depth' have different sizes")
    names, has_names, note = photo_names(folder or path.parent, count)
    depth = DepthFrames(arrays, "depth", confidence, names, cameras, poses, layout.tool)
    dropped = layout.dropped if confidence else 0.0
    surface = Surface(
        f"cloud of {count} depth maps without their {dropped:.0%} least confident pixels",
        cloud_of_depth(names, depth, dropped),
        count * size[0] * size[1],
    )
    return Reconstructed(
        folder or path, layout.kind, dict(zip(names, poses)), dict(zip(names, cameras)), names, depth, surface,
        metric=False, has_names=has_names,
        notes=(note, f"intrinsics belong to its {size[0]}x{size[1]} px images", *layout.notes),
    )  # fmt: skip
