"""Depth labels: the JSON lines of DepthLM's curation (github.com/facebookresearch/DepthLM_Official, arXiv 2509.25413).

::

    {"image": "rgb/a.jpg", "intrinsics": [fx, fy, cx, cy, w, h], "pixel_coords": [[u, v], ...], "depth": [metres, ...]}

``image`` is relative to the folder of images; pixels are array indices, and [-1, -1] marks a point without a label.
Whether depth is z-depth or the distance along the ray is not said in such a file: the public curation mixes both. Files
of ours say it (``"depth_kind": "z"`` or ``"ray"``), and may give ``camera`` (see :mod:`recon.interop.datasets.lines`).
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from recon.cameras.pixels import index_from_corner
from recon.interop.datasets.lines import BadLineError, camera, numbers, photo, pixels, required
from recon.interop.datasets.reading import Reading, read_items
from recon.interop.datasets.records import DepthItem
from recon.types import Camera, DepthKind


def read_depth_file(
    path: Path, images: Path | None = None, depth_kind: DepthKind = "z", strict: bool = False
) -> Reading[DepthItem]:
    """The photos of a depth file.

    Args:
        path: JSON lines, or a JSON list of the same objects.
        images: the folder that image names are relative to; None: the file's folder, or its parent when the first
            image is there (labels kept in a sub-folder beside the images).
        depth_kind: what lines mean by depth that do not say it.
        strict: stop at the first line that can't be used.

    Raises:
        BadInputError: see :func:`recon.interop.datasets.reading.read_items`.
    """
    root = images or images_folder(path, ("image",))
    return read_items(path, partial(_item, root=root, depth_kind=depth_kind), strict)


def images_folder(path: Path, keys: tuple[str, ...]) -> Path:
    """The folder that a file's image names start at: its own, or its parent if the first named image is there."""
    try:
        with open(path, "rb") as file:
            head = file.readline(1 << 20).strip().lstrip(b"[").rstrip(b",]")
        entry = json.loads(head)
        name = next(str(entry[key]) for key in keys if key in entry).lstrip("/")
    except (OSError, ValueError, StopIteration, TypeError, RecursionError):
        return path.parent
    inside = ".." not in Path(name).parts
    return (
        path.parent.parent
        if inside and not (path.parent / name).exists() and (path.parent.parent / name).is_file()
        else path.parent
    )


def depth_row(item: DepthItem) -> dict[str, Any]:
    """The JSON object of a photo, as :func:`read_depth_file` reads it."""
    row: dict[str, Any] = {"image": item.name, "intrinsics": intrinsics_of(item.camera)}
    row["pixel_coords"] = [[_short(u), _short(v)] for u, v in index_from_corner(item.pixels).tolist()]
    row["depth"] = [round(depth, 4) for depth in item.depth_m.tolist()]
    row["depth_kind"] = item.depth_kind
    if item.camera.model != "PINHOLE":
        row["camera"] = camera_of(item.camera)
    return row


def intrinsics_of(of: Camera) -> list[float]:
    """``[fx, fy, cx, cy, w, h]`` with the index-based centre."""
    fx, fy, cx, cy = of.fx_fy_cx_cy
    cx, cy = index_from_corner([cx, cy]).tolist()
    return [fx, fy, cx, cy, of.width_px, of.height_px]


def camera_of(of: Camera) -> dict[str, Any]:
    """The ``camera`` object of one with distortion."""
    return {"model": of.model, "width": of.width_px, "height": of.height_px, "params": list(of.params)}


def _short(value: float) -> float:
    return int(value) if value == int(value) else round(value, 4)


def _item(entry: dict[str, Any], line: int, root: Path, depth_kind: DepthKind) -> DepthItem:
    name, path = photo(entry, "image", root)
    of = camera(entry, "", path)
    depth = required(entry, "depth")
    coordinates = required(entry, "pixel_coords")
    if not isinstance(depth, list) or not isinstance(coordinates, list) or len(depth) != len(coordinates):
        lengths = [len(value) if isinstance(value, list) else type(value).__name__ for value in (coordinates, depth)]
        raise BadLineError(f"pixel_coords and depth are {lengths[0]} and {lengths[1]}; accepted: equal lengths")
    kept = [index for index, point in enumerate(coordinates) if point != [-1, -1]]
    depth_m = numbers([depth[index] for index in kept], "depth")
    if len(depth_m) == 0:
        raise BadLineError("has no labelled point")
    if not (depth_m > 0).all():
        index = int(np.argmin(depth_m > 0))
        raise BadLineError(f"depth[{kept[index]}] is {depth_m[index]:g}; accepted: positive metres")
    points = pixels([coordinates[index] for index in kept], "pixel_coords", of)
    if not np.isfinite(points).all():
        raise BadLineError("pixel_coords holds null; accepted: [u, v]")
    kind = entry.get("depth_kind", depth_kind)
    if kind not in ("z", "ray"):
        raise BadLineError(f"depth_kind is {str(kind)[:20]!r}; accepted: z, ray")
    return DepthItem(name, path, of, points, depth_m, cast(DepthKind, kind), line)
