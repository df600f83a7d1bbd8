"""The planes that photos see together, from confirmed depth and from the answers of all of them.

A plane of which photos confirm a part is found there (:mod:`recon.surface.planes`). One that nothing confirms is found
in the answers: along the directions that the confirmed planes have, and those perpendicular to two of them, the answers
on a floor pile up at its offset. One answer errs by a tenth of its depth, hundreds of them by less than a hundredth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon.surface.align import FrameSamples
from recon.surface.consistency import to_world
from recon.surface.planes import Plane, planes_in
from recon.surface.types import DepthMap

FREE_DENSITY = 0.6  # of ln(depth) of an answer where no plane is

_POINTS = 24_000  # confirmed points looked at
_PARALLEL, _PERPENDICULAR = np.cos(np.radians(5.0)), np.sin(np.radians(6.0))
_MAIN_SHARE = 0.06  # of the confirmed points that a direction needs
_FITTING_SIGMAS, _BIWEIGHT_SIGMAS = 2.0, 3.0
_ANSWER_NEIGHBOURS = 5
_AGREEING_NEIGHBOURS = 4  # of an answer that fits a plane that must fit, too
_LEAST_ANSWERS, _LEAST_ANSWER_SHARE = 40, 0.015  # in all photos, on a plane that nothing confirms
_LEAST_PER_PHOTO, _LEAST_PHOTOS = 6, 3
_LEAST_SPREAD = 0.18  # standard deviation of these along the plane, relative to their depth
_MOST_FROM_ANSWERS = 4
_QUANTILES = np.linspace(0.01, 0.99, 120)  # of the answers' offsets: those tried along a direction
_SETTLING = 12  # rounds


@dataclass(frozen=True)
class Witness:
    """What one photo says, as much as planes need of it: some of its confirmed ``points`` [N, 3] of the world at
    ``depths`` [N]; its ``centre`` [3]; of its answers the ``rays`` [M, 3] of depth 1, ln(depth) ``logs`` [M] with
    ``sigmas`` [M], and the answers ``around`` each [M, k].
    """

    points: NDArray[np.float64]
    depths: NDArray[np.float64]
    centre: NDArray[np.float64]
    rays: NDArray[np.float64]
    logs: NDArray[np.float64]
    sigmas: NDArray[np.float64]
    around: NDArray[np.int64]


def witness(confirmed: DepthMap, answers: FrameSamples, num_photos: int) -> Witness:
    """One of ``num_photos`` witnesses: confirmed depth without rims (NaN elsewhere) and the photo's aligned answers."""
    rows, columns = np.nonzero(np.isfinite(confirmed.depth_m))
    keep = np.random.default_rng(0).permutation(len(rows))[: max(1, _POINTS // num_photos)]
    depths = confirmed.depth_m[rows[keep], columns[keep]].astype(np.float64)
    points = to_world(confirmed, columns[keep] + 0.5, rows[keep] + 0.5, depths)
    centre = -confirmed.cam_from_world[:, :3].T @ confirmed.cam_from_world[:, 3]
    number = len(answers.depth_m) if len(answers.depth_m) > _ANSWER_NEIGHBOURS else 0
    pixels = answers.pixels[:number]
    rays = to_world(confirmed, pixels[:, 0], pixels[:, 1], np.ones(number)) - centre
    around = np.empty((0, _ANSWER_NEIGHBOURS), dtype=np.int64)
    if number:
        around = cKDTree(pixels).query(pixels, k=_ANSWER_NEIGHBOURS + 1)[1][:, 1:]
    return Witness(points, depths, centre, rays, np.log(answers.depth_m[:number]), answers.log_sigma[:number], around)


@dataclass(frozen=True)
class _Answers:
    """The answers of all photos: ``centres`` [N, 3], ``rays`` [N, 3], ``logs`` [N], ``sigmas`` [N], ``photo`` [N], and
    those ``around`` each in its photo [N, k]."""

    centres: NDArray[np.float64]
    rays: NDArray[np.float64]
    logs: NDArray[np.float64]
    sigmas: NDArray[np.float64]
    photo: NDArray[np.int64]
    around: NDArray[np.int64]

    @property
    def points(self) -> NDArray[np.float64]:
        """[N, 3] of the world."""
        return self.centres + self.rays * np.exp(self.logs)[:, None]

    def off(self, normal: NDArray[np.float64], offset: float) -> NDArray[np.float64]:
        """ln(answer / depth on a plane) in sigmas [N], inf where the ray doesn't meet it."""
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = (offset - self.centres @ normal) / (self.rays @ normal)
            return np.where(depth > 0, self.logs - np.log(np.maximum(depth, 1e-12)), np.inf) / self.sigmas

    def core(self, normal: NDArray[np.float64], offset: float) -> NDArray[np.bool_]:
        """Answers [N] that fit a plane and are among such."""
        return self.among(np.abs(self.off(normal, offset)) < _FITTING_SIGMAS)

    def among(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Those of the ``chosen`` [N] that have such around them."""
        return chosen & (chosen[self.around].sum(axis=1) >= _AGREEING_NEIGHBOURS)

    def refined(self, normal: NDArray[np.float64], offset: float, weight: NDArray[np.floating]) -> float:
        """The offset at which the robust mean of the residuals is zero, one Newton step on; ``weight`` [N]."""
        use = weight > 0
        residual = self.off(normal, offset)[use]
        weight = weight[use] * np.clip(1 - (residual / _BIWEIGHT_SIGMAS) ** 2, 0, None) ** 2
        gradient = -1 / ((offset - self.centres[use] @ normal) * self.sigmas[use])
        step = (weight * gradient * np.where(weight > 0, residual, 0)).sum() / max((weight * gradient**2).sum(), 1e-12)
        return float(offset - step)


def _together(witnesses: Sequence[Witness]) -> _Answers:
    starts = np.cumsum([0, *(len(w.logs) for w in witnesses)])
    return _Answers(
        np.concatenate([np.tile(w.centre, (len(w.logs), 1)) for w in witnesses]),
        np.concatenate([w.rays for w in witnesses]),
        np.concatenate([w.logs for w in witnesses]),
        np.concatenate([w.sigmas for w in witnesses]),
        np.repeat(np.arange(len(witnesses)), [len(w.logs) for w in witnesses]),
        np.concatenate([w.around + start for w, start in zip(witnesses, starts)]),
    )


def find_planes(witnesses: Sequence[Witness]) -> list[Plane]:
    """The scene's planes, first those of which photos confirm a part."""
    if not witnesses:
        return []
    points, depths = (np.concatenate(part) for part in zip(*((w.points, w.depths) for w in witnesses)))
    planes = planes_in(points, depths)
    answers = _together(witnesses)
    return planes + _settled(planes, _from_answers(answers, planes), answers)


def _directions(planes: Sequence[Plane]) -> list[NDArray[np.float64]]:
    """Directions [3] that many confirmed points share, and those perpendicular to two of these."""
    found: list[tuple[NDArray[np.float64], float]] = []
    for plane in planes:
        for k, (direction, share) in enumerate(found):
            if abs(float(plane.normal @ direction)) > _PARALLEL:
                found[k] = (direction, share + plane.share)
                break
        else:
            found.append((plane.normal, plane.share))
    main = [direction for direction, share in found if share >= _MAIN_SHARE]
    result = list(main)
    for i, first in enumerate(main):
        for second in main[:i]:
            cross = np.cross(first, second)
            if abs(float(first @ second)) < _PERPENDICULAR:
                cross /= np.linalg.norm(cross)
                if all(abs(float(cross @ other)) < _PARALLEL for other in result):
                    result.append(cross)
    return result


def _from_answers(answers: _Answers, planes: Sequence[Plane]) -> list[Plane]:
    """Planes along the main directions of ``planes`` on which answers of several photos pile up."""
    found: list[Plane] = []
    points, depths = answers.points, np.exp(answers.logs)
    free = np.ones(len(depths), dtype=bool)
    for plane in planes:
        free &= ~answers.core(plane.normal, plane.offset)
    directions = _directions(planes)
    least = max(_LEAST_ANSWERS, _LEAST_ANSWER_SHARE * len(depths))
    while free.sum() >= least and len(found) < _MOST_FROM_ANSWERS:
        best: tuple[int, Plane, NDArray[np.bool_]] | None = None
        for normal in directions:
            offset, core = _peak(answers, normal, np.quantile(points[free] @ normal, _QUANTILES), free)
            number = int(core.sum())
            if number < least or (best is not None and number <= best[0]):
                continue
            width = float(np.median(np.abs(offset - answers.centres[core] @ normal) * answers.sigmas[core]))
            beside = max(int((answers.core(normal, offset + d * width) & free).sum()) for d in (-4, 4))
            photos = int((np.bincount(answers.photo[core]) >= _LEAST_PER_PHOTO).sum())
            if number > 2 * beside and photos >= _LEAST_PHOTOS and _is_wide(points[core], depths[core], normal):
                best = (number, Plane(normal, offset, 0.0), core)
        if best is None:
            break
        found.append(best[1])
        free &= ~best[2]
    return found


def _peak(
    answers: _Answers, normal: NDArray[np.float64], offsets: NDArray[np.float64], free: NDArray[np.bool_]
) -> tuple[float, NDArray[np.bool_]]:
    """The offset along a direction at which most ``free`` answers lie, and those [N]."""
    counts = [int((free & answers.core(normal, offset)).sum()) for offset in offsets]
    offset = float(offsets[int(np.argmax(counts))])
    core = free & answers.core(normal, offset)
    for _ in range(6):
        offset = answers.refined(normal, offset, core.astype(np.float64))
        core = free & answers.core(normal, offset)
    return offset, core


def _is_wide(points: NDArray[np.float64], depths: NDArray[np.float64], normal: NDArray[np.float64]) -> bool:
    """Whether points spread along their plane, in all directions, well beyond the errors of answers.

    The visible side of a thing is flat to a tenth of its distance, which is all that answers say of it.
    """
    along = points - np.outer(points @ normal, normal)
    spread = np.linalg.svd(along - np.median(along, axis=0), compute_uv=False)[1] / np.sqrt(len(points))
    return bool(spread > _LEAST_SPREAD * np.median(depths))


def _settled(planes: Sequence[Plane], found: Sequence[Plane], answers: _Answers) -> list[Plane]:
    """``found`` at the offsets that their answers say, where an answer could be of one of several planes.

    Answers that fit a known plane, too, were left aside when ``found`` was looked for, which bent its mean. Here every
    answer belongs to all planes by shares: as far as it fits, and as far as the answers around it belong there.
    """
    near = np.concatenate([np.arange(len(answers.logs))[:, None], answers.around], axis=1)
    moving = list(found)
    share: NDArray[np.float64] | None = None
    for _ in range(_SETTLING if found else 0):
        off = np.stack([answers.off(p.normal, p.offset) for p in (*planes, *moving)])
        fit = np.exp(-0.5 * np.minimum(np.abs(off), 30.0) ** 2) / (np.sqrt(2 * np.pi) * answers.sigmas)
        fit = np.concatenate([fit, np.full((1, fit.shape[1]), FREE_DENSITY)])
        share = fit if share is None else fit * share[:, near].mean(axis=2)
        share = share / np.maximum(share.sum(axis=0), 1e-12)
        for k, plane in enumerate(moving):
            own = share[len(planes) + k]
            weight = np.where(answers.among(own > 0.5), own, 0.0)
            moving[k] = Plane(plane.normal, answers.refined(plane.normal, plane.offset, weight), 0.0)
    return moving
