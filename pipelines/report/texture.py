"""A textured mesh for the page's 3D view: its pictures smaller, so that the page stays one that can be mailed."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from pipelines.report.packing import LEVELS, pack, quantised
from recon.interop.textured import joined_corners
from recon.surface.texture.types import TexturedMesh

_MOST_TEXELS = 5_000_000  # of all pages together: about 2 MB
_JPEG_QUALITY = 80


def packed_texture(textured: TexturedMesh) -> dict[str, Any]:
    """The mesh as data for the page's script; triangles are in the order of their pages.

    ``pages`` has for each page its ``picture``, and the ``start`` and ``count`` of its triangles' corners. Normals are
    bytes, 128 for 0.
    """
    mesh = textured.mesh
    order = np.argsort(textured.page, kind="stable")
    # Corners of different pages are never joined: u of page k lies in [2 k, 2 k + 1].
    paged = textured.uv[order] + textured.page[order, None, None] * np.array([2, 0], dtype=np.float32)
    paged = paged.astype(np.float32)
    vertex, uv, faces = joined_corners(mesh.faces[order], paged)
    uv[:, 0] -= 2 * np.floor(uv[:, 0] / 2)
    places, low, size = quantised(np.asarray(mesh.vertices_world_m))
    data: dict[str, Any] = {
        "low": low, "size": size, "position": pack(places[vertex]), "index": pack(faces.astype(np.uint32)),
        "uv": pack(np.rint(np.clip(uv, 0, 1) * LEVELS).astype(np.uint16)),
    }  # fmt: skip
    if mesh.normals is not None:
        data["normal"] = pack((np.rint(np.asarray(mesh.normals)[vertex] * 127) + 128).astype(np.uint8))
    pictures = [Image.open(io.BytesIO(page.tobytes())) for page in textured.pages]
    factor = min(1.0, (_MOST_TEXELS / max(1, sum(picture.width * picture.height for picture in pictures))) ** 0.5)
    counts = np.bincount(textured.page, minlength=len(pictures))
    starts = np.concatenate([[0], np.cumsum(counts)])
    data["pages"] = [
        {"picture": _data_uri(picture, factor), "start": 3 * int(starts[k]), "count": 3 * int(counts[k])}
        for k, picture in enumerate(pictures)
    ]
    return data


def _data_uri(picture: Image.Image, factor: float) -> str:
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    buffer = io.BytesIO()
    with picture:
        picture.convert("RGB").resize(size, Image.Resampling.BOX).save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
