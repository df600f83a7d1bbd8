"""Textured meshes as files: GLB with everything in it, or OBJ with its materials and pictures beside it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.errors import BadInputError, OutputError
from recon.interop.gltf import TexturedPart, write_textured_glb
from recon.interop.meshes import GLTF_FROM_WORLD, WorldAxes
from recon.interop.replacing import replacing
from recon.surface.texture.types import TexturedMesh

TEXTURED_FORMATS = (".glb", ".obj")


def check_textured_path(path: Path, option: str = "") -> None:
    """Raises BadInputError, its message beginning with ``option``, where ``path`` can't hold a textured mesh."""
    if path.suffix.lower() not in TEXTURED_FORMATS:
        raise BadInputError(
            f"{option}{path}: format {path.suffix!r} can't hold a texture; accepted: {' '.join(TEXTURED_FORMATS)}"
        )


def textured_files(path: Path, num_pages: int) -> list[Path]:
    """All files that make up the textured mesh ``path``, itself first."""
    if path.suffix.lower() == ".glb":
        return [path]
    pictures = [path.with_name(f"{path.stem}.texture{number}.jpg") for number in range(num_pages)]
    return [path, path.with_name(f"{path.stem}.mtl"), *pictures]


def write_textured(textured: TexturedMesh, path: Path, world_axes: WorldAxes = "opencv") -> list[Path]:
    """Write a textured mesh (.glb .obj), the file ``path`` last; returns all files. ``world_axes`` matters to GLB only.

    An OBJ keeps the vertices that triangles share; a GLB has them once for every place in a picture.

    Raises:
        BadInputError: unknown file format.
        OutputError: a file can't be written.
    """
    check_textured_path(path)
    files = textured_files(path, len(textured.pages))
    if path.suffix.lower() == ".glb":
        parts = split_pages(textured, GLTF_FROM_WORLD[world_axes])
        with replacing(path) as temporary, temporary.open("wb") as file:
            write_textured_glb(file, parts)
        return files
    try:
        for page, picture in zip(textured.pages, files[2:], strict=True):
            with replacing(picture) as temporary:
                temporary.write_bytes(page.tobytes())
        with replacing(files[1]) as temporary, temporary.open("wb") as file:
            file.writelines(_materials(picture.name for picture in files[2:]))
    except OutputError as error:
        raise OutputError(f"{path}: what belongs to it is missing: {error}") from error
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.writelines(_obj(textured, files[1].name))
    return files


def split_pages(textured: TexturedMesh, turn: NDArray[np.float64]) -> list[TexturedPart]:
    """The triangles of each page with vertices of their own, one for every place in it; turned by ``turn`` [3, 3]."""
    mesh = textured.mesh
    vertices = (np.asarray(mesh.vertices_world_m) @ turn.T).astype(np.float32)
    normals = None if mesh.normals is None else (np.asarray(mesh.normals) @ turn.T).astype(np.float32)
    parts = []
    for number, page in enumerate(textured.pages):
        here = textured.page == number
        vertex, uv, faces = joined_corners(mesh.faces[here], textured.uv[here])
        own = None if normals is None else normals[vertex]
        parts.append(TexturedPart(vertices[vertex], own, uv, faces.astype(np.uint32), page.tobytes()))
    return parts


def joined_corners(
    faces: NDArray[np.int32], uv: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Vertex [N] and place [N, 2] of every different corner of triangles [F, 3] with places [F, 3, 2]; triangles of
    these [F, 3].
    """
    corner = np.zeros(faces.size, dtype=[("vertex", np.int64), ("u", np.float32), ("v", np.float32)])
    corner["vertex"], corner["u"], corner["v"] = faces.ravel(), uv[..., 0].ravel(), uv[..., 1].ravel()
    order = np.lexsort((corner["v"], corner["u"], corner["vertex"]))
    ordered = corner[order]
    new = np.ones(len(ordered), dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    row = np.empty(len(ordered), dtype=np.int64)
    row[order] = np.cumsum(new) - 1
    unique = ordered[new]
    return unique["vertex"], np.stack([unique["u"], unique["v"]], axis=1), row.reshape(-1, 3)


def _materials(pictures: Iterable[str]) -> Iterable[bytes]:
    for number, picture in enumerate(pictures):
        yield f"newmtl page{number}\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 0\nmap_Kd {picture}\n\n".encode()


def _obj(textured: TexturedMesh, materials: str) -> Iterable[bytes]:
    """The lines of an OBJ file. Its v counts from the lower border of a picture."""
    mesh = textured.mesh
    yield f"mtllib {materials}\no mesh\n".encode()
    yield _lines("v %.9g %.9g %.9g\n", np.asarray(mesh.vertices_world_m, dtype=np.float64))
    if mesh.normals is not None:
        yield _lines("vn %.4f %.4f %.4f\n", np.asarray(mesh.normals, dtype=np.float64))
    first = 1
    for number in range(len(textured.pages)):
        here = textured.page == number
        faces = mesh.faces[here].astype(np.int64) + 1
        _, uv, rows = joined_corners(mesh.faces[here], textured.uv[here])
        yield _lines("vt %.7f %.7f\n", np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1).astype(np.float64))
        yield f"usemtl page{number}\n".encode()
        place = rows + first
        columns = [faces, place] if mesh.normals is None else [faces, place, faces]
        corner = "/".join(["%d"] * len(columns))
        yield _lines(f"f {corner} {corner} {corner}\n", np.stack(columns, axis=2).reshape(len(faces), -1))
        first += len(uv)


def _lines(form: str, rows: NDArray) -> bytes:
    return "".join(form % tuple(row) for row in rows.tolist()).encode()
