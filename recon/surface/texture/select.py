"""One photo for every triangle: the best ones, in as few and as large pieces as that allows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from recon.surface.options import TextureOptions
from recon.surface.texture.candidates import Candidates, same_photo

_SPREADING = 12  # rounds in which neighbours' qualities mix: about so many triangles far do pieces look
_SWEEPS = 16
_MERGES = 6


def select_photos(candidates: Candidates, neighbours: NDArray[np.int64], options: TextureOptions) -> NDArray[np.int32]:
    """The photo of each triangle [F], -1 where none shows it.

    A Markov random field over the mesh: the cost of a photo is what its quality lacks to the triangle's best, and every
    edge between two photos costs ``options.smoothness``. It starts from qualities averaged over the neighbourhood and
    goes on by iterated conditional modes (Besag 1986), a random half of the triangles at a time; then pieces below
    ``options.min_chart_faces`` join a neighbour whose photo shows them.
    """
    photo, valid = candidates.photo, candidates.photo >= 0
    num_faces = len(photo)
    best = np.maximum(candidates.quality.max(axis=1, keepdims=True), 1e-12)
    relative = np.where(valid, candidates.quality / best, np.float32(0))
    same = same_photo(photo, neighbours)
    there = same >= 0
    at = np.maximum(same, 0)
    num_neighbours = np.float32(1) + (neighbours >= 0).sum(axis=1)[:, None]
    score = relative
    for _ in range(_SPREADING):
        near = np.where(there, score.ravel()[at], np.float32(0)).sum(axis=1)
        score = np.where(valid, (score + near) / num_neighbours, np.float32(-1))
    chosen = score.argmax(axis=1)
    rows = np.arange(num_faces)
    cost = np.where(valid, 1.0 - relative, np.inf)
    generator = np.random.default_rng(0)
    for _ in range(_SWEEPS):
        is_chosen = np.zeros(photo.shape, dtype=bool)
        is_chosen[rows, chosen] = True
        agreeing = (there & is_chosen.ravel()[at]).sum(axis=1)
        energy = cost - options.smoothness * agreeing
        better = energy.argmin(axis=1)
        now = generator.random(num_faces) < 0.5
        change = now & (energy[rows, better] < energy[rows, chosen] - 1e-9)
        if not change.any():
            break
        chosen = np.where(change, better, chosen)
    labels = np.where(valid.any(axis=1), photo[rows, chosen], -1).astype(np.int32)
    for _ in range(_MERGES):
        if not _merge_small(labels, candidates, neighbours, options.min_chart_faces):
            break
    return labels


def pieces(labels: NDArray[np.int32], neighbours: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """Connected triangles of one label: how many pieces, and which each triangle is in [F]."""
    face, side = np.nonzero((neighbours >= 0) & (labels[neighbours] == labels[:, None]))
    graph = coo_matrix((np.ones(len(face), np.int8), (face, neighbours[face, side])), shape=(len(labels), len(labels)))
    count, piece = connected_components(graph, directed=False)
    return int(count), piece.astype(np.int64)


def _merge_small(labels: NDArray[np.int32], candidates: Candidates, neighbours: NDArray[np.int64], least: int) -> bool:
    """Gives pieces of fewer than ``least`` triangles the photo of a neighbour that shows all of them; True if any."""
    count, piece = pieces(labels, neighbours)
    size = np.bincount(piece, minlength=count)
    small = (size[piece] < least) & (labels >= 0)
    face, side = np.nonzero(small[:, None] & (neighbours >= 0))
    other = neighbours[face, side]
    differs = (labels[other] != labels[face]) & (labels[other] >= 0) & (size[piece[other]] > size[piece[face]])
    if not differs.any():
        return False
    num_photos = int(candidates.photo.max()) + 1
    wanted, edges = np.unique(piece[face[differs]] * num_photos + labels[other[differs]], return_counts=True)
    # How many of a piece's triangles each photo shows.
    member = np.flatnonzero(small)
    key = (piece[member, None] * num_photos + candidates.photo[member])[candidates.photo[member] >= 0]
    shown, shows = np.unique(key, return_counts=True)
    place = np.minimum(np.searchsorted(shown, wanted), max(len(shown) - 1, 0))
    into, photo = wanted // num_photos, wanted % num_photos
    all_shown = (shown[place] == wanted) & (shows[place] == size[into])
    if not all_shown.any():
        return False
    into, photo, edges = into[all_shown], photo[all_shown], edges[all_shown]
    order = np.lexsort((-edges, into))
    into, photo = into[order], photo[order]
    _, first = np.unique(into, return_index=True)
    new = np.full(count, -1, dtype=np.int32)
    new[into[first]] = photo[first]
    labels[:] = np.where(new[piece] >= 0, new[piece], labels)
    return True
