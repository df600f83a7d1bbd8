"""What a bundle adjustment starts from and changes: observations, the state of cameras and points, options."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.types import Camera

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Observations:
    """M observations: ``view`` [M], ``point`` [M], ``pixels`` [M, 2]; ``depth`` [M] measured z-depth in the map's unit
    (NaN where none) with ``depth_log_sigma`` [M].
    """

    view: IntArray
    point: IntArray
    pixels: Float64Array
    depth: Float64Array
    depth_log_sigma: Float64Array

    def select(self, keep: NDArray[np.bool_] | IntArray) -> Observations:
        return Observations(*(getattr(self, f.name)[keep] for f in dataclasses.fields(self)))


@dataclass(frozen=True)
class BundleState:
    """Adjusted: ``poses`` [N, 3, 4] cam_from_world, ``cameras`` with ``camera_of_view`` [N], ``points`` [P, 3]."""

    poses: Float64Array
    cameras: tuple[Camera, ...]
    camera_of_view: IntArray
    points: Float64Array


@dataclass(frozen=True)
class BundleOptions:
    """What is refined and how much is believed.

    ``pixel_sigma`` is the standard deviation of a good keypoint, ``loss_scale`` the Cauchy scale in sigmas.
    ``principal_point_sigma`` is the prior's spread as a fraction of the image's longer side.
    """

    refine_focal: bool = True
    refine_distortion: bool = True
    refine_principal_point: bool = False
    principal_point_sigma: float = 0.02
    distortion_sigma: float = 0.5
    pixel_sigma: float = 0.5
    loss_scale: float = 2.0
    max_iterations: int = 40
    tolerance: float = 1e-6
