"""Layouts of public data sets on disk become labels: small made copies of each, with depth that is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipelines.convert import Options, convert
from recon.errors import BadInputError
from recon.interop.datasets.depth_file import read_depth_file
from recon.interop.datasets.layouts import LAYOUTS, read_layout
from recon.interop.datasets.pair_file import read_pair_file
from recon.types import Camera
from tests.interop.curated import FOCAL, HEIGHT, WALL_M, WIDTH, depth_png, photo, wall_depth

SIDE_M = 0.3  # between the cameras of a pair


def _labels(tmp_path: Path, layout: str, root: Path, **more: object) -> Path:
    out = tmp_path / "labels"
    convert(Options(layout=layout, root=root, out=out, points=40, quiet=True, **more))  # type: ignore[arg-type]
    return out


def _check_wall_pair(out: Path, num_pairs: int, metric: bool = True) -> None:
    """Matches on a wall seen by two cameras side by side are shifted by focal * side / depth."""
    items = read_pair_file(out / "pairs.jsonl", strict=True).items
    assert len(items) == num_pairs
    for item in items:
        visible = np.isfinite(item.pixels2).all(axis=1)
        assert 0.5 < visible.mean() < 1
        assert item.cam1_from_cam2 is not None
        moved = item.cam1_from_cam2[0, 3]
        assert abs(moved) == pytest.approx(SIDE_M, abs=1e-6)
        fx = item.camera1.fx_fy_cx_cy[0]
        expected = item.pixels1[visible] - [fx * moved / WALL_M, 0.0]
        np.testing.assert_allclose(item.pixels2[visible], expected, atol=0.01)
        assert item.is_metric is metric


def test_scannetpp(tmp_path: Path) -> None:
    folder = tmp_path / "root" / "data" / "5f99900f09" / "iphone"
    entries = {}
    for k in range(2):
        name = f"frame_{10 * k:06d}"
        photo(folder / "rgb" / f"{name}.jpg", seed=k)
        depth_png(folder / "depth" / f"{name}.png", wall_depth(size=(WIDTH // 2, HEIGHT // 2)), 1000.0)
        pose = np.eye(4)
        pose[0, 3] = SIDE_M * k  # world from camera
        intrinsic = [[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1]]
        entries[name] = {"intrinsic": intrinsic, "aligned_pose": pose.tolist(), "timestamp": 0.1 * k}
    entries["frame_000005"] = entries["frame_000000"]  # not extracted
    (folder / "pose_intrinsic_imu.json").write_text(json.dumps(entries), encoding="utf-8")
    out = _labels(tmp_path, "scannetpp", tmp_path / "root")
    items = read_depth_file(out / "depth.jsonl", strict=True).items
    assert [item.name for item in items] == [
        f"images/data/5f99900f09/iphone/rgb/frame_0000{k}.jpg" for k in ("00", "10")
    ]
    np.testing.assert_allclose(items[0].depth_m, WALL_M)
    assert items[0].camera.fx_fy_cx_cy == (FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2)
    _check_wall_pair(out, 1)
    (folder / "pose_intrinsic_imu.json").write_text('{"frame_000000": {"intrinsic": 3}}', encoding="utf-8")
    with pytest.raises(BadInputError, match="not the toolbox's poses"):
        read_layout("scannetpp", tmp_path / "root", tmp_path)


def _colmap_text(folder: Path, cameras: str, poses: dict[str, np.ndarray], points: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text(f"# cameras\n{cameras}\n", encoding="utf-8")
    lines = []
    for number, (name, position) in enumerate(poses.items(), start=1):
        x, y, z = -position
        lines += [f"{number} 1 0 0 0 {x} {y} {z} 1 {name}", points]
    (folder / "images.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_eth3d_depth_of_the_fisheye_photo_is_taken_into_the_undistorted_one(tmp_path: Path) -> None:
    scene = tmp_path / "root" / "courtyard"
    positions = {f"DSC_{k}.JPG": np.array([SIDE_M * k, 0.0, 0.0]) for k in range(2)}
    for number, name in enumerate(positions):
        photo(scene / "images" / "dslr_images_undistorted" / name, seed=number)
        depth = wall_depth(size=(WIDTH + 8, HEIGHT + 8))
        depth[:6, :6] = np.inf
        (scene / "ground_truth_depth" / "dslr_images").mkdir(parents=True, exist_ok=True)
        depth.astype("<f4").tofile(scene / "ground_truth_depth" / "dslr_images" / name)
    pinhole = f"1 PINHOLE {WIDTH} {HEIGHT} {FOCAL} {FOCAL} {WIDTH / 2} {HEIGHT / 2}"
    prism = f"1 THIN_PRISM_FISHEYE {WIDTH + 8} {HEIGHT + 8} {FOCAL} {FOCAL} {WIDTH / 2 + 4} {HEIGHT / 2 + 4}"
    undistorted = {f"dslr_images_undistorted/{name}": at for name, at in positions.items()}
    _colmap_text(scene / "dslr_calibration_undistorted", pinhole, undistorted)
    distorted = {f"dslr_images/{name}": at for name, at in positions.items()}
    _colmap_text(scene / "dslr_calibration_jpg", prism + " 0" * 8, distorted)
    scenes = read_layout("eth3d", tmp_path / "root", tmp_path)
    frame = scenes[0].frames[0]
    assert frame.load_depth is not None
    known = frame.load_depth()
    np.testing.assert_allclose(known.depth_m, WALL_M)
    # without coefficients the model is the equidistant fisheye: r = f * angle; column 60 of 72 at the middle row
    angle = (60.5 - (WIDTH / 2 + 4)) / FOCAL
    middle = known.pixels[np.abs(known.pixels[:, 1] - 24.5) < 0.3]
    assert np.abs(middle[:, 0] - (WIDTH / 2 + FOCAL * np.tan(angle))).min() < 0.02
    out = _labels(tmp_path, "eth3d", tmp_path / "root")
    _check_wall_pair(out, 1)
    path = scene / "ground_truth_depth" / "dslr_images" / "DSC_0.JPG"
    path.write_bytes(path.read_bytes()[:-4])
    assert next(fault.line for fault in convert(Options("eth3d", tmp_path / "root", out, quiet=True)).faults) == 1
    with pytest.raises(BadInputError, match="not a raw float32 depth map"):
        _labels(tmp_path, "eth3d", tmp_path / "root", strict=True)


def test_nyu_matlab_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    root = tmp_path / "root"
    root.mkdir()
    images = np.random.default_rng(0).integers(0, 255, (1, 3, 640, 480), dtype=np.uint8)
    depths = np.full((1, 640, 480), 2.5, dtype=np.float32)
    depths[0, 100, 60] = 4.0  # column 100, row 60
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"], file["depths"] = images, depths
    scenes = read_layout("nyuv2", root, tmp_path / "photos")
    frame = scenes[0].frames[0]
    assert frame.load_depth is not None
    known = frame.load_depth()
    assert len(known.pixels) == 426 * 560  # Eigen's crop
    np.testing.assert_array_equal(known.pixels[known.depth_m == 4.0], [[100.5, 60.5]])
    out = _labels(tmp_path, "nyuv2", root)
    item = read_depth_file(out / "depth.jsonl", strict=True).items[0]
    from PIL import Image

    np.testing.assert_array_equal(np.asarray(Image.open(item.image))[60, 100], images[0, :, 100, 60])
    assert item.camera.fx_fy_cx_cy[2] == pytest.approx(326.0824, abs=1e-3)


def test_nyu_png_layout(tmp_path: Path) -> None:
    photo(tmp_path / "root" / "bathroom" / "rgb_00045.jpg", size=(640, 480))
    depth_png(tmp_path / "root" / "bathroom" / "sync_depth_00045.png", wall_depth(size=(640, 480)), 1000.0)
    item = read_depth_file(_labels(tmp_path, "nyuv2", tmp_path / "root") / "depth.jsonl", strict=True).items[0]
    assert item.name == "images/bathroom/rgb_00045.jpg"
    np.testing.assert_allclose(item.depth_m, WALL_M)


def test_kitti_drives_and_selection(tmp_path: Path) -> None:
    root, drive = tmp_path / "root", "2011_09_26_drive_0001_sync"
    photo(root / "2011_09_26" / drive / "image_02" / "data" / "0000000005.png")
    depth = wall_depth()
    depth[:, ::2] = 0.0  # lidar is sparse
    depth_png(root / "val" / drive / "proj_depth" / "groundtruth" / "image_02" / "0000000005.png", depth, 256.0)
    calibration = f"calib_time: x\nP_rect_02: {FOCAL} 0 31.5 4.5 0 {FOCAL} 23.5 0.2 0 0 1 0\n"
    (root / "2011_09_26" / "calib_cam_to_cam.txt").write_text(calibration, encoding="utf-8")
    item = read_depth_file(_labels(tmp_path, "kitti", root) / "depth.jsonl", strict=True).items[0]
    np.testing.assert_allclose(item.depth_m, WALL_M)
    assert (np.floor(item.pixels[:, 0]) % 2 == 1).all()
    assert item.camera == Camera.pinhole(WIDTH, HEIGHT, FOCAL, FOCAL, 32.0, 24.0)
    (root / "2011_09_26" / "calib_cam_to_cam.txt").write_text("P_rect_02: 1 2 x\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="12 numbers"):
        read_layout("kitti", root, tmp_path)

    chosen = tmp_path / "chosen" / "depth_selection" / "val_selection_cropped"
    name = f"{drive}_image_0000000005_image_02"
    photo(chosen / "image" / f"{name}.png")
    depth_png(chosen / "groundtruth_depth" / f"{drive}_groundtruth_depth_0000000005_image_02.png", depth, 256.0)
    (chosen / "intrinsics").mkdir()
    (chosen / "intrinsics" / f"{name}.txt").write_text(f"{FOCAL} 0 31.5 0 {FOCAL} 23.5 0 0 1\n", encoding="utf-8")
    frames = read_layout("kitti", tmp_path / "chosen", tmp_path)[0].frames
    assert len(frames) == 1
    assert frames[0].camera == item.camera


def test_nuscenes_points_go_through_both_times_of_the_car(tmp_path: Path) -> None:
    root = tmp_path / "root"
    image = photo(root / "samples" / "CAM_FRONT" / "front.jpg")
    # the camera looks along the car's x axis: its z is the car's x, its x the car's -y, its y the car's -z
    cam_axes = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])  # car from camera
    w_last = Rotation.from_matrix(cam_axes).as_quat()
    turn = [float(w_last[3]), *map(float, w_last[:3])]
    identity = [1.0, 0.0, 0.0, 0.0]
    tables = {
        "sensor": [{"token": "s1", "channel": "CAM_FRONT"}, {"token": "s2", "channel": "LIDAR_TOP"}],
        "calibrated_sensor": [
            {"token": "c1", "sensor_token": "s1", "translation": [1.0, 0, 0], "rotation": turn,
             "camera_intrinsic": [[FOCAL, 0, 31.5], [0, FOCAL, 23.5], [0, 0, 1]]},
            {"token": "c2", "sensor_token": "s2", "translation": [0, 0, 2.0], "rotation": identity,
             "camera_intrinsic": []},
        ],
        "ego_pose": [  # the car has driven half a metre between the lidar and the camera
            {"token": "e1", "translation": [10.5, 0, 0], "rotation": identity},
            {"token": "e2", "translation": [10.0, 0, 0], "rotation": identity},
        ],
        "scene": [{"token": "n1", "name": "scene-0001"}],
        "sample": [{"token": "p1", "scene_token": "n1"}],
        "sample_data": [
            {"token": "d1", "sample_token": "p1", "ego_pose_token": "e1", "calibrated_sensor_token": "c1",
             "filename": "samples/CAM_FRONT/front.jpg", "is_key_frame": True},
            {"token": "d2", "sample_token": "p1", "ego_pose_token": "e2", "calibrated_sensor_token": "c2",
             "filename": "samples/LIDAR_TOP/top.pcd.bin", "is_key_frame": True},
            {"token": "d3", "sample_token": "p1", "ego_pose_token": "e2", "calibrated_sensor_token": "c2",
             "filename": "sweeps/LIDAR_TOP/later.pcd.bin", "is_key_frame": False},
        ],
    }  # fmt: skip
    (root / "v1.0-mini").mkdir(parents=True)
    for name, rows in tables.items():
        (root / "v1.0-mini" / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    # lidar frame: x forward. A point 6.5 m ahead, 1 m left and at the camera's height; one behind; one too near
    points = np.array([[6.5, 1.0, -2.0, 0, 0], [-5.0, 0, -2.0, 0, 0], [2.0, 0, -2.0, 0, 0]], dtype="<f4")
    (root / "samples" / "LIDAR_TOP").mkdir()
    points.tofile(root / "samples" / "LIDAR_TOP" / "top.pcd.bin")
    item = read_depth_file(_labels(tmp_path, "nuscenes", root) / "depth.jsonl", strict=True).items[0]
    depth_m = 6.5 - 0.5 - 1.0  # driven, and the camera stands a metre ahead of the car's origin
    assert item.depth_m.tolist() == pytest.approx([depth_m])
    np.testing.assert_array_equal(item.pixels, [[np.floor(32.0 - FOCAL / depth_m) + 0.5, 24.5]])
    assert item.image.samefile(image)
    (root / "v1.0-mini" / "sensor.json").write_text("[{}]", encoding="utf-8")
    with pytest.raises(BadInputError, match="not the tables of nuScenes"):
        read_layout("nuscenes", root, tmp_path)


def test_megadepth_makes_pairs_without_metres(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    root = tmp_path / "root"
    models, dense = root / "Undistorted_SfM" / "0000", root / "phoenix/S6/zl548/MegaDepth_v1/0000/dense0/depths"
    dense.mkdir(parents=True)
    for k in range(2):
        photo(models / "images" / f"{k}.jpg", seed=k)
        depth = wall_depth()
        depth[0, :3] = [0.0, 900.0, np.nan]  # unknown, sky, nonsense
        with h5py.File(dense / f"{k}.h5", "w") as file:
            file["depth"] = depth
    cameras = f"1 PINHOLE {WIDTH} {HEIGHT} {FOCAL} {FOCAL} {WIDTH / 2} {HEIGHT / 2}"
    _colmap_text(models / "sparse-txt", cameras, {f"{k}.jpg": np.array([SIDE_M * k, 0, 0]) for k in range(2)})
    frame = read_layout("megadepth", root, tmp_path)[0].frames[0]
    assert frame.load_depth is not None
    assert len(frame.load_depth().pixels) == WIDTH * HEIGHT - 3
    out = _labels(tmp_path, "megadepth", root)
    assert not (out / "depth.jsonl").exists()  # known up to scale only
    _check_wall_pair(out, 1, metric=False)
    (dense / "0.h5").write_bytes(b"no HDF5")
    with pytest.raises(BadInputError, match="no pair with enough overlap"):
        _labels(tmp_path, "megadepth", root)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_an_empty_folder_says_what_the_layout_needs(tmp_path: Path, layout: str) -> None:
    with pytest.raises(BadInputError, match=f"nothing of {layout}"):
        read_layout(layout, tmp_path, tmp_path)
    with pytest.raises(BadInputError, match="no such folder"):
        read_layout(layout, tmp_path / "none", tmp_path)
