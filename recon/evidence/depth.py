"""Metric depth measurements: asked of a checkpoint or read from a sensor, and what a checkpoint means by "how far"."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from recon.cameras.pinhole import rays
from recon.cameras.unify import to_source_pixels, unify
from recon.evidence.asking import Engine, Progress, askable, inside, source_name, widened
from recon.questions import depth as depth_questions
from recon.questions.dialects import get_dialect
from recon.questions.sampling import Planning, finer, grid
from recon.types import Camera, DepthSamples, ImageArray, View

_LOGGER = logging.getLogger(__name__)

# Shares of the budget: an even grid first, the rest in rounds that each know the answers so far.
_COARSE_SHARE = 0.75
_FINE_ROUNDS = 2


def ask_depth(
    engine: Engine,
    view: View,
    pixels_rgb: ImageArray,
    camera: Camera,
    budget: int,
    mask: NDArray[np.bool_] | None = None,
    jitter_seed: int | None = None,
    progress: Progress | None = None,
    planning: Planning = "uniform",
) -> DepthSamples:
    """Asks for the depth of at most ``budget`` pixels of a photo.

    Args:
        engine: holds a checkpoint that answers depth questions.
        view: the photo (its name goes into the result).
        pixels_rgb: ``[H, W, 3]`` uint8, as taken.
        camera: the photo's camera, as well as it is known; metric answers scale with its focal length.
        budget: the most questions.
        mask: ``[H, W]`` of the photo, True = use.
        jitter_seed: see :func:`recon.questions.sampling.grid`.
        progress: called with (questions asked, budget).
        planning: ``uniform`` spreads all questions evenly; ``coarse-to-fine`` three quarters of them, the others go
            where those answers leave most open (:func:`recon.questions.sampling.finer`).

    Returns:
        The answers of the right form within the profile's range. ``log_sigma`` joins the profile's measured error with
        the spread over digit alternatives and the confidence. With a profile of ``depth_kind`` ``auto`` the samples are
        called ``z`` with ``depth_kind_is_assumed`` (see :mod:`recon.evidence.depth_kind`).

    Raises:
        BadInputError: the photo can't be unified; CheckpointError: the checkpoint answers no depth questions.
    """
    profile = engine.checkpoint.profile
    settings = profile.depth
    unified = unify(pixels_rgb, camera, settings.image)
    size = (unified.camera.width_px, unified.camera.height_px)
    allowed = askable(unified, mask)
    dialect = get_dialect(profile.dialect)
    points: list[tuple[float, float]] = []
    depths: list[float] = []
    sigmas: list[float] = []
    num_asked = num_parsed = 0
    low, high = settings.range_m
    for share in _shares(planning):
        left = max(1, round(share * budget)) - num_asked
        if num_asked == 0:
            wanted = grid(*size, left, allowed, jitter_seed)  # [Q, 2]
        else:
            wanted = finer(*size, np.array(points).reshape(-1, 2), np.log(depths), np.array(sigmas), left, allowed)
        if len(wanted) == 0:
            continue
        questions = depth_questions.ask(dialect, unified, wanted)
        before = num_asked
        asking = None if progress is None else lambda done, _, before=before: progress(before + done, budget)
        answers = engine.ask([unified], questions, asking)
        num_asked += len(questions)
        for question, answer in zip(questions, answers, strict=True):
            if answer.status != "ok" or answer.value is None or question.point is None:
                continue
            num_parsed += 1
            depth_m = answer.value[0]
            if not low <= depth_m <= high:
                continue
            points.append(question.point)
            depths.append(depth_m)
            spread = answer.spread / depth_m if np.isfinite(answer.spread) else 0.0
            sigmas.append(float(np.hypot(widened(settings.log_sigma, answer.confidence), spread)))
    source_pixels = to_source_pixels(unified, np.array(points, dtype=np.float64).reshape(-1, 2))  # [N, 2]
    kept = inside(source_pixels, camera.width_px, camera.height_px)
    _LOGGER.info("%s: %d depth questions, %d parsed, %d kept", view.name, num_asked, num_parsed, kept.sum())
    return DepthSamples(
        name=view.name,
        pixels=source_pixels[kept],
        depth_m=np.array(depths, dtype=np.float64)[kept],
        log_sigma=np.array(sigmas, dtype=np.float64)[kept],
        depth_kind="z" if settings.depth_kind == "auto" else settings.depth_kind,
        # an image of a fixed long edge does not depend on the focal length
        focal_px=camera.focal_px if settings.image.mode == "focal" else float("nan"),
        source=source_name(profile),
        trusted=profile.trusted_on_photos,
        num_asked=num_asked,
        num_parsed=num_parsed,
        depth_kind_is_assumed=settings.depth_kind == "auto",
    )


def _shares(planning: Planning) -> list[float]:
    """Share of the budget spent when each round is over."""
    if planning == "uniform":
        return [1.0]
    rest = 1.0 - _COARSE_SHARE
    return [_COARSE_SHARE + rest * k / _FINE_ROUNDS for k in range(_FINE_ROUNDS + 1)]


def sensor_samples(
    view: View,
    depth_m: NDArray[np.floating],
    budget: int,
    mask: NDArray[np.bool_] | None = None,
    log_sigma: float = 0.02,
) -> DepthSamples:
    """Measurements from a sensor's depth map ``[H, W]`` (z, metres, NaN invalid, aligned to the photo)."""
    valid = np.isfinite(depth_m) & (depth_m > 0)
    if mask is not None:
        valid &= mask
    height, width = depth_m.shape
    pixels = np.floor(grid(width, height, budget, valid)) + 0.5  # a depth belongs to its pixel's centre
    column, row = np.floor(pixels).astype(np.int64).T
    depths = depth_m[row, column].astype(np.float64)
    sigmas = np.full(len(depths), log_sigma)
    return DepthSamples(
        view.name, pixels, depths, sigmas, "z", float("nan"), "sensor", num_asked=len(depths), num_parsed=len(depths)
    )


def z_depth_m(samples: DepthSamples, camera: Camera) -> NDArray[np.float64]:
    """The samples as z-depths ``[N]`` under a (refined) camera of the photo.

    A metric answer was given for a picture whose focal length was unified with ``samples.focal_px``; had the true focal
    length been used, everything would look, and be, farther in proportion to it.
    """
    depth = np.asarray(samples.depth_m, dtype=np.float64)
    if np.isfinite(samples.focal_px):
        depth = depth * (camera.focal_px / samples.focal_px)
    if samples.depth_kind == "ray":
        depth = depth / np.linalg.norm(rays(camera, samples.pixels), axis=1)
    return depth
