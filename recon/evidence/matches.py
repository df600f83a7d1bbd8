"""Point correspondences asked of a checkpoint, checked by asking the way back.

Answers are coarse (whole text coordinates) and may be wrong; the cycle removes most wrong ones here, two-view geometry
removes the rest in mapping.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recon.cameras.unify import to_source_pixels, unify
from recon.evidence.asking import Engine, Progress, askable, inside, source_name
from recon.questions import match as match_questions
from recon.questions.dialects import get_dialect
from recon.questions.sampling import grid
from recon.types import Answer, Camera, FloatArray, ImageArray, Matches, UnifiedImage, View

_LOGGER = logging.getLogger(__name__)

CYCLE_SIGMAS = 3.0
"""A point may come back this many standard deviations of a there-and-back trip away from where it started."""


def ask_matches(
    engine: Engine,
    view1: View,
    pixels_rgb1: ImageArray,
    camera1: Camera,
    view2: View,
    pixels_rgb2: ImageArray,
    camera2: Camera,
    budget: int,
    mask1: NDArray[np.bool_] | None = None,
    mask2: NDArray[np.bool_] | None = None,
    max_cycle_px: float | None = None,
    jitter_seed: int | None = None,
    progress: Progress | None = None,
) -> Matches:
    """Asks where at most ``budget`` pixels of photo 1 are in photo 2, and where the answers are in photo 1.

    Args:
        engine: holds a checkpoint that answers match questions.
        view1, view2: the photos (their names go into the result).
        pixels_rgb1, pixels_rgb2: ``[H, W, 3]`` uint8, as taken.
        camera1, camera2: the photos' cameras, as well as they are known.
        budget: the most pixels of photo 1; up to twice as many questions.
        mask1, mask2: ``[H, W]`` of the photos, True = use.
        max_cycle_px: the farthest a point may come back from where it started, in pixels of the unified photo 1;
            None: ``CYCLE_SIGMAS * sqrt(2) * sigma_px`` of the checkpoint's profile.
        progress: counts all questions; the total shrinks when the way back has fewer.

    Returns:
        Matches in pixels of both photos; the score falls with the error of the cycle and with the confidence of both
        answers. ``num_asked`` and ``num_parsed`` count the questions there (``not visible`` is an answer too).

    Raises:
        BadInputError: a photo can't be unified; CheckpointError: the checkpoint answers no match questions.
    """
    profile = engine.checkpoint.profile
    settings = profile.match
    dialect = get_dialect(profile.dialect)
    image1 = unify(pixels_rgb1, camera1, settings.image)
    image2 = unify(pixels_rgb2, camera2, settings.image)
    trip_sigma_px = float(np.sqrt(2)) * settings.sigma_px
    limit_px = CYCLE_SIGMAS * trip_sigma_px if max_cycle_px is None else max_cycle_px

    size1 = (image1.camera.width_px, image1.camera.height_px)
    wanted = grid(*size1, budget, askable(image1, mask1), jitter_seed)
    forward = match_questions.ask(dialect, image1, image2, wanted, settings.think)
    answers = engine.ask([image1, image2], forward, _part(progress, 0, 2 * len(forward)))
    start = _points([question.point for question in forward])  # [Q, 2] unified 1
    found, there = _values(answers)  # [M] rows of start, [M, 2] unified 2
    usable = _usable(image2, mask2, there)
    found, there = found[usable], there[usable]

    backward = match_questions.ask(dialect, image2, image1, there, settings.think)
    total = len(forward) + len(backward)
    replies = engine.ask([image2, image1], backward, _part(progress, len(forward), total)) if backward else []
    returned, back = _values(replies)  # [K] rows of there, [K, 2] unified 1
    rows = found[returned]
    cycle_px = np.linalg.norm(back - start[rows], axis=1)

    confidence1 = np.array([answers[row].confidence for row in rows], dtype=np.float64)
    confidence2 = np.array([replies[row].confidence for row in returned], dtype=np.float64)
    certainty = np.sqrt(np.clip(np.nan_to_num(confidence1 * confidence2), 0.0, 1.0))
    score = np.exp(-0.5 * (cycle_px / trip_sigma_px) ** 2) * certainty
    pixels1 = to_source_pixels(image1, start[rows])
    pixels2 = to_source_pixels(image2, there[returned])
    kept = cycle_px <= limit_px
    kept &= inside(pixels1, camera1.width_px, camera1.height_px) & inside(pixels2, camera2.width_px, camera2.height_px)
    num_parsed = sum(answer.status in ("ok", "not_visible") for answer in answers)
    _LOGGER.info(
        "%s - %s: %d match questions, %d parsed, %d visible, %d come back within %.1f px",
        view1.name, view2.name, len(forward), num_parsed, len(found), kept.sum(), limit_px,
    )  # fmt: skip
    return Matches(
        view1.name,
        view2.name,
        pixels1[kept],
        pixels2[kept],
        score[kept],
        source_name(profile),
        num_asked=len(forward),
        num_parsed=num_parsed,
        sigma_px=settings.sigma_px * camera2.focal_px / image2.camera.focal_px,
    )


def _values(answers: Sequence[Answer]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows of the answers that hold a pixel ``[M]``, and the pixels ``[M, 2]``."""
    rows = [row for row, answer in enumerate(answers) if answer.status == "ok" and answer.value is not None]
    return np.array(rows, dtype=np.int64), _points([answers[row].value for row in rows])


def _points(points: Sequence[tuple[float, ...] | None]) -> NDArray[np.float64]:
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def _usable(image: UnifiedImage, mask: NDArray[np.bool_] | None, pixels: FloatArray) -> NDArray[np.bool_]:
    """Which pixels ``[N, 2]`` of the unified image the photo shows and its mask allows, ``[N]``."""
    size = (image.camera.width_px, image.camera.height_px)
    allowed = askable(image, mask)
    if allowed is None:
        return np.ones(len(pixels), dtype=bool)
    column, row = np.clip(np.floor(pixels).astype(np.int64), 0, [size[0] - 1, size[1] - 1]).T
    return allowed[row, column]


def _part(progress: Progress | None, done_before: int, total: int) -> Progress | None:
    """Progress of one of several calls, counted within the whole."""
    if progress is None:
        return None
    return lambda done, _: progress(done_before + done, total)
