"""What the surface step reads and makes: photos, depth maps, meshes, clouds. Conventions as in :mod:`recon.types`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recon.types import Camera, FloatArray, ImageArray


@dataclass(frozen=True)
class DepthMap:
    """Dense depth of one view: ``depth_m`` [H, W] z-depth in the scene's unit, NaN unknown; ``confidence`` [H, W] in
    [0, 1]; ``camera`` the PINHOLE camera of these pixels; ``cam_from_world`` [3, 4]; ``color`` [H, W, 3] RGB.
    """

    name: str
    depth_m: NDArray[np.float32]
    confidence: NDArray[np.float32]
    camera: Camera
    cam_from_world: NDArray[np.float64]
    color: ImageArray
    source: str = ""
    stats: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh: ``vertices_world_m`` [V, 3] in the scene's unit; ``faces`` [F, 3] rows of it, counter-clockwise
    seen from outside; ``colors`` [V, 3] RGB or None; ``normals`` [V, 3] unit vectors pointing outside or None.
    """

    vertices_world_m: FloatArray
    faces: NDArray[np.int32]
    colors: NDArray[np.uint8] | None = None
    normals: FloatArray | None = None


@dataclass(frozen=True)
class PointCloud:
    """Points of the surface: ``points_world_m`` [N, 3] in the scene's unit; ``colors`` [N, 3] RGB or None; ``normals``
    [N, 3] unit vectors towards the cameras that saw the points, or None.
    """

    points_world_m: FloatArray
    colors: NDArray[np.uint8] | None = None
    normals: FloatArray | None = None


def _nothing(name: str) -> None:
    return None


@dataclass(frozen=True)
class Photos:
    """How the surface step reads a photo by name, always in the photo's own pixels (as taken).

    ``pixels`` uint8 [H, W, 3]; ``sensor_depth`` float32 [h, w] z-depth in metres, NaN unknown, or None; ``mask`` bool
    [h, w], True = use, or None.
    """

    pixels: Callable[[str], ImageArray]
    sensor_depth: Callable[[str], NDArray[np.float32] | None] = _nothing
    mask: Callable[[str], NDArray[np.bool_] | None] = _nothing
