"""Undistorted photos with PINHOLE cameras, and the map that belongs to them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from recon.cameras import pinhole
from recon.cameras.remap import warp
from recon.errors import BadInputError
from recon.types import Camera, ImageArray, PosedView, Scene

Progress = Callable[[int, int], None]
JPEG_QUALITY = 95
_MIN_SIDE_PX = 16


def inner_camera(camera: Camera) -> Camera:
    """A PINHOLE camera of the same focal lengths whose whole image was seen by ``camera``: no black borders.

    The largest upright rectangle that the photo's borders leave free around the optical axis; COLMAP's image
    undistorter does the same with ``blank_pixels`` 0.

    Raises:
        BadInputError: no such rectangle (a fisheye that sees more than a plane can hold).
    """
    fx, fy, cx, cy = camera.fx_fy_cx_cy
    width, height = camera.width_px, camera.height_px
    if not pinhole.has_distortion(camera):
        return Camera.pinhole(width, height, fx, fy, cx, cy, camera.focal_source)
    x, y = np.linspace(0, width, 257), np.linspace(0, height, 257)

    def seen(border_x: np.ndarray, border_y: np.ndarray) -> np.ndarray:
        return pinhole.rays(camera, np.stack(np.broadcast_arrays(border_x, border_y), axis=1))[:, :2]

    left, right = seen(np.zeros(257), y)[:, 0].max(), seen(np.full(257, float(width)), y)[:, 0].min()
    top, bottom = seen(x, np.zeros(257))[:, 1].max(), seen(x, np.full(257, float(height)))[:, 1].min()
    sides = np.array([right - left, bottom - top]) * [fx, fy]
    if not np.isfinite(sides).all() or (sides < _MIN_SIDE_PX).any() or (sides > 4 * np.array([width, height])).any():
        raise BadInputError(f"camera {camera.model} {camera.params} can't be undistorted to a plane image")
    new_width, new_height = (int(side) for side in np.floor(sides))
    return Camera.pinhole(new_width, new_height, fx, fy, -left * fx, -top * fy, camera.focal_source)


def undistort_scene(
    scene: Scene,
    image_path: Callable[[str], Path],
    load_pixels: Callable[[str], ImageArray],
    images_dir: Path,
    progress: Progress | None = None,
) -> Scene:
    """Writes undistorted photos to ``images_dir`` under their names and returns the scene of their PINHOLE cameras.

    A photo without distortion is copied as it is; others are written as JPEG of quality 95 or in their own format.
    """
    targets = {camera: inner_camera(camera) for camera in {view.camera for view in scene.views}}
    views = []
    for done, view in enumerate(scene.views, start=1):
        target = targets[view.camera]
        path = images_dir / view.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if pinhole.has_distortion(view.camera):
            pixels, _ = warp(load_pixels(view.name), view.camera, target)
            save_picture(pixels, path)
            straight = pinhole.project(target, pinhole.rays(view.camera, view.pixels))
        else:
            shutil.copyfile(image_path(view.name), path)
            straight = np.asarray(view.pixels, dtype=np.float64)
        views.append(_kept(view, target, straight))
        if progress is not None:
            progress(done, len(scene.views))
    return dataclasses.replace(scene, views=tuple(views))


def save_picture(pixels: ImageArray, path: Path) -> None:
    """Writes an RGB picture in the format that its name says, JPEG without chroma sub-sampling."""
    picture = Image.fromarray(pixels)
    if path.suffix.lower() in {".jpg", ".jpeg"}:
        picture.save(path, quality=JPEG_QUALITY, subsampling=0)
    else:
        picture.save(path)


def _kept(view: PosedView, camera: Camera, pixels: np.ndarray) -> PosedView:
    """The view with the observations that are still inside the image."""
    x, y = np.asarray(pixels, dtype=np.float64).reshape(-1, 2).T
    with np.errstate(invalid="ignore"):
        inside = (x >= 0) & (x <= camera.width_px) & (y >= 0) & (y <= camera.height_px)  # [M]; NaN is outside
    return PosedView(view.name, camera, view.cam_from_world, view.point_ids[inside], pixels[inside])
