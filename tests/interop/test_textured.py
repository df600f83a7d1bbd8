"""Textured files are read by trimesh and Open3D: triangles where they were, with the colours of their places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from recon.errors import BadInputError, OutputError
from recon.interop.meshes import read_mesh
from recon.interop.textured import textured_files, write_textured
from recon.surface.edges import is_closed
from recon.surface.texture.bake import to_jpeg
from recon.surface.texture.types import TexturedMesh
from tests.surface.texture.box import box_mesh

COLORS = np.array(
    [[220, 30, 40], [20, 200, 60]], dtype=np.uint8
)  # of the left and right half of page 0; page 1 is blue
BLUE = np.array([30, 40, 210], dtype=np.uint8)


def painted_box() -> TexturedMesh:
    """A box whose triangles 0..3 lie in the left and 4..7 in the right half of page 0, the others in page 1."""
    mesh = box_mesh()
    first = np.repeat(COLORS, 32, axis=0)[None].repeat(48, axis=0)  # [48, 64, 3]
    second = np.broadcast_to(BLUE, (16, 16, 3))
    uv = np.tile(np.float32([[0.1, 0.2], [0.3, 0.2], [0.1, 0.7]]), (12, 1, 1))
    uv[4:8, :, 0] += 0.55
    page = np.repeat(np.int32([0, 1]), [8, 4])
    return TexturedMesh(mesh, uv, page, (to_jpeg(first.copy()), to_jpeg(second.copy())), 1.0, 1.0, 2)


def check_colors(loaded: trimesh.Scene | trimesh.Trimesh, textured: TexturedMesh, turn: np.ndarray) -> None:
    """Every triangle is there once, where it was, wound as it was, in its colour."""
    vertices = np.asarray(textured.mesh.vertices_world_m) @ turn.T
    wanted = {
        tuple(np.round(vertices[face].mean(axis=0), 5)): number for number, face in enumerate(textured.mesh.faces)
    }
    parts = list(loaded.geometry.values()) if isinstance(loaded, trimesh.Scene) else [loaded]
    assert sum(len(part.faces) for part in parts) == 12
    for part in parts:
        uv = part.visual.uv[part.faces].mean(axis=1)
        material = part.visual.material
        image = getattr(material, "baseColorTexture", None) or material.image
        picture = np.asarray(image.convert("RGB"))
        for face, centre, (u, v) in zip(part.faces, part.triangles_center, uv):
            number = wanted.pop(tuple(np.round(centre, 5)))
            expected = COLORS[number // 4] if number < 8 else BLUE
            row, column = int((1 - v) * picture.shape[0]), int(u * picture.shape[1])  # trimesh counts v from below
            assert np.abs(picture[row, column].astype(int) - expected).max() < 25
            corners = part.vertices[face]
            normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
            assert normal @ (turn @ textured.mesh.vertices_world_m[textured.mesh.faces[number]].mean(axis=0)) > 0
    assert not wanted


@pytest.mark.parametrize(("axes", "turn"), [
    ("opencv", np.diag([1.0, -1.0, -1.0])), ("enu", np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])),
])  # fmt: skip
def test_glb(tmp_path: Path, axes: str, turn: np.ndarray) -> None:
    textured = painted_box()
    assert write_textured(textured, tmp_path / "box.glb", axes) == [tmp_path / "box.glb"]  # type: ignore[arg-type]
    check_colors(trimesh.load(tmp_path / "box.glb"), textured, turn)
    again = read_mesh(tmp_path / "box.glb", axes)  # type: ignore[arg-type]
    assert len(again.faces) == 12
    np.testing.assert_allclose(np.sort(again.vertices_world_m[again.faces].mean(axis=1), axis=0),
                               np.sort(textured.mesh.vertices_world_m[textured.mesh.faces].mean(axis=1), axis=0),
                               atol=1e-6)  # fmt: skip


@pytest.mark.parametrize("name", ["box.obj", "a box.OBJ"])
def test_obj_with_its_materials_and_pictures(tmp_path: Path, name: str) -> None:
    textured = painted_box()
    files = write_textured(textured, tmp_path / name)
    stem = name[:-4]
    assert files == textured_files(tmp_path / name, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [name, f"{stem}.mtl", f"{stem}.texture0.jpg", f"{stem}.texture1.jpg"]
    )
    assert f"mtllib {stem}.mtl" in (tmp_path / name).read_text()
    assert f"map_Kd {stem}.texture1.jpg" in (tmp_path / f"{stem}.mtl").read_text()
    check_colors(trimesh.load(tmp_path / name, file_type="obj"), textured, np.eye(3))
    corners = [line.split()[1:] for line in (tmp_path / name).read_text().splitlines() if line.startswith("f ")]
    assert is_closed(np.array([[int(corner.split("/")[0]) - 1 for corner in face] for face in corners], np.int32))


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"mesh\.ply: format '\.ply' can't hold a texture; accepted: \.glb \.obj"):
        write_textured(painted_box(), tmp_path / "mesh.ply")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="box"):
        write_textured(painted_box(), tmp_path / "file" / "box.glb")
    (tmp_path / "box.texture1.jpg").mkdir()  # the second picture can't be written: no .obj without it
    with pytest.raises(OutputError, match=r"box\.obj"):
        write_textured(painted_box(), tmp_path / "box.obj")
    assert not (tmp_path / "box.obj").exists()
    assert not list(tmp_path.glob(".writing-*"))
