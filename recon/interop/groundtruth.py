"""A ground-truth folder: ``gt/cameras.json``, with ``gt/depth/*.png`` (millimetres) and ``gt/mesh.ply`` where there.

The file counts pixels from the first pixel's centre; what is read here counts from its corner, as everywhere.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from recon.errors import BadInputError
from recon.interop.clouds import read_surface
from recon.interop.result import Reconstructed, check_photo_name, check_poses
from recon.surface.types import DepthMap


def find_cameras(folder: Path) -> Path | None:
    """The ``cameras.json`` of a scene folder or of its ``gt/`` folder."""
    return next((p for p in (folder / "gt" / "cameras.json", folder / "cameras.json") if p.is_file()), None)


def read_folder(folder: Path) -> Reconstructed:
    """Poses, cameras, depth maps and the surface of a ground-truth folder.

    Raises:
        BadInputError: ``cameras.json`` is missing or damaged, or depth maps don't fit the cameras.
    """
    from recon.interop.colmap import read_ground_truth

    path = find_cameras(folder)
    if path is None:
        raise BadInputError(f"{folder}: holds no gt/cameras.json; accepted: a folder with ground truth")
    cameras, poses, metric = read_ground_truth(path)
    for name in poses:
        check_photo_name(name, path)
    if not poses:
        raise BadInputError(f"{path}: holds no photo")
    stacked = check_poses(np.array(list(poses.values())), path)
    checked = dict(zip(poses, stacked))
    depth_folder = path.parent / "depth"
    depth_files = {name: depth_folder / f"{PurePosixPath(name).stem}.png" for name in poses}
    depth_names = tuple(sorted(name for name, file in depth_files.items() if file.is_file()))

    def load_depth(name: str) -> DepthMap:
        camera = cameras[name]
        try:
            with Image.open(depth_files[name]) as picture:
                if picture.size != (camera.width_px, camera.height_px) or not picture.mode.startswith("I"):
                    raise ValueError(f"{picture.size[0]}x{picture.size[1]} px, mode {picture.mode}")
                millimetres = np.asarray(picture, dtype=np.float32)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise BadInputError(f"{depth_files[name]}: no 16-bit depth of its photo's size ({error})") from error
        depth = np.where(millimetres > 0, millimetres / np.float32(1000), np.float32(np.nan))
        black = np.zeros((*depth.shape, 3), dtype=np.uint8)
        return DepthMap(name, depth, np.ones_like(depth), camera, checked[name], black, "ground truth")

    mesh = path.parent / "mesh.ply"
    cloud = path.parent / "points.ply"
    surface = next((read_surface(file).surface for file in (mesh, cloud) if file.is_file()), None)
    notes = () if metric else ("this ground truth is not metric",)
    return Reconstructed(
        folder, "ground truth", checked, cameras, depth_names, load_depth if depth_names else None, surface,
        photos=tuple(checked), metric=metric, notes=notes,
    )  # fmt: skip
