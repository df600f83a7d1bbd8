"""How much two tools' intrinsics of the same photos differ, whatever size each tool worked with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.cameras import pinhole
from recon.types import Camera

MAX_ASPECT_DIFFERENCE = 0.02  # a tool that rounds its image to multiples of 14 px stays below; a crop does not
_GRID = 9


@dataclass(frozen=True)
class IntrinsicsScores:
    """Differences over ``num_photos`` photos, as (estimate - reference), pixels of the reference's image.

    ``focal_percent_*``: focal length in image widths. ``centre_px_median``: distance of the principal points.
    ``pixel_shift_px_median``: root mean square distance, over a grid on the image, of where both cameras see the same
    rays: focal length, principal point and distortion together. ``num_skipped``: photos of another aspect ratio
    (cropped) or with a camera model that can't be evaluated.
    """

    num_photos: int
    num_skipped: int
    focal_percent_median: float
    focal_percent_worst: float
    centre_px_median: float
    pixel_shift_px_median: float


def score_intrinsics(
    estimated: Mapping[str, Camera], reference: Mapping[str, Camera], names: Sequence[str]
) -> IntrinsicsScores | None:
    """Differences for the named photos; None when no photo has both cameras or all were skipped."""
    remembered: dict[tuple[Camera, Camera], tuple[float, float, float] | None] = {}  # most photos share a camera
    rows: list[tuple[float, float, float]] = []
    skipped = 0
    for name in names:
        if name not in estimated or name not in reference:
            continue
        pair = (estimated[name], reference[name])
        if pair not in remembered:
            remembered[pair] = _difference(*pair)
        row = remembered[pair]
        if row is None:
            skipped += 1
        else:
            rows.append(row)
    if not rows:
        return None
    table: NDArray[np.float64] = np.array(rows)
    focal = table[:, 0]
    return IntrinsicsScores(
        len(rows), skipped, float(np.median(focal)), float(focal[np.abs(focal).argmax()]),
        float(np.median(table[:, 1])), float(np.median(table[:, 2])),
    )  # fmt: skip


def same_aspect(first: Camera, second: Camera) -> bool:
    """Whether two image sizes can belong to the same uncropped photo."""
    ratio = first.width_px / first.height_px * second.height_px / second.width_px
    return abs(ratio - 1) < MAX_ASPECT_DIFFERENCE


def _difference(estimated: Camera, reference: Camera) -> tuple[float, float, float] | None:
    if not same_aspect(estimated, reference) or {estimated.model, reference.model} - set(pinhole.MODELS):
        return None
    size_est = np.array([estimated.width_px, estimated.height_px], dtype=np.float64)
    size_ref = np.array([reference.width_px, reference.height_px], dtype=np.float64)
    fx_est, _, cx_est, cy_est = estimated.fx_fy_cx_cy
    fx_ref, _, cx_ref, cy_ref = reference.fx_fy_cx_cy
    focal = 100 * (fx_est / size_est[0] / (fx_ref / size_ref[0]) - 1)
    centre = np.array([cx_est, cy_est]) / size_est * size_ref - [cx_ref, cy_ref]
    steps = (np.arange(_GRID) + 0.5) / _GRID
    pixels = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2) * size_ref  # [81, 2]
    seen = pinhole.project(estimated, pinhole.rays(reference, pixels)) / size_est * size_ref
    shift = np.linalg.norm(seen - pixels, axis=1)
    shift = shift[np.isfinite(shift)]
    return float(focal), float(np.linalg.norm(centre)), float(np.sqrt((shift**2).mean())) if len(shift) else np.nan
