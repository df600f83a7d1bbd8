"""The first guess of every photo's camera: what the user gave, else EXIF, else a prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon.cameras.pinhole import MODELS, check_camera
from recon.errors import BadInputError
from recon.types import Camera, Capture, FocalSource, View

# COLMAP's default (``ImageReaderOptions::default_focal_length_factor``): 45 degrees across the longer side, about a
# 43 mm lens in 35 mm equivalents, between a phone's 26 mm and a portrait lens.
PRIOR_FOCAL_FACTOR = 1.2


@dataclass(frozen=True)
class CameraOptions:
    """Which intrinsics photos start with.

    Attributes:
        camera_model: COLMAP model of cameras that are not given by the user.
        focal_px: focal length in pixels of the photos as stored, for all photos without given intrinsics; overrides
            EXIF. The map refines it, as one known to 1 %; calibrated cameras, which it keeps, come as cameras.txt.
        prior_focal_factor: focal length over longer side where nothing is known.
    """

    camera_model: str = "SIMPLE_RADIAL"
    focal_px: float | None = None
    prior_focal_factor: float = PRIOR_FOCAL_FACTOR

    def __post_init__(self) -> None:
        if self.camera_model not in MODELS:
            raise BadInputError(f"camera_model {self.camera_model!r} is unknown; accepted: {', '.join(MODELS)}")
        if self.focal_px is not None and not (np.isfinite(self.focal_px) and self.focal_px > 0):
            raise BadInputError(f"focal_px must be a positive number of pixels, found {self.focal_px}")
        if not (np.isfinite(self.prior_focal_factor) and self.prior_focal_factor > 0):
            raise BadInputError(f"prior_focal_factor must be a positive number, found {self.prior_focal_factor}")


def initial_cameras(capture: Capture, options: CameraOptions | None = None) -> dict[str, Camera]:
    """The starting camera of every view, by view name; views with the same ``camera_key`` get equal cameras.

    In this order: ``View.camera`` (given), ``options.focal_px`` (given), ``View.exif_focal_px``, the prior. The
    principal point starts at the centre and distortion at zero where they are not given.

    Raises:
        BadInputError: a given camera has an unknown model or senseless parameters.
    """
    options = options or CameraOptions()
    by_key: dict[str, Camera] = {}
    cameras: dict[str, Camera] = {}
    for view in capture.views:
        key = f"{view.camera_key}|{view.width_px}x{view.height_px}"
        if key not in by_key:
            by_key[key] = _initial_camera(view, options)
        cameras[view.name] = by_key[key]
    return cameras


def centred_camera(model: str, width_px: int, height_px: int, focal_px: float, source: FocalSource) -> Camera:
    """A camera without distortion of the given COLMAP model, its principal point at the image's centre."""
    num_focals = 1 if model.startswith("SIMPLE_") or model == "RADIAL" else 2
    head = [float(focal_px)] * num_focals + [width_px / 2, height_px / 2]
    camera = Camera(model, width_px, height_px, tuple(head + [0.0] * (MODELS[model] - len(head))), source)
    check_camera(camera)
    return camera


def _initial_camera(view: View, options: CameraOptions) -> Camera:
    width, height = view.width_px, view.height_px
    if view.camera is not None:
        if (view.camera.width_px, view.camera.height_px) != (width, height):
            raise BadInputError(
                f"{view.name}: the given camera is for {view.camera.width_px}x{view.camera.height_px}, the photo is "
                f"{width}x{height}; give intrinsics of the photo's size"
            )
        check_camera(view.camera)
        return view.camera
    if options.focal_px is not None:
        return centred_camera(options.camera_model, width, height, options.focal_px, "given")
    if view.exif_focal_px is not None:
        return centred_camera(options.camera_model, width, height, view.exif_focal_px, "exif")
    prior_px = options.prior_focal_factor * max(width, height)
    return centred_camera(options.camera_model, width, height, prior_px, "prior")
