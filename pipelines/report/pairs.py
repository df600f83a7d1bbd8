"""Which pairs of photos tell most about the matching, and their matches drawn between them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from pipelines.report.pictures import photo_path, photo_picture
from pipelines.report.svg import drawing, markup, put
from recon.errors import BadInputError
from recon.interop.database import VerifiedMatches, verified_matches, verified_pairs
from recon.types import Scene

logger = logging.getLogger(__name__)

_LINES = 100  # drawn per pair
_PHOTO_PX = 480
_GAP = 8.0
_MIN_MATCHES = 15  # of a pair worth showing


@dataclass(frozen=True)
class DrawnPair:
    """A pair of photos side by side with lines between its verified matches; ``why`` it was chosen, in words."""

    name1: str
    name2: str
    why: str
    num_matches: int
    num_from_checkpoint: int
    num_drawn: int
    angle_deg: float | None
    picture: Markup


@dataclass(frozen=True)
class Matching:
    """Chosen pairs, how many pairs are verified at all, and why there are none to show (empty otherwise)."""

    pairs: tuple[DrawnPair, ...]
    num_verified: int
    reason: str


def draw_pairs(database: Path, images: Path, scene: Scene) -> Matching:
    """A few informative pairs: most matches, widest angle, a typical one, and the weakest that still holds."""
    try:
        counts = verified_pairs(database)
    except BadInputError as error:
        return Matching((), 0, str(error))
    if not counts:
        return Matching((), 0, "No pair of photos has verified matches.")
    ahead = {view.name: view.cam_from_world[2, :3] for view in scene.views}
    angles = {
        pair: float(np.degrees(np.arccos(np.clip(ahead[pair[0]] @ ahead[pair[1]], -1, 1))))
        for pair in counts
        if pair[0] in ahead and pair[1] in ahead
    }
    drawn = []
    for (name1, name2), why in choose(counts, angles).items():
        try:
            matches = verified_matches(database, name1, name2)
        except BadInputError as error:
            logger.warning("report: %s", error)
            continue
        pair = _draw(matches, images, why, angles.get((name1, name2)))
        if pair is not None:
            drawn.append(pair)
    return Matching(tuple(drawn), len(counts), "" if drawn else "The photos of the pairs can't be read.")


def choose(
    counts: Mapping[tuple[str, str], int], angles_deg: Mapping[tuple[str, str], float]
) -> dict[tuple[str, str], str]:
    """Pairs worth showing and why, no pair twice, by their matches and the angles between their viewing directions."""
    ranked = sorted(counts, key=lambda pair: (-counts[pair], pair))
    chosen: dict[tuple[str, str], str] = {ranked[0]: "most matches"}
    strong = [pair for pair in ranked[1:] if counts[pair] >= _MIN_MATCHES]
    wide = [pair for pair in strong if pair in angles_deg]
    if wide:
        chosen[max(wide, key=lambda pair: (angles_deg[pair], pair))] = "widest angle"
    left = [pair for pair in strong if pair not in chosen]
    if left:
        chosen[left[len(left) // 2]] = "typical pair"
    left = [pair for pair in left if pair not in chosen]
    if left:
        chosen[left[-1]] = "fewest that still hold"
    return chosen


def _draw(matches: VerifiedMatches, images: Path, why: str, angle_deg: float | None) -> DrawnPair | None:
    files = [photo_path(images, name) for name in (matches.name1, matches.name2)]
    sizes = [_size(file) for file in files]
    pictures = [photo_picture(file, _PHOTO_PX) if file is not None else None for file in files]
    first, second = pictures
    if first is None or second is None or sizes[0] is None or sizes[1] is None:
        return None
    height = float(min(first.height_px, second.height_px))
    widths = [height * p.width_px / p.height_px for p in (first, second)]
    total = len(matches.pixels1)
    step = max(1, -(-total // _LINES))
    # an even choice over the first photo, row by row, so that the lines don't crowd
    order = np.lexsort((matches.pixels1[:, 0], np.floor(matches.pixels1[:, 1] / (sizes[0][1] / 8))))[::step]
    label = f"{len(order)} of {total} verified matches between {matches.name1} and {matches.name2}"
    svg = drawing(widths[0] + _GAP + widths[1], height, label, "matches")
    put(svg, "image", href=first.uri, width=widths[0], height=height)
    put(svg, "image", href=second.uri, x=widths[0] + _GAP, width=widths[1], height=height)
    for kind, mask in (("sift", ~matches.from_checkpoint), ("asked", matches.from_checkpoint)):
        group = put(svg, "g", class_=kind)
        for i in order[mask[order]]:
            x1, y1 = matches.pixels1[i] * [widths[0] / sizes[0][0], height / sizes[0][1]]
            x2, y2 = matches.pixels2[i] * [widths[1] / sizes[1][0], height / sizes[1][1]]
            x2 += widths[0] + _GAP
            put(group, "path", d=f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}")
            put(group, "circle", cx=float(x1), cy=float(y1), r=1.8)
            put(group, "circle", cx=float(x2), cy=float(y2), r=1.8)
    return DrawnPair(
        matches.name1, matches.name2, why, total, int(matches.from_checkpoint.sum()), len(order), angle_deg, markup(svg)
    )


def _size(file: Path | None) -> tuple[int, int] | None:
    try:
        with Image.open(file) as photo:  # type: ignore[arg-type]
            return photo.size
    except (OSError, ValueError, SyntaxError, AttributeError, Image.DecompressionBombError):
        return None
