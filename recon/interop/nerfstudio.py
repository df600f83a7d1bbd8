"""nerfstudio's ``transforms.json``, in and out.

Format: docs.nerf.studio, "Data conventions": ``transform_matrix`` is world from camera with OpenGL axes (x right, y up,
z back); ``applied_transform`` [3, 4] maps the original world to the file's; pixels count from the image's corner.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.capture.given import find_intrinsics
from recon.errors import BadInputError
from recon.interop.result import Reconstructed, check_photo_name, check_poses
from recon.types import Camera

_OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0])
_MAX_JSON_BYTES = 256 << 20

# nerfstudio's viewers want z up; COLMAP-like worlds (y down, z forward) are turned as its own converter turns them
TURNED_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


@dataclass(frozen=True)
class Frame:
    """One photo of a ``transforms.json``: paths are relative to the file."""

    file_path: str
    camera: Camera
    cam_from_world: NDArray[np.float64]
    depth_file_path: str | None = None
    mask_path: str | None = None


def read_transforms(path: Path) -> Reconstructed:
    """Poses (in the original world where ``applied_transform`` is given) and cameras of a ``transforms.json``.

    Raises:
        BadInputError: it is not of that form.
    """
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise BadInputError(f"{path}: is larger than {_MAX_JSON_BYTES >> 20} MiB; no transforms.json is")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        frames = data["frames"]
        names = [_name(str(frame["file_path"]), path) for frame in frames]
        matrices = np.array([frame["transform_matrix"] for frame in frames], dtype=np.float64).reshape(-1, 4, 4)
        applied = np.array(data.get("applied_transform", np.eye(4)[:3]), dtype=np.float64).reshape(3, 4)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        detail = f"{type(error).__name__} {error}".splitlines()[0][:120]
        raise BadInputError(f"{path}: not a nerfstudio transforms.json ({detail}); it needs frames with file_path and "
                            "transform_matrix") from error  # fmt: skip
    if not names or len(set(names)) != len(names):
        raise BadInputError(f"{path}: holds {len(names)} frames of {len(set(names))} photos; each photo once is wanted")
    scale = abs(np.linalg.det(applied[:, :3])) ** (1 / 3)
    if not np.isfinite(applied).all() or scale < 1e-9:
        raise BadInputError(f"{path}: applied_transform is not a transformation")
    original_from_file = np.linalg.inv(np.vstack([applied, [0, 0, 0, 1]]))
    world_from_cam = original_from_file @ matrices  # [N, 4, 4]
    rotation = world_from_cam[:, :3, :3] * scale @ _OPENGL_FROM_OPENCV  # OpenCV axes, unit length
    cam_from_world = np.concatenate(
        [rotation.transpose(0, 2, 1), -rotation.transpose(0, 2, 1) @ world_from_cam[:, :3, 3:]], axis=2
    )
    poses = check_poses(cam_from_world, path)
    intrinsics = None
    if any("fl_x" in entry or "camera_angle_x" in entry for entry in (data, *frames)):
        intrinsics = find_intrinsics([path.parent]) if path.name == "transforms.json" else None
    cameras: dict[str, Camera] = {}
    for name in names if intrinsics is not None else ():
        camera = intrinsics.by_name.get(name, intrinsics.shared)  # type: ignore[union-attr]
        if camera is not None:
            cameras[name] = camera
    notes = ("poses are in the world before applied_transform",) if "applied_transform" in data else ()
    return Reconstructed(path, "nerfstudio transforms", dict(zip(names, poses)), cameras, notes=notes)


def _name(file_path: str, source: Path) -> str:
    name = check_photo_name(file_path.removeprefix("./"), source)
    return name.removeprefix("images/")


def write_transforms(
    path: Path, frames: Sequence[Frame], world_up: str = "-y", extra: Mapping[str, Any] | None = None
) -> None:
    """Writes a ``transforms.json``. ``world_up`` is ``-y`` (OpenCV-like world, turned to z up) or ``z`` (kept).

    Raises:
        BadInputError: masks for some photos only (nerfstudio wants all or none).
    """
    masked = [frame for frame in frames if frame.mask_path is not None]
    if masked and len(masked) != len(frames):
        raise BadInputError(f"{path}: {len(masked)} of {len(frames)} photos have a mask; nerfstudio takes all or none")
    turn = TURNED_Z_UP if world_up == "-y" else np.eye(3)
    applied = np.column_stack([turn, np.zeros(3)])
    rows = []
    for frame in frames:
        rotation = frame.cam_from_world[:, :3].T  # world from camera
        centre = -rotation @ frame.cam_from_world[:, 3]
        matrix = np.eye(4)
        matrix[:3, :3] = turn @ rotation @ _OPENGL_FROM_OPENCV
        matrix[:3, 3] = turn @ centre
        row: dict[str, Any] = {"file_path": frame.file_path, **_intrinsics(frame.camera)}
        row["transform_matrix"] = matrix.tolist()
        if frame.depth_file_path is not None:
            row["depth_file_path"] = frame.depth_file_path
        if frame.mask_path is not None:
            row["mask_path"] = frame.mask_path
        rows.append(row)
    content = {**_shared_model(frames), "applied_transform": applied.tolist(), **(extra or {}), "frames": rows}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _shared_model(frames: Sequence[Frame]) -> dict[str, Any]:
    models = {_intrinsics(frame.camera)["camera_model"] for frame in frames}
    if len(models) > 1:
        raise BadInputError(f"nerfstudio takes one camera model for all photos, found {', '.join(sorted(models))}")
    return {"camera_model": next(iter(models))} if models else {}


def _intrinsics(camera: Camera) -> dict[str, Any]:
    fx, fy, cx, cy = camera.fx_fy_cx_cy
    d = camera.distortion
    keys: dict[str, tuple[str, tuple[str, ...]]] = {
        "SIMPLE_PINHOLE": ("PINHOLE", ()),
        "PINHOLE": ("PINHOLE", ()),
        "SIMPLE_RADIAL": ("OPENCV", ("k1",)),
        "RADIAL": ("OPENCV", ("k1", "k2")),
        "OPENCV": ("OPENCV", ("k1", "k2", "p1", "p2")),
        "OPENCV_FISHEYE": ("OPENCV_FISHEYE", ("k1", "k2", "k3", "k4")),
    }
    if camera.model not in keys:
        raise BadInputError(f"camera model {camera.model} has no nerfstudio equivalent; export undistorted photos")
    model, names = keys[camera.model]
    head = {"camera_model": model, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": camera.width_px,
            "h": camera.height_px}  # fmt: skip
    return head | dict(zip(names, d, strict=True))
