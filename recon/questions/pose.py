"""Relative pose of two photos in four questions: rotation angle, yaw/pitch/roll, direction and distance of motion.

All dialects answer in the released forms. The published convention, in OpenCV axes (x right, y down, z forward):
``R_cam1_from_cam2 = Ry(yaw) Rx(pitch) Rz(roll)``, all right-handed; the direction is camera 2's centre seen from
camera 1, in camera 1's frame.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from recon.questions.dialects import POSE_KINDS, Dialect, PoseKind
from recon.questions.reading import FLAGS, NUMBER, Parsed, clean, out_of_range, read_number, unparsed
from recon.types import Question, UnifiedImage

DIRECTION_WORD_THRESHOLD = 0.1
"""A component of the unit vector is worded when it is at least this; the published example leaves 0.02 out."""

_WORDS = (("left", "right"), ("up", "down"), ("backward", "forward"))  # of the negative and positive x, y, z

_NORM_TOLERANCE = 0.05  # of answered unit vectors; two decimals cost at most 0.009

_DEGREES = r"\s*+(?:\u00b0|deg(?:rees?+)?+(?!\w))"
_PATTERNS: dict[str, re.Pattern[str]] = {
    "rotation_angle": re.compile(rf"rotation\s++angle\s*+(?:is\b|[:=])?+\s*+(?P<a>{NUMBER}){_DEGREES}", FLAGS),
    "euler_natural": re.compile(
        rf"yaw\s*+[:=]\s*+(?P<a>{NUMBER}){_DEGREES}[\s,;]*+pitch\s*+[:=]\s*+(?P<b>{NUMBER}){_DEGREES}"
        rf"[\s,;]*+roll\s*+[:=]\s*+(?P<c>{NUMBER}){_DEGREES}",
        FLAGS,
    ),
    "translation_direction": re.compile(
        rf"\(\s*+(?P<a>{NUMBER})\s*+,\s*+(?P<b>{NUMBER})\s*+,\s*+(?P<c>{NUMBER})\s*+\)", FLAGS
    ),
    "translation_distance": re.compile(
        rf"translation\s++distance\s*+(?:is\b|[:=])?+\s*+(?P<a>{NUMBER})\s*+m(?:et(?:er|re)s?+)?+(?!\w)", FLAGS
    ),
}
_EXPECTED = {
    "rotation_angle": "'Rotation angle: NUMBER degrees'",
    "euler_natural": "'Yaw=NUMBER\u00b0, Pitch=NUMBER\u00b0, Roll=NUMBER\u00b0'",
    "translation_direction": "'... unit vector (X, Y, Z).'",
    "translation_distance": "'Translation distance: NUMBER meters'",
}


def ask(dialect: Dialect) -> list[Question]:
    """The four questions about an ordered pair, in the order of ``POSE_KINDS``."""
    dialect.require("pose")
    assert dialect.pose is not None
    return [Question("pose", kind, dialect.name, dialect.pose.prompts[kind]) for kind in POSE_KINDS]


def answer_text(dialect: Dialect, kind: PoseKind, cam1_from_cam2: ArrayLike) -> str:
    """The answer that teaches a relative pose ``[3, 4]`` (rotation, and camera 2's centre in camera 1's frame, metres).

    Raises:
        ValueError: unknown kind, or the direction of a motion of length 0.
    """
    dialect.require("pose")
    transform = np.asarray(cam1_from_cam2, dtype=np.float64)
    rotation, centre = transform[:, :3], transform[:, 3]
    if kind == "rotation_angle":
        return f"Rotation angle: {rotation_angle_deg(rotation):.1f} degrees"
    if kind == "euler_natural":
        yaw, pitch, roll = (_signed(angle, 1) for angle in euler_from_rotation(rotation))
        return f"Yaw={yaw}\u00b0, Pitch={pitch}\u00b0, Roll={roll}\u00b0"
    if kind == "translation_direction":
        distance = float(np.linalg.norm(centre))
        if distance == 0:
            raise ValueError("a camera that does not move has no direction of motion")
        x, y, z = centre / distance
        words = direction_words((x, y, z))
        return f"The camera moves {words}, unit vector ({_signed(x, 2)}, {_signed(y, 2)}, {_signed(z, 2)})."
    if kind == "translation_distance":
        return f"Translation distance: {float(np.linalg.norm(centre)):.2f} meters"
    raise ValueError(f"unknown pose question {kind!r}; known: {', '.join(POSE_KINDS)}")


def parse(dialect: Dialect, question: Question, text: str, images: Sequence[UnifiedImage]) -> Parsed:
    """Reads one of the four answers (the first of its form); values as in :class:`recon.types.Answer`."""
    kind = question.kind
    if kind not in _PATTERNS:
        raise ValueError(f"unknown pose question {kind!r}; known: {', '.join(POSE_KINDS)}")
    cleaned = clean(text)
    found = _PATTERNS[kind].search(cleaned)
    if found is None:
        return unparsed(text, _EXPECTED[kind])
    groups = [name for name in ("a", "b", "c") if name in found.groupdict()]
    span = (found.start(groups[0]), found.end(groups[-1]))
    values = tuple(read_number(found[name]) for name in groups)
    if kind == "rotation_angle" and not 0 <= values[0] <= 180:
        return out_of_range(text, span, "a rotation angle is between 0 and 180 degrees")
    if kind == "euler_natural" and not (abs(values[0]) <= 180 and abs(values[1]) <= 90 and abs(values[2]) <= 180):
        return out_of_range(text, span, "yaw and roll are between -180 and 180 degrees, pitch between -90 and 90")
    if kind == "translation_distance" and not (math.isfinite(values[0]) and values[0] >= 0):
        return out_of_range(text, span, "a distance is a finite number of metres, not negative")
    if kind == "translation_direction":
        norm = math.hypot(*values)
        if not abs(norm - 1) <= _NORM_TOLERANCE:
            return out_of_range(text, span, f"a unit vector has length 1, found {norm:.3g}")
        values = tuple(value / norm for value in values)
    return Parsed("ok", values, span=span)


# ---------------------------------------------------------------------------------------------------------------------
# conventions


def rotation_from_euler(yaw_deg: float, pitch_deg: float, roll_deg: float) -> NDArray[np.float64]:
    """``R_cam1_from_cam2`` [3, 3] = Ry(yaw) Rx(pitch) Rz(roll)."""
    return Rotation.from_euler("YXZ", [yaw_deg, pitch_deg, roll_deg], degrees=True).as_matrix()


def euler_from_rotation(rotation_cam1_from_cam2: ArrayLike) -> tuple[float, float, float]:
    """Yaw in [-180, 180], pitch in [-90, 90], roll in [-180, 180], degrees (roll 0 at the poles of the pitch)."""
    matrix = np.asarray(rotation_cam1_from_cam2, dtype=np.float64)
    rotation = Rotation.from_matrix(matrix)
    # At a pitch of +-90 degrees yaw and roll turn about the same axis: roll is set to 0 there, as scipy does, without
    # its warning.
    if abs(matrix[1, 2]) > 1 - 1e-12:
        pitch = -90.0 * float(np.sign(matrix[1, 2]))
        yaw = math.degrees(math.atan2(-matrix[2, 0], matrix[0, 0]))
        return yaw, pitch, 0.0
    yaw, pitch, roll = rotation.as_euler("YXZ", degrees=True)
    return float(yaw), float(pitch), float(roll)


def rotation_angle_deg(rotation: ArrayLike) -> float:
    """Angle of a rotation matrix [3, 3] in degrees, accurate near 0 and 180 too."""
    return math.degrees(Rotation.from_matrix(np.asarray(rotation, dtype=np.float64)).magnitude())


def direction_words(direction1: Sequence[float]) -> str:
    """A unit vector (x right, y down, z forward) in words, e.g. ``left, forward``; the largest component always."""
    largest = max(abs(component) for component in direction1)
    return ", ".join(
        _WORDS[axis][int(component > 0)]
        for axis, component in enumerate(direction1)
        if abs(component) >= min(DIRECTION_WORD_THRESHOLD, largest)
    )


_AXIS_OF_WORD = {
    "left": (0, -1),
    "right": (0, 1),
    "up": (1, -1),
    "down": (1, 1),
    "backward": (2, -1),
    "forward": (2, 1),
}
_WORD = re.compile(rf"\b({'|'.join(_AXIS_OF_WORD)})s?\b", FLAGS)


def contradicting_word(text: str, direction1: ArrayLike) -> str | None:
    """The first direction word of an answer that clearly contradicts its vector ``[3]``; None when there is none."""
    direction = np.asarray(direction1, dtype=np.float64)
    for found in _WORD.finditer(text):
        axis, sign = _AXIS_OF_WORD[found[1].lower()]
        if sign * direction[axis] <= -DIRECTION_WORD_THRESHOLD:
            return found[1]
    return None


def _signed(value: float, decimals: int) -> str:
    """With a sign always, and never a negative zero."""
    return f"{round(float(value), decimals) + 0.0:+.{decimals}f}"
