"""What is known about focal lengths before the photos are matched: EXIF, or a number that the user gave.

Photos of flat ground taken straight down, and few photos taken from far apart, hardly tell focal length from distance:
their reprojection errors are the same along a valley of maps. What EXIF says then decides; where the photos do tell, a
few per cent of prior are nothing beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.types import Camera, FocalSource

Float64Array = NDArray[np.float64]

# Standard deviation of ln(focal length): EXIF gives whole millimetres of a nominal lens at infinity.
LOG_SIGMA: Mapping[FocalSource, float] = {"given": 0.01, "exif": 0.03}
_LEAST_SHIFT = 1e-3  # relative change of a focal length below which a prior is not worth an adjustment


@dataclass(frozen=True)
class FocalPriors:
    """By camera of a map: ``focal_px`` [C] and ``log_sigma`` [C], infinite where nothing is known."""

    focal_px: Float64Array
    log_sigma: Float64Array

    @classmethod
    def of(cls, cameras: Sequence[Camera]) -> FocalPriors:
        """Of cameras as they were before any photo was matched."""
        sigma = [LOG_SIGMA.get(camera.focal_source, np.inf) for camera in cameras]
        return cls(np.array([camera.focal_px for camera in cameras]), np.array(sigma, dtype=np.float64))

    def residuals(self, focal_px: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Whitened residuals [C] and their derivatives [C] by the focal lengths [C]."""
        return np.log(focal_px / self.focal_px) / self.log_sigma, 1.0 / (focal_px * self.log_sigma)

    def joined(self, focal_px: Float64Array, sigma_px: Float64Array) -> Float64Array | None:
        """The focal lengths [C] of which the photos alone say ``focal_px`` [C] with a spread of ``sigma_px`` [C]; None
        where the photos tell them so well that the priors change nothing.
        """
        variance = (sigma_px / focal_px) ** 2
        shift = np.log(self.focal_px / focal_px) * variance / (variance + self.log_sigma**2)
        return focal_px * np.exp(shift) if (np.abs(shift) > _LEAST_SHIFT).any() else None


def focal_priors(names: Sequence[str], camera_of_view: NDArray[np.int64], cameras: Mapping[str, Camera]) -> FocalPriors:
    """The priors of a map's cameras: ``names`` [N] of its photos, their camera's index [N], and the first intrinsics
    by photo name.
    """
    first = [cameras[names[int(np.argmax(camera_of_view == c))]] for c in range(int(camera_of_view.max()) + 1)]
    return FocalPriors.of(first)
