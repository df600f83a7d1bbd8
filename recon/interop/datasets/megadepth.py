"""MegaDepth (Li and Snavely, CVPR 2018) with the undistorted models that matching papers use (D2-Net's preparation).

::

    <root>/phoenix/S6/zl548/MegaDepth_v1/<scene>/dense0/depths/<photo>.h5    ``depth``, 0 unknown
    <root>/Undistorted_SfM/<scene>/images/<photo>.jpg
                                  sparse-txt/{cameras,images}.txt            PINHOLE

Depth is z-depth up to an unknown scale for each scene: it makes matches and poses without distance, and no depth
labels. ``Undistorted-SfM`` and ``sparse`` are found too.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from recon.errors import BadInputError
from recon.interop.datasets.frames import Frame, FrameDepth, SceneFrames, depth_of_map
from recon.interop.datasets.maps import hdf5_depth
from recon.interop.sparse import read_cameras_and_poses
from recon.types import Camera

_DEPTHS = Path("phoenix/S6/zl548/MegaDepth_v1")
_FARTHEST_TIMES_MEDIAN = 20.0  # sky and other nonsense of multi-view stereo


def read_megadepth(root: Path, work: Path) -> list[SceneFrames]:
    """The scenes below ``root`` that have a model. Nothing is written to ``work``."""
    scenes = []
    for models in [path for name in ("Undistorted_SfM", "Undistorted-SfM") for path in sorted(root.glob(f"{name}/*"))]:
        model = next((models / name for name in ("sparse-txt", "sparse") if (models / name).is_dir()), None)
        if model is None:
            continue
        cameras, poses = read_cameras_and_poses(model)
        frames = []
        for name, camera in sorted(cameras.items()):
            image = models / "images" / name
            depth = root / _DEPTHS / models.name / "dense0" / "depths" / f"{Path(name).stem}.h5"
            if image.is_file():
                load = partial(_load, depth, camera) if depth.is_file() else None
                frames.append(Frame(image.relative_to(root).as_posix(), image, camera, load, poses[name]))
        scenes.append(SceneFrames(models.name, tuple(frames), is_metric=False))
    return scenes


def _load(path: Path, camera: Camera) -> FrameDepth:
    depth = hdf5_depth(path)
    if not np.isfinite(depth).any():
        raise BadInputError(f"{path}: no pixel has a depth")
    if abs(depth.shape[1] * camera.height_px - depth.shape[0] * camera.width_px) > 0.01 * depth.size:
        raise BadInputError(
            f"{path}: {depth.shape[1]}x{depth.shape[0]} is not the shape of its photo, "
            f"{camera.width_px}x{camera.height_px}"
        )
    far = depth > _FARTHEST_TIMES_MEDIAN * np.nanmedian(depth)
    return depth_of_map(np.where(far, np.float32(np.nan), depth), camera)
