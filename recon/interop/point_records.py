"""Where the records of COLMAP's ``points3D.bin`` begin, found for 50 million points in seconds and in little memory.

A record is 51 bytes and a track of 8 bytes per observation, so each one's length is known only from itself. The file
is read in windows. In a window many chains of records are followed side by side from guessed places. A guess is
believed only where the chain before it ends exactly there, so the result is that of reading record after record,
whatever the file holds; bad guesses cost time only.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]

RECORD_BYTES = 51  # id u64, xyz 3 f64, rgb 3 u8, error f64, track length u64; then the track
_TRACK_AT, _XYZ_AT, _RGB_AT = 43, 8, 32
_WINDOW_BYTES = 8 << 20
_STRETCH_BYTES = 1 << 15  # between two guesses: about 400 records
_SEARCH_BYTES = 256  # how far behind a guess's place a record is looked for
_HOPS = 6  # plausible records in a row that make a guess
_FEW = 4  # chains left that are followed one by one, which is faster then
_FAR = 1 << 40  # a track that is longer than any file


def read_chosen(path: Path, count: int, chosen: Int64Array) -> NDArray[np.float64]:
    """Position and colour [N, 6] of the ``chosen`` of a file's ``count`` points (rising numbers).

    Raises:
        ValueError: the file ends before its last point.
    """
    parts: list[NDArray[np.float64]] = []
    at, done = 8, 0
    with open(path, "rb", buffering=0) as file:
        while done < count:
            file.seek(at)
            window = np.frombuffer(file.read(_WINDOW_BYTES), np.uint8)
            starts, length = record_starts(window)
            if len(starts) == 0:
                raise ValueError(f"{path.name} is truncated")
            if len(starts) > count - done:
                starts, length = starts[: count - done], int(starts[count - done])
            first, last = np.searchsorted(chosen, [done, done + len(starts)])
            parts.append(_fields(window, starts[chosen[first:last] - done]))
            at, done = at + length, done + len(starts)
    if at > path.stat().st_size:
        raise ValueError(f"{path.name} is truncated")
    return np.concatenate(parts) if parts else np.zeros((0, 6))


def record_starts(window: NDArray[np.uint8]) -> tuple[Int64Array, int]:
    """Offsets [N] of the records whose fixed part lies within ``window`` (a record begins at 0), and where the record
    after the last of them begins, perhaps beyond the window."""
    places = len(window) - RECORD_BYTES + 1
    if places <= 0:
        return np.zeros(0, np.int64), 0
    ids = np.ndarray((places,), "<u8", window, 0, (1,))  # read as if a record began at each byte
    tracks = np.ndarray((places,), "<u8", window, _TRACK_AT, (1,))
    seeds = np.concatenate([[0], _guesses(ids, tracks)]).astype(np.int64)
    table, ends = _follow(tracks, seeds)
    chain = {int(seed): row for row, seed in enumerate(seeds) if ends[row] >= 0}
    parts: list[Int64Array] = []
    at, unpack, content = 0, struct.Struct("<Q").unpack_from, window.data
    while at < places:
        row = chain.get(at)
        if row is not None:
            parts.append(table[row][table[row] >= 0])
            at = int(ends[row])
            continue
        alone = []
        while at < places and at not in chain:
            alone.append(at)
            at += RECORD_BYTES + 8 * unpack(content, at + _TRACK_AT)[0]
        parts.append(np.array(alone, dtype=np.int64))
    return np.concatenate(parts), at


def _follow(tracks: NDArray[np.uint64], seeds: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Records of the chain from each seed up to the next seed ([K, S], -1 behind the last), and where each chain
    leaves its stretch ([K], -1 where it was not followed to its end)."""
    limits = np.append(seeds[1:], len(tracks))
    here, visited = seeds.copy(), []
    while np.count_nonzero(active := here < limits) > _FEW:
        visited.append(np.where(active, here, -1))
        length = np.minimum(tracks[np.minimum(here, len(tracks) - 1)], np.uint64(_FAR)).astype(np.int64)
        here = np.where(active, here + RECORD_BYTES + 8 * length, here)
    table = np.stack(visited, axis=1) if visited else np.zeros((len(seeds), 0), np.int64)
    return table, np.where(here < limits, -1, here)


def _guesses(ids: NDArray[np.uint64], tracks: NDArray[np.uint64]) -> Int64Array:
    """Places about a stretch apart from which several records in a row look like records."""
    spaced = np.arange(_STRETCH_BYTES, len(ids) - _SEARCH_BYTES, _STRETCH_BYTES)
    origin = (spaced[:, None] + np.arange(_SEARCH_BYTES)).reshape(-1)
    candidate, here = np.arange(len(origin)), origin
    for _ in range(_HOPS):
        number, length = ids[here], tracks[here]
        plausible = (number > 0) & (number < 1 << 48) & (length < 1 << 16)
        candidate = candidate[plausible]
        here = here[plausible] + RECORD_BYTES + 8 * length[plausible].astype(np.int64)
        here = np.minimum(here, len(ids) - 1)
    _, first = np.unique(candidate // _SEARCH_BYTES, return_index=True)
    return origin[candidate[first]]


def _fields(window: NDArray[np.uint8], starts: Int64Array) -> NDArray[np.float64]:
    """Position and colour [N, 6] of records."""
    rows = window[starts[:, None] + np.arange(_XYZ_AT, _RGB_AT + 3)]
    position = np.ascontiguousarray(rows[:, : _RGB_AT - _XYZ_AT]).view("<f8")
    return np.concatenate([position, rows[:, _RGB_AT - _XYZ_AT :].astype(np.float64)], axis=1)
