"""The plots of a report: votes on the scale, time of the stages, pose error and precision/recall curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipelines.report.svg import Element, drawing, markup, nice_step, path, put
from recon.evaluation.compare import Comparison
from recon.types import MetricScale

_SERIES = 6  # colours in the style sheet
_LEFT, _RIGHT, _TOP, _BOTTOM = 60.0, 28.0, 34.0, 50.0  # of a plot's frame
_WIDTH, _HEIGHT = 520.0, 300.0


@dataclass(frozen=True)
class VoteRow:
    """A line of the scale's plot; ``kind`` (vote, unused, final) is its class in the style sheet."""

    source: str
    kind: str
    said: str
    bar: Markup


@dataclass(frozen=True)
class VotesPlot:
    """The votes on the scale with a bar each, and the three numbers below the bars (at 1/8, 1/2 and 7/8)."""

    rows: tuple[VoteRow, ...]
    ticks: tuple[str, str, str]


_FAR_OUT = 8.0  # a vote that was not used stretches the plot up to so many times what the used ones need
_BAR = 1000.0  # width of a bar in its own units: it is stretched to the page's


def scale_votes(scale: MetricScale) -> VotesPlot | None:
    """Each source's factor with its 95 % interval, in percent of the factor that was used; None without votes."""
    votes = [v for v in scale.votes if v.metres_per_unit > 0 and math.isfinite(v.metres_per_unit)]
    if not votes:
        return None
    logs = sorted(math.log(v.metres_per_unit) for v in votes)
    middle = math.log(scale.metres_per_unit) if scale.is_known else logs[len(logs) // 2]
    spans: list[tuple[str, str, str, float, float, float]] = []  # source, kind, note, centre, low, high
    for v in votes:
        centre, spread = math.log(v.metres_per_unit) - middle, 1.96 * min(abs(v.log_sigma), 10.0)
        kind = "vote" if v.source in scale.used else "unused"
        spans.append((v.source, kind, f"{v.num_measurements:,} measurements", centre, centre - spread, centre + spread))
    band = (math.log(scale.low) - middle, math.log(scale.high) - middle) if scale.is_known else None
    if band is not None:
        spans.append(("used", "final", "95 % interval", 0.0, *band))
    reaches = {name: max(abs(low), abs(high)) for name, _, _, _, low, high in spans}
    needed = max([reach for (name, kind, *_), reach in zip(spans, reaches.values()) if kind != "unused"], default=0.0)
    fitting = [r for r in reaches.values() if not needed or r <= _FAR_OUT * needed]
    reach = min(max(*fitting, 0.0, 0.02) * 1.12, math.log(100))
    rows = tuple(
        VoteRow(
            _source_name(name), kind, f"{_percent(math.exp(centre))}, {note}",
            _vote_bar(kind, centre / reach, low / reach, high / reach, band and (band[0] / reach, band[1] / reach)),
        )
        for name, kind, note, centre, low, high in spans
    )  # fmt: skip
    return VotesPlot(rows, (_percent(math.exp(-0.75 * reach)), "0 %", _percent(math.exp(0.75 * reach))))


def _vote_bar(kind: str, centre: float, low: float, high: float, band: tuple[float, float] | None) -> Markup:
    """An interval and its middle, in parts of the bar's half width; an arrow where the middle is beyond its end."""

    def x(share: float) -> float:
        return _BAR * (0.5 + 0.5 * min(max(share, -0.98), 0.98))

    svg = drawing(_BAR, 18, "", "vote-bar")
    svg.attrib.pop("role")
    svg.attrib.pop("aria-label")
    svg.set("aria-hidden", "true")
    svg.set("preserveAspectRatio", "none")
    if band is not None:
        put(svg, "rect", x=x(band[0]), width=max(x(band[1]) - x(band[0]), 1), height=18, class_="band")
    put(svg, "path", d="M500 0V18", class_="axis")
    if abs(centre) > 1:
        tip, back = x(math.copysign(1, centre)), x(math.copysign(0.94, centre))
        put(svg, "path", d=f"M{tip:.1f} 9L{back:.1f} 3V15Z", class_=f"beyond {kind}")
        return markup(svg)
    put(svg, "path", d=f"M{x(low):.1f} 9H{x(high):.1f}", class_=f"interval {kind}")
    put(svg, "path", d=f"M{x(centre):.1f} 9h0", class_=f"dot {kind}")
    return markup(svg)


def _source_name(source: str) -> str:
    """A source as people call it: ``vlm:NAME depth`` is the depth of the checkpoint NAME."""
    return source.removeprefix("vlm:")


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
        put(svg, "text", label, x=x, y=_HEIGHT - _BOTTOM + 20, class_="tick middle")
    for k in range(5):
        y = _y(k / 4)
        put(svg, "line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid" if k else "axis")
        put(svg, "text", f"{25 * k} %", x=_LEFT - 6, y=y + 4, class_="tick end")
    put(svg, "text", x_title, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 6, class_="tick middle")
    put(svg, "text", y_title, x=8, y=18, class_="tick")


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
