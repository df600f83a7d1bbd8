"""Relative poses asked of a checkpoint: four answers that must agree with one another become one measurement."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from recon.cameras.unify import unify
from recon.evidence.asking import Engine, Progress, source_name, widened
from recon.questions import pose as pose_questions
from recon.questions.dialects import get_dialect
from recon.questions.profile import CheckpointProfile
from recon.types import Answer, Camera, ImageArray, Question, Rejected, RelativePose, View

_LOGGER = logging.getLogger(__name__)

ANGLE_SIGMAS = 3.0
"""The answered rotation angle may differ from that of the answered yaw, pitch and roll by this many sigmas of both."""


def ask_pose(
    engine: Engine,
    view1: View,
    pixels_rgb1: ImageArray,
    camera1: Camera,
    view2: View,
    pixels_rgb2: ImageArray,
    camera2: Camera,
    on_rejected: Callable[[Rejected], None] | None = None,
    progress: Progress | None = None,
) -> RelativePose | None:
    """Asks how the camera moved from photo 1 to photo 2.

    Args:
        engine: holds a checkpoint that answers pose questions.
        view1, view2: the photos (their names go into the result).
        pixels_rgb1, pixels_rgb2: ``[H, W, 3]`` uint8, as taken.
        camera1, camera2: the photos' cameras, as well as they are known.
        on_rejected: called with the reason when the answers can't be used.

    Returns:
        The pose, or None when the answers can't be used (see :func:`combine`).

    Raises:
        BadInputError: a photo can't be unified; CheckpointError: the checkpoint answers no pose questions.
    """
    profile = engine.checkpoint.profile
    image1 = unify(pixels_rgb1, camera1, profile.pose.image)
    image2 = unify(pixels_rgb2, camera2, profile.pose.image)
    questions = pose_questions.ask(get_dialect(profile.dialect))
    answers = engine.ask([image1, image2], questions, progress)
    result = combine(profile, view1.name, view2.name, questions, answers)
    if isinstance(result, Rejected):
        _LOGGER.info("%s: pose answers rejected: %s", result.name, result.reason)
        if on_rejected is not None:
            on_rejected(result)
        return None
    return result


def combine(
    profile: CheckpointProfile, name1: str, name2: str, questions: Sequence[Question], answers: Sequence[Answer]
) -> RelativePose | Rejected:
    """One pose of the four answers, or why not.

    Yaw, pitch and roll and the direction are needed. The rotation angle, asked separately, must agree with them; the
    direction's words must not contradict its vector. Without a positive distance the pose has none (NaN).
    """
    pair = f"{name1} - {name2}"
    settings = profile.pose
    by_kind = {question.kind: answer for question, answer in zip(questions, answers, strict=True)}
    for kind in ("euler_natural", "rotation_angle", "translation_direction"):
        if by_kind[kind].status != "ok":
            return Rejected(pair, f"{kind}: {by_kind[kind].reason or by_kind[kind].status}")
    rotation = pose_questions.rotation_from_euler(*_value(by_kind["euler_natural"], 3))
    angle_deg = _value(by_kind["rotation_angle"], 1)[0]
    rotation_sigma_deg = widened(settings.rotation_sigma_deg, by_kind["euler_natural"].confidence)
    euler_angle_deg = pose_questions.rotation_angle_deg(rotation)
    limit_deg = ANGLE_SIGMAS * float(
        np.hypot(rotation_sigma_deg, widened(settings.rotation_sigma_deg, by_kind["rotation_angle"].confidence))
    )
    if abs(euler_angle_deg - angle_deg) > limit_deg:
        return Rejected(
            pair,
            f"the rotation angle {angle_deg:.1f} degrees disagrees with yaw, pitch and roll, which turn by "
            f"{euler_angle_deg:.1f}; accepted: {limit_deg:.1f} degrees apart",
        )
    direction = np.array(_value(by_kind["translation_direction"], 3))
    word = pose_questions.contradicting_word(by_kind["translation_direction"].text, direction)
    if word is not None:
        return Rejected(pair, f"the direction is called {word!r} but its vector is {np.round(direction, 2).tolist()}")
    distance = by_kind["translation_distance"]
    distance_m = _value(distance, 1)[0] if distance.status == "ok" else float("nan")
    known = distance_m > 0
    return RelativePose(
        name1=name1,
        name2=name2,
        rotation_cam1_from_cam2=rotation,
        direction1=direction / np.linalg.norm(direction),
        distance_m=distance_m if known else float("nan"),
        rotation_sigma_deg=rotation_sigma_deg,
        direction_sigma_deg=widened(settings.direction_sigma_deg, by_kind["translation_direction"].confidence),
        distance_log_sigma=widened(settings.distance_log_sigma, distance.confidence) if known else float("inf"),
        source=source_name(profile),
        trusted=profile.trusted_on_photos,
    )


def _value(answer: Answer, length: int) -> tuple[float, ...]:
    if answer.value is None or len(answer.value) != length:
        raise ValueError(f"an ok answer must hold {length} numbers, got {answer.value}")
    return answer.value
