"""Focal length unification: the same focal length (or long edge) for every photo a checkpoint sees.

A metric answer about one image is only determined when the focal length is known to the model; VLM3 (arXiv
2605.30561) and DepthLM before it make it a constant by resizing. The new size is the published one,
``int(old_size * target / fx)``; the image is sampled at *exactly* the scale ``target / fx`` (the last fraction of a
pixel at the right and bottom is cropped), so the resulting camera has the target focal length exactly, and pixels map
to the photo and back without any error beyond the lens model's.

Filter: PIL's BICUBIC, which widens its support when it reduces (so it antialiases, unlike OpenCV's cubic), and rings
less than LANCZOS at depth edges; it is also the filter of the checkpoints' own image processor, which resizes the
result to multiples of 32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from recon.cameras import pinhole
from recon.cameras.remap import warp
from recon.errors import BadInputError
from recon.types import Camera, ImageArray, UnifiedImage

MAX_UNIFIED_PIXELS = 16_777_216  # what the checkpoints' image processor accepts at most
MIN_UNIFIED_SIDE_PX = 8


@dataclass(frozen=True)
class ImageProfile:
    """How a checkpoint's task wants its images.

    Attributes:
        mode: ``focal``: resize so that the focal length is ``target_px``; ``long_edge``: so that the longer side is.
        target_px: focal length or long edge in pixels.
        square_pixels: in ``focal`` mode, resample so that fy equals fx too. The public depth and pose checkpoints do;
            the object checkpoint keeps the photo's fy / fx (False).
    """

    mode: Literal["focal", "long_edge"]
    target_px: float
    square_pixels: bool = True

    def __post_init__(self) -> None:
        if self.mode not in ("focal", "long_edge"):
            raise BadInputError(f"image profile mode {self.mode!r} is unknown; accepted: focal, long_edge")
        if not (np.isfinite(self.target_px) and self.target_px > 0):
            raise BadInputError(f"image profile target_px must be a positive number of pixels, found {self.target_px}")


def unified_camera(camera: Camera, profile: ImageProfile) -> Camera:
    """The PINHOLE camera of the unified image of a photo taken with ``camera``.

    Raises:
        BadInputError: the resulting image would be absurdly large or small (a wrong focal length).
    """
    pinhole.check_camera(camera)
    fx, fy, cx, cy = camera.fx_fy_cx_cy
    width, height, target = camera.width_px, camera.height_px, profile.target_px
    if profile.mode == "focal":
        scale_x = target / fx
        scale_y = target / fy if profile.square_pixels else scale_x
        # (old * target) / f from left to right, as published: exact when the result is a whole number
        new_width = int(width * target / fx)
        new_height = int(height * target / (fy if profile.square_pixels else fx))
    else:
        scale_x = scale_y = target / max(width, height)
        new_width, new_height = round(width * target / max(width, height)), round(height * target / max(width, height))
    if new_width * new_height > MAX_UNIFIED_PIXELS or min(new_width, new_height) < MIN_UNIFIED_SIDE_PX:
        raise BadInputError(
            f"a {width}x{height} photo with a focal length of {fx:.1f} px becomes {new_width}x{new_height} when "
            f"unified to {profile.mode} {target:g} px; accepted: sides of at least {MIN_UNIFIED_SIDE_PX} px and "
            f"at most {MAX_UNIFIED_PIXELS} pixels; check the photo's intrinsics"
        )
    params = (fx * scale_x, fy * scale_y, cx * scale_x, cy * scale_y)
    if profile.mode == "focal" and profile.square_pixels:
        params = (float(target), float(target), *params[2:])
    return Camera("PINHOLE", new_width, new_height, params, camera.focal_source)


def unify(pixels: ImageArray, camera: Camera, profile: ImageProfile) -> UnifiedImage:
    """Undistorts and resizes a photo to the profile.

    Args:
        pixels: ``[H, W, 3]`` uint8, as taken (distorted).
        camera: its camera, of the same size.
        profile: target focal length or long edge.

    Returns:
        the unified image; areas that the photo does not show (distortion) are black.

    Raises:
        BadInputError: the image is not 8-bit RGB of the camera's size, or see :func:`unified_camera`.
    """
    if pixels.dtype != np.uint8 or pixels.shape != (camera.height_px, camera.width_px, 3):
        raise BadInputError(
            f"expected 8-bit RGB pixels of {camera.width_px}x{camera.height_px} as the camera says, found "
            f"{pixels.dtype} of shape {pixels.shape}"
        )
    target = unified_camera(camera, profile)
    if not pinhole.has_distortion(camera):
        return UnifiedImage(_resample(pixels, camera, target), target, camera)
    # Reduce first (antialiased, still distorted), then undistort at the final scale: exact, and cheap in memory.
    # An enlargement is done by the warp itself.
    tfx, tfy, _, _ = target.fx_fy_cx_cy
    fx, fy, _, _ = camera.fx_fy_cx_cy
    reduced_size = (
        max(1, min(camera.width_px, round(camera.width_px * tfx / fx))),
        max(1, min(camera.height_px, round(camera.height_px * tfy / fy))),
    )
    if reduced_size != (camera.width_px, camera.height_px):
        image = Image.fromarray(pixels).resize(reduced_size, Image.Resampling.BICUBIC, reducing_gap=None)
        pixels = np.asarray(image)
    warped, _ = warp(pixels, camera, target)
    return UnifiedImage(warped, target, camera)


def to_source_pixels(unified: UnifiedImage, pixels: ArrayLike) -> NDArray[np.float64]:
    """Pixels ``[N, 2]`` of the photo (distorted) of pixels of the unified image; NaN where the lens shows nothing."""
    return pinhole.project(unified.source_camera, pinhole.rays(unified.camera, pixels))


def to_unified_pixels(unified: UnifiedImage, pixels: ArrayLike) -> NDArray[np.float64]:
    """Pixels ``[N, 2]`` of the unified image of pixels of the photo (distorted).

    They may lie outside the unified image: by less than a pixel at the right and bottom (see the module's text), and by
    more near the corners of a photo with distortion.
    """
    return pinhole.project(unified.camera, pinhole.rays(unified.source_camera, pixels))


def _resample(pixels: ImageArray, camera: Camera, target: Camera) -> ImageArray:
    """Resizes at the exact scale of the two pinhole cameras."""
    tfx, tfy, _, _ = target.fx_fy_cx_cy
    fx, fy, _, _ = camera.fx_fy_cx_cy
    box = (0.0, 0.0, target.width_px * fx / tfx, target.height_px * fy / tfy)
    if (target.width_px, target.height_px) == (camera.width_px, camera.height_px) and tfx == fx and tfy == fy:
        return pixels.copy()
    # rounding up the shorter side may ask for a fraction of a pixel beyond the edge: repeat the edge there
    beyond_x, beyond_y = int(np.ceil(box[2] - camera.width_px)), int(np.ceil(box[3] - camera.height_px))
    if beyond_x > 0 or beyond_y > 0:
        pixels = np.pad(pixels, ((0, max(0, beyond_y)), (0, max(0, beyond_x)), (0, 0)), mode="edge")
    image = Image.fromarray(pixels)
    resized = image.resize((target.width_px, target.height_px), Image.Resampling.BICUBIC, box=box)
    return np.asarray(resized)
