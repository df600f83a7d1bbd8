"""Every photo of a run: whether it is in the map, why not if it isn't, and pictures of some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.report.pictures import DepthPictures, Picture, depth_pictures, photo_path, photo_picture
from pipelines.runs import Run
from recon.interop.run import depth_files


@dataclass(frozen=True)
class PhotoRow:
    """A photo's line in the report. ``number`` is that of its pictures on the page, None when it has none."""

    name: str
    registered: bool
    reason: str
    notes: tuple[str, ...]
    points: int | None
    focal_px: float | None
    focal_from: str
    number: int | None
    photo: Picture | None
    depth: DepthPictures | None


def photo_rows(run: Run, max_pictures: int) -> tuple[PhotoRow, ...]:
    """All photos, those left out first; at most ``max_pictures``, evenly chosen, with pictures."""
    rows = _facts(run)
    order = sorted(range(len(rows)), key=lambda i: bool(rows[i].get("registered")))
    images = run.workspace.images
    files = {i: photo_path(images, str(rows[i]["name"])) for i in order}
    there = sorted(i for i in order if files[i] is not None)
    chosen = {there[k] for k in np.linspace(0, len(there) - 1, min(max_pictures, len(there))).round().astype(int)}
    maps = depth_files(run.workspace.root) if chosen else {}
    made: list[PhotoRow] = []
    number = 0
    for i in order:
        row, name, file = rows[i], str(rows[i]["name"]), files[i]
        photo = photo_picture(file) if file is not None and i in chosen else None
        depth = depth_pictures(maps[name]) if photo is not None and name in maps else None
        made.append(
            PhotoRow(
                name, bool(row.get("registered")), str(row.get("reason", "")), tuple(map(str, row.get("notes", ()))),
                _number(row.get("points")), _number(row.get("focal_px")), str(row.get("first_focal_from", "")),
                number if photo is not None else None, photo, depth,
            )
        )  # fmt: skip
        number += photo is not None
    return tuple(made)


def _facts(run: Run) -> Sequence[Mapping[str, Any]]:
    """The summary's photos; the map's where the summary is missing."""
    listed = run.summary.get("photos")
    rows = [row for row in listed if isinstance(row, dict) and "name" in row] if isinstance(listed, list) else []
    if rows:
        return rows
    registered: list[dict[str, Any]] = [
        {"name": v.name, "registered": True, "points": len(v.point_ids), "focal_px": round(v.camera.focal_px, 2)}
        for v in run.scene.views
    ]
    return registered + [{"name": r.name, "registered": False, "reason": r.reason} for r in run.scene.unregistered]


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
