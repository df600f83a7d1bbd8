"""Pairs with poses in the layout of our ground-truth folders: ``gt/pairs.json`` beside ``images/``.

``pairs`` lists ``image0`` and ``image1`` (``file``, ``width``, ``height``, ``K``, index-based centre) with ``R_01`` and
``t_01``: ``x_cam1 = R_01 x_cam0 + t_01``, in metres when ``metric``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from recon.errors import BadInputError
from recon.interop.datasets.lines import BadLineError, camera, numbers, photo, required
from recon.interop.datasets.reading import Reading
from recon.interop.datasets.records import Fault, PairItem
from recon.interop.result import check_poses
from recon.types import Camera


def read_ground_truth_pairs(path: Path, images: Path | None = None, strict: bool = False) -> Reading[PairItem]:
    """The pairs of the file; photos are relative to ``images``, or the folder that holds ``gt/``.

    Raises:
        BadInputError: not such a file, a bad pair (strict), or nothing usable.
    """
    root = images or (path.parent.parent if path.parent.name == "gt" else path.parent)
    try:
        content = json.loads(path.read_bytes())
        entries, is_metric = list(content["pairs"]), bool(content.get("metric", False))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInputError(f"{path}: not a ground-truth pairs.json ({' '.join(str(error).split())[:80]})") from error
    items: list[PairItem] = []
    faults: list[Fault] = []
    for number, entry in enumerate(entries, start=1):
        try:
            if not isinstance(entry, dict):
                raise BadLineError("is no object")
            items.append(_item(entry, number, root, is_metric))
        except BadInputError as error:
            if strict:
                raise BadInputError(f"{path} pair {number}: {error}; without --strict it is skipped") from error
            faults.append(Fault(number, str(error)))
    reading = Reading(path, items, tuple(faults), len(faults))
    if not items:
        raise BadInputError(reading.faults_in_words() or f"{path}: holds no pair")
    return reading


def _item(entry: dict[str, Any], number: int, root: Path, is_metric: bool) -> PairItem:
    name1, path1, camera1 = _photo(entry, "image0", root)
    name2, path2, camera2 = _photo(entry, "image1", root)
    rows = [numbers(row, f"R_01[{k}]", 3) for k, row in enumerate(required(entry, "R_01"))]
    translation = numbers(required(entry, "t_01"), "t_01", 3)
    if len(rows) != 3:
        raise BadLineError(f"R_01 has {len(rows)} rows; accepted: 3")
    try:
        cam2_from_cam1 = check_poses(np.column_stack([np.stack(rows), translation])[None], Path("R_01"))[0]
    except BadInputError as error:
        raise BadLineError(str(error)) from error
    rotation = cam2_from_cam1[:, :3].T
    pose = np.column_stack([rotation, -rotation @ cam2_from_cam1[:, 3]])
    none = np.zeros((0, 2))
    scene = f"{name1} {name2}"
    return PairItem(name1, name2, path1, path2, camera1, camera2, none, none, pose, is_metric, scene, number)


def _photo(entry: dict[str, Any], key: str, root: Path) -> tuple[str, Path, Camera]:
    about = required(entry, key)
    if not isinstance(about, dict):
        raise BadLineError(f"{key} is no object; accepted: file, width, height, K")
    name, path = photo(about, "file", root)
    intrinsics = [required(about, k) for k in ("fx", "fy", "cx", "cy", "width", "height")]
    return name, path, camera({"intrinsics": intrinsics}, "", path)
