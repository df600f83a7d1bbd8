"""Arrays of numbers as short text for the page; ``assets/viewer.js`` unpacks them.

Rows differ little from one to the next, so their differences are stored (wrapping around), the lowest bytes of all
numbers first, then the next ones: that is what deflate shortens well.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = 65535  # of a coordinate


def pack(array: NDArray[np.unsignedinteger]) -> dict[str, Any]:
    """Unsigned integers [rows, columns] of 1, 2 or 4 bytes as JSON data."""
    rows, columns = array.shape
    size = array.dtype.itemsize
    difference = array.astype(array.dtype.newbyteorder("<"))
    difference[1:] -= array[:-1]
    planes = np.frombuffer(difference.tobytes(), np.uint8).reshape(-1, size).T
    text = base64.b64encode(zlib.compress(np.ascontiguousarray(planes).tobytes(), 6)).decode("ascii")
    return {"rows": rows, "columns": columns, "bytes": size, "data": text}


def unpack(packed: dict[str, Any]) -> NDArray[np.unsignedinteger]:
    """The inverse of :func:`pack`."""
    rows, columns, size = packed["rows"], packed["columns"], packed["bytes"]
    planes = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), np.uint8).reshape(size, -1)
    difference = np.frombuffer(np.ascontiguousarray(planes.T).tobytes(), f"<u{size}").reshape(rows, columns)
    return np.cumsum(difference, axis=0, dtype=difference.dtype)


def quantised(points: NDArray[np.floating]) -> tuple[NDArray[np.uint16], list[float], float]:
    """Points [N, 3] as 16-bit numbers q, with ``low`` and ``size``: a point is ``low + size * q / 65535``."""
    low = points.min(axis=0).astype(np.float64)
    size = float((points.max(axis=0) - low).max()) or 1.0
    return np.rint((points - low) / size * LEVELS).astype(np.uint16), low.tolist(), size
