"""Triangle meshes as binary glTF 2.0 (.glb): positions, normals and vertex colours in one buffer.

Written here because Open3D 0.20 writes .glb files with broken buffer views, which its own reader refuses.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_VERTICES, _INDICES = 34962, 34963


def write_glb(
    file: BinaryIO,
    vertices: NDArray[np.float32],
    faces: NDArray[np.uint32],
    colors: NDArray[np.uint8] | None = None,
    normals: NDArray[np.float32] | None = None,
) -> None:
    """Write one mesh: ``vertices`` [V, 3] with y up, ``faces`` [F, 3], ``colors`` [V, 3] sRGB, ``normals`` [V, 3].

    Format: Khronos glTF 2.0 specification, section 4 (GLB). Vertex colours are linear in glTF, so they are converted,
    with 16 bits because 8 linear bits band in the dark.
    """
    views: list[dict[str, int]] = []
    accessors: list[dict[str, Any]] = []
    chunks: list[bytes] = []

    def add(array: NDArray, component: int, kind: str, target: int, **extra: object) -> int:
        offset = sum(len(chunk) for chunk in chunks)
        data = array.tobytes()
        chunks.append(data + b"\0" * (-len(data) % 4))
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": len(data), "target": target})
        count = array.size if kind == "SCALAR" else len(array)
        accessors.append(
            {"bufferView": len(views) - 1, "componentType": component, "count": count, "type": kind, **extra}
        )
        return len(accessors) - 1

    position = np.ascontiguousarray(vertices, dtype="<f4")
    low, high = position.min(axis=0).tolist(), position.max(axis=0).tolist()
    attributes = {"POSITION": add(position, _FLOAT, "VEC3", _VERTICES, min=low, max=high)}
    if normals is not None:
        attributes["NORMAL"] = add(np.ascontiguousarray(normals, dtype="<f4"), _FLOAT, "VEC3", _VERTICES)
    if colors is not None:
        rgba = np.full((len(colors), 4), 65535, dtype="<u2")
        rgba[:, :3] = np.rint(linear_from_srgb(colors / 255.0) * 65535)
        attributes["COLOR_0"] = add(rgba, _UINT16, "VEC4", _VERTICES, normalized=True)
    indices = add(np.ascontiguousarray(faces, dtype="<u4").reshape(-1), _UINT32, "SCALAR", _INDICES)
    binary = b"".join(chunks)
    material = {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}, "doubleSided": True}
    document = {
        "asset": {"version": "2.0", "generator": "vlm3-recon"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [material],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    file.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(binary)))
    file.write(struct.pack("<I4s", len(text), b"JSON") + text)
    file.write(struct.pack("<I4s", len(binary), b"BIN\0") + binary)


def linear_from_srgb(srgb: NDArray) -> NDArray[np.float64]:
    """Linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(linear: NDArray) -> NDArray[np.float64]:
    """sRGB values of linear light in [0, 1] (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0.0) ** (1 / 2.4) - 0.055)
