"""Folders of photos and cameras for other tools: nerfstudio, and the layout that Gaussian-splatting trainers read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from recon.cameras.remap import warp
from recon.interop.clouds import write_ply
from recon.interop.nerfstudio import TURNED_Z_UP, Frame, write_transforms
from recon.mapping.model import write_model
from recon.surface.types import DepthMap, PointCloud
from recon.types import Camera, Scene

MAX_DEPTH_MM = 65_535


def write_nerfstudio(
    folder: Path,
    scene: Scene,
    load_depth: Callable[[str], DepthMap | None],
    load_mask: Callable[[str, Camera], np.ndarray | None],
) -> tuple[str, ...]:
    """``transforms.json`` for the undistorted photos in ``folder/images``, with depth, masks and the sparse points.

    Args:
        folder: holds ``images/`` already; ``scene`` is theirs.
        load_depth: the depth map of a photo, in the scene's unit, or None.
        load_mask: the mask [H, W] (0 = ignore) of a photo as its PINHOLE camera sees it, or None.

    Returns:
        notes for the user.
    """
    masks = {view.name: load_mask(view.name, view.camera) for view in scene.views}
    with_masks = any(mask is not None for mask in masks.values())
    frames, too_far, with_depth = [], 0, 0
    for view in scene.views:
        stem = PurePosixPath(view.name).with_suffix(".png")
        depth_file = mask_file = None
        depth_map = load_depth(view.name)
        if depth_map is not None:
            depth, seen = warp(depth_map.depth_m, depth_map.camera, view.camera, nearest=True)
            far = seen & (depth * 1000 > MAX_DEPTH_MM)
            too_far += int(far.sum())
            valid = seen & np.isfinite(depth) & (depth > 0) & ~far
            millimetres = np.where(valid, np.rint(np.nan_to_num(depth) * 1000).clip(0, MAX_DEPTH_MM), 0)
            depth_file = f"depth/{stem}"
            _save_grey(millimetres.astype(np.uint16), folder / depth_file)
            with_depth += 1
        if with_masks:  # nerfstudio takes masks for all photos or for none
            mask = masks[view.name]
            if mask is None:
                mask = np.full((view.camera.height_px, view.camera.width_px), 255, dtype=np.uint8)
            mask_file = f"masks/{stem}"
            _save_grey(np.where(mask > 0, 255, 0).astype(np.uint8), folder / mask_file)
        frames.append(Frame(f"images/{view.name}", view.camera, view.cam_from_world, depth_file, mask_file))
    up = "z" if scene.georeference is not None else "-y"
    extra = {}
    if len(scene.points_world):
        turn = TURNED_Z_UP if up == "-y" else np.eye(3)
        write_ply(PointCloud(scene.points_world @ turn.T, scene.point_colors), folder / "sparse_pc.ply")
        extra["ply_file_path"] = "sparse_pc.ply"
    write_transforms(folder / "transforms.json", frames, up, extra)
    notes = []
    if not scene.scale.is_known:
        notes.append("the scale is unknown: depth is in thousandths of the map's unit")
    if with_depth < len(frames):
        notes.append(f"{len(frames) - with_depth} of {len(frames)} photos have no depth map")
    if too_far:
        notes.append(f"{too_far} pixels are farther than {MAX_DEPTH_MM / 1000} and were left out of the 16-bit depth")
    return tuple(notes)


def write_splat(folder: Path, scene: Scene, dense: PointCloud | None) -> tuple[str, ...]:
    """``sparse/0`` with PINHOLE cameras and ``points3D.ply`` beside the undistorted photos in ``folder/images``.

    The layout that the trainers of 3D Gaussian splatting (graphdeco-inria, gsplat, nerfstudio's splatfacto) start from.
    The start points are the dense ones when given, which saves the trainer most of its densification.
    """
    sparse = folder / "sparse" / "0"
    write_model(scene, sparse)
    cloud = dense or PointCloud(scene.points_world, scene.point_colors)
    if len(cloud.points_world_m) == 0:
        return ("the map has no points: the trainer has to start from random ones",)
    normals = np.zeros((len(cloud.points_world_m), 3), dtype=np.float32)  # the trainers want the columns
    write_ply(PointCloud(cloud.points_world_m, cloud.colors, normals), sparse / "points3D.ply")
    return (f"{len(cloud.points_world_m)} start points, {'dense' if dense is not None else 'sparse'}",)


def _save_grey(values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
