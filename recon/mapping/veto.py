"""Pairs whose verified matches contradict what the checkpoint says about their pose do not take part in mapping.

Two walls with the same poster match perfectly, at a pose that is wrong; COLMAP believes such pairs, and its map breaks.
Only answers that close cycles with other answers may object, and only where nearly all matches of a pair miss. That the
pose fitted to a pair's matches turns otherwise is no reason: such pairs hold right matches, too, and without them maps
broke that were right.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from recon.cameras.pinhole import rays
from recon.evidence.features import image_ids
from recon.mapping.answers import cycle_closing
from recon.types import Camera, RelativePose

_log = logging.getLogger(__name__)

Float64Array = NDArray[np.float64]

_MAX_FITTING = 0.3  # share of a pair's matches near their epipolar lines under the answer, up to which it is out
_SIGMAS = 1.5  # how near: of the answer's rotation and direction errors together, at least 10 pixels
_LEAST_PX = 10.0


def drop_contradicted_pairs(
    database_path: Path, cameras: Mapping[str, Camera], relative_poses: Sequence[RelativePose]
) -> list[tuple[str, str]]:
    """Removes the verified geometry of contradicted pairs from the database; returns them.

    Pairs with a guessed focal length are not judged: their rays are not known.
    """
    ids = image_ids(database_path)
    out = []
    with pycolmap.Database.open(database_path) as database:
        for answer in cycle_closing(relative_poses):
            id1, id2 = ids.get(answer.name1, 0), ids.get(answer.name2, 0)
            camera1, camera2 = cameras.get(answer.name1), cameras.get(answer.name2)
            if not (id1 and id2 and camera1 and camera2) or not database.exists_two_view_geometry(id1, id2):
                continue
            if "prior" in (camera1.focal_source, camera2.focal_source):
                continue
            links = np.asarray(database.read_two_view_geometry(id1, id2).inlier_matches, dtype=np.int64)
            if len(links) == 0:
                continue
            first, second = (np.array(database.read_keypoints(i), dtype=np.float64)[:, :2] for i in (id1, id2))
            pixels1, pixels2 = first[links[:, 0]], second[links[:, 1]]
            if _misses(answer, camera1, camera2, pixels1, pixels2):
                database.delete_two_view_geometry(id1, id2)
                out.append((answer.name1, answer.name2))
    if out:
        _log.info("%d verified pairs contradict the answers about their pose: %s", len(out), out[:5])
    return out


def _misses(
    answer: RelativePose, camera1: Camera, camera2: Camera, pixels1: Float64Array, pixels2: Float64Array
) -> bool:
    """Whether nearly all matches lie off their epipolar lines under the answer."""
    motion = np.column_stack([answer.rotation_cam1_from_cam2, answer.direction1])
    spread = np.radians(np.hypot(answer.rotation_sigma_deg, answer.direction_sigma_deg))
    near = epipolar_px(motion, camera1, camera2, pixels1, pixels2) <= max(
        _LEAST_PX, _SIGMAS * spread * camera1.focal_px
    )
    return bool(near.mean() < _MAX_FITTING)


def epipolar_px(
    cam1_from_cam2: Float64Array,
    camera1: Camera,
    camera2: Camera,
    pixels1: NDArray[np.floating],
    pixels2: NDArray[np.floating],
) -> Float64Array:
    """Sampson distance [N] in pixels of matches from their epipolar lines under a motion [3, 4] of any length."""
    t = cam1_from_cam2[:, 3]
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    essential = cross @ cam1_from_cam2[:, :3]  # ray1 . E ray2 = 0
    ray1 = rays(camera1, np.asarray(pixels1, dtype=np.float64))
    ray2 = rays(camera2, np.asarray(pixels2, dtype=np.float64))
    line1, line2 = ray2 @ essential.T, ray1 @ essential
    slope = (line1[:, :2] ** 2).sum(axis=1) / camera1.focal_px**2
    slope += (line2[:, :2] ** 2).sum(axis=1) / camera2.focal_px**2
    return np.abs((ray1 * line1).sum(axis=1)) / np.maximum(np.sqrt(slope), 1e-12)
