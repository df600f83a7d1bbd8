"""Pictures of an evaluation: photos with answered points, and the reliability curve (SVG and PNG)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipelines.eval.answers import Answered
from pipelines.eval.items import Reply
from pipelines.records import write_atomically
from recon.evaluation.match import endpoint_errors
from recon.evaluation.reliability import Reliability
from recon.interop.datasets.records import DepthItem, ObjectItem, PairItem, load_pixels
from recon.types import Task

_HEIGHT_PX = 420
_GOOD, _BAD, _NONE = (30, 160, 60), (215, 50, 40), (120, 120, 120)
_MOST_LABELS = 24
_MOST_LINES = 8


def draw_answers(entry: Answered, task: Task, path: Path) -> str:
    """Draws an item with its replies to ``path`` (JPEG); returns a line of text about it."""
    item = entry.item
    if isinstance(item, DepthItem):
        canvas, scale = _photo(item.image, item.camera)
        caption = _draw_depth(canvas, scale, item, entry.replies)
    elif isinstance(item, ObjectItem):
        canvas, scale = _photo(item.image, item.camera)
        caption = _draw_object(canvas, scale, item, entry.replies)
    else:
        canvas, caption = _draw_pair(item, entry.replies, task)
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=85)
    write_atomically(path, buffer.getvalue())
    return caption


def _photo(path: Path, camera: object) -> tuple[Image.Image, float]:
    picture = Image.fromarray(load_pixels(path, camera))  # type: ignore[arg-type]
    scale = _HEIGHT_PX / picture.height
    return picture.resize((max(1, round(picture.width * scale)), _HEIGHT_PX)), scale


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float, colour: tuple[int, int, int]) -> None:
    draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour, outline=(255, 255, 255))


def _draw_depth(canvas: Image.Image, scale: float, item: DepthItem, replies: tuple[Reply, ...]) -> str:
    draw = ImageDraw.Draw(canvas)
    step = max(1, len(replies) // _MOST_LABELS)
    for k in range(0, len(replies), step):
        x, y = (item.pixels[k] * scale).tolist()
        truth, value = item.depth_m[k], replies[k].value
        ratio = max(value[0] / truth, truth / value[0]) if value and value[0] > 0 else None
        colour = _NONE if ratio is None else _GOOD if ratio < 1.25 else _BAD
        _dot(draw, x, y, colour)
        said = f"{value[0]:.2f}" if value else "-"
        draw.text((x + 6, y - 6), f"{said} ({truth:.2f})", fill=(255, 255, 255), stroke_width=2, stroke_fill=(0, 0, 0))
    return f"{item.name}: answered metres (true metres); green within a factor 1.25"


def _draw_object(canvas: Image.Image, scale: float, item: ObjectItem, replies: tuple[Reply, ...]) -> str:
    draw = ImageDraw.Draw(canvas)
    for k, box in enumerate(item.boxes):
        corners = tuple(edge * scale for edge in box)
        draw.rectangle(corners, outline=(255, 200, 0), width=2)
        at = (corners[0] + 3, corners[1] + 2)
        draw.text(at, f"[{k}]", fill=(255, 220, 0), stroke_width=2, stroke_fill=(0, 0, 0))
    said = "; ".join(f"{q} -> {reply.text} (label: {label})" for (q, label), reply in zip(item.turns, replies))
    return f"{item.name}: {said}"


def _draw_pair(item: PairItem, replies: tuple[Reply, ...], task: Task) -> tuple[Image.Image, str]:
    first, scale1 = _photo(item.image1, item.camera1)
    second, scale2 = _photo(item.image2, item.camera2)
    canvas = Image.new("RGB", (first.width + second.width + 8, _HEIGHT_PX), (255, 255, 255))
    canvas.paste(first, (0, 0))
    canvas.paste(second, (first.width + 8, 0))
    names = f"{item.name1} - {item.name2}"
    if task == "pose":
        return canvas, f"{names}: " + "; ".join(reply.text for reply in replies)
    draw = ImageDraw.Draw(canvas)
    offset = np.array([first.width + 8.0, 0.0])
    size = np.array([[item.camera2.width_px, item.camera2.height_px]])
    step = max(1, len(replies) // _MOST_LINES)
    for k in range(0, len(replies), step):
        x1, y1 = (item.pixels1[k] * scale1).tolist()
        value = replies[k].value
        _dot(draw, x1, y1, _NONE)
        if value is None:
            continue
        x2, y2 = (np.array(value) * scale2 + offset).tolist()
        error = float(endpoint_errors(np.array([value]), item.pixels2[k : k + 1], size)[0][0])
        colour = _GOOD if error <= 25 else _BAD  # NaN (hidden) is bad: a place was claimed
        draw.line((x1, y1, x2, y2), fill=colour, width=2)
        _dot(draw, x2, y2, colour)
        if np.isfinite(error):
            xt, yt = (item.pixels2[k] * scale2 + offset).tolist()
            draw.line((x2, y2, xt, yt), fill=(255, 200, 0), width=1)
            draw.rectangle((xt - 3, yt - 3, xt + 3, yt + 3), outline=(255, 200, 0))
    return canvas, f"{names}: answers (dots), truth (yellow squares); green within 25 of 1000"


# ---------------------------------------------------------------------------------------------------------------------
# reliability

_W, _H, _LEFT, _TOP, _SIDE = 560, 400, 60, 30, 320


def reliability_svg(curve: Reliability, right_means: str, error_means: str) -> str:
    """The curve as SVG: share of right answers over confidence, and the median error, in bins of equal counts."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_W}" height="{_H}" viewBox="0 0 {_W} {_H}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_W}" height="{_H}" fill="white"/>',
        f'<line x1="{_LEFT}" y1="{_TOP + _SIDE}" x2="{_LEFT + _SIDE}" y2="{_TOP}" stroke="#999" '
        'stroke-dasharray="4 4"/>',
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#333"/>',
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _at(tick, tick)
        parts.append(f'<text x="{x:.1f}" y="{_TOP + _SIDE + 16}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    points = [_at(part.confidence, part.accuracy) for part in curve.bins]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#1f6fb4" stroke-width="2"/>')
    labelled = _uncrowded(points)
    for k, ((x, y), part) in enumerate(zip(points, curve.bins, strict=True)):
        title = f"{part.count} answers, {part.accuracy:.3f} right, median error {part.median_error:.3g}"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#1f6fb4"><title>{title}</title></circle>')
        if k in labelled:
            at = f'x="{x + 6:.1f}" y="{y - 6:.1f}"'
            parts.append(f'<text {at} font-size="10" fill="#a33">{part.median_error:.2g}</text>')
    words = (
        (_LEFT + _SIDE / 2, _TOP + _SIDE + 36, "confidence"),
        (_LEFT + _SIDE / 2, _TOP - 10, f"share of answers that are {right_means}"),
        (_LEFT + _SIDE / 2, _TOP + _SIDE + 52, f"red: median {error_means}"),
    )
    parts += [f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle">{_escaped(text)}</text>' for x, y, text in words]
    side = _LEFT + _SIDE + 14
    parts += [f'<text x="{side}" y="{_TOP + 20 + 18 * k}">{text}</text>' for k, text in enumerate(_summary(curve))]
    return "\n".join([*parts, "</svg>"]) + "\n"


def reliability_png(curve: Reliability) -> bytes:
    """The same picture as PNG."""
    canvas = Image.new("RGB", (_W, _H), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((_LEFT, _TOP, _LEFT + _SIDE, _TOP + _SIDE), outline=(50, 50, 50))
    draw.line((*_at(0, 0), *_at(1, 1)), fill=(170, 170, 170))
    for tick in (0.0, 0.5, 1.0):
        x, y = _at(tick, tick)
        draw.text((x - 6, _TOP + _SIDE + 6), f"{tick:g}", fill=(0, 0, 0))
        draw.text((_LEFT - 26, y - 6), f"{tick:g}", fill=(0, 0, 0))
    points = [_at(part.confidence, part.accuracy) for part in curve.bins]
    if len(points) > 1:
        draw.line(points, fill=(31, 111, 180), width=2)
    labelled = _uncrowded(points)
    for k, ((x, y), part) in enumerate(zip(points, curve.bins, strict=True)):
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=(31, 111, 180))
        if k in labelled:
            draw.text((x + 6, y - 14), f"{part.median_error:.2g}", fill=(170, 50, 50))
    draw.text((_LEFT + _SIDE / 2 - 30, _TOP + _SIDE + 24), "confidence", fill=(0, 0, 0))
    draw.text((_LEFT, _TOP - 18), "share of right answers (red: median error)", fill=(0, 0, 0))
    for k, text in enumerate(_summary(curve)):
        draw.text((_LEFT + _SIDE + 14, _TOP + 10 + 18 * k), text, fill=(0, 0, 0))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _summary(curve: Reliability) -> tuple[str, str]:
    return f"calibration error {curve.ece:.3f}", f"rank correlation {curve.rank_correlation:.2f}"


def _uncrowded(points: Sequence[tuple[float, float]]) -> set[int]:
    """Which points get a label: those without a labelled neighbour where it would be written."""
    chosen: list[int] = []
    for k, (x, y) in enumerate(points):
        if all(abs(x - points[i][0]) > 26 or abs(y - points[i][1]) > 12 for i in chosen):
            chosen.append(k)
    return set(chosen)


def _at(confidence: float, share: float) -> tuple[float, float]:
    return _LEFT + _SIDE * confidence, _TOP + _SIDE * (1 - share)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
