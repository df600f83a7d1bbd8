"""Results of every tool are recognised and read with exactly the poses, cameras, depth and points they hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from recon.errors import BadInputError
from recon.interop.meshes import write_cloud, write_mesh
from recon.interop.nerfstudio import Frame, write_transforms
from recon.interop.result import match_names
from recon.interop.results import read_result
from recon.surface.types import PointCloud
from tests.interop.toy import (
    CAMERA,
    HEIGHT,
    WIDTH,
    colmap_model,
    toy,
    wall,
    write_da3,
    write_photos,
    write_truth,
    write_vggt,
)

SCENE = toy()


def assert_poses(result, atol: float = 1e-6) -> None:
    assert sorted(result.poses) == list(SCENE.names)
    for name, pose in SCENE.by_name.items():
        np.testing.assert_allclose(result.poses[name], pose, atol=atol)


def assert_on_wall(points: np.ndarray, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(points[:, 2], 4.0, atol=atol)


def test_vggt_predictions(tmp_path: Path) -> None:
    write_photos(tmp_path, SCENE)
    write_vggt(tmp_path / "predictions.npz", SCENE)
    result = read_result(tmp_path)
    assert result.kind == "VGGT predictions"
    assert result.has_names
    assert_poses(result)
    assert result.cameras[SCENE.names[0]].params == pytest.approx(CAMERA.params)
    assert result.load_depth is not None
    for name in (SCENE.names[1], SCENE.names[4], SCENE.names[0]):  # also backwards
        depth_map = result.load_depth(name)
        np.testing.assert_allclose(depth_map.depth_m, SCENE.depth[SCENE.names.index(name)])
    assert result.surface is not None
    cloud = result.surface.load(600, 0)
    assert isinstance(cloud, PointCloud)
    assert len(cloud.points_world_m) == 600
    assert_on_wall(np.asarray(cloud.points_world_m))


def test_a_tool_without_photo_names_says_so(tmp_path: Path) -> None:
    write_vggt(tmp_path / "predictions.npz", SCENE)
    result = read_result(tmp_path / "predictions.npz")
    assert not result.has_names
    assert len(result.poses) == len(SCENE.names)
    assert any("no photo names" in note for note in result.notes)


@pytest.mark.parametrize("keys", [("extrinsics", "intrinsics"), ("exts", "ixts")])
@pytest.mark.parametrize("file", ["exports/npz/results.npz", "exports/mini_npz/results.npz", "results.npz"])
def test_depth_anything_3(tmp_path: Path, file: str, keys: tuple[str, str]) -> None:
    write_photos(tmp_path, SCENE)
    write_da3(tmp_path / file, SCENE, keys)
    result = read_result(tmp_path)
    assert result.kind == "Depth-Anything-3"
    assert_poses(result)
    assert result.load_depth is not None
    np.testing.assert_allclose(result.load_depth(SCENE.names[3]).depth_m, SCENE.depth[3], atol=1e-6)
    assert result.surface is not None
    assert_on_wall(np.asarray(result.surface.load(300, 0).points_world_m))  # type: ignore[union-attr]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("place", ["", "sparse", "sparse/0"])
def test_colmap_model(tmp_path: Path, binary: bool, place: str) -> None:
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    model = colmap_model(SCENE)
    model.write_binary(folder) if binary else model.write_text(folder)
    result = read_result(tmp_path)
    assert result.kind == "COLMAP model"
    assert_poses(result)
    assert result.cameras[SCENE.names[2]].params == CAMERA.params
    assert result.surface is not None
    assert result.surface.points == 3
    assert_on_wall(np.asarray(result.surface.load(2, 0).points_world_m))  # type: ignore[union-attr]


@pytest.mark.parametrize("binary", [True, False])
def test_colmap_model_with_a_rig_of_two_cameras(tmp_path: Path, binary: bool) -> None:
    model = pycolmap.Reconstruction()
    side = pycolmap.Rigid3d(pycolmap.Rotation3d(Rotation.from_rotvec([0.0, 0.4, 0.1]).as_quat()), [0.3, 0.0, 0.02])
    rig = pycolmap.Rig(rig_id=1)
    for camera_id in (1, 2):
        camera = pycolmap.Camera(model="PINHOLE", width=WIDTH, height=HEIGHT, params=CAMERA.params, camera_id=camera_id)
        model.add_camera(camera)
        rig.add_ref_sensor(camera.sensor_id) if camera_id == 1 else rig.add_sensor(camera.sensor_id, side)
    model.add_rig(rig)
    for k, pose in enumerate(SCENE.poses[:3]):
        frame = pycolmap.Frame(frame_id=k + 1, rig_id=1)
        images = [
            pycolmap.Image(name=f"cam{c}/{k}.jpg", camera_id=c, image_id=2 * k + c, keypoints=np.zeros((0, 2)))
            for c in (1, 2)
        ]
        for image in images:
            frame.add_data_id(image.data_id)
        frame.rig_from_world = pycolmap.Rigid3d(pose)
        model.add_frame(frame)
        for image in images:
            image.frame_id = k + 1
            model.add_image(image)
        model.register_frame(k + 1)
    model.write_binary(tmp_path) if binary else model.write_text(tmp_path)
    result = read_result(tmp_path)
    assert len(result.poses) == 6
    for image in model.images.values():
        np.testing.assert_allclose(result.poses[image.name], image.cam_from_world().matrix(), atol=1e-9)


def test_vggt_colmap_export_prefers_the_adjusted_points(tmp_path: Path) -> None:
    (tmp_path / "sparse").mkdir()
    colmap_model(SCENE).write_binary(tmp_path / "sparse")
    write_cloud(PointCloud(np.full((5, 3), 9.0)), tmp_path / "sparse" / "points.ply")
    result = read_result(tmp_path)
    assert result.kind == "feed-forward COLMAP export"
    assert any("centre" in note for note in result.notes)
    assert result.surface is not None
    assert_on_wall(np.asarray(result.surface.load(10, 0).points_world_m))  # type: ignore[union-attr]
    (tmp_path / "sparse" / "points3D.bin").write_bytes(bytes(8))  # feed-forward runs may have none
    result = read_result(tmp_path)
    assert result.surface is not None
    assert len(result.surface.load(10, 0).points_world_m) == 5  # type: ignore[union-attr]


def own_cameras(scale: float, shift: float) -> pycolmap.Reconstruction:
    """The scene with a camera and a rig per photo, for images ``scale`` times as large, as the exporters write it."""
    model = pycolmap.Reconstruction()
    fx, fy, cx, cy = (scale * value for value in CAMERA.fx_fy_cx_cy)
    size = {"width": round(scale * WIDTH), "height": round(scale * HEIGHT)}
    for i, (name, pose) in enumerate(SCENE.by_name.items(), start=1):
        params = [fx, fy, cx + shift, cy - shift]
        model.add_camera_with_trivial_rig(pycolmap.Camera(model="PINHOLE", params=params, camera_id=i, **size))
        image = pycolmap.Image(name=name, keypoints=np.zeros((1, 2)), camera_id=i, image_id=i)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
    track = pycolmap.Track([pycolmap.TrackElement(i + 1, 0) for i in range(len(SCENE.names))])
    model.add_point3D(np.array([0.0, 0.0, 4.0]), track, np.array([1, 2, 3], np.uint8))
    return model


def test_mapanything_colmap_export(tmp_path: Path) -> None:
    """``sparse/`` and ``sparse/points.ply`` with the cameras of the processed photos in ``images/``."""
    write_photos(tmp_path, SCENE)
    (tmp_path / "sparse").mkdir()
    own_cameras(0.5, shift=1.5).write_binary(tmp_path / "sparse")
    write_cloud(PointCloud(np.full((5, 3), 9.0)), tmp_path / "sparse" / "points.ply")
    result = read_result(tmp_path)
    assert result.kind == "feed-forward COLMAP export"
    assert_poses(result)
    assert result.cameras[SCENE.names[3]].params == pytest.approx((25.0, 25.5, 15.5, 9.0))
    assert not any("centre" in note for note in result.notes)  # its principal points are estimates
    assert result.surface is not None
    assert_on_wall(np.asarray(result.surface.load(10, 0).points_world_m))  # type: ignore[union-attr]


def test_depth_anything_3_colmap_export(tmp_path: Path) -> None:
    """Binary and text files in one folder, cameras of the photos as they were given to it."""
    model = own_cameras(2.0, shift=0.0)
    model.write_binary(tmp_path)
    model.write_text(tmp_path)
    result = read_result(tmp_path)
    assert result.kind == "COLMAP model"
    assert_poses(result)
    assert (result.cameras[SCENE.names[0]].width_px, result.cameras[SCENE.names[0]].height_px) == (112, 84)
    assert result.surface is not None
    assert result.surface.points == 1


def test_fused_cloud_beside_a_colmap_model(tmp_path: Path) -> None:
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    colmap_model(SCENE).write_binary(tmp_path / "sparse" / "0")
    (tmp_path / "dense").mkdir()
    normals = np.tile([0.0, 0.0, -1.0], (7, 1))
    write_cloud(PointCloud(np.full((7, 3), 4.0), normals=normals), tmp_path / "dense" / "fused.ply")
    result = read_result(tmp_path)
    assert result.surface is not None
    cloud = result.surface.load(100, 0)
    assert isinstance(cloud, PointCloud)
    np.testing.assert_allclose(cloud.points_world_m, 4.0)
    assert cloud.normals is not None
    np.testing.assert_allclose(cloud.normals, normals)


def test_colmap_depth_maps(tmp_path: Path) -> None:
    (tmp_path / "sparse").mkdir()
    colmap_model(SCENE).write_binary(tmp_path / "sparse")
    maps = tmp_path / "stereo" / "depth_maps"
    maps.mkdir(parents=True)
    for k, step in ((0, "photometric"), (1, "photometric"), (1, "geometric")):
        # as COLMAP's own script writes it: Fortran order of [width, height]
        values = SCENE.depth[k] + (100 if (k, step) == (1, "photometric") else 0)
        data = f"{WIDTH}&{HEIGHT}&1&".encode() + values.T.reshape(-1, order="F").astype("<f4").tobytes()
        (maps / f"{SCENE.names[k]}.{step}.bin").write_bytes(data)
    result = read_result(tmp_path)
    assert result.depth_names == SCENE.names[:2]
    assert result.load_depth is not None
    for k in (0, 1):  # the geometric map where there is one
        np.testing.assert_array_equal(result.load_depth(SCENE.names[k]).depth_m, SCENE.depth[k])
    for damaged in (b"", b"56&42&1&1234", b"9&9&9&" + bytes(9), b"x&y&z&"):
        (maps / f"{SCENE.names[0]}.photometric.bin").write_bytes(damaged)
        with pytest.raises(BadInputError, match="not a COLMAP depth map"):
            result.load_depth(SCENE.names[0])


@pytest.mark.parametrize("world_up", ["-y", "z"])
def test_nerfstudio_transforms(tmp_path: Path, world_up: str) -> None:
    frames = [Frame(f"images/{name}", CAMERA, pose) for name, pose in SCENE.by_name.items()]
    write_transforms(tmp_path / "transforms.json", frames, world_up)
    result = read_result(tmp_path)
    assert result.kind == "nerfstudio transforms"
    assert_poses(result)
    assert result.cameras[SCENE.names[0]].params == CAMERA.params
    data = json.loads((tmp_path / "transforms.json").read_text())
    first = np.array(data["frames"][0]["transform_matrix"])
    # by hand: the camera looks along world z; OpenGL cameras look along -z, and y is up
    looking, up = -first[:3, 2], first[:3, 1]
    expected = SCENE.poses[0][2, :3], -SCENE.poses[0][1, :3]
    if world_up == "-y":  # (x, y, z) of a world with y down becomes (x, z, -y)
        expected = tuple(np.array([v[0], v[2], -v[1]]) for v in expected)  # type: ignore[assignment]
    np.testing.assert_allclose(looking, expected[0], atol=1e-12)
    np.testing.assert_allclose(up, expected[1], atol=1e-12)


def test_nerfstudio_scaled_world_is_undone(tmp_path: Path) -> None:
    frames = [Frame(f"images/{name}", CAMERA, pose) for name, pose in SCENE.by_name.items()]
    write_transforms(tmp_path / "transforms.json", frames)
    data = json.loads((tmp_path / "transforms.json").read_text())
    data["applied_transform"] = (np.array(data["applied_transform"]) * 0.25).tolist()
    for frame in data["frames"]:
        matrix = np.array(frame["transform_matrix"])
        matrix[:3, 3] *= 0.25
        frame["transform_matrix"] = matrix.tolist()
    (tmp_path / "transforms.json").write_text(json.dumps(data))
    assert_poses(read_result(tmp_path / "transforms.json"))


def test_ground_truth_folder(tmp_path: Path) -> None:
    write_truth(tmp_path, SCENE)
    write_mesh(wall(), tmp_path / "gt" / "mesh.ply")
    result = read_result(tmp_path)
    assert result.kind == "ground truth"
    assert result.metric
    assert_poses(result, 1e-12)
    assert result.cameras[SCENE.names[0]].params == CAMERA.params  # half a pixel more than in the file
    assert result.load_depth is not None
    np.testing.assert_allclose(result.load_depth(SCENE.names[2]).depth_m, SCENE.depth[2], atol=6e-4)
    assert result.surface is not None


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb", ".stl"])
def test_meshes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"wall{suffix}"
    write_mesh(wall(), path)
    result = read_result(path)
    assert result.kind == "mesh"
    assert result.surface is not None
    mesh = result.surface.load(10, 0)
    assert not isinstance(mesh, PointCloud)
    assert len(mesh.faces) == len(wall().faces)


def test_large_cloud_is_sampled_over_the_whole_file(tmp_path: Path) -> None:
    points = np.stack([np.arange(50_000.0)] * 3, axis=1)
    write_cloud(PointCloud(points), tmp_path / "line.ply")
    result = read_result(tmp_path / "line.ply")
    assert result.surface is not None
    assert result.surface.points == 50_000
    drawn = np.asarray(result.surface.load(500, 3).points_world_m)[:, 0]  # type: ignore[union-attr]
    assert len(drawn) == 500
    assert len(set(drawn)) == 500
    assert set(np.floor(drawn / 100)) == set(range(500))  # one of each hundred


def test_ascii_and_big_endian_clouds(tmp_path: Path) -> None:
    head = "ply\nformat {} 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    (tmp_path / "a.ply").write_text(head.format("ascii") + "1 2 3\n4 5 6\n")
    values = np.array([[1, 2, 3], [4, 5, 6]], ">f4").tobytes()
    (tmp_path / "b.ply").write_bytes(head.format("binary_big_endian").encode() + values)
    for name in ("a.ply", "b.ply"):
        surface = read_result(tmp_path / name).surface
        assert surface is not None
        np.testing.assert_allclose(surface.load(9, 0).points_world_m, [[1, 2, 3], [4, 5, 6]])  # type: ignore[union-attr]


def test_clouds_in_mesh_formats(tmp_path: Path) -> None:
    import trimesh

    points = np.random.default_rng(0).normal(size=(40, 3))
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.PointCloud(points), transform=trimesh.transformations.translation_matrix([1, 2, 3]))
    scene.export(tmp_path / "cloud.glb")
    (tmp_path / "cloud.obj").write_text("# cloud\n" + "".join(f"v {x} {y} {z} 1 0 0\n" for x, y, z in points))
    for name, expected in (("cloud.glb", (points - [[-1, -2, -3]]) * [1, -1, -1]), ("cloud.obj", points)):
        surface = read_result(tmp_path / name).surface
        assert surface is not None
        cloud = surface.load(1000, 0)
        assert isinstance(cloud, PointCloud)
        np.testing.assert_allclose(cloud.points_world_m, expected, atol=1e-6)


def test_names_are_matched_by_the_strictest_rule_that_finds_most() -> None:
    assert match_names(["a.jpg"], ["a.jpg", "b.jpg"]) == ({"a.jpg": "a.jpg"}, "name")
    assert match_names(["x/a.jpg", "x/b.jpg"], ["a.jpg", "b.jpg"])[1] == "file name"
    assert match_names(["a.png", "b.png"], ["a.jpg", "b.jpg"])[0] == {"a.png": "a.jpg", "b.png": "b.jpg"}
    assert match_names(["1/a.jpg", "2/a.jpg"], ["a.jpg"])[0] == {}  # which of the two it is can't be known


def test_unknown_things_are_refused_with_what_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.docx").write_text("hello")
    for path in (tmp_path / "empty", tmp_path / "x.docx", tmp_path / "absent.ply"):
        with pytest.raises(BadInputError, match="accepted: a workspace"):
            read_result(path)
