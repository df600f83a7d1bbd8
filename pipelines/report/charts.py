"""The plots of a report: votes on the scale, time of the stages, pose error and precision/recall curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipelines.report.svg import Element, drawing, markup, nice_step, path, put
from recon.evaluation.compare import Comparison
from recon.types import MetricScale, ScaleVote

_SERIES = 6  # colours in the style sheet
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 12.0, 12.0, 40.0  # of a plot's frame
_WIDTH, _HEIGHT = 520.0, 300.0


@dataclass(frozen=True)
class _Row:
    """A line of the scale's plot: factors relative to what was used; ``kind`` is its class in the style sheet."""

    source: str
    note: str
    kind: str
    factor: float
    low: float
    high: float


def _vote(vote: ScaleVote, scale: MetricScale, middle: float) -> _Row:
    factor, spread = vote.metres_per_unit / middle, math.exp(1.96 * min(abs(vote.log_sigma), 10.0))
    kind = "vote" if vote.source in scale.used else "unused"
    return _Row(vote.source, f"{vote.num_measurements:,} measurements", kind, factor, factor / spread, factor * spread)


def scale_votes(scale: MetricScale) -> Markup | None:
    """Each source's factor with its 95 % interval, in percent of the factor that was used; None without votes."""
    votes = [v for v in scale.votes if v.metres_per_unit > 0 and math.isfinite(v.metres_per_unit)]
    if not votes:
        return None
    known = scale.is_known
    middle = (
        scale.metres_per_unit
        if known
        else math.exp(sorted(math.log(v.metres_per_unit) for v in votes)[len(votes) // 2])
    )
    rows = [_vote(v, scale, middle) for v in votes]
    if known:
        low, high = scale.low / middle, scale.high / middle
        rows.append(_Row("used", "95 % interval", "final", 1.0, low, high))
    ends = [abs(math.log(max(end, 1e-6))) for row in rows for end in (row.factor, row.low, row.high)]
    reach = min(max(*ends, 0.02) * 1.12, math.log(100))
    row_height, left, width = 46.0, 12.0, 620.0
    height = row_height * len(rows) + 30
    names = "; ".join(f"{row.source} {_percent(row.factor)}" for row in rows)
    svg = drawing(width, height, f"Votes on the scale: {names}", "plot wide")

    def x(factor: float) -> float:
        place = math.log(max(factor, 1e-6)) / reach
        return left + (width - 2 * left) * (0.5 + 0.5 * min(max(place, -1.0), 1.0))

    if known:
        band = (x(scale.low / middle), x(scale.high / middle))
        put(svg, "rect", x=band[0], y=0, width=max(band[1] - band[0], 1), height=row_height * len(rows), class_="band")
    put(svg, "line", x1=x(1), x2=x(1), y1=0, y2=row_height * len(rows), class_="axis")
    for i, row in enumerate(rows):
        y = row_height * i
        label = f"{row.source} (not used)" if row.kind == "unused" else row.source
        put(svg, "text", label, x=left, y=y + 16, class_="name")
        put(svg, "text", f"{_percent(row.factor)}, {row.note}", x=width - left, y=y + 16, class_="tick end")
        put(svg, "line", x1=x(row.low), x2=x(row.high), y1=y + 30, y2=y + 30, class_=f"interval {row.kind}")
        put(svg, "circle", cx=x(row.factor), cy=y + 30, r=4.5, class_=f"dot {row.kind}")
    for share in (-0.75, 0.0, 0.75):
        factor = math.exp(share * reach)
        put(svg, "text", _percent(factor), x=x(factor), y=height - 8, class_="tick middle")
    return markup(svg)


def stage_bar(share: float) -> Markup:
    """A bar for a table's row; ``share`` of the longest stage in [0, 1]."""
    svg = drawing(100, 8, "", "bar")
    svg.attrib.pop("role")
    svg.attrib.pop("aria-label")
    svg.set("aria-hidden", "true")
    svg.set("preserveAspectRatio", "none")
    put(svg, "rect", width=100, height=8, class_="rail")
    if share > 0:
        put(svg, "rect", width=max(100 * min(share, 1.0), 0.4), height=8, class_="fill")
    return markup(svg)


def pose_curves(comparisons: Sequence[Comparison], labels: Mapping[int, str]) -> Markup | None:
    """Share of pairs of photos below an angle, one line per comparison; None when none has poses."""
    lines = [
        (i, [(0.0, 0.0), *((float(t), share) for t, share in enumerate(c.poses.recall, start=1))])
        for i, c in enumerate(comparisons)
        if c.poses is not None and c.poses.recall
    ]
    if not lines:
        return None
    last = max(points[-1][0] for _, points in lines)
    said = "; ".join(f"{labels[i]}: {_at(points, 5):.0%} within 5 degrees" for i, points in lines)
    svg = drawing(_WIDTH, _HEIGHT, f"Share of photo pairs below a pose error. {said}")
    step = nice_step(last, 6)
    ticks = [(k * step / last, f"{k * step:g}°") for k in range(round(last / step) + 1)]
    _frame(svg, ticks, "pose error of a pair (rotation or direction, the larger)", "share of pairs")
    for i, points in lines:
        _line(svg, [(a / last, b) for a, b in points], i, labels[i])
    return markup(svg)


def surface_curves(comparisons: Sequence[Comparison], labels: Mapping[int, str]) -> Markup | None:
    """Precision (solid) and recall (dashed) over the distance, which grows by factors; None without surfaces."""
    scored = [(i, c.surface.scores.scores) for i, c in enumerate(comparisons) if c.surface is not None]
    scored = [(i, s) for i, s in scored if s.thresholds_m and min(s.thresholds_m) > 0]
    if not scored:
        return None
    low = min(min(s.thresholds_m) for _, s in scored)
    high = max(max(s.thresholds_m) for _, s in scored)
    span = math.log(high / low) or 1.0
    said = "; ".join(
        f"{labels[i]}: precision {s.precision[-1]:.0%}, recall {s.recall[-1]:.0%} at {s.thresholds_m[-1]:g}"
        for i, s in scored
    )
    svg = drawing(_WIDTH, _HEIGHT, f"Precision and recall of the surface over the distance. {said}")
    marks = sorted({t for _, s in scored for t in s.thresholds_m})
    marks = marks if len(marks) <= 7 else marks[:: -(-len(marks) // 7)]
    metric = all(comparisons[i].scale_error is not None for i, _ in scored)
    unit = "m" if metric else "reference's unit"
    _frame(svg, [(math.log(t / low) / span, f"{t:g}") for t in marks], f"distance ({unit})", "share of the surface")
    for i, s in scored:
        at = [math.log(t / low) / span for t in s.thresholds_m]
        _line(svg, list(zip(at, s.precision)), i, f"{labels[i]}, precision", dots=True)
        _line(svg, list(zip(at, s.recall)), i, f"{labels[i]}, recall", dots=True, dashed=True)
    return markup(svg)


def duration(seconds: float) -> str:
    """Seconds for people: 0.3 s, 42 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _percent(factor: float) -> str:
    return "0 %" if abs(factor - 1) < 5e-5 else f"{100 * (factor - 1):+.3g} %".replace("-", "−")


def _at(points: Sequence[tuple[float, float]], where: float) -> float:
    return max((b for a, b in points if a <= where), default=0.0)


def _frame(svg: Element, x_ticks: Sequence[tuple[float, str]], x_title: str, y_title: str) -> None:
    """Grid, ticks and titles; x ticks by their share of the width, y from 0 to 100 %."""
    for share, label in x_ticks:
        x = _x(share)
        put(svg, "line", x1=x, x2=x, y1=_TOP, y2=_HEIGHT - _BOTTOM, class_="grid")
        put(svg, "text", label, x=x, y=_HEIGHT - _BOTTOM + 15, class_="tick middle")
    for k in range(5):
        y = _y(k / 4)
        put(svg, "line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid" if k else "axis")
        put(svg, "text", f"{25 * k} %", x=_LEFT - 6, y=y + 4, class_="tick end")
    put(svg, "text", x_title, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 6, class_="tick middle")
    put(svg, "title", y_title)


def _line(
    svg: Element, points: Sequence[tuple[float, float]], series: int, label: str, dots: bool = False,
    dashed: bool = False,
) -> None:  # fmt: skip
    drawn = [(_x(a), _y(b)) for a, b in points]
    kind = f"line s{series % _SERIES}" + (" dashed" if dashed else "")
    put(put(svg, "path", d=path(drawn), class_=kind), "title", label)
    for x, y in drawn if dots else ():
        put(svg, "circle", cx=x, cy=y, r=3, class_=f"mark s{series % _SERIES}")


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM)


def table_of(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Which tables have rows."""
    return {
        "poses": any(c.poses is not None for c in comparisons),
        "surface": any(c.surface is not None for c in comparisons),
        "depth": any(c.depth is not None for c in comparisons),
        "intrinsics": any(c.intrinsics is not None for c in comparisons),
    }
