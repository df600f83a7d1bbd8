"""What a question about regions is about, in numbers: differences of sizes and places, and lengths.

A comparison's answer is the sign of a difference; which difference, and which sign means yes, is in the question's
words. Taught by the word alone, a small model finds neither, because each is worth nothing without the other. These are
the labels by which both are taught on their own (:mod:`recon.training.regions`). They come from the text boxes and the
depths that the view holds, so that a view with a tower's estimates (:mod:`recon.training.teacher`) gives labels that
the tower knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.questions.object import FORMS
from recon.training.pooled import PooledView

FORM_NAMES = tuple(FORMS)
UNITS = len(FORM_NAMES)
KNOWN = 5  # numbers about each region
_SIGNED = (
    ("size", "smaller", "bigger"),
    ("width", "thinner", "wider"),
    ("height", "shorter", "taller"),
    ("right", "left", "right"),
    ("down", "above", "below"),
    ("away", "front", "behind"),
)  # a difference, the form that a negative one answers with yes, and the one for a positive one
COMPARISONS = tuple(FORM_NAMES.index(name) for _, *names in _SIGNED for name in names)
LENGTHS = tuple(FORM_NAMES.index(name) for name in ("width", "height", "distance", "horizontal", "vertical"))
_SCALE = {"size": 1.05, "width": 1.5, "height": 1.5, "right": 2.25, "down": 3.0, "away": 4.5}
_LIMIT = 1.5  # larger differences are clear anyway
_SHORTEST_M = 0.1
_MARGIN, _NEAR = 0.1, 0.2  # of a box's border left out; share of its pixels that are nearer than the thing


@dataclass(frozen=True)
class RegionTarget:
    """What a question is about.

    ``form``: which of ``FORM_NAMES`` is asked. ``values`` [18]: what each form's unit should know about these regions:
    for a comparison how clearly it holds (above 0: yes), for a length its logarithm; NaN where there is none.
    ``regions``: what there is to know of each region by itself: logarithms of width and height, then twice its place to
    the right, down, and the logarithm of its depth (metres).
    """

    form: int
    values: tuple[float, ...]
    regions: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class _Region:
    log_width: float
    log_height: float
    place_m: NDArray[np.float64]  # right, down, forward

    def known(self) -> tuple[float, ...]:
        right, down, forward = self.place_m.tolist()
        return self.log_width, self.log_height, 2 * right, 2 * down, 2 * math.log(forward)


def region_target(
    view: PooledView, form_name: str, boxes_px: Sequence[tuple[float, float, float, float]]
) -> RegionTarget:
    """Labels of a question about one or two regions of a view.

    Args:
        view: with the depths that count as known.
        form_name: one of ``recon.questions.object.FORMS``.
        boxes_px: corner-based boxes in the view's image.

    Raises:
        ValueError: an unknown form.
    """
    regions = [_region(view, box) for box in boxes_px]
    values = dict.fromkeys(FORM_NAMES, math.nan)
    first = regions[0]
    if len(regions) == 1:
        values["width"], values["height"] = first.log_width, first.log_height
    else:
        second = regions[1]
        width, height = first.log_width - second.log_width, first.log_height - second.log_height
        step = first.place_m - second.place_m
        differences = {
            "size": width + height,
            "width": width,
            "height": height,
            "right": step[0],
            "down": step[1],
            "away": math.log(first.place_m[2] / second.place_m[2]),
        }
        for name, negative, positive in _SIGNED:
            clear = min(max(_SCALE[name] * float(differences[name]), -_LIMIT), _LIMIT)
            values[negative], values[positive] = -clear, clear
        for name, length in (
            ("distance", np.linalg.norm(step)),
            ("horizontal", np.hypot(step[0], step[2])),
            ("vertical", abs(step[1])),
        ):
            values[name] = math.log(max(float(length), _SHORTEST_M))
    known = tuple(region.known() for region in regions)
    return RegionTarget(FORM_NAMES.index(form_name), tuple(values.values()), known)


def _region(view: PooledView, box_px: tuple[float, float, float, float]) -> _Region:
    left, top, right, bottom = box_px
    across, down = _MARGIN * (right - left), _MARGIN * (bottom - top)
    first_row, first_column = int(top + down), int(left + across)
    inner = view.depth_m[
        first_row : max(math.ceil(bottom - down), first_row + 1),
        first_column : max(math.ceil(right - across), first_column + 1),
    ]
    known = inner[np.isfinite(inner)]
    depth = float(np.quantile(known if known.size else view.depth_m[np.isfinite(view.depth_m)], _NEAR))
    focal_x, focal_y, centre_x, centre_y = view.image.camera.fx_fy_cx_cy
    place = np.array([((left + right) / 2 - centre_x) / focal_x, ((top + bottom) / 2 - centre_y) / focal_y, 1.0])
    return _Region(
        math.log((right - left) / focal_x * depth), math.log((bottom - top) / focal_y * depth), place * depth
    )


@dataclass(frozen=True)
class PlacedTarget:
    """A target and where in a batch it is learned: the row, the column at which the answer begins, and the columns of
    every region's last corner."""

    row: int
    answer: int
    corners: tuple[int, ...]
    target: RegionTarget


def region_batch(placed: Sequence[PlacedTarget]) -> dict[str, Tensor]:
    """Tensors of targets: ``rows``, ``columns``, ``forms`` [N], ``values`` [N, 18] of answers; ``corner_rows``,
    ``corner_columns`` [K], ``known`` [K, 5] of regions."""
    corners = [
        (place.row, column, known)
        for place in placed
        for column, known in zip(place.corners, place.target.regions, strict=True)
    ]
    return {
        "rows": torch.tensor([place.row for place in placed]),
        "columns": torch.tensor([place.answer for place in placed]),
        "forms": torch.tensor([place.target.form for place in placed]),
        "values": torch.tensor([place.target.values for place in placed]),
        "corner_rows": torch.tensor([row for row, _, _ in corners]),
        "corner_columns": torch.tensor([column for _, column, _ in corners]),
        "known": torch.tensor([known for _, _, known in corners]),
    }
