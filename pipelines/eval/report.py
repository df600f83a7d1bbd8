"""What an evaluation says: results.json, a table for the terminal, and report.md and report.html with pictures."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.eval.answers import Answered
from pipelines.eval.pictures import draw_answers, reliability_png, reliability_svg
from pipelines.eval.scores import Scores
from pipelines.records import write_atomically
from recon.errors import OutputError
from recon.evaluation.published import PUBLISHED
from recon.interop.datasets.records import Fault
from recon.types import Task

# What the figures' names mean, in the order of the table.
MEANINGS: dict[str, str] = {
    "parse_rate": "answers of an accepted form",
    "delta1": "within a factor 1.25 (unparsed is wrong)",
    "delta2": "within 1.25^2",
    "delta3": "within 1.25^3",
    "abs_rel": "mean |answer - truth| / truth, parsed",
    "rmse_m": "root mean square error, m, parsed",
    "silog": "100 std of ln(answer / truth), parsed",
    "log_sigma": "robust std of ln(answer / truth)",
    "answered": "visible points with a position",
    "epe_mean": "end-point error, of 1000, answered",
    "epe_median": "median of it",
    "epe_mean_px": "end-point error, pixels",
    "epe_median_px": "median of it",
    "hidden_recognised": "hidden points called not visible",
    "pose_rate": "pairs with rotation and direction",
    "median_rotation_deg": "median rotation error, all pairs",
    "median_direction_deg": "median direction error, all pairs",
    "median_angle_question_deg": "median error of the angle question, parsed",
    "distance_within": "distance within 25 % (unparsed is wrong)",
    "distance_abs_rel": "AbsRel of distances, parsed",
    "qualitative": "right polarity or region",
    "quantitative": "lengths within 25 %, hours within 1",
    "lengths": "lengths within 25 %",
}
_PREFIXES = (
    ("scaled_", "scaled per photo: "),
    ("pck_px_", "visible points within that many pixels"),
    ("pck_", "visible points within that much of 1000"),
    ("auc_histogram_", "AUC at that angle, 1-degree histogram (VGGT, DA3)"),
    ("auc_exact_", "AUC at that angle, exact trapezoid (SuperGlue, LoFTR)"),
    ("auc_rotation_", "of rotation alone, histogram"),
    ("auc_direction_", "of direction alone, histogram"),
)


@dataclass(frozen=True)
class Report:
    """Everything that is said about an evaluation."""

    task: Task
    answerer: str
    about: Mapping[str, Any]
    data: str
    num_items: int
    num_questions: int
    scores: Scores
    faults: Sequence[Fault]
    left_out: str
    seconds: float
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """``results.json``: numbers that are not known are null."""
        curve = self.scores.reliability
        data = {
            "task": self.task,
            "answerer": self.answerer,
            "about": dict(self.about),
            "data": self.data,
            "items": self.num_items,
            "questions": self.num_questions,
            "figures": dict(self.scores.figures),
            "intervals_95": {name: [part.low, part.high] for name, part in self.scores.intervals.items()},
            "categories": {name: dict(part) for name, part in self.scores.categories.items()},
            "reliability": None
            if curve is None
            else {"right": self.scores.right_means, "error": self.scores.error_means, **asdict(curve)},
            "best_constants_in_hindsight": dict(self.scores.constants) or None,
            "published_by_the_papers_authors": [asdict(figure) for figure in PUBLISHED[self.task]],
            "notes": list(self.scores.notes),
            "left_out": [asdict(fault) for fault in self.faults],
            "left_out_in_words": self.left_out,
            "seconds_answering_in_this_run": round(self.seconds, 1),
            **self.provenance,
        }
        return json.loads(json.dumps(_known(data)))


def _known(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _known(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_known(part) for part in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value


def meaning(name: str) -> str:
    """What a figure's name means."""
    if name in MEANINGS:
        return MEANINGS[name]
    for prefix, words in _PREFIXES:
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            return words + (meaning(rest) if prefix == "scaled_" else "")
    return ""


def table(report: Report) -> list[tuple[str, ...]]:
    """Rows of figure, value, interval, the best constant's where there is one, the figure that the paper's authors
    published for their checkpoint, and meaning; the first is the head."""
    has_constants = bool(report.scores.constants)
    theirs = {part.figure: part for part in reversed(PUBLISHED[report.task])}  # the first of a name is VLM3's own
    constant_head = ("best constant",) if has_constants else ()
    rows: list[tuple[str, ...]] = [("figure", "value", "95 % interval", *constant_head, "VLM3's paper", "meaning")]
    for name, value in report.scores.figures.items():
        interval = report.scores.intervals[name]
        between = f"{_number(interval.low)} .. {_number(interval.high)}" if math.isfinite(interval.low) else ""
        constant = (_constant(report, name),) if has_constants else ()
        published = _number(theirs[name].value) if name in theirs else ""
        rows.append((name, _number(value), between, *constant, published, meaning(name)))
    return rows


def _constant(report: Report, name: str) -> str:
    constants = report.scores.constants
    if "in_every_category" in constants:
        return _number(constants["in_every_category"][name]) if name != "parse_rate" else ""
    if name in ("delta1", "delta2", "delta3"):
        return _number(constants["for_delta1"][name])
    if name in ("abs_rel", "rmse_m", "silog"):
        return _number(constants["for_abs_rel"][name])
    return ""


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "-" if math.isnan(value) else "inf"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def as_text(report: Report) -> str:
    """The report for a terminal."""
    rows = table(report)
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [*_head(report), ""]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:-1], widths[1:-1])), row[-1]]
        lines.append("  ".join(cells).rstrip())
    lines += ["", *_tail(report)]
    return "\n".join(lines)


def _head(report: Report) -> list[str]:
    what = "photo" if report.task in ("depth", "object") else "pair"
    what += "s" if report.num_items != 1 else ""
    lines = [f"{report.task} by {report.answerer} on {report.data}: {report.num_questions} questions about "
             f"{report.num_items} {what}"]  # fmt: skip
    if report.left_out:
        lines.append(f"left out: {report.left_out}")
    if report.faults:
        lines.append(f"not asked: {len(report.faults)} (line {report.faults[0].line}: {report.faults[0].reason})")
    return lines + [f"note: {note}" for note in report.scores.notes]


def _tail(report: Report) -> list[str]:
    lines = []
    if report.scores.categories:
        lines.append("by category: " + ", ".join(
            f"{name} {part['accuracy']:.2f} of {part['count']:.0f}" for name, part in report.scores.categories.items()
        ))  # fmt: skip
    curve = report.scores.reliability
    if curve is not None:
        lines.append(
            f"confidence: calibration error {curve.ece:.3f}, rank correlation with the error "
            f"{_number(curve.rank_correlation)}"
        )
    if report.scores.constants:
        lines.append("best constants: chosen on these labels in hindsight, so that no constant answer does better")
    published = "; ".join(f"{part.figure} {part.value:g} ({part.of})" for part in PUBLISHED[report.task])
    return [*lines, f"VLM3's paper: published by its authors on their data, not measured here: {published}"]


# ---------------------------------------------------------------------------------------------------------------------
# files


def write_report(report: Report, answered: Sequence[Answered], folder: Path, num_pictures: int) -> None:
    """Writes results.json, report.md, report.html, the reliability curve and pictures into ``folder``.

    Raises:
        OutputError: the folder can't be written.
    """
    try:
        write_atomically(folder / "results.json", (json.dumps(report.to_json(), indent=1) + "\n").encode())
        curve = report.scores.reliability
        if curve is not None:
            svg = reliability_svg(curve, report.scores.right_means, report.scores.error_means)
            write_atomically(folder / "reliability.svg", svg.encode())
            write_atomically(folder / "reliability.png", reliability_png(curve))
        pictures = []
        count = min(num_pictures, len(answered))
        for number, k in enumerate(np.linspace(0, len(answered) - 1, count).round().astype(int).tolist()):
            name = f"pictures/{number:02d}.jpg"
            pictures.append((name, draw_answers(answered[k], report.task, folder / name)))
        write_atomically(folder / "report.md", _markdown(report, pictures).encode())
        write_atomically(folder / "report.html", _html(report, pictures).encode())
    except OSError as error:
        raise OutputError(f"{folder}: the report can't be written ({error.strerror or error})") from error


def _markdown(report: Report, pictures: Sequence[tuple[str, str]]) -> str:
    rows = [" | ".join(_cell(cell) for cell in row) for row in table(report)]
    columns = len(table(report)[0])
    lines = [f"# Evaluation: {report.task}", "", *(f"{line}  " for line in _head(report)), ""]
    lines += [f"| {rows[0]} |", "|" + "---|" * columns, *(f"| {row} |" for row in rows[1:]), ""]
    lines += [f"{line}\n" for line in _tail(report)]
    if report.scores.reliability is not None:
        lines += [f"![share of answers {report.scores.right_means} over confidence](reliability.svg)", ""]
    lines += [f"![{_cell(caption)}]({name})\n\n{_cell(caption)}\n" for name, caption in pictures]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text that a Markdown table and image caption take as it is."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|").replace("[", "\\[").replace("]", "\\]")


def _html(report: Report, pictures: Sequence[tuple[str, str]]) -> str:
    head, *body = table(report)
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    rows = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    about = "".join(f"<p>{html.escape(line)}</p>" for line in _head(report))
    after = "".join(f"<p>{html.escape(line)}</p>" for line in _tail(report))
    curve = '<img src="reliability.svg" alt="reliability curve">' if report.scores.reliability is not None else ""
    figures = "\n".join(
        f'<figure><img src="{name}" alt=""><figcaption>{html.escape(caption)}</figcaption></figure>'
        for name, caption in pictures
    )
    style = (
        "body{font-family:sans-serif;max-width:70em;margin:2em auto;padding:0 1em}td,th{padding:.2em .8em;text-align:"
        "left;border-bottom:1px solid #ddd}td:nth-child(2),td:nth-child(3){font-variant-numeric:tabular-nums}"
        "img{max-width:100%}figure{margin:1em 0}"
    )
    title = f"Evaluation: {report.task}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
        f"</head><body><h1>{title}</h1>{about}<table><thead><tr>{cells}</tr></thead><tbody>\n{rows}\n</tbody></table>"
        f"{after}{curve}\n{figures}\n</body></html>\n"
    )
