"""Pictures of meshes by ray casting: no display, no GPU."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recon.surface.backend import open3d
from recon.surface.types import Mesh
from recon.types import Camera, ImageArray

_BACKGROUND = (255, 255, 255)
_CLAY = (205, 200, 192)


def render_mesh(
    mesh: Mesh,
    camera: Camera,
    cam_from_world: NDArray[np.float64],
    style: Literal["color", "clay", "shaded"] = "shaded",
    oversample: int = 2,
) -> ImageArray:
    """Picture of a mesh from a pinhole camera, [H, W, 3], on white.

    ``color``: vertex colours as they are; ``clay``: one matt colour, which shows the geometry; ``shaded``: vertex
    colours with a little of the clay's light. ``oversample`` rays per pixel and axis smooth the edges.
    """
    width_px, height_px = camera.width_px, camera.height_px
    face, barycentric, directions = cast_camera(mesh, camera, cam_from_world, oversample)
    hit = face >= 0
    image = np.full((*face.shape, 3), _BACKGROUND, dtype=np.float32)
    corners = mesh.faces[face[hit]]  # [K, 3]
    weights = barycentric[hit]  # [K, 3]
    if style == "clay" or mesh.colors is None:
        base = np.broadcast_to(np.array(_CLAY, dtype=np.float32), (len(corners), 3))
    else:
        base = np.einsum("kcd,kc->kd", mesh.colors[corners].astype(np.float32), weights)
    if style != "color":
        light = _light(mesh, corners, weights, directions[hit])
        base = base * (light if style == "clay" or mesh.colors is None else 0.55 + 0.45 * light)[:, None]
    image[hit] = base
    image = image.reshape(height_px, oversample, width_px, oversample, 3).mean(axis=(1, 3))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def cast_camera(
    mesh: Mesh, camera: Camera, cam_from_world: NDArray[np.float64], oversample: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64]]:
    """Face seen by each of ``oversample`` rays per pixel and axis (-1: none) [H, W], the weights of its corners
    [H, W, 3], and the rays' directions in the world [H, W, 3].
    """
    fine = camera.resized(camera.width_px * oversample, camera.height_px * oversample)
    rotation, translation = cam_from_world[:, :3], cam_from_world[:, 3]
    fx, fy, cx, cy = fine.fx_fy_cx_cy
    x = (np.arange(fine.width_px) + 0.5 - cx) / fx
    y = (np.arange(fine.height_px) + 0.5 - cy) / fy
    directions = np.stack([*np.meshgrid(x, y), np.ones((fine.height_px, fine.width_px))], axis=-1) @ rotation
    origin = np.broadcast_to(-rotation.T @ translation, directions.shape)
    face, weights = _cast(mesh, np.concatenate([origin, directions], axis=-1).astype(np.float32))  # rays [H, W, 6]
    return face, weights, directions


def _cast(mesh: Mesh, rays: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Face hit by each ray (-1: none) [H, W] and the weights of its corners [H, W, 3]."""
    o3d = open3d()
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor(np.asarray(mesh.vertices_world_m, dtype=np.float32)),
        o3d.core.Tensor(np.asarray(mesh.faces, dtype=np.uint32)),
    )
    result = scene.cast_rays(o3d.core.Tensor(rays))
    ids = result["primitive_ids"].numpy()
    face = np.where(ids == o3d.t.geometry.RaycastingScene.INVALID_ID, -1, ids.astype(np.int64))
    uv = result["primitive_uvs"].numpy()
    return face, np.concatenate([1 - uv.sum(axis=-1, keepdims=True), uv], axis=-1)


def _light(mesh: Mesh, corners: NDArray, weights: NDArray, directions: NDArray) -> NDArray[np.float32]:
    """Brightness in [0.25, 1] of each hit: a lamp at the camera, a little from the left above."""
    vertices = np.asarray(mesh.vertices_world_m, dtype=np.float64)
    if mesh.normals is not None:
        normals = np.einsum("kcd,kc->kd", mesh.normals[corners], weights)
    else:
        a, b, c = (vertices[corners[:, i]] for i in range(3))
        normals = np.cross(b - a, c - a)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    towards = -directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    return (0.25 + 0.75 * np.abs(np.einsum("kd,kd->k", normals, towards))).astype(np.float32)
