"""nuScenes (Caesar et al., CVPR 2020): key frames of the six cameras with the lidar's points of the same sample.

::

    <root>/v1.0-*/{sample,sample_data,calibrated_sensor,ego_pose,sensor,scene}.json
    <root>/samples/CAM_FRONT/*.jpg, samples/LIDAR_TOP/*.pcd.bin     float32 x, y, z, intensity, ring

Lidar and camera fire at different times: points go from the lidar through the car at the lidar's time and the world to
the car at the camera's time and into the camera, as the devkit does. Depth is z-depth (the devkit's
``map_pointcloud_to_image``; DepthLM's nuScenes labels are z too). Points nearer than 1 m are left out. Centres are
index-based. There is no depth map, so that no pairs are made.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from recon.cameras.pinhole import project
from recon.cameras.pixels import corner_from_index
from recon.errors import BadInputError
from recon.interop.datasets.frames import Frame, FrameDepth, SceneFrames
from recon.interop.datasets.records import image_size
from recon.interop.result import check_photo_name
from recon.types import Camera

_NEAREST_M = 1.0
_POINT_FLOATS = 5


def read_nuscenes(root: Path, work: Path) -> list[SceneFrames]:
    """The key frames of every version's tables below ``root``, by scene. Nothing is written to ``work``."""
    scenes = []
    for tables in sorted(path.parent for path in root.glob("v1.0-*/sample_data.json")):
        try:
            scenes += _scenes(root, tables)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            detail = " ".join(f"{type(error).__name__} {error}".split())[:120]
            raise BadInputError(f"{tables}: not the tables of nuScenes ({detail})") from error
    return scenes


def _scenes(root: Path, tables: Path) -> list[SceneFrames]:
    samples, scenes = _table(tables, "sample"), _table(tables, "scene")
    sensors, calibrations = _table(tables, "sensor"), _table(tables, "calibrated_sensor")
    ego_poses = _table(tables, "ego_pose")
    lidar_of: dict[str, tuple[Path, NDArray[np.float64]]] = {}
    photos = []
    for entry in _table(tables, "sample_data").values():
        if not entry["is_key_frame"]:
            continue
        calibration = calibrations[entry["calibrated_sensor_token"]]
        channel = sensors[calibration["sensor_token"]]["channel"]
        world_from_sensor = _matrix(ego_poses[entry["ego_pose_token"]]) @ _matrix(calibration)
        path = root / check_photo_name(entry["filename"], tables)
        if channel == "LIDAR_TOP":
            lidar_of[entry["sample_token"]] = (path, world_from_sensor)
        elif channel.startswith("CAM") and path.is_file():
            photos.append((path, entry["sample_token"], calibration["camera_intrinsic"], world_from_sensor))
    by_scene: dict[str, list[Frame]] = {}
    for path, sample, intrinsic, world_from_cam in sorted(photos, key=lambda photo: photo[0]):
        matrix = np.array(intrinsic, dtype=np.float64).reshape(3, 3)
        cx, cy = corner_from_index(matrix[:2, 2]).tolist()
        camera = Camera.pinhole(*image_size(path), float(matrix[0, 0]), float(matrix[1, 1]), cx, cy)
        cam_from_world = np.linalg.inv(world_from_cam)
        load = None
        if sample in lidar_of:
            lidar, world_from_lidar = lidar_of[sample]
            load = partial(_load, lidar, cam_from_world @ world_from_lidar, camera)
        name, pose = path.relative_to(root).as_posix(), np.asarray(cam_from_world[:3], dtype=np.float64)
        scene = str(scenes[samples[sample]["scene_token"]]["name"])
        by_scene.setdefault(scene, []).append(Frame(name, path, camera, load, pose))
    return [SceneFrames(name, tuple(frames)) for name, frames in sorted(by_scene.items())]


def _table(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    path = folder / f"{name}.json"
    try:
        return {entry["token"]: entry for entry in json.loads(path.read_bytes())}
    except OSError as error:
        raise BadInputError(f"{path}: can't be read ({error.strerror}); all tables of nuScenes are needed") from error


def _matrix(entry: dict[str, Any]) -> NDArray[np.float64]:
    """The transform [4, 4] of a translation and a quaternion (w first)."""
    transform = np.eye(4)
    transform[:3, :3] = Rotation.from_quat(entry["rotation"], scalar_first=True).as_matrix()
    transform[:3, 3] = entry["translation"]
    return transform


def _load(path: Path, cam_from_lidar: NDArray[np.float64], camera: Camera) -> FrameDepth:
    try:
        values = np.fromfile(path, dtype="<f4")
    except OSError as error:
        raise BadInputError(f"{path}: can't be read ({error.strerror})") from error
    if len(values) == 0 or len(values) % _POINT_FLOATS:
        raise BadInputError(f"{path}: {4 * len(values)} bytes are no lidar points of {4 * _POINT_FLOATS} bytes each")
    points = values.reshape(-1, _POINT_FLOATS)[:, :3].astype(np.float64)
    seen = points @ cam_from_lidar[:3, :3].T + cam_from_lidar[:3, 3]
    seen = seen[np.isfinite(seen).all(axis=1)]
    seen = seen[seen[:, 2] > _NEAREST_M]
    pixels = project(camera, seen)
    inside = (pixels >= 0).all(axis=1) & (pixels < [camera.width_px, camera.height_px]).all(axis=1)
    return FrameDepth(pixels[inside], seen[inside, 2])
