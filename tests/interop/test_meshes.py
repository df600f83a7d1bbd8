"""Meshes and clouds come back from their files as they went in, and bad paths are refused before any work."""

import json
import os
import struct

import numpy as np
import pytest

from recon.errors import BadInputError, OutputError
from recon.interop.gltf import linear_from_srgb, srgb_from_linear
from recon.interop.meshes import (
    CLOUD_FORMATS,
    MESH_FORMATS,
    check_mesh_path,
    read_cloud,
    read_mesh,
    write_cloud,
    write_mesh,
)
from recon.surface.types import Mesh, PointCloud


def wavy_sheet(side: int = 12) -> Mesh:
    """A bent sheet, no symmetry, so that swapped or mirrored axes are seen."""
    u, v = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 2, side))
    vertices = np.stack([u, v, 3 + 0.3 * np.sin(3 * u) + 0.1 * v**2], axis=-1).reshape(-1, 3)
    index = np.arange(side * side).reshape(side, side)
    a, b, c, d = index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, :-1].ravel(), index[1:, 1:].ravel()
    faces = np.concatenate([np.stack([a, c, b], -1), np.stack([b, c, d], -1)]).astype(np.int32)
    colors = np.random.default_rng(0).integers(0, 256, (side * side, 3)).astype(np.uint8)
    normals = np.tile([0.0, 0.6, -0.8], (side * side, 1)).astype(np.float32)
    return Mesh(vertices, faces, colors, normals)


def by_position(mesh: Mesh) -> np.ndarray:
    return np.lexsort(np.round(mesh.vertices_world_m, 4).T)


def sorted_triangles(mesh: Mesh) -> np.ndarray:
    """Triangles as corner coordinates, each turned to begin with its smallest corner: same set and same winding."""
    corners = np.round(np.asarray(mesh.vertices_world_m)[mesh.faces], 4) + 0.0  # [F, 3, 3]
    turned = []
    for triangle in corners:
        first = min(range(3), key=lambda k: tuple(triangle[k]))
        turned.append(np.roll(triangle, -first, axis=0).ravel())
    return np.array(sorted(turned, key=tuple))


@pytest.mark.parametrize("suffix", MESH_FORMATS)
def test_meshes_come_back_from_every_format(tmp_path, suffix):
    mesh = wavy_sheet()
    path = tmp_path / f"mesh{suffix}"
    write_mesh(mesh, path)
    found = read_mesh(path)
    assert len(found.vertices_world_m) == len(mesh.vertices_world_m)
    np.testing.assert_allclose(sorted_triangles(found), sorted_triangles(mesh), atol=2e-4)
    if suffix == ".stl":
        return  # the format has no colours
    given, back = by_position(mesh), by_position(found)
    assert np.abs(found.colors[back].astype(int) - mesh.colors[given].astype(int)).max() <= 1
    np.testing.assert_allclose(found.normals[back], mesh.normals[given], atol=1e-3)


@pytest.mark.parametrize("suffix", MESH_FORMATS)
def test_meshes_without_colours_and_normals_are_written_too(tmp_path, suffix):
    plain = Mesh(wavy_sheet().vertices_world_m, wavy_sheet().faces)
    write_mesh(plain, tmp_path / f"mesh{suffix}")
    found = read_mesh(tmp_path / f"mesh{suffix}")
    assert found.colors is None
    assert len(found.faces) == len(plain.faces)


def gltf_positions(path) -> np.ndarray:
    """Positions in a .glb file, read by the specification alone."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    json_length = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + json_length])
    view = document["bufferViews"][document["accessors"][0]["bufferView"]]
    start = 20 + json_length + 8 + view["byteOffset"]
    assert document["buffers"][0]["byteLength"] == len(data) - (20 + json_length + 8)
    return np.frombuffer(data[start : start + view["byteLength"]], dtype="<f4").reshape(-1, 3)


def test_glb_is_y_up_and_metric(tmp_path):
    mesh = wavy_sheet()
    write_mesh(mesh, tmp_path / "mesh.glb")
    np.testing.assert_allclose(
        gltf_positions(tmp_path / "mesh.glb"), mesh.vertices_world_m * [1, -1, -1], atol=1e-6
    )  # y down becomes y up, z forward becomes z towards the viewer: a turn, not a mirror
    write_mesh(mesh, tmp_path / "enu.glb", world_axes="enu")
    east, north, up = mesh.vertices_world_m.T
    np.testing.assert_allclose(gltf_positions(tmp_path / "enu.glb"), np.stack([east, up, -north], -1), atol=1e-6)
    assert np.allclose(sorted_triangles(read_mesh(tmp_path / "enu.glb", "enu")), sorted_triangles(mesh), atol=2e-4)


@pytest.mark.parametrize("suffix", CLOUD_FORMATS)
def test_clouds_come_back_from_every_format(tmp_path, suffix):
    sheet = wavy_sheet()
    cloud = PointCloud(sheet.vertices_world_m, sheet.colors, sheet.normals)
    write_cloud(cloud, tmp_path / f"cloud{suffix}")
    found = read_cloud(tmp_path / f"cloud{suffix}")
    np.testing.assert_allclose(found.points_world_m, cloud.points_world_m, atol=1e-6)
    assert np.abs(found.colors.astype(int) - cloud.colors.astype(int)).max() <= 1
    np.testing.assert_allclose(found.normals, cloud.normals, atol=1e-6)


def test_unknown_formats_are_refused_with_the_accepted_ones(tmp_path):
    with pytest.raises(BadInputError, match=r"'\.fbx' can't hold a mesh; accepted: \.ply \.obj \.stl \.glb"):
        check_mesh_path(tmp_path / "mesh.fbx")
    with pytest.raises(BadInputError, match=r"'\.glb' can't hold a cloud; accepted: \.ply \.pcd"):
        check_mesh_path(tmp_path / "cloud.glb", "cloud")
    with pytest.raises(BadInputError, match="without a format"):
        check_mesh_path(tmp_path / "mesh")
    (tmp_path / "folder.ply").mkdir()
    with pytest.raises(BadInputError, match="is a folder"):
        check_mesh_path(tmp_path / "folder.ply")
    check_mesh_path(tmp_path / "MESH.PLY")


def test_an_existing_result_survives_a_failed_write(tmp_path, monkeypatch):
    path = tmp_path / "mesh.ply"
    write_mesh(wavy_sheet(), path)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        write_mesh(wavy_sheet(5), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["mesh.ply"]


def test_written_files_are_readable_by_others_as_the_umask_says(tmp_path):
    write_mesh(wavy_sheet(), tmp_path / "mesh.ply")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "mesh.ply").stat().st_mode & 0o777 == 0o666 & ~mask


def test_empty_results_are_not_written(tmp_path):
    with pytest.raises(OutputError, match="empty"):
        write_mesh(Mesh(np.empty((0, 3)), np.empty((0, 3), np.int32)), tmp_path / "mesh.ply")
    with pytest.raises(OutputError, match="empty"):
        write_cloud(PointCloud(np.empty((0, 3))), tmp_path / "cloud.ply")
    assert list(tmp_path.iterdir()) == []


def test_missing_damaged_and_pointless_files_are_refused(tmp_path):
    with pytest.raises(BadInputError, match="no such file"):
        read_mesh(tmp_path / "none.ply")
    (tmp_path / "text.ply").write_text("hello")
    with pytest.raises(BadInputError, match="not a PLY file"):
        read_mesh(tmp_path / "text.ply")
    with pytest.raises(BadInputError, match="holds no points"):
        read_cloud(tmp_path / "text.ply")
    write_cloud(PointCloud(np.eye(3)), tmp_path / "cloud.ply")
    with pytest.raises(BadInputError, match="holds no triangles"):
        read_mesh(tmp_path / "cloud.ply")


def test_srgb_conversion_goes_there_and_back():
    values = np.arange(256) / 255
    np.testing.assert_allclose(srgb_from_linear(linear_from_srgb(values)), values, atol=1e-12)
    assert linear_from_srgb(np.array(0.5)) == pytest.approx(0.21404, abs=1e-5)  # the standard's mid grey
