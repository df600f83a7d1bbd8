"""Meshes mapped from a file hold what reading gives; other layouts are read, damaged ones refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recon.errors import BadInputError
from recon.interop.mapped_mesh import map_mesh
from recon.interop.meshes import read_mesh, write_mesh
from recon.surface.mesh import with_normals
from recon.surface.types import Mesh
from tests.interop.toy import wall


@pytest.mark.parametrize("normals", [False, True])
@pytest.mark.parametrize("colours", [False, True])
def test_a_mapped_ply_is_the_mesh(tmp_path: Path, normals: bool, colours: bool) -> None:
    plain = wall()
    colors = np.random.default_rng(0).integers(0, 255, (len(plain.vertices_world_m), 3)).astype(np.uint8)
    mesh = Mesh(plain.vertices_world_m, plain.faces, colors if colours else None)
    path = tmp_path / "m.ply"
    write_mesh(with_normals(mesh) if normals else mesh, path)
    mapped, read = map_mesh(path), read_mesh(path)
    assert mapped.vertices_world_m.base is not None  # a view, nothing was copied
    assert np.array_equal(mapped.vertices_world_m, read.vertices_world_m)
    assert np.array_equal(mapped.faces, read.faces)
    assert (mapped.colors is None) == (read.colors is None)
    assert mapped.colors is None or np.array_equal(mapped.colors, colors)


@pytest.mark.parametrize("suffix", [".obj", ".stl", ".glb"])
def test_other_formats_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    write_mesh(wall(), path)
    assert len(map_mesh(path).faces) == len(wall().faces)


def test_text_and_quads_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.ply"
    rows = ["0 0 0", "1 0 0", "1 1 0", "0 1 0"]
    head = "ply\nformat ascii 1.0\nelement vertex 4\n" + "".join(f"property float {a}\n" for a in "xyz")
    path.write_text(head + "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
                    + "\n".join(rows) + "\n4 0 1 2 3\n")  # fmt: skip
    assert len(map_mesh(path).faces) == 2


def test_damage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.ply"
    write_mesh(wall(), path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadInputError, match=r"m\.ply"):
        map_mesh(path)
    with pytest.raises(BadInputError, match="no such file"):
        map_mesh(tmp_path / "absent.ply")
