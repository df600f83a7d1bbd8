"""COLMAP's ``database.db`` for reading only: which pairs of photos were verified, and by which matches.

Read through SQLite itself, in read-only mode: pycolmap opens a database for writing, and ends the process where a file
is no database. The tables are those of COLMAP's ``src/colmap/scene/database_sqlite.cc``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from recon.errors import BadInputError

_MAX_IMAGE_ID = 2147483647  # a pair's id is id1 * this + id2


@dataclass(frozen=True)
class VerifiedMatches:
    """Matches [N, 2] of a pair that its two-view geometry supports, in pixels of each photo (corner at (0, 0)).

    ``from_checkpoint`` [N]: the match joins keypoints that a checkpoint added behind the SIFT keypoints.
    """

    name1: str
    name2: str
    pixels1: NDArray[np.float32]
    pixels2: NDArray[np.float32]
    from_checkpoint: NDArray[np.bool_]


def verified_pairs(database: Path) -> dict[tuple[str, str], int]:
    """Number of verified matches of every pair that has any, by photo names in image-id order.

    Raises:
        BadInputError: there is no readable database.
    """
    with _opened(database) as connection:
        names = dict(connection.execute("SELECT image_id, name FROM images"))
        rows = connection.execute("SELECT pair_id, rows FROM two_view_geometries WHERE rows > 0 ORDER BY pair_id")
        pairs = {divmod(pair_id, _MAX_IMAGE_ID): count for pair_id, count in rows}
        return {(names[a], names[b]): count for (a, b), count in pairs.items() if a in names and b in names}


def verified_matches(database: Path, name1: str, name2: str) -> VerifiedMatches:
    """The verified matches of one pair, in the order of the names given.

    Raises:
        BadInputError: there is no readable database, no such pair, or its rows are damaged.
    """
    with _opened(database) as connection:
        ids = [
            connection.execute("SELECT image_id FROM images WHERE name = ?", (n,)).fetchone() for n in (name1, name2)
        ]
        if None in ids:
            raise BadInputError(f"{database}: has no photo {(name1, name2)[ids.index(None)]!r}")
        id1, id2 = (row[0] for row in ids)
        pair_id = min(id1, id2) * _MAX_IMAGE_ID + max(id1, id2)
        row = connection.execute("SELECT rows, cols, data FROM two_view_geometries WHERE pair_id = ?", (pair_id,))
        links = _matrix(row.fetchone(), np.uint32, database)[:, :2]
        links = links if id1 < id2 else links[:, ::-1]
        sides, added = [], []
        for image_id, index in ((id1, links[:, 0]), (id2, links[:, 1])):
            found = connection.execute("SELECT rows, cols, data FROM keypoints WHERE image_id = ?", (image_id,))
            keypoints = _matrix(found.fetchone(), np.float32, database)
            if len(index) and int(index.max()) >= len(keypoints):
                raise BadInputError(f"{database}: matches name keypoints that are not there")
            sides.append(keypoints[index, :2])
            described = connection.execute("SELECT rows FROM descriptors WHERE image_id = ?", (image_id,)).fetchone()
            added.append(index >= (described[0] if described is not None else len(keypoints)))
    return VerifiedMatches(name1, name2, sides[0], sides[1], added[0] & added[1])


@contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    if not database.is_file():
        raise BadInputError(f"{database}: no such file")
    connection = sqlite3.connect(f"file:{quote(str(database.absolute()))}?mode=ro", uri=True)
    try:
        yield connection
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise BadInputError(f"{database}: no readable COLMAP database ({error})") from error
    finally:
        connection.close()


def _matrix(row: tuple[int, int, bytes] | None, kind: type[np.generic], database: Path) -> NDArray:
    """A table's matrix [rows, cols]; an absent one has no rows."""
    if row is None or row[0] == 0:
        return np.zeros((0, 2), kind)
    rows, columns, data = row
    if data is None or columns < 2 or len(data) != rows * columns * np.dtype(kind).itemsize:
        raise BadInputError(f"{database}: a row says {rows} x {columns} and holds {len(data or b'')} bytes")
    return np.frombuffer(data, kind).reshape(rows, columns)
