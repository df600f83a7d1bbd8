"""What a report says in words and numbers about a run: key figures, scale, stages, settings, versions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pipelines.licences import Licence
from pipelines.records import encode
from pipelines.report.charts import duration, stage_bar
from pipelines.runs import Run
from recon.types import MetricScale, Scene


@dataclass(frozen=True)
class Figure:
    """A key figure: what it is, its value, and a line below it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class StageRow:
    name: str
    status: str
    seconds: float
    took: str
    bar: Markup
    counts: str
    reason: str
    rejected: tuple[tuple[str, str], ...]


def key_figures(run: Run, size: NDArray[np.float64]) -> list[Figure]:
    """The figures at the top of the page; ``size`` is the scene's width, depth and height."""
    scene, summary = run.scene, run.summary
    given = summary.get("photos_given", len(scene.views) + len(scene.unregistered))
    unit = "\u00a0m" if scene.scale.is_known else ""
    figures = [
        Figure("photos in the map", f"{len(scene.views)} of {given}", _points_text(scene)),
        Figure("scale", *_scale_figure(scene.scale)),
        Figure(
            "size of the scene",
            " × ".join(_length(v) for v in size) + unit,
            "width, depth, height" if unit else "width, depth, height; unit unknown",
        ),
    ]
    mesh = _mapping(summary.get("mesh"))
    vertices, faces = (int(mesh.get(key) or 0) for key in ("vertices", "faces"))
    if vertices:
        what = "triangles" if faces else "points"
        where = f"in {run.output.name}" if run.output else "the file is not there any more"
        figures.append(Figure("surface", _short(faces or vertices), f"{what}, {where}"))
    seconds = summary.get("seconds")
    if isinstance(seconds, int | float):
        figures.append(Figure("time", duration(float(seconds)), "without stages that were ready"))
    return figures


def scale_sentences(scale: MetricScale) -> list[str]:
    """What the scale means, in plain words."""
    if not scale.is_known:
        return [
            "The size of this model is not known: its shape is right, its lengths are in a unit of their own.",
            *map(_note, scale.notes),
        ]
    low, high = scale.low / scale.metres_per_unit, scale.high / scale.metres_per_unit
    return [
        f"Lengths are metres. What measures 1.00 m in the model is between {low:.2f} m and {high:.2f} m long in the "
        f"world, with a probability of 95 %. The scale comes from {', '.join(scale.used)}.",
        *map(_note, scale.notes),
    ]


def _note(note: str) -> str:
    """A note on the scale as a sentence; names of checkpoints stay as they are."""
    if note.startswith("vlm:"):
        return note.removeprefix("vlm:")
    reason = note.removeprefix("scale: unknown (").removesuffix(")") if note.startswith("scale: unknown (") else note
    return reason[:1].upper() + reason[1:]


def stage_rows(summary: Mapping[str, Any]) -> list[StageRow]:
    """The stages in order, with bars relative to the longest."""
    stages = [stage for stage in summary.get("stages", []) if isinstance(stage, Mapping)]
    longest = max((float(stage.get("seconds") or 0) for stage in stages), default=0.0) or 1.0
    rows = []
    for stage in stages:
        seconds = float(stage.get("seconds") or 0)
        counts = _mapping(stage.get("counts"))
        rejected = tuple(
            (str(item.get("name", "")), str(item.get("reason", "")))
            for item in stage.get("rejected", [])
            if isinstance(item, Mapping)
        )
        rows.append(
            StageRow(
                str(stage.get("name", "")), str(stage.get("status", "")), seconds,
                duration(seconds) if stage.get("status") != "skipped" else "", stage_bar(seconds / longest),
                ", ".join(_counted(value, str(key)) for key, value in counts.items()), str(stage.get("reason", "")),
                rejected,
            )
        )  # fmt: skip
    return rows


def settings(summary: Mapping[str, Any]) -> tuple[list[tuple[str, str, str]], list[tuple[str, str]]]:
    """Settings that differ from the defaults (name, value, default), and all others (name, value)."""
    from pipelines.options import Options

    used = _flat(summary.get("settings") or {})
    usual = _flat(encode(Options(Path(), Path()), []))
    changed = [
        (name, value, usual.get(name, "")) for name, value in used.items()
        if value != usual.get(name) and name not in ("scene", "out")
    ]  # fmt: skip
    names = {name for name, _, _ in changed}
    return changed, [(name, value) for name, value in used.items() if name not in names]


def checkpoints(summary: Mapping[str, Any]) -> list[Licence] | None:
    """The checkpoints that were asked, as recorded when the run was made; None where it recorded none."""
    rows = summary.get("checkpoints")
    if not isinstance(rows, list):
        return None
    return [
        Licence(
            str(row.get("source", "")), tuple(map(str, row.get("tasks", ()))), str(row.get("licence", "")),
            str(row.get("stated_in", "")),
        )
        for row in rows if isinstance(row, Mapping)
    ]  # fmt: skip


def versions(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Versions and hardware of the run, as recorded when it ran."""
    rows = [(str(name), str(value)) for name, value in _mapping(summary.get("versions")).items()]
    machine = _mapping(summary.get("hardware"))
    names = {"cpu": "processor", "cpu_count": "cores", "memory_gb": "memory (GB)", "gpu": "GPU"}
    return rows + [(names.get(str(name), str(name)), str(value)) for name, value in machine.items()]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _points_text(scene: Scene) -> str:
    if len(scene.points_world) == 0:
        return "no points"
    errors = np.asarray(scene.point_errors_px)
    error = f", {np.median(errors):.2f} px off (median)" if len(errors) and np.isfinite(errors).any() else ""
    return f"{len(scene.points_world):,} points{error}"


def _scale_figure(scale: MetricScale) -> tuple[str, str]:
    if not scale.is_known:
        return "unknown", "the shape is right, the size is not known"
    low, high = scale.low / scale.metres_per_unit - 1, scale.high / scale.metres_per_unit - 1
    digits = 1 if max(abs(low), abs(high)) < 0.1 else 0
    interval = f"{100 * low:+.{digits}f} % to {100 * high:+.{digits}f} %".replace("-", "−")
    return "metric", f"95 % interval {interval}"


def _length(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _short(value: int) -> str:
    for size, name in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if value >= 10 * size or (value >= size > 10**3):
            return f"{value / size:.3g} {name}"
    return f"{value:,}"


def _count(value: Any) -> str:
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4g}" if math.isfinite(value) else "unknown"
    return f"{int(value):,}" if isinstance(value, int | float) else str(value)


def _counted(value: Any, what: str) -> str:
    """``18 photos``, ``1 photo``."""
    one = value == 1 and what.endswith("s") and not what.endswith("ss")
    return f"{_count(value)} {what[:-1] if one else what}"


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings by dotted names, as text."""
    if isinstance(value, Mapping):
        rows: dict[str, str] = {}
        for key, item in value.items():
            name = str(key).rstrip("_")
            rows |= _flat(item, f"{prefix}.{name}" if prefix else name)
        return rows
    if isinstance(value, list):
        return {prefix: ", ".join(_plain(item) for item in value)}
    return {prefix: _plain(value)}


def _plain(value: Any) -> str:
    if value is None:
        return "not set"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
