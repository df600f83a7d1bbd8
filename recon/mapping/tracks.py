"""Multi-view tracks from pairwise matches: connected keypoints that hold at most one per photo."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

IntArray = NDArray[np.int64]


def build_tracks(
    num_keypoints: IntArray, matches: Mapping[tuple[int, int], IntArray]
) -> tuple[IntArray, IntArray, IntArray]:
    """Tracks of matched keypoints.

    Args:
        num_keypoints: keypoints in each of N photos, ``[N]``.
        matches: for photo indices ``(i, j)`` the matched keypoint indices ``[K, 2]``.

    Returns:
        ``view``, ``keypoint`` and ``track`` ``[M]``, sorted by track. A track that holds two keypoints of one photo is
        contradictory (one point has one image) and is left out.
    """
    offset = np.concatenate([[0], np.cumsum(num_keypoints)]).astype(np.int64)
    total = int(offset[-1])
    rows = [offset[i] + pairs[:, 0] for (i, _), pairs in matches.items()]
    cols = [offset[j] + pairs[:, 1] for (_, j), pairs in matches.items()]
    if not rows or total == 0:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty
    row, col = np.concatenate(rows), np.concatenate(cols)
    graph = scipy.sparse.coo_matrix((np.ones(len(row), dtype=np.int8), (row, col)), shape=(total, total))
    _, label = connected_components(graph, directed=False)
    used = np.unique(np.concatenate([row, col]))
    view = np.searchsorted(offset, used, side="right") - 1
    track = label[used]
    # a (track, photo) that occurs twice condemns the track
    key = track.astype(np.int64) * len(num_keypoints) + view
    unique, counts = np.unique(key, return_counts=True)
    bad = np.unique(unique[counts > 1] // len(num_keypoints))
    good = ~np.isin(track, bad)
    used, view, track = used[good], view[good], track[good]
    order = np.lexsort((view, track))
    _, compact = np.unique(track[order], return_inverse=True)
    return view[order], (used - offset[view])[order], compact.astype(np.int64)
