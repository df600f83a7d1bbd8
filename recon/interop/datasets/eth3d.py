"""ETH3D high-resolution multi-view (Schoeps et al., CVPR 2017): laser depth of DSLR photos.

::

    <root>/<scene>/images/dslr_images_undistorted/DSC_0286.JPG
                   dslr_calibration_undistorted/{cameras,images}.txt    PINHOLE
                   dslr_calibration_jpg/{cameras,images}.txt            THIN_PRISM_FISHEYE
                   ground_truth_depth/dslr_images/DSC_0286.JPG          raw float32, row-major, of the distorted photo

Depth is z-depth in metres, infinite where the laser saw nothing. It belongs to the distorted photos; every fourth
reading is taken into the undistorted one, whose camera has the same pose.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from recon.cameras.pinhole import project
from recon.errors import BadInputError
from recon.interop.colmap import rays_of_any_model
from recon.interop.datasets.frames import Frame, FrameDepth, SceneFrames
from recon.interop.datasets.maps import raw_depth
from recon.interop.sparse import read_cameras_and_poses
from recon.types import Camera

STEP = 4  # along both axes of the distorted depth map
_CELL_PX = 16  # of the coarse map that tells what a photo sees


def read_eth3d(root: Path, work: Path) -> list[SceneFrames]:
    """The scenes below ``root`` that have undistorted photos and depth. Nothing is written to ``work``."""
    scenes = []
    for folder in sorted(path.parent for path in root.glob("*/dslr_calibration_undistorted")):
        cameras, poses = read_cameras_and_poses(folder / "dslr_calibration_undistorted")
        distorted, _ = read_cameras_and_poses(folder / "dslr_calibration_jpg")
        bent = {Path(name).name: camera for name, camera in distorted.items()}
        frames = []
        for name, camera in sorted(cameras.items()):
            image = folder / "images" / name
            depth = folder / "ground_truth_depth" / "dslr_images" / Path(name).name
            if not image.is_file():
                continue
            has_depth = depth.is_file() and Path(name).name in bent
            load = partial(_load, depth, bent[Path(name).name], camera) if has_depth else None
            frames.append(Frame(image.relative_to(root).as_posix(), image, camera, load, poses[name]))
        scenes.append(SceneFrames(folder.name, tuple(frames)))
    return scenes


def _load(path: Path, distorted: Camera, camera: Camera) -> FrameDepth:
    depth = raw_depth(path, distorted.width_px, distorted.height_px)[::STEP, ::STEP]
    rows, columns = np.nonzero(np.isfinite(depth))
    depth_m = depth[rows, columns].astype(np.float64)
    rays = rays_of_any_model(distorted, np.stack([columns, rows], axis=1) * STEP + 0.5)
    if not len(rays):
        raise BadInputError(f"{path}: no pixel has a depth")
    pixels = project(camera, rays)
    inside = np.isfinite(pixels).all(axis=1)
    inside &= (pixels >= 0).all(axis=1) & (pixels < [camera.width_px, camera.height_px]).all(axis=1)
    pixels, depth_m = pixels[inside], depth_m[inside]
    shape = (-(-camera.height_px // _CELL_PX), -(-camera.width_px // _CELL_PX))
    coarse = np.full(shape, np.inf, dtype=np.float32)
    scale = np.array([shape[1] / camera.width_px, shape[0] / camera.height_px])
    cells = np.floor(pixels * scale).astype(np.int64)
    np.minimum.at(coarse, (cells[:, 1], cells[:, 0]), depth_m.astype(np.float32))
    return FrameDepth(pixels, depth_m, np.where(np.isfinite(coarse), coarse, np.float32(np.nan)))
