"""What the evidence needs of an engine, and what all answers need before they become measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recon.cameras.pixels import containing_pixels, pixel_centres
from recon.cameras.unify import to_source_pixels
from recon.questions.profile import CheckpointProfile
from recon.types import Answer, FloatArray, Question, UnifiedImage

Progress = Callable[[int, int], None]

_LEAST_CONFIDENCE = 0.1  # an unsure answer's error is taken as at most sqrt(1 / 0.1) = 3.2 times the usual one


class HasProfile(Protocol):
    @property
    def profile(self) -> CheckpointProfile: ...


class Engine(Protocol):
    """Answers questions about unified images, e.g. :class:`recon.engine.engine.Engine`."""

    @property
    def checkpoint(self) -> HasProfile: ...

    def ask(
        self, images: Sequence[UnifiedImage], questions: Sequence[Question], progress: Progress | None = None
    ) -> list[Answer]: ...


def source_name(profile: CheckpointProfile) -> str:
    """The ``source`` of evidence from a checkpoint."""
    return f"vlm:{profile.name}"


def askable(unified: UnifiedImage, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """Where in the unified image asking makes sense: the photo shows it and its mask allows it.

    Args:
        unified: the image to ask about.
        mask: ``[H, W]`` of the *photo*, True = use; None = everything.

    Returns:
        ``[h, w]`` of the unified image, None when everything is askable.

    Raises:
        ValueError: the mask has another size than the photo.
    """
    source, camera = unified.source_camera, unified.camera
    if mask is not None and mask.shape != (source.height_px, source.width_px):
        raise ValueError(
            f"the mask must have the photo's shape {(source.height_px, source.width_px)}, got {mask.shape}"
        )
    pixels = to_source_pixels(unified, pixel_centres(camera.width_px, camera.height_px))  # [h * w, 2]
    usable = inside(pixels, source.width_px, source.height_px)
    if mask is not None:
        column, row = containing_pixels(pixels[usable], source.width_px, source.height_px).T
        usable[usable] = mask[row, column]
    if usable.all():
        return None
    return usable.reshape(camera.height_px, camera.width_px)


def inside(pixels: FloatArray, width_px: int, height_px: int) -> NDArray[np.bool_]:
    """Which pixels ``[N, 2]`` lie within the image (NaN does not), ``[N]``."""
    within: NDArray[np.bool_] = np.logical_and(pixels >= 0, pixels < [width_px, height_px])  # [N, 2]
    return within[:, 0] & within[:, 1]


def widened(sigma: float, confidence: float) -> float:
    """The standard deviation of an answer: the profile's, larger the less sure the checkpoint is."""
    known = confidence if np.isfinite(confidence) else _LEAST_CONFIDENCE
    return sigma / float(np.sqrt(np.clip(known, _LEAST_CONFIDENCE, 1.0)))
