"""Matches and relative poses of pairs: JSON lines of ours.

::

    {"image1": "a.jpg", "image2": "b.jpg",
     "intrinsics1": [fx, fy, cx, cy, w, h], "intrinsics2": [...],
     "pixels1": [[u, v], ...], "pixels2": [[u, v], null, ...],
     "cam1_from_cam2": [[r, r, r, x], [r, r, r, y], [r, r, r, z]], "metric": true, "scene": "room"}

Pixels are array indices, fractions allowed; ``null``: the second photo does not show the point. ``cam1_from_cam2``
holds the rotation and camera 2's centre in camera 1's frame (OpenCV axes), in metres when ``metric``. A line needs
pixels, a pose, or both. ``scene`` is optional (``image1``'s folder otherwise); ``camera1`` and ``camera2`` take the
place of intrinsics for lenses with distortion.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recon.cameras.pixels import index_from_corner
from recon.errors import BadInputError
from recon.interop.datasets.depth_file import camera_of, images_folder, intrinsics_of
from recon.interop.datasets.lines import (
    BadLineError,
    camera,
    name,
    numbers,
    photo,
    pixels,
    required,
)
from recon.interop.datasets.reading import Reading, read_items
from recon.interop.datasets.records import PairItem
from recon.interop.result import check_poses


def read_pair_file(
    path: Path, images: Path | None = None, strict: bool = False, task: Literal["match", "pose"] | None = None
) -> Reading[PairItem]:
    """The pairs of a file, or those that have labels for a task.

    Other arguments and errors as :func:`recon.interop.datasets.depth_file.read_depth_file`; BadInputError too when no
    pair has labels for the task.
    """
    root = images or images_folder(path, ("image1",))
    keep = {"match": _has_matches, "pose": _has_pose}[task] if task is not None else None
    reading = read_items(path, partial(_item, root=root), strict, keep)
    if not len(reading.items):
        raise BadInputError(f"{path}: its {reading.num_others} pairs have no labels for {task}")
    return reading


def _has_matches(item: PairItem) -> bool:
    return len(item.pixels1) > 0


def _has_pose(item: PairItem) -> bool:
    return item.cam1_from_cam2 is not None


def pair_row(item: PairItem) -> dict[str, Any]:
    """The JSON object of a pair, as :func:`read_pair_file` reads it."""
    row: dict[str, Any] = {"image1": item.name1, "image2": item.name2}
    for number, of in (("1", item.camera1), ("2", item.camera2)):
        if of.model == "PINHOLE":
            row[f"intrinsics{number}"] = intrinsics_of(of)
        else:
            row[f"camera{number}"] = camera_of(of)
    if len(item.pixels1):
        row["pixels1"] = index_from_corner(item.pixels1).round(3).tolist()
        second = index_from_corner(item.pixels2).round(3)
        row["pixels2"] = [point.tolist() if np.isfinite(point).all() else None for point in second]
    if item.cam1_from_cam2 is not None:
        row["cam1_from_cam2"] = item.cam1_from_cam2.round(9).tolist()
        row["metric"] = item.is_metric
    row["scene"] = item.scene
    return row


def _item(entry: dict[str, Any], line: int, root: Path) -> PairItem:
    name1, path1 = photo(entry, "image1", root)
    name2, path2 = photo(entry, "image2", root)
    camera1, camera2 = camera(entry, "1", path1), camera(entry, "2", path2)
    pixels1 = pixels2 = np.zeros((0, 2))
    if ("pixels1" in entry) != ("pixels2" in entry):
        raise BadLineError("has pixels1 or pixels2 without the other")
    if "pixels1" in entry:
        pixels1 = pixels(entry["pixels1"], "pixels1", camera1)
        pixels2 = pixels(entry["pixels2"], "pixels2", camera2)
        if len(pixels1) != len(pixels2):
            raise BadLineError(f"pixels1 and pixels2 are {len(pixels1)} and {len(pixels2)}; accepted: equal lengths")
        if not np.isfinite(pixels1).all():
            raise BadLineError("pixels1 holds null; accepted: [u, v]")
    pose = _pose(entry["cam1_from_cam2"]) if "cam1_from_cam2" in entry else None
    is_metric = required(entry, "metric") if pose is not None else False
    if not isinstance(is_metric, bool):
        raise BadLineError(f"metric is {str(is_metric)[:20]!r}; accepted: true, false")
    if pose is None and len(pixels1) == 0:
        raise BadLineError("has neither pixels1 and pixels2 nor cam1_from_cam2")
    scene = name(entry, "scene") if "scene" in entry else Path(name1).parent.as_posix()
    return PairItem(
        name1, name2, path1, path2, camera1, camera2, pixels1, pixels2, pose, is_metric, scene, line
    )  # fmt: skip


def _pose(value: Any) -> NDArray[np.float64]:
    if not isinstance(value, list) or len(value) not in (3, 4):
        raise BadLineError("cam1_from_cam2 is not a matrix; accepted: 3 (or 4) rows of 4 numbers")
    matrix = np.stack([numbers(row, f"cam1_from_cam2[{index}]", 4) for index, row in enumerate(value)])
    try:
        return check_poses(matrix[None], Path("cam1_from_cam2"))[0]
    except BadInputError as error:
        raise BadLineError(str(error)) from error
