"""Every export is read back by a program that is not ours: pycolmap, Open3D, trimesh, evo, laspy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open3d as o3d
import pycolmap
import pytest
import trimesh
from PIL import Image

from pipelines.export import FOLDERS, WRITERS, export
from pipelines.runs import open_run
from recon.errors import BadInputError
from recon.interop.results import read_result
from recon.interop.undistorted import inner_camera
from recon.types import Camera
from tests.interop.toy import toy, wall
from tests.pipelines.finished_run import LENS, STRAIGHT, make_run

SCENE = toy()


def assert_model(folder: Path, pinhole: bool) -> pycolmap.Reconstruction:
    """pycolmap reads the model; poses are the scene's; its observations are where its cameras see the points."""
    model = pycolmap.Reconstruction(str(folder))
    assert sorted(image.name for image in model.images.values()) == list(SCENE.names)
    for image in model.images.values():
        np.testing.assert_allclose(image.cam_from_world().matrix(), SCENE.by_name[image.name], atol=1e-9)
        if pinhole:
            assert image.camera.model.name == "PINHOLE"
        for point in image.points2D:
            seen = image.camera.img_from_cam(image.cam_from_world() * model.points3D[point.point3D_id].xyz)
            np.testing.assert_allclose(point.xy, seen, atol=1e-3)
    assert len(model.points3D) > 20
    return model


def test_colmap(tmp_path: Path) -> None:
    out, _ = export(open_run(make_run(tmp_path, masks=1)), "colmap")
    assert out == tmp_path / "mesh-colmap"
    assert_model(out / "sparse" / "0", pinhole=False)
    assert sorted(p.name for p in (out / "images").iterdir()) == list(SCENE.names)
    assert (out / "database.db").is_file()
    assert (out / "masks" / f"{SCENE.names[0]}.png").is_file()


@pytest.mark.parametrize("camera", [LENS, STRAIGHT])
def test_undistorted(tmp_path: Path, camera: Camera) -> None:
    out, _ = export(open_run(make_run(tmp_path, camera)), "undistorted")
    model = assert_model(out / "sparse", pinhole=True)
    for image in model.images.values():
        with Image.open(out / "images" / image.name) as picture:
            assert picture.size == (image.camera.width, image.camera.height)
    if camera is STRAIGHT:  # nothing to undo: the photo itself
        name = SCENE.names[0]
        source = tmp_path / "mesh-workspace" / "images" / name
        assert (out / "images" / name).read_bytes() == source.read_bytes()


@pytest.mark.parametrize("k", [-0.2, 0.2])
def test_an_undistorted_image_shows_only_what_the_photo_saw(k: float) -> None:
    lens = Camera("SIMPLE_RADIAL", 640, 480, (500.0, 330.0, 236.0, k), "given")
    flat = inner_camera(lens)
    edge = np.linspace(0, 1, 101)
    x, y = edge * flat.width_px, edge * flat.height_px
    zero, one = np.zeros(101), np.ones(101)
    border = np.concatenate([np.stack(side, 1) for side in (
        (x, zero), (x, one * flat.height_px), (zero, y), (one * flat.width_px, y))])  # fmt: skip
    theirs = pycolmap.Camera(model="SIMPLE_RADIAL", width=640, height=480, params=lens.params)
    fx, fy, cx, cy = flat.fx_fy_cx_cy
    rays = np.column_stack([(border - [cx, cy]) / [fx, fy], np.ones(len(border))])
    seen = theirs.img_from_cam(rays)
    assert (seen > -1e-6).all()
    assert (seen < [640 + 1e-6, 480 + 1e-6]).all()
    slack = np.array([seen[:, 0].min(), 640 - seen[:, 0].max(), seen[:, 1].min(), 480 - seen[:, 1].max()])
    assert slack.max() < 2  # and nothing is given away


def test_splat(tmp_path: Path) -> None:
    out, notes = export(open_run(make_run(tmp_path)), "splat")
    assert_model(out / "sparse" / "0", pinhole=True)
    cloud = trimesh.load(out / "sparse" / "0" / "points3D.ply")
    assert isinstance(cloud, trimesh.PointCloud)
    assert len(cloud.vertices) == len(wall().vertices_world_m)
    assert any("start points, dense" in note for note in notes)
    header = (out / "sparse" / "0" / "points3D.ply").read_bytes()[:400].split(b"end_header")[0].decode()
    names = [line.split()[2] for line in header.splitlines() if line.startswith("property")]
    assert names == ["x", "y", "z", "nx", "ny", "nz", "red", "green", "blue"]


@pytest.mark.parametrize("masks", [0, 2])
def test_nerfstudio(tmp_path: Path, masks: int) -> None:
    out, _ = export(open_run(make_run(tmp_path, masks=masks)), "nerfstudio")
    data = json.loads((out / "transforms.json").read_text())
    assert {"camera_model", "frames", "applied_transform", "ply_file_path"} <= set(data)
    assert data["camera_model"] == "PINHOLE"
    turn = np.array(data["applied_transform"])[:, :3]
    points = np.asarray(o3d.io.read_point_cloud(out / data["ply_file_path"]).points)
    original = points @ turn  # the wall z = 4 of the scene's world
    np.testing.assert_allclose(original[:, 2], 4.0, atol=1e-5)
    frames = data["frames"]
    assert len(frames) == len(SCENE.names)
    assert all(("mask_path" in frame) == (masks > 0) for frame in frames)  # all or none
    for frame in frames:
        size = (frame["w"], frame["h"])
        with Image.open(out / frame["file_path"]) as picture, Image.open(out / frame["depth_file_path"]) as depth:
            assert picture.size == depth.size == size
            millimetres = np.asarray(depth).astype(np.float64)
        assert millimetres.dtype == np.float64
        # depth says where the wall is: unproject with the file's own matrices, OpenGL axes
        row, column = np.nonzero(millimetres)
        assert len(row) > 0.85 * millimetres.size  # the depth map has a narrower view than the photo
        z = millimetres[row, column] / 1000
        camera = np.stack([(column + 0.5 - frame["cx"]) / frame["fl_x"] * z,
                           -(row + 0.5 - frame["cy"]) / frame["fl_y"] * z, -z], axis=1)  # fmt: skip
        matrix = np.array(frame["transform_matrix"])
        world = (camera @ matrix[:3, :3].T + matrix[:3, 3]) @ turn
        assert np.median(np.abs(world[:, 2] - 4.0)) < 0.02  # pixels of 1/50 and depth of the nearest pixel
        if masks:
            with Image.open(out / frame["mask_path"]) as mask:
                assert mask.size == size
                top = np.asarray(mask)[0].max()
            assert (top == 0) == (frame["file_path"].endswith(("00.jpg", "01.jpg")))
    assert sorted(read_result(out).poses) == list(SCENE.names)


@pytest.mark.parametrize("format_", ["glb", "obj", "stl"])
def test_meshes(tmp_path: Path, format_: str) -> None:
    out, _ = export(open_run(make_run(tmp_path)), format_)  # type: ignore[arg-type]
    mesh = trimesh.load(out, force="mesh")
    assert len(mesh.faces) == len(wall().faces)
    low, high = mesh.bounds
    if format_ == "glb":  # y up, and the wall lies in front of the cameras: towards -z
        np.testing.assert_allclose(np.stack([low, high]), np.array([[-3, -3, -4], [3, 3, -3.5]]), atol=1e-6)
    else:
        np.testing.assert_allclose(np.stack([low, high]), np.array([[-3, -3, 3.5], [3, 3, 4]]), atol=1e-6)


def test_ply_of_a_run_that_has_one_already_needs_a_name(tmp_path: Path) -> None:
    opened = open_run(make_run(tmp_path))
    with pytest.raises(BadInputError, match="has this format already"):
        export(opened, "ply")
    out, _ = export(opened, "ply", tmp_path / "again.ply")
    assert len(o3d.io.read_triangle_mesh(out).triangles) == len(wall().faces)


def test_pcd(tmp_path: Path) -> None:
    out, notes = export(open_run(make_run(tmp_path)), "pcd")
    cloud = o3d.io.read_point_cloud(out)
    np.testing.assert_allclose(np.asarray(cloud.points), wall().vertices_world_m, atol=1e-6)
    assert any("vertices" in note for note in notes)


def test_tum(tmp_path: Path) -> None:
    from evo.tools import file_interface

    out, _ = export(open_run(make_run(tmp_path)), "tum")
    trajectory = file_interface.read_tum_trajectory_file(str(out))
    assert trajectory.num_poses == len(SCENE.names)
    assert trajectory.check()[0]
    for matrix, pose in zip(trajectory.poses_se3, SCENE.poses):
        np.testing.assert_allclose(np.linalg.inv(matrix)[:3], pose, atol=1e-7)


def test_laz_lies_at_the_right_place_on_earth(tmp_path: Path) -> None:
    import laspy
    import pyproj

    out, notes = export(open_run(make_run(tmp_path, gps=True)), "laz")
    las = laspy.read(out)
    crs = las.header.parse_crs()
    assert crs.to_epsg() == 32632
    assert any("UTM zone 32N" in note for note in notes)
    to_degrees = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    longitude, latitude = to_degrees.transform(las.x, las.y)
    vertices = wall().vertices_world_m  # x east, y down, z north
    np.testing.assert_allclose((np.asarray(longitude) - 8.5417) * 75_400, vertices[:, 0], atol=0.05)
    np.testing.assert_allclose((np.asarray(latitude) - 47.3769) * 111_194, vertices[:, 2], atol=0.05)
    np.testing.assert_allclose(np.asarray(las.z) - 408, -vertices[:, 1], atol=0.05)
    assert las.red.max() == 128 * 257


def test_laz_without_gps_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="0 photos have GPS, the scale is known; use ply"):
        export(open_run(make_run(tmp_path)), "laz")


def test_what_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    opened = open_run(make_run(tmp_path))
    export(opened, "tum")
    with pytest.raises(BadInputError, match="--overwrite"):
        export(opened, "tum")
    export(opened, "tum", overwrite=True)
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "only_copy.jpg").write_bytes(b"x")
    with pytest.raises(BadInputError, match="no export made"):
        export(opened, "colmap", precious, overwrite=True)
    assert (precious / "only_copy.jpg").exists()
    folder, _ = export(opened, "colmap")
    (folder / "old").write_text("x")
    export(opened, "colmap", overwrite=True)
    assert not (folder / "old").exists()
    for place in (opened.workspace.root, opened.workspace.root / "x", tmp_path):
        with pytest.raises(BadInputError, match="in or around the workspace"):
            export(opened, "colmap", place, overwrite=True)
    with pytest.raises(BadInputError, match=r"ends in \.glb"):
        export(opened, "glb", tmp_path / "x.ply")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]  # nothing half-made is left


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    opened = open_run(make_run(tmp_path))
    (opened.workspace.images / SCENE.names[3]).write_bytes(b"not a photo")
    before = sorted(tmp_path.iterdir())
    for format_ in ("undistorted", "nerfstudio", "splat"):
        with pytest.raises(BadInputError, match=SCENE.names[3]):
            export(opened, format_)
    assert sorted(tmp_path.iterdir()) == before


def test_a_run_without_scale_says_so_and_without_mesh_too(tmp_path: Path) -> None:
    mesh = make_run(tmp_path, metric=False)
    opened = open_run(mesh.with_name("mesh-workspace"))
    assert any("scale is unknown" in note for note in export(opened, "glb")[1])
    mesh.unlink()
    (tmp_path / "mesh.glb").unlink()
    with pytest.raises(BadInputError, match="not there any more"):
        export(open_run(tmp_path / "mesh-workspace"), "obj")


def test_things_that_are_no_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(BadInputError, match="accepted: a workspace"):
            open_run(path)
    make_run(tmp_path)
    (tmp_path / "mesh-workspace" / "stages" / "scale.npz").write_bytes(b"PK damaged")
    with pytest.raises(BadInputError, match=r"scale\.npz: missing or damaged"):
        open_run(tmp_path / "mesh.ply")


def test_every_format_of_the_command_line_has_a_writer() -> None:
    from typing import get_args

    from pipelines.export import Format

    assert set(WRITERS) == set(get_args(Format))
    assert set(FOLDERS) < set(WRITERS)
