"""COLMAP's formats: models in and out, undistortion to ``dense/``, and the cameras of our ground-truth files."""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray

from recon.cameras.pixels import corner_from_index
from recon.errors import BadInputError, OutputError
from recon.mapping.model import from_reconstruction, to_scene, write_model
from recon.types import Camera, Scene

__all__ = ["rays_of_any_model", "read_ground_truth", "read_model", "undistort_workspace", "write_model"]


def read_model(folder: Path) -> Scene:
    """The scene of a COLMAP model folder (binary or text; ``sparse/0`` of a workspace). Its scale is unknown.

    Raises:
        BadInputError: there is no readable model.
    """
    try:
        _check_images_file(folder / "images.bin")
        reconstruction = pycolmap.Reconstruction(str(folder))
    except (ValueError, RuntimeError, OSError) as error:
        raise BadInputError(
            f"{folder}: no readable COLMAP model ({_first_line(error)}); accepted: a folder with cameras, images and "
            "points3D as .bin or .txt"
        ) from error
    if reconstruction.num_reg_images() == 0:
        raise BadInputError(f"{folder}: the COLMAP model has no registered image")
    reconstruction.update_point_3d_errors()
    model = from_reconstruction(reconstruction)
    errors = np.array([reconstruction.points3D[i].error for i in sorted(reconstruction.points3D)])
    return to_scene(model, errors[model.observations.point] if len(errors) else np.zeros(0), ())


def rays_of_any_model(camera: Camera, pixels: NDArray[np.floating]) -> NDArray[np.float64]:
    """Viewing rays [N, 3] with z = 1 of pixels [N, 2] of a camera of any COLMAP model, e.g. ``THIN_PRISM_FISHEYE``,
    which :mod:`recon.cameras.pinhole` does not know; NaN where there is none."""
    known = pycolmap.Camera(model=camera.model, width=camera.width_px, height=camera.height_px, params=camera.params)
    points = np.asarray(known.cam_from_img(np.asarray(pixels, dtype=np.float64)), dtype=np.float64).reshape(-1, 2)
    return np.column_stack([points, np.ones(len(points))])


def undistort_workspace(workspace: Path, max_image_px: int = -1) -> Path:
    """Writes ``workspace/dense`` (undistorted images and a PINHOLE model, COLMAP's layout) from ``sparse/0``.

    The folder appears whole: it is made beside and moved into place. Returns its path.

    Raises:
        OutputError: nothing could be written.
    """
    dense = workspace / "dense"
    options = pycolmap.UndistortCameraOptions()
    options.max_image_size = max_image_px
    staging = Path(tempfile.mkdtemp(prefix=".dense-", dir=workspace))
    try:
        pycolmap.undistort_images(
            staging, workspace / "sparse" / "0", workspace / "images", undistort_options=options, num_threads=2
        )
        if dense.exists():
            shutil.rmtree(dense)
        staging.rename(dense)
    except (ValueError, RuntimeError, OSError) as error:
        raise OutputError(f"{dense}: undistorted images can't be written ({_first_line(error)})") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return dense


def read_ground_truth(path: Path) -> tuple[dict[str, Camera], dict[str, NDArray[np.float64]], bool]:
    """Cameras, ``cam_from_world`` [3, 4] by photo name, and whether they are metric, of a ``gt/cameras.json``.

    The file's principal points count from the first pixel's centre; ours count from its corner (half a pixel more).
    Photo names are relative to ``images/``.

    Raises:
        BadInputError: the file is not of that form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cameras: dict[str, Camera] = {}
        poses: dict[str, NDArray[np.float64]] = {}
        for entry in content["images"]:
            name = str(entry["file"]).removeprefix("images/")
            cameras[name] = _ground_truth_camera(entry)
            rotation, translation = np.array(entry["R_cw"], float), np.array(entry["t_cw"], float)
            poses[name] = np.column_stack([rotation.reshape(3, 3), translation.reshape(3)])
        metric = bool(content.get("metric", all(entry.get("metric", False) for entry in content["images"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path}: not a ground-truth cameras.json ({_first_line(error)})") from error
    return cameras, poses, metric


def _check_images_file(path: Path) -> None:
    """Raises ValueError when an ``images.bin`` ends before its last image: pycolmap reads such files for ever."""
    if not path.is_file():
        return
    content, position = path.read_bytes(), 8
    if len(content) < 8:
        raise ValueError("images.bin is truncated")
    (count,) = struct.unpack_from("<Q", content)
    for _ in range(count):
        end = content.find(b"\0", position + 64)  # image id, pose and camera id come before the name
        if end < 0 or end + 9 > len(content):
            raise ValueError("images.bin is truncated")
        (num_points,) = struct.unpack_from("<Q", content, end + 1)
        position = end + 9 + 24 * num_points
    if position > len(content):
        raise ValueError("images.bin is truncated")


def _ground_truth_camera(entry: Mapping[str, Any]) -> Camera:
    centre = corner_from_index(np.array([[entry["cx"], entry["cy"]]], dtype=np.float64))[0]
    head = (float(entry["fx"]), float(entry["fy"]), float(centre[0]), float(centre[1]))
    distortion = entry.get("distortion") or {"model": "none"}
    model = str(distortion.get("model", "none"))
    if model == "none":
        return Camera("PINHOLE", int(entry["width"]), int(entry["height"]), head, "given")
    if model != "OPENCV":
        raise ValueError(f"distortion model {model!r}; accepted: none, OPENCV")
    params = head + tuple(float(distortion[key]) for key in ("k1", "k2", "p1", "p2"))
    return Camera("OPENCV", int(entry["width"]), int(entry["height"]), params, "given")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
