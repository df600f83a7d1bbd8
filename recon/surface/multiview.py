"""Depth of a photo from its neighbours: a sweep over depths on a reduced image, then refinement at working size.

Plane sweep (Collins 1996) over inverse depth with ZNCC over the better half of the neighbours, made smooth by
semi-global matching on the coarse level; on the fine level every pixel tries its own depth, those of pixels around it
and small steps, with windows that follow the surface found so far. Runs on CPU and GPU alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from recon.cameras import pinhole
from recon.surface.frames import Frame
from recon.surface.options import MultiviewOptions
from recon.surface.photometric import GreyView, Matcher, grey_view
from recon.surface.sgm import aggregate
from recon.surface.types import DepthMap

_COARSE_REDUCTION = 2
_STEP_PX = 0.8  # movement in the neighbour's image between two hypotheses
_MIN_HYPOTHESES = 24
_SMALL_STEP, _LARGE_STEP = 0.03, 0.5  # smoothness costs, in units of the matching cost (0 .. 1)
# Costs of depths beside the prior and beyond its range. They are small, because its spread is measured at the map's
# points, and on objects without any it may be wrong by ten times that: then the photos say so.
_OFF_PRIOR, _PER_SIGMA = 0.03, 0.01
_FAR_MARGIN, _NEAR_MARGIN = (
    0.2,
    0.5,
)  # the points' inverse depth range is widened by these shares: foregrounds lack points


@dataclass(frozen=True)
class Prior:
    """What is known before looking at other photos: ``depth_m`` [h, w] over the frame at any resolution (NaN: nothing
    known), and the standard deviation of its logarithm.
    """

    depth_m: NDArray[np.float32]
    log_sigma: float


def resolve_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def refine(
    frame: Frame,
    neighbours: Sequence[Frame],
    options: MultiviewOptions,
    prior: Prior | None = None,
    device: str = "auto",
) -> DepthMap | None:
    """Photometric depth of ``frame``, not yet checked against the neighbours' own depths.

    The search covers the range of the sparse points in view, widened, and prefers depths within ``prior_sigmas``
    standard deviations of the prior where there is one. Confidence is the mean ZNCC of the better half of the
    neighbours (0 where negative).

    Returns:
        the map at the frame's size (every pixel has a depth; the confidence says what it's worth), or None where
        there is no neighbour or neither points nor a prior give a range.
    """
    bounds = depth_bounds(frame, prior, neighbours)
    if len(neighbours) == 0 or bounds is None:
        return None
    where = resolve_device(device)
    with torch.inference_mode():
        coarse = _matcher(frame, neighbours, _COARSE_REDUCTION, options, where)
        inverse_depth, step = _sweep(coarse, _guide(frame, _COARSE_REDUCTION, where), bounds, prior, options)
        fine = _matcher(frame, neighbours, 1, options, where)
        inverse_depth, score = _polish(fine, inverse_depth, step / _COARSE_REDUCTION, bounds)
    depth_m = (1.0 / inverse_depth).cpu().numpy().astype(np.float32)
    confidence = score.clamp(0.0, 1.0).cpu().numpy().astype(np.float32)
    return DepthMap(
        frame.name, depth_m, confidence, frame.camera, frame.cam_from_world, frame.color, "multiview",
        {"mean_score": float(confidence.mean())},
    )  # fmt: skip


def depth_bounds(frame: Frame, prior: Prior | None, neighbours: Sequence[Frame] = ()) -> tuple[float, float] | None:
    """Lowest and highest inverse depth to try, from sparse points and prior together; None where neither is known.

    Points that only neighbours saw count on the near side: what is in front is in the picture, what is behind may not
    be.
    """
    inverse = [1.0 / frame.point_depth_m] if len(frame.point_depth_m) >= 8 else []
    low, high = np.inf, 0.0
    if inverse:
        low, high = np.percentile(inverse[0], [0.5, 99.5])
        width = high - low + 0.05 * high
        low, high = max(low - _FAR_MARGIN * width, 0.3 * low), high + _NEAR_MARGIN * width
        nearer = _inverse_depths_from(frame, neighbours)
        if len(nearer) >= 8:
            high = max(high, np.percentile(nearer, 99))
    if prior is not None and np.isfinite(prior.depth_m).any():
        far, near = np.nanpercentile(prior.depth_m, [99, 1])
        low = min(low, float(1.0 / far * np.exp(-prior.log_sigma)))
        high = max(high, float(1.0 / near * np.exp(prior.log_sigma)))
    return (float(low), float(high)) if high > low > 0 else None


def _inverse_depths_from(frame: Frame, neighbours: Sequence[Frame]) -> NDArray[np.float64]:
    """Inverse depths [N] in the frame of the points that neighbours saw, where they fall into its picture."""
    parts = []
    for other in neighbours:
        rays = pinhole.rays(other.camera, np.asarray(other.point_pixels, dtype=np.float64).reshape(-1, 2))
        points_cam = rays / rays[:, 2:] * np.asarray(other.point_depth_m)[:, None]
        world = (points_cam - other.cam_from_world[:, 3]) @ other.cam_from_world[:, :3]
        here = world @ frame.cam_from_world[:, :3].T + frame.cam_from_world[:, 3]
        here = here[here[:, 2] > 0]
        x, y = pinhole.project(frame.camera, here).T
        inside = (x >= 0) & (y >= 0) & (x < frame.camera.width_px) & (y < frame.camera.height_px)
        parts.append(1.0 / here[inside, 2])
    return np.concatenate(parts) if parts else np.empty(0)


def _views(frames: Sequence[Frame], reduction: int, device: torch.device) -> list[GreyView]:
    return [grey_view(f.color, f.camera, f.cam_from_world, reduction, device) for f in frames]


def _matcher(
    frame: Frame, neighbours: Sequence[Frame], reduction: int, options: MultiviewOptions, device: torch.device
) -> Matcher:
    window_px = options.window_px if reduction == 1 else options.sweep_window_px
    return Matcher(_views([frame], reduction, device)[0], _views(neighbours, reduction, device), window_px)


def _guide(frame: Frame, reduction: int, device: torch.device) -> torch.Tensor:
    return _views([frame], reduction, device)[0].grey


def _sweep(
    matcher: Matcher,
    guide: torch.Tensor,
    bounds: tuple[float, float],
    prior: Prior | None,
    options: MultiviewOptions,
) -> tuple[torch.Tensor, float]:
    """Inverse depth [h, w] on the coarse level and the step between hypotheses."""
    low, high = bounds
    movement_px = matcher.pixels_per_inverse_depth() * (high - low)
    number = int(np.clip(np.ceil(movement_px / _STEP_PX), _MIN_HYPOTHESES, options.max_hypotheses))
    step = (high - low) / (number - 1)
    cost = torch.empty((number, matcher.height, matcher.width), device=guide.device)
    for k in range(number):
        plane = torch.full((matcher.height, matcher.width), low + k * step, device=guide.device)
        cost[k] = 0.5 - 0.5 * matcher.best_half(plane)
    if prior is not None:
        cost += _prior_cost(prior, low, step, number, matcher, options)
    smooth = aggregate(cost, guide, _SMALL_STEP, _LARGE_STEP)
    best = smooth.argmin(dim=0)  # [h, w]
    inner = best.clamp(1, number - 2)
    left, middle, right = (smooth.gather(0, (inner + d)[None])[0] for d in (-1, 0, 1))
    offset = torch.where(best == inner, _parabola(left, middle, right), torch.zeros_like(middle))
    return low + (best + offset) * step, step


def _prior_cost(
    prior: Prior, low: float, step: float, number: int, matcher: Matcher, options: MultiviewOptions
) -> torch.Tensor:
    """Cost [D, h, w] of leaving the prior: little near it, more beyond ``prior_sigmas``, 0 where unknown."""
    device = matcher.variance.device
    log_prior = torch.log(torch.from_numpy(prior.depth_m).to(device))[None, None]
    log_prior = F.interpolate(log_prior, size=(matcher.height, matcher.width), mode="nearest")[0, 0]
    hypotheses = low + step * torch.arange(number, device=device)
    sigmas = (torch.log(hypotheses)[:, None, None] + log_prior).abs() / prior.log_sigma
    cost = _PER_SIGMA * sigmas.clamp_max(options.prior_sigmas) + _OFF_PRIOR * (sigmas > options.prior_sigmas)
    return torch.nan_to_num(cost, nan=0.0)


def _polish(
    matcher: Matcher, coarse: torch.Tensor, step: float, bounds: tuple[float, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inverse depth [H, W] and its score on the fine level."""
    size = (matcher.height, matcher.width)
    inverse_depth = F.interpolate(coarse[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    inverse_depth = _median3(inverse_depth)
    score = matcher.best_half(inverse_depth)
    for radius in (6, 3):
        # Depths of pixels around: at an edge one of them lies on this pixel's own surface.
        for shift in ((0, radius), (0, -radius), (radius, 0), (-radius, 0)):
            candidate = _shifted(inverse_depth, *shift)
            other = matcher.best_half(candidate)
            better = other > score + 0.02
            inverse_depth, score = torch.where(better, candidate, inverse_depth), torch.where(better, other, score)
        inverse_depth, score = _line_search(matcher, inverse_depth, score, step, bounds, num_steps=2)
        inverse_depth = _median3(inverse_depth)
        score = matcher.best_half(inverse_depth)
    inverse_depth, _ = _line_search(matcher, inverse_depth, score, step / 2, bounds, num_steps=1)
    return inverse_depth, matcher.best_half(inverse_depth)


def _line_search(
    matcher: Matcher,
    inverse_depth: torch.Tensor,
    score: torch.Tensor,
    step: float,
    bounds: tuple[float, float],
    num_steps: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Best of ``num_steps`` steps to both sides, with a parabola through the best score and those beside it."""
    offsets = list(range(-num_steps, num_steps + 1))
    low, high = bounds
    all_scores = torch.stack(
        [score if k == 0 else matcher.best_half((inverse_depth + k * step).clamp(low, high)) for k in offsets]
    )  # [2 n + 1, H, W]
    best = all_scores.argmax(dim=0)
    inner = best.clamp(1, len(offsets) - 2)
    left, middle, right = (all_scores.gather(0, (inner + d)[None])[0] for d in (-1, 0, 1))
    fraction = torch.where(best == inner, _parabola(-left, -middle, -right), torch.zeros_like(middle))
    moved = inverse_depth + (best - num_steps + fraction) * step
    return moved.clamp(low, high), all_scores.amax(dim=0)


def _parabola(left: torch.Tensor, middle: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Where the parabola through three costs at -1, 0, 1 is lowest, in [-0.5, 0.5]."""
    curvature = left - 2 * middle + right
    offset = 0.5 * (left - right) / curvature.clamp_min(1e-9)
    return torch.where(curvature > 1e-9, offset, torch.zeros_like(offset)).clamp(-0.5, 0.5)


def _shifted(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """The image moved by whole pixels, borders repeated."""
    height, width = image.shape
    rows = (torch.arange(height, device=image.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=image.device) - right).clamp(0, width - 1)
    return image[rows][:, columns]


def _median3(image: torch.Tensor) -> torch.Tensor:
    """Median over 3 x 3 pixels: removes single outliers, keeps edges."""
    padded = F.pad(image[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    # Median of nine by the median of the rows' sorted columns (exact: Paeth 1990).
    rows = [padded[i : i + image.shape[0]] for i in range(3)]
    low, mid, high = _sort3(*rows)
    lows = [low[:, i : i + image.shape[1]] for i in range(3)]
    mids = [mid[:, i : i + image.shape[1]] for i in range(3)]
    highs = [high[:, i : i + image.shape[1]] for i in range(3)]
    largest_low = torch.maximum(torch.maximum(lows[0], lows[1]), lows[2])
    smallest_high = torch.minimum(torch.minimum(highs[0], highs[1]), highs[2])
    return _sort3(largest_low, _sort3(*mids)[1], smallest_high)[1]


def _sort3(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    a, b = torch.minimum(a, b), torch.maximum(a, b)
    b, c = torch.minimum(b, c), torch.maximum(b, c)
    a, b = torch.minimum(a, b), torch.maximum(a, b)
    return a, b, c
