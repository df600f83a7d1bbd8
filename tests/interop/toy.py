"""A small exact scene, written in the layouts of the tools that the readers know."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from recon.surface.types import Mesh
from recon.types import Camera

WIDTH, HEIGHT, FOCAL = 56, 42, 50.0
CAMERA = Camera.pinhole(WIDTH, HEIGHT, FOCAL, FOCAL + 1, WIDTH / 2, HEIGHT / 2)


@dataclass(frozen=True)
class Toy:
    """Cameras on a ring look at the wall z = 4 with its exact depth; ``poses`` [N, 3, 4] in name order."""

    names: tuple[str, ...]
    poses: NDArray[np.float64]
    depth: NDArray[np.float32]  # [N, H, W]

    @property
    def by_name(self) -> dict[str, NDArray[np.float64]]:
        return dict(zip(self.names, self.poses))


def toy(count: int = 6, seed: int = 0) -> Toy:
    rng = np.random.default_rng(seed)
    angle = np.arange(count) / count * 2 * np.pi
    centre = np.stack([np.cos(angle), 0.7 * np.sin(angle), 0.2 * rng.normal(size=count)], axis=1)
    turn = Rotation.from_rotvec(0.15 * rng.normal(size=(count, 3))).as_matrix()  # cam from world
    poses = np.concatenate([turn, -(turn @ centre[:, :, None])], axis=2)
    x, y = np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5
    rays = np.stack(
        np.broadcast_arrays((x[None] - WIDTH / 2) / FOCAL, (y[:, None] - HEIGHT / 2) / (FOCAL + 1), 1.0), -1
    )
    along = np.einsum("nji,hwj->nhwi", turn, rays)[..., 2]  # world z of each ray
    depth = (4.0 - centre[:, 2])[:, None, None] / along
    return Toy(tuple(f"photo_{i:02d}.jpg" for i in range(count)), poses, depth.astype(np.float32))


def wall(extent: float = 3.0, cells: int = 12) -> Mesh:
    """The wall as a mesh, with a step in depth so that it can't slide along itself."""
    grid = np.linspace(-extent, extent, cells + 1)
    x, y = np.meshgrid(grid, grid)
    z = 4.0 - 0.5 * (np.abs(x) < 1.0) * (np.abs(y) < 0.7)
    vertices = np.stack([x, y, z], -1).reshape(-1, 3)
    corner = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).reshape(-1)
    a, b, c, d = corner, corner + 1, corner + cells + 1, corner + cells + 2
    faces = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)]).astype(np.int32)
    return Mesh(vertices, faces, np.full((len(vertices), 3), 128, np.uint8))


def write_photos(folder: Path, scene: Toy) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(scene.names):
        Image.new("RGB", (WIDTH, HEIGHT), (20 * i, 90, 60)).save(folder / "images" / name)


def intrinsics(count: int) -> NDArray[np.float32]:
    return np.tile(CAMERA.matrix.astype(np.float32), (count, 1, 1))


def write_vggt(path: Path, scene: Toy, **replaced: object) -> None:
    """``predictions.npz`` as demo_gradio.py saves it, with the entries that nobody needs (one of them pickled)."""
    count = len(scene.names)
    arrays: dict[str, object] = {
        "pose_enc": np.zeros((count, 9), np.float32),
        "depth": scene.depth[..., None],
        "depth_conf": 1 + np.random.default_rng(0).random(scene.depth.shape, np.float32),
        "world_points": np.zeros((count, HEIGHT, WIDTH, 3), np.float32),
        "images": np.zeros((count, 3, HEIGHT, WIDTH), np.float32),
        "pose_enc_list": np.array(None, dtype=object),
        "extrinsic": scene.poses.astype(np.float32),
        "intrinsic": intrinsics(count),
    }
    np.savez(path, **{key: value for key, value in (arrays | replaced).items() if value is not None})  # type: ignore[arg-type]


def write_da3(path: Path, scene: Toy, keys: tuple[str, str] = ("extrinsics", "intrinsics")) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    confidence = 1 + np.random.default_rng(1).random(scene.depth.shape, np.float32)
    cameras = {keys[0]: scene.poses.astype(np.float32), keys[1]: intrinsics(len(scene.names))}
    np.savez_compressed(path, depth=np.round(scene.depth, 6), conf=np.round(confidence, 2), **cameras)  # type: ignore[arg-type]


def write_truth(folder: Path, scene: Toy, metric: bool = True, with_depth: bool = True) -> None:
    """A folder with gt/cameras.json (pixels counted from the first pixel's centre) and depth in millimetres."""
    fx, fy, cx, cy = CAMERA.fx_fy_cx_cy
    rows = [
        {
            "file": f"images/{name}", "width": WIDTH, "height": HEIGHT, "fx": fx, "fy": fy, "cx": cx - 0.5,
            "cy": cy - 0.5, "distortion": {"model": "none"}, "metric": metric, "R_cw": pose[:, :3].tolist(),
            "t_cw": pose[:, 3].tolist(),
        }
        for name, pose in scene.by_name.items()
    ]  # fmt: skip
    (folder / "gt" / "depth").mkdir(parents=True, exist_ok=True)
    (folder / "gt" / "cameras.json").write_text(json.dumps({"metric": metric, "images": rows}))
    for name, depth in zip(scene.names, scene.depth if with_depth else ()):
        millimetres = np.rint(depth * 1000).astype(np.uint16)
        Image.fromarray(millimetres).save(folder / "gt" / "depth" / f"{Path(name).stem}.png")


def colmap_model(scene: Toy, points: NDArray[np.float64] | None = None):
    """A pycolmap reconstruction of the scene with points of the wall, each seen in the first two photos."""
    import pycolmap

    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(model="PINHOLE", width=WIDTH, height=HEIGHT, params=CAMERA.params, camera_id=1)
    )
    points = np.array([[0.0, 0.0, 4.0], [0.5, 0.3, 4.0], [-0.4, 0.2, 4.0]]) if points is None else points
    for i, (name, pose) in enumerate(scene.by_name.items(), start=1):
        image = pycolmap.Image(name=name, keypoints=np.zeros((len(points), 2)), camera_id=1, image_id=i)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
    for k, xyz in enumerate(points):
        track = pycolmap.Track([pycolmap.TrackElement(1, k), pycolmap.TrackElement(2, k)])
        model.add_point3D(xyz, track, np.array([10, 20, 30], np.uint8))
    return model
