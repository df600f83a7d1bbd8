"""A checkpoint's matches join SIFT's in the COLMAP database, as extra keypoints behind the SIFT keypoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon.evidence.features import FeatureOptions, image_ids, verification_options
from recon.types import Matches

_SAME_PX = 0.5  # keypoints closer than this in a photo are one


def add_matches(database_path: Path, matches: Iterable[Matches], options: FeatureOptions | None = None) -> int:
    """Adds a checkpoint's matches as keypoints, verifies their pairs again; returns the number of matches added.

    A match that falls on a keypoint (SIFT's, or another match's) takes that one, so that a point matched into several
    photos makes one track. Call once per database, after ``match_features``; a database that already holds added
    keypoints is left as it is.
    """
    options = options or FeatureOptions()
    ids = image_ids(database_path)
    usable = [m for m in matches if len(m.pixels1) and m.name1 in ids and m.name2 in ids]
    with pycolmap.Database.open(database_path) as database:
        known = {i: np.array(database.read_keypoints(i)).reshape(-1, 6) if database.exists_keypoints(i)
                 else np.zeros((0, 6), dtype=np.float32) for i in ids.values()}  # fmt: skip
        if any(len(known[i]) > database.num_descriptors_for_image(i) for i in known):
            return 0
        keypoints = {i: _Keypoints(rows) for i, rows in known.items()}
        joined: dict[tuple[int, int], list[NDArray[np.int64]]] = {}
        for m in usable:
            id1, id2 = ids[m.name1], ids[m.name2]
            links = np.column_stack([keypoints[id1].indices_of(m.pixels1), keypoints[id2].indices_of(m.pixels2)])
            pair = (id1, id2) if id1 < id2 else (id2, id1)
            joined.setdefault(pair, []).append(links if id1 < id2 else links[:, ::-1])
        with pycolmap.DatabaseTransaction(database):
            for i, found in keypoints.items():
                if len(found.all) > len(known[i]):
                    database.update_keypoints(i, found.all)
            for (id1, id2), parts in joined.items():
                merged = np.concatenate(parts)
                if database.exists_matches(id1, id2):
                    merged = np.concatenate([np.asarray(database.read_matches(id1, id2), dtype=np.int64), merged])
                    database.delete_matches(id1, id2)
                if database.exists_two_view_geometry(id1, id2):
                    database.delete_two_view_geometry(id1, id2)
                database.write_matches(id1, id2, _one_to_one(merged).astype(np.uint32))
        _verify(database, sorted(joined), options)
    return sum(len(links) for parts in joined.values() for links in parts)


class _Keypoints:
    """Keypoints of one photo, [N, 6] as COLMAP stores them, that grow as matches ask for new places."""

    def __init__(self, rows: NDArray[np.floating]) -> None:
        self.all = rows.astype(np.float32)

    def indices_of(self, pixels: NDArray[np.floating]) -> NDArray[np.int64]:
        """The keypoint [N] at each pixel [N, 2], new ones where there is none."""
        nearest, new = np.full(len(pixels), -1), np.zeros((0, 2))
        if len(self.all):
            distance, index = cKDTree(self.all[:, :2]).query(pixels)
            nearest = np.where(distance <= _SAME_PX, index, -1)
        for row in np.flatnonzero(nearest < 0):
            twin = np.flatnonzero(np.linalg.norm(new - pixels[row], axis=1) <= _SAME_PX)
            if len(twin) == 0:
                twin = np.array([len(new)])
                new = np.vstack([new, pixels[row]])
            nearest[row] = len(self.all) + twin[0]
        shape = np.tile(np.array([1, 0, 0, 1]), (len(new), 1))
        self.all = np.concatenate([self.all, np.column_stack([new, shape]).astype(np.float32)])
        return nearest.astype(np.int64)


def _one_to_one(links: NDArray[np.int64]) -> NDArray[np.int64]:
    """The links [K, 2] whose keypoints are in no other one before; sorted."""
    for side in (0, 1):
        links = links[np.sort(np.unique(links[:, side], return_index=True)[1])]
    return links[np.lexsort(links.T[::-1])]


def _verify(database: pycolmap.Database, pairs: Sequence[tuple[int, int]], options: FeatureOptions) -> None:
    """Two-view geometry of pairs (image ids) from their matches in the database; each pair is one transaction."""
    settings = verification_options(options)
    cameras = {image.image_id: database.read_camera(image.camera_id) for image in database.read_all_images()}
    for camera in cameras.values():
        camera.has_prior_focal_length = True  # as recon.evidence.features._with_focals says
    for id1, id2 in pairs:
        pixels1, pixels2 = (np.array(database.read_keypoints(i)[:, :2], dtype=np.float64) for i in (id1, id2))
        links = np.array(database.read_matches(id1, id2))
        geometry = pycolmap.estimate_two_view_geometry(cameras[id1], pixels1, cameras[id2], pixels2, links, settings)
        with pycolmap.DatabaseTransaction(database):
            database.write_two_view_geometry(id1, id2, geometry)
