"""ScanNet++ (Yeshwanth et al., ICCV 2023), the iPhone's part as its toolbox extracts it.

::

    <root>/data/<scene>/iphone/rgb/frame_000000.jpg
                               depth/frame_000000.png       16 bits, millimetres, 256x192, over the photo's view
                               pose_intrinsic_imu.json      {"frame_000000": {"intrinsic": 3x3, "aligned_pose": 4x4}}

Depth is the sensor's z-depth. ``aligned_pose`` is world from camera, OpenCV axes, metric; ``intrinsic`` belongs to the
photo (index-based centre). ``<root>/<scene>/iphone`` is found too. This is the part that DepthLM's curation uses.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recon.cameras.pixels import corner_from_index
from recon.errors import BadInputError
from recon.interop.datasets.frames import Frame, FrameDepth, SceneFrames, depth_of_map
from recon.interop.datasets.maps import png_depth
from recon.interop.datasets.records import image_size
from recon.interop.result import check_photo_name, check_poses
from recon.types import Camera


def read_scannetpp(root: Path, work: Path) -> list[SceneFrames]:
    """The scenes below ``root``. Nothing is written to ``work``."""
    folders = sorted({*root.glob("data/*/iphone"), *root.glob("*/iphone")})
    return [
        SceneFrames(folder.parent.name, _frames(root, folder))
        for folder in folders
        if (folder / "pose_intrinsic_imu.json").is_file()
    ]


def _frames(root: Path, folder: Path) -> tuple[Frame, ...]:
    path = folder / "pose_intrinsic_imu.json"
    frames = []
    try:
        entries: dict[str, Any] = json.loads(path.read_bytes())
        for name, entry in sorted(entries.items()):
            image = folder / "rgb" / f"{check_photo_name(name, path)}.jpg"
            if not image.is_file():  # the toolbox may have extracted every n-th frame only
                continue
            intrinsic = np.array(entry["intrinsic"], dtype=np.float64).reshape(3, 3)
            pose = np.array(entry["aligned_pose"], dtype=np.float64).reshape(4, 4)
            world_from_cam = check_poses(pose[None], path)[0]
            rotation = world_from_cam[:, :3].T
            cx, cy = corner_from_index(intrinsic[:2, 2]).tolist()
            camera = Camera.pinhole(*image_size(image), float(intrinsic[0, 0]), float(intrinsic[1, 1]), cx, cy)
            depth = folder / "depth" / f"{name}.png"
            frames.append(
                Frame(
                    image.relative_to(root).as_posix(),
                    image,
                    camera,
                    partial(_load, depth, camera) if depth.is_file() else None,
                    np.column_stack([rotation, -rotation @ world_from_cam[:, 3]]),
                )
            )
    except BadInputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        detail = " ".join(f"{type(error).__name__} {error}".split())[:120]
        raise BadInputError(f"{path}: not the toolbox's poses and intrinsics ({detail})") from error
    return tuple(frames)


def _load(path: Path, camera: Camera) -> FrameDepth:
    return depth_of_map(png_depth(path, 1000.0), camera)
