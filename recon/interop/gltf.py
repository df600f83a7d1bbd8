"""Triangle meshes as binary glTF 2.0 (.glb): positions, normals, vertex colours or textures in one buffer.

Written here because Open3D 0.20 writes .glb files with broken buffer views, which its own reader refuses.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_VERTICES, _INDICES = 34962, 34963
_MATT = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
_SAMPLER = {"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}  # linear, mipmaps, clamped
_UNLIT = "KHR_materials_unlit"


@dataclass(frozen=True)
class TexturedPart:
    """Triangles of one picture: ``vertices`` and ``normals`` [V, 3] with y up, ``uv`` [V, 2] in parts of the picture
    from its left top corner, ``faces`` [F, 3], ``jpeg`` the picture's file.
    """

    vertices: NDArray[np.float32]
    normals: NDArray[np.float32] | None
    uv: NDArray[np.float32]
    faces: NDArray[np.uint32]
    jpeg: bytes


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
    document = _Document()
    attributes = document.geometry(vertices, normals)
    if colors is not None:
        rgba = np.full((len(colors), 4), 65535, dtype="<u2")
        rgba[:, :3] = np.rint(linear_from_srgb(colors / 255.0) * 65535)
        attributes["COLOR_0"] = document.accessor(rgba, _UINT16, "VEC4", _VERTICES, normalized=True)
    document.primitive(attributes, faces, {"pbrMetallicRoughness": _MATT, "doubleSided": True})
    document.write(file)


def write_textured_glb(file: BinaryIO, parts: Sequence[TexturedPart]) -> None:
    """Write one mesh with a material per part. The light is in the photos already, so materials say to add none
    (KHR_materials_unlit; programs that don't know it light them as matt).
    """
    document = _Document(extensions=(_UNLIT,))
    for part in parts:
        attributes = document.geometry(part.vertices, part.normals)
        attributes["TEXCOORD_0"] = document.accessor(
            np.ascontiguousarray(part.uv, dtype="<f4"), _FLOAT, "VEC2", _VERTICES
        )
        matt = {**_MATT, "baseColorTexture": {"index": document.texture(part.jpeg)}}
        material = {"pbrMetallicRoughness": matt, "doubleSided": True, "extensions": {_UNLIT: {}}}
        document.primitive(attributes, part.faces, material)
    document.write(file)


class _Document:
    """A glTF document with one mesh, and its binary buffer."""

    def __init__(self, extensions: Sequence[str] = ()) -> None:
        self._extensions = list(extensions)
        self._chunks: list[bytes] = []
        self._length = 0
        self._lists: dict[str, list[dict[str, Any]]] = {
            name: [] for name in ("bufferViews", "accessors", "materials", "images", "textures")
        }
        self._primitives: list[dict[str, Any]] = []

    def _add(self, list_name: str, entry: dict[str, Any]) -> int:
        self._lists[list_name].append(entry)
        return len(self._lists[list_name]) - 1

    def _view(self, data: bytes, **extra: object) -> int:
        number = self._add("bufferViews", {"buffer": 0, "byteOffset": self._length, "byteLength": len(data), **extra})
        self._chunks.append(data + b"\0" * (-len(data) % 4))
        self._length += len(self._chunks[-1])
        return number

    def accessor(self, array: NDArray, component: int, kind: str, target: int, **extra: object) -> int:
        view = self._view(array.tobytes(), target=target)
        count = array.size if kind == "SCALAR" else len(array)
        return self._add(
            "accessors", {"bufferView": view, "componentType": component, "count": count, "type": kind, **extra}
        )

    def geometry(self, vertices: NDArray[np.float32], normals: NDArray[np.float32] | None) -> dict[str, int]:
        """Positions and normals as attributes of a primitive."""
        position = np.ascontiguousarray(vertices, dtype="<f4")
        low, high = position.min(axis=0).tolist(), position.max(axis=0).tolist()
        attributes = {"POSITION": self.accessor(position, _FLOAT, "VEC3", _VERTICES, min=low, max=high)}
        if normals is not None:
            normal = np.ascontiguousarray(normals, dtype="<f4")
            attributes["NORMAL"] = self.accessor(normal, _FLOAT, "VEC3", _VERTICES)
        return attributes

    def texture(self, jpeg: bytes) -> int:
        """A picture that is smoothed when small and not repeated beyond its border."""
        image = self._add("images", {"bufferView": self._view(jpeg), "mimeType": "image/jpeg"})
        return self._add("textures", {"source": image, "sampler": 0})

    def primitive(self, attributes: dict[str, int], faces: NDArray[np.uint32], material: dict[str, Any]) -> None:
        indices = self.accessor(np.ascontiguousarray(faces, dtype="<u4").reshape(-1), _UINT32, "SCALAR", _INDICES)
        number = self._add("materials", material)
        self._primitives.append({"attributes": attributes, "indices": indices, "material": number})

    def write(self, file: BinaryIO) -> None:
        document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "vlm3-recon"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": self._primitives}],
            **{name: entries for name, entries in self._lists.items() if entries},
            "buffers": [{"byteLength": self._length}],
        }
        if self._lists["textures"]:
            document["samplers"] = [_SAMPLER]
        if self._extensions:
            document["extensionsUsed"] = self._extensions
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        file.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + self._length))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text)
        file.write(struct.pack("<I4s", self._length, b"BIN\0"))
        for chunk in self._chunks:
            file.write(chunk)


def linear_from_srgb(srgb: NDArray) -> NDArray[np.float64]:
    """Linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(linear: NDArray) -> NDArray[np.float64]:
    """sRGB values of linear light in [0, 1] (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0.0) ** (1 / 2.4) - 0.055)
