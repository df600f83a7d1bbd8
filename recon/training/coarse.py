"""Labels as coarse as what a small model can see: fewer different answers to learn, and no noise in their last digits.

An answer in digits is learned digit by digit. Where a model knows a direction to within 30 degrees, each component's
most likely digits make no unit vector together; among 42 directions the first digits name one, and the rest follows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.questions.pose import euler_from_rotation, rotation_from_euler

ANGLE_STEP_DEG = 4.0
# Even steps of the logarithm: with steps of 0.1 m a short distance is the likeliest single answer of any broad belief
DISTANCES_M = np.array(
    [0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4]
)


def coarse_length(metres: float) -> float:
    """Rounded to 0.05 m below 0.6 m, to 0.1 m below 2.5 m, to 0.2 m above: to about a tenth."""
    step = 0.05 if metres < 0.6 else 0.1 if metres < 2.5 else 0.2
    return max(round(metres / step), 1) * step


def coarse_motion(cam1_from_cam2: NDArray[np.float64]) -> NDArray[np.float64]:
    """A relative pose [3, 4] with angles in steps of 4 degrees, one of 42 directions and of 21 distances."""
    angles = np.array(euler_from_rotation(cam1_from_cam2[:, :3])) / ANGLE_STEP_DEG
    rotation = rotation_from_euler(*(np.rint(angles) * ANGLE_STEP_DEG).tolist())
    step = cam1_from_cam2[:, 3]
    distance = float(np.linalg.norm(step))
    direction = DIRECTIONS[int((DIRECTIONS @ step).argmax())]
    nearest = DISTANCES_M[int(np.abs(np.log(DISTANCES_M / max(distance, 1e-6))).argmin())]
    return np.column_stack([rotation, direction * nearest])


def _directions() -> NDArray[np.float64]:
    """The corners of an icosahedron and the middles of its edges, [42, 3]: one lies within 21 degrees of any."""
    golden = (1 + np.sqrt(5)) / 2
    face = np.array([(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)])
    corners = np.concatenate([face, face[:, [1, 2, 0]], face[:, [2, 0, 1]]])  # [12, 3], edges of length 2
    first, second = np.triu_indices(len(corners), 1)
    edges = np.isclose(np.linalg.norm(corners[first] - corners[second], axis=1), 2.0)
    middles = (corners[first] + corners[second])[edges]
    found = np.concatenate([corners, middles])
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float64)


DIRECTIONS = _directions()
