"""Recognises and reads any result that can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recon.errors import BadInputError
from recon.interop import da3, groundtruth, nerfstudio, run, vggt
from recon.interop.archive import NamedArrays
from recon.interop.clouds import SURFACE_FORMATS, read_surface
from recon.interop.depthmaps import read_colmap_depth
from recon.interop.result import Kind, Reconstructed, Surface
from recon.interop.sparse import count_points, model_folder, read_cameras_and_poses, read_points
from recon.types import Camera

ACCEPTED = (
    "accepted: a workspace or mesh of ours, a COLMAP model folder, VGGT's predictions.npz or scene folder, "
    "Depth-Anything-3's export folder or results.npz, MapAnything's COLMAP export, nerfstudio's transforms.json, a "
    f"folder with gt/cameras.json, or a surface ({' '.join(SURFACE_FORMATS)})"
)


def read_result(path: Path) -> Reconstructed:
    """What lies at ``path``, whichever tool wrote it.

    Raises:
        BadInputError: there is nothing, it's none of the accepted formats, or it's damaged.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise BadInputError(f"{path}: does not exist; {ACCEPTED}")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        arrays = NamedArrays(path)
        if vggt.is_predictions(arrays):
            return vggt.read_predictions(path)
        if da3.is_results(arrays):
            return da3.read_results(path)
        found = ", ".join(sorted(arrays.names)[:12]) or "no arrays"
        raise BadInputError(f"{path}: neither VGGT's nor Depth-Anything-3's arrays (found: {found}); {ACCEPTED}")
    if suffix == ".json":
        if path.name == "cameras.json":
            return groundtruth.read_folder(path.parent)
        return nerfstudio.read_transforms(path)
    if suffix in SURFACE_FORMATS:
        workspace = run.find_workspace(path)
        return read_surface(path) if workspace is None else run.read_run(workspace, path)
    raise BadInputError(f"{path}: format {suffix!r} is not known; {ACCEPTED}")


def _read_folder(folder: Path) -> Reconstructed:
    if run.find_workspace(folder) is not None:
        return run.read_run(folder)
    if groundtruth.find_cameras(folder) is not None:
        return groundtruth.read_folder(folder)
    results = da3.find_results(folder)
    if results is not None:
        return da3.read_results(results, folder)
    if (folder / "predictions.npz").is_file():
        return vggt.read_predictions(folder / "predictions.npz")
    model = model_folder(folder)
    if model is not None:
        return read_colmap(folder, model)
    if (folder / "transforms.json").is_file():
        return nerfstudio.read_transforms(folder / "transforms.json")
    if (folder / run.MARKER).is_file():
        raise BadInputError(f"{folder}: this run has no map yet (sparse/0 is missing); let it finish first")
    raise BadInputError(f"{folder}: holds no result that is known; {ACCEPTED}")


def read_colmap(folder: Path, model: Path) -> Reconstructed:
    """A COLMAP model and what lies beside it: ``fused.ply``, ``stereo/depth_maps``, or an exporter's ``points.ply``.

    VGGT's and MapAnything's demo_colmap.py write a ``points.ply`` beside the model. After bundle adjustment only
    points3D is up to date, so that is read (``points.ply`` when it is empty). VGGT's puts the principal point at
    the image's centre; MapAnything's cameras belong to its processed photos, written to its own ``images/``.

    Raises:
        BadInputError: the model is damaged.
    """
    cameras, poses = read_cameras_and_poses(model)
    count = count_points(model)
    fused = _first_file(folder / "fused.ply", folder / "dense" / "fused.ply", folder / "dense" / "0" / "fused.ply")
    beside = _first_file(model / "points.ply", folder / "points.ply")
    kind: Kind = "COLMAP model"
    notes: list[str] = []
    surface: Surface | None = None
    if fused is not None:
        surface = read_surface(fused).surface
    elif count > 0:
        surface = Surface("sparse points", lambda limit, seed: read_points(model, limit, seed), count)
    if beside is not None and fused is None:
        kind = "feed-forward COLMAP export"
        surface = surface or read_surface(beside).surface
        if _centred(cameras):
            notes.append("principal points are the images' centres, where VGGT's exporter puts them: no estimates")
        if count > 0:
            notes.append("points are those of points3D, not points.ply, which lacks bundle adjustment")
    depth_names, load_depth = read_colmap_depth(folder, model, cameras, poses)
    return Reconstructed(folder, kind, poses, cameras, depth_names, load_depth, surface, notes=tuple(notes))


def _first_file(*candidates: Path) -> Path | None:
    return next((path for path in candidates if path.is_file()), None)


def _centred(cameras: Mapping[str, Camera]) -> bool:
    offsets = [
        (camera.fx_fy_cx_cy[2] - camera.width_px / 2, camera.fx_fy_cx_cy[3] - camera.height_px / 2)
        for camera in cameras.values()
    ]
    return bool(np.abs(offsets).max(initial=0.0) < 1e-6)
