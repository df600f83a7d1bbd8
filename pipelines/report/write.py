"""Makes ``report.html``: collects what a run left behind, and joins it into one page."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.records import write_atomically
from pipelines.report import charts, facts
from pipelines.report.camera_map import draw_map
from pipelines.report.page import render, script_data
from pipelines.report.pairs import draw_pairs
from pipelines.report.photos import photo_rows
from pipelines.report.scene3d import view_3d
from pipelines.runs import Run, open_run
from pipelines.workspace import check_output_folder, readable_os_errors
from recon import __version__
from recon.errors import BadInputError
from recon.evaluation.compare import Comparison
from recon.interop.run import find_workspace
from recon.surface.thin import MAX_TARGET_FACES

logger = logging.getLogger(__name__)

NAME = "report.html"
TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class ReportOptions:
    """How much goes into a report; the defaults keep it below about 15 MB."""

    pictures: int = 48
    """at most so many photos with pictures (photo, depth, confidence), evenly chosen"""
    faces: int = 250_000
    """at most so many triangles of the surface"""
    points: int = 200_000
    """at most so many points of a cloud, and of the map"""

    def check(self) -> None:
        """Raises BadInputError when a number makes no sense."""
        if not 0 <= self.pictures <= 10_000:
            raise BadInputError(f"--pictures must be between 0 and 10000, found {self.pictures}")
        if not 100 <= self.faces <= MAX_TARGET_FACES:
            raise BadInputError(f"--faces must be between 100 and {MAX_TARGET_FACES}, found {self.faces}")
        if not 100 <= self.points <= 5_000_000:
            raise BadInputError(f"--points must be between 100 and 5000000, found {self.points}")


def check_report_path(path: Path, option: str) -> None:
    """Fails early where no report can be written to ``path``, naming the ``option`` it came from.

    Raises:
        BadInputError: the name is not that of a page, or it is a folder.
        OutputError: its folder can't be written.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise BadInputError(f"{option} {path}: the name of a report ends in .html")
    if path.is_dir():
        raise BadInputError(f"{option} {path}: is a folder; name a file")
    check_output_folder(path.absolute().parent, option)


def write_report(
    result: Path,
    out: Path | None = None,
    comparisons: Sequence[Comparison] = (),
    options: ReportOptions | None = None,
) -> Path:
    """Writes the report of the run whose workspace or mesh is ``result``; returns where (default: the workspace).

    A ``result`` of another tool gives a report of the ``comparisons`` alone.

    Raises:
        BadInputError: there is no run and nothing was compared, or the run has no map yet.
        OutputError: the report can't be written.
    """
    options = options or ReportOptions()
    options.check()
    if find_workspace(result) is None and comparisons:
        if out is None:
            raise BadInputError(f"{result}: is no run of ours; name the report's file")
        context, target = _frame(result.name, "", comparisons), out
    else:
        run = open_run(result)
        context, target = _run_context(run, comparisons, options), out or run.workspace.root / NAME
    page = render(TEMPLATE, context)
    with readable_os_errors():
        write_atomically(target, page.encode("utf-8", "replace"))
    logger.info("report: %s, %.1f MB", target, target.stat().st_size / 1e6)
    return target


def _frame(title: str, status: str, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """What every report has: its name, and the comparisons."""
    labels = _labels(comparisons)
    return {
        "title": title, "status": status, "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "version": __version__, "run": None, "scene_data": None,
        "comparisons": comparisons, "labels": labels,
        "pose_curves": charts.pose_curves(comparisons, labels),
        "surface_curves": charts.surface_curves(comparisons, labels),
        "has": charts.table_of(comparisons),
    }  # fmt: skip


def _run_context(run: Run, comparisons: Sequence[Comparison], options: ReportOptions) -> dict[str, Any]:
    summary, scene = run.summary, run.scene
    rows = photo_rows(run, options.pictures)
    pictured = {row.name: row.number for row in rows if row.number is not None}
    view = view_3d(run, options.faces, options.points, pictured)
    plan = draw_map(scene, view.axes, view.outline, run.gps(), pictured)
    changed, usual = facts.settings(summary)
    title = run.workspace.root.name.removesuffix("-workspace")
    context = _frame(title, str(summary.get("status", "not finished")), comparisons)
    return context | {
        "run": run,
        "source": str(summary.get("source", "")),
        "started": str(summary.get("started", "")).replace("T", " ").replace("Z", " UTC"),
        "reason": str(summary.get("reason", "")),
        "notices": [str(notice) for notice in summary.get("notices", [])],
        "figures": facts.key_figures(run, view.size),
        "scene_data": script_data(view.data),
        "view": view,
        "scale": scene.scale,
        "scale_sentences": facts.scale_sentences(scene.scale),
        "scale_votes": charts.scale_votes(scene.scale),
        "plan": plan,
        "georeference": scene.georeference,
        "photos": rows,
        "pictured": [row for row in rows if row.number is not None],
        "left_out": [row for row in rows if not row.registered],
        "matching": draw_pairs(run.workspace.database, run.workspace.images, scene),
        "stages": facts.stage_rows(summary),
        "total_time": charts.duration(float(summary.get("seconds") or 0)),
        "changed": changed,
        "usual": usual,
        "versions": facts.versions(summary),
        "checkpoints": facts.checkpoints(summary),
        "unit": "\u00a0m" if scene.scale.is_known else "",
    }


def _labels(comparisons: Sequence[Comparison]) -> Mapping[int, str]:
    """A short name of each comparison: the reference's, and the result's too where there are several results."""
    several = len({c.result for c in comparisons}) > 1
    return {
        i: (f"{_short(c.result)} / " if several else "") + f"{_short(c.reference)} ({c.reference_kind})"
        for i, c in enumerate(comparisons)
    }


def _short(path: Path) -> str:
    return path.name or str(path)
