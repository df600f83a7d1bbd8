"""Photos of two places that look alike, taken for one: seen in the map by what they do not have in common.

A map is consistent even where it lays one wall on another that has the same posters; the matches themselves can't tell.
But the photos also show what differs between the places. Two photos that the map lets look at the same surface from
nearly the same side share most of their points there; where both have many points on it and share none, the surface is
not the same. (The idea of missing correspondences: Zach et al. 2008; Roberts et al. 2011.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recon.cameras import pinhole
from recon.evidence.features import image_ids
from recon.mapping.model import MapModel

_CELLS = 8  # along the photo's longer side
_LEAST_SHARED = 30  # points in common of a pair to be judged
_MOST_ANGLE_DEG = 20.0  # between the views of the shared points: features look the same up to there
_MOST_ZOOM = 1.4  # between the sizes they have in the pictures
_LEAST_POINTS = 10  # that each photo has in a cell of its own
_EXPECTED = 6.0  # shared points in a cell, at the pair's own rate, of which none is there: by chance 1 in 400
_SAME_DEPTH = 0.97  # nearness of two depth ranges in a cell: one surface, not something in front of another
_LEAST_LEAN = 0.3  # of the points that only one place has, by which a photo belongs to it: 65 against 35 %
_LEAST_CELLS = 4  # such cells that make a pair of look-alikes


def look_alikes(model: MapModel, verified: Iterable[tuple[str, str]]) -> list[tuple[int, int]]:
    """Pairs of photos (rows of ``model.names``) that the map takes for views of one place although what they see around
    differs; the clearest first.

    Only ``verified`` pairs (names) are judged: photos that were not compared lack points in common for that reason, and
    a place can be laid on another by verified pairs alone.
    """
    number, sees = len(model.names), _sees(model)
    index = {name: row for row, name in enumerate(model.names)}
    matched = np.zeros((number, number), dtype=bool)
    for name1, name2 in verified:
        if name1 in index and name2 in index:
            matched[index[name1], index[name2]] = matched[index[name2], index[name1]] = True
    common = (sees @ sees.T).toarray() * matched
    seen = [np.unique(sees.indices[sees.indptr[i] : sees.indptr[i + 1]]) for i in range(number)]
    found: list[tuple[int, int, int]] = []
    for first in range(number):
        for second in np.nonzero(common[first, first + 1 :] >= _LEAST_SHARED)[0] + first + 1:
            shared = np.intersect1d(seen[first], seen[second], assume_unique=True)
            if not _from_one_side(model, first, int(second), shared):
                continue
            cells = sum(
                _unlike_cells(
                    model,
                    viewer,
                    np.setdiff1d(seen[viewer], shared, assume_unique=True),
                    np.setdiff1d(seen[other], shared, assume_unique=True),
                    shared,
                )
                for viewer, other in ((first, int(second)), (int(second), first))
            )
            if cells >= _LEAST_CELLS:
                found.append((-cells, first, int(second)))
    return [(first, second) for _, first, second in sorted(found)]


def two_places(model: MapModel, alike: tuple[int, int]) -> tuple[list[str], list[str]]:
    """The photos of the first and of the second place, given the clearest pair of look-alikes.

    A photo belongs to the place with which it shares more points that the other place's photos don't see: the points of
    what looks alike are seen from both. Photos that share as much with either are in neither list.
    """
    sees = _sees(model).astype(bool).astype(np.int32)
    side = np.zeros(len(model.names), dtype=np.int64)
    side[list(alike)] = 1, -1
    # Both grow by the photo that leans to them most: points of the look-alike count for nobody once both have them.
    sign = 1
    while (share := _shares(sees, side))[side == 0].size and np.isfinite(share[side == 0]).any():
        lean = np.where((side == 0) & np.isfinite(share), sign * share, -np.inf)
        side[int(lean.argmax())] = sign
        sign = -sign if (side == 0).any() else sign
    for _ in range(len(side)):  # the first ones were judged by few points: all once more
        share = _shares(sees, side)
        wrong = np.isfinite(share) & (share * side < 0)
        wrong[list(alike)] = False
        if not wrong.any():
            break
        worst = int(np.where(wrong, np.abs(share), -1).argmax())
        side[worst] = -side[worst]
    share = _shares(sees, side)
    clear = np.isfinite(share) & (share * side >= _LEAST_LEAN)
    clear[list(alike)] = True
    first, second = (
        [n for n, s, c in zip(model.names, side, clear, strict=True) if s == sign and c] for sign in (1, -1)
    )
    return first, second


def _shares(sees: csr_matrix, side: NDArray[np.int64]) -> NDArray[np.float64]:
    """How far each photo leans to the first (1) or second place (-1), by points that only one of them has; NaN: none.

    A photo is no witness for itself: points that it alone of its place has don't count.
    """
    first, second = (np.asarray(sees[side == sign].sum(axis=0)).ravel() for sign in (1, -1))
    votes = [
        np.asarray(sees @ ((mine > 0) & (other == 0))).ravel() for mine, other in ((first, second), (second, first))
    ]
    alone = [
        np.asarray(sees @ ((mine == 1) & (other == 0))).ravel() for mine, other in ((first, second), (second, first))
    ]
    for_first = votes[0] - np.where(side == 1, alone[0], 0)
    for_second = votes[1] - np.where(side == -1, alone[1], 0)
    total = for_first + for_second
    return np.where(total >= _LEAST_POINTS, (for_first - for_second) / np.maximum(total, 1), np.nan)


def drop_pairs_between(database_path: Path, first: Sequence[str], second: Sequence[str]) -> None:
    """Removes the verified geometry of all pairs between two groups of photos from the database."""
    ids = image_ids(database_path)
    with pycolmap.Database.open(database_path) as database:
        for name1 in first:
            for name2 in second:
                if database.exists_two_view_geometry(ids[name1], ids[name2]):
                    database.delete_two_view_geometry(ids[name1], ids[name2])


def _sees(model: MapModel) -> csr_matrix:
    observations = model.observations
    ones = np.ones(len(observations.view), dtype=np.int32)
    shape = (len(model.names), len(model.state.points))
    return csr_matrix((ones, (observations.view, observations.point)), shape=shape)


def _from_one_side(model: MapModel, first: int, second: int, shared: NDArray[np.int64]) -> bool:
    """Whether two photos see their shared points at nearly one angle and size."""
    points = model.state.points[shared]
    rays, sizes = [], []
    for view in (first, second):
        pose = model.state.poses[view]
        ray = points + pose[:, :3].T @ pose[:, 3]
        distance = np.linalg.norm(ray, axis=1)
        rays.append(ray / np.maximum(distance, 1e-12)[:, None])
        sizes.append(model.state.cameras[model.state.camera_of_view[view]].focal_px / np.maximum(distance, 1e-12))
    angle = np.degrees(np.arccos(np.clip((rays[0] * rays[1]).sum(axis=1), -1, 1)))
    zoom = float(np.median(sizes[0] / sizes[1]))
    return bool(np.median(angle) <= _MOST_ANGLE_DEG and 1 / _MOST_ZOOM <= zoom <= _MOST_ZOOM)


def _unlike_cells(
    model: MapModel, viewer: int, own: NDArray[np.int64], others: NDArray[np.int64], shared: NDArray[np.int64]
) -> int:
    """Cells of the viewer's picture in which both photos have many points on one surface, and none in common."""
    own_cell, own_z = _placed(model, viewer, own)
    other_cell, other_z = _placed(model, viewer, others)
    shared_cell, _ = _placed(model, viewer, shared)
    counts = [np.bincount(cell[cell >= 0], minlength=_CELLS**2) for cell in (own_cell, other_cell, shared_cell)]
    rivals = np.minimum(counts[0], counts[1]) + counts[2]  # what could have been shared
    rate = counts[2].sum() / max(1, rivals.sum())
    empty = (np.minimum(counts[0], counts[1]) >= _LEAST_POINTS) & (counts[2] == 0) & (rate * rivals >= _EXPECTED)
    cells = 0
    for cell in np.nonzero(empty)[0]:
        near1, far1 = np.percentile(own_z[own_cell == cell], [25, 75])
        near2, far2 = np.percentile(other_z[other_cell == cell], [25, 75])
        cells += bool(min(far1, far2) >= _SAME_DEPTH * max(near1, near2))
    return cells


def _placed(model: MapModel, viewer: int, points: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Cell of each point in the viewer's picture, [N] (-1 outside), and its z-depth [N]."""
    camera = model.state.cameras[model.state.camera_of_view[viewer]]
    pose = model.state.poses[viewer]
    here = model.state.points[points] @ pose[:, :3].T + pose[:, 3]
    x, y = pinhole.project(camera, here).T
    side = max(camera.width_px, camera.height_px) / _CELLS
    with np.errstate(invalid="ignore"):
        inside = (here[:, 2] > 0) & (x >= 0) & (y >= 0) & (x < camera.width_px) & (y < camera.height_px)
    column, row = (np.where(inside, value, 0.0) // side for value in (x, y))
    return np.where(inside, row * _CELLS + column, -1).astype(np.int64), here[:, 2]
