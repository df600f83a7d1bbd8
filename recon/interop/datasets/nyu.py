"""NYU Depth v2 (Silberman et al., ECCV 2012), in two layouts.

``<root>/nyu_depth_v2_labeled.mat`` is HDF5 (MATLAB 7.3): ``images`` [N, 3, 640, 480] uint8 and ``depths`` [N, 640, 480]
in metres, both with swapped axes; the photos are written as PNG. Or the common PNG layout, in any folders::

    <root>/.../rgb_00045.jpg  with  sync_depth_00045.png (16 bits, millimetres)

Depth is the Kinect's z-depth (in the .mat with holes filled in). Only the part that all evaluations use (Eigen et al.,
NeurIPS 2014: rows 45 to 470, columns 41 to 600) gets labels: outside it the photos have a white frame. The camera is
that of the data set's toolbox (``camera_params.m``, index-based).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from recon.cameras.pixels import corner_from_index
from recon.capture.files import atomic_path
from recon.errors import BadInputError
from recon.interop.datasets.frames import Frame, FrameDepth, SceneFrames, depth_of_map
from recon.interop.datasets.maps import hdf5_dataset, open_hdf5, png_depth
from recon.types import Camera

_WIDTH, _HEIGHT = 640, 480
_FOCAL_PX, _CENTRE_INDEX = (518.85790117450188, 519.46961112127485), (325.58244941119034, 253.73616633400465)
_EIGEN_ROWS, _EIGEN_COLUMNS = slice(45, 471), slice(41, 601)
MAT_NAME = "nyu_depth_v2_labeled.mat"


def read_nyu(root: Path, work: Path) -> list[SceneFrames]:
    """All photos as one set without poses; those of the .mat are written to ``work``."""
    mat = root / MAT_NAME
    if mat.is_file():
        return [SceneFrames("nyu", _from_mat(mat, work))]
    frames = []
    for depth in sorted(root.rglob("sync_depth_*.png")):
        image = depth.with_name(f"rgb_{depth.stem.removeprefix('sync_depth_')}.jpg")
        if image.is_file():
            frames.append(Frame(image.relative_to(root).as_posix(), image, camera(), partial(_load_png, depth)))
    return [SceneFrames("nyu", tuple(frames))] if frames else []


def camera() -> Camera:
    """The colour camera of the toolbox."""
    cx, cy = corner_from_index(np.array(_CENTRE_INDEX)).tolist()
    return Camera.pinhole(_WIDTH, _HEIGHT, *_FOCAL_PX, cx, cy)


def _from_mat(mat: Path, work: Path) -> tuple[Frame, ...]:
    with open_hdf5(mat) as file:
        images, depths = hdf5_dataset(file, "images", mat, 4), hdf5_dataset(file, "depths", mat, 3)
        count = len(images)
        if images.shape[1:] != (3, _WIDTH, _HEIGHT) or depths.shape != (count, _WIDTH, _HEIGHT):
            raise BadInputError(f"{mat}: images {images.shape} and depths {depths.shape} are not those of NYU Depth v2")
        frames = []
        for index in range(count):
            path = work / f"{index + 1:04d}.png"
            with atomic_path(path) as temporary:
                Image.fromarray(np.ascontiguousarray(images[index].transpose(2, 1, 0))).save(temporary, format="PNG")
            frames.append(Frame(path.name, path, camera(), partial(_load_mat, mat, index)))
    return tuple(frames)


def _load_mat(mat: Path, index: int) -> FrameDepth:
    with open_hdf5(mat) as file:
        return _cropped(np.asarray(hdf5_dataset(file, "depths", mat, 3)[index], dtype=np.float32).T)


def _load_png(path: Path) -> FrameDepth:
    depth = png_depth(path, 1000.0)
    if depth.shape != (_HEIGHT, _WIDTH):
        raise BadInputError(f"{path}: is {depth.shape[1]}x{depth.shape[0]}; accepted: {_WIDTH}x{_HEIGHT}")
    return _cropped(depth)


def _cropped(depth: np.ndarray) -> FrameDepth:
    kept = np.full_like(depth, np.nan)
    kept[_EIGEN_ROWS, _EIGEN_COLUMNS] = depth[_EIGEN_ROWS, _EIGEN_COLUMNS]
    return depth_of_map(kept, camera())
