"""Exact scenes for the surface tests: a textured plane or sphere seen by pinhole cameras, computed by formula."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.surface.types import DepthMap
from recon.types import Camera, MetricScale, PosedView, Scene

METRIC = MetricScale(1.0, 1.0, 1.0, ("test",), ())


def camera(width_px: int = 160, height_px: int = 120, focal_px: float = 150.0) -> Camera:
    return Camera.pinhole(width_px, height_px, focal_px, focal_px, width_px / 2 + 1.5, height_px / 2 - 2.0)


def look_from(centre: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """cam_from_world [3, 4] of a camera at ``centre`` that looks at ``target``, image x horizontal."""
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return np.concatenate([rotation, (-rotation @ centre)[:, None]], axis=1)


def rays_world(cam: Camera, cam_from_world: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Camera centre [3] and directions [H, W, 3] with camera z = 1, in the world."""
    fx, fy, cx, cy = cam.fx_fy_cx_cy
    x, y = np.meshgrid((np.arange(cam.width_px) + 0.5 - cx) / fx, (np.arange(cam.height_px) + 0.5 - cy) / fy)
    rotation = cam_from_world[:, :3]
    return -rotation.T @ cam_from_world[:, 3], np.stack([x, y, np.ones_like(x)], axis=-1) @ rotation


def plane_depth(
    cam: Camera, cam_from_world: NDArray[np.float64], normal: NDArray[np.float64], offset: float
) -> NDArray[np.float32]:
    """z-depth of the plane ``normal . X = offset``."""
    centre, directions = rays_world(cam, cam_from_world)
    depth = (offset - normal @ centre) / (directions @ normal)
    return np.where(depth > 0, depth, np.nan).astype(np.float32)


def sphere_depth(
    cam: Camera, cam_from_world: NDArray[np.float64], middle: NDArray[np.float64], radius: float
) -> NDArray[np.float32]:
    """z-depth of a sphere's near side, NaN beside it."""
    centre, directions = rays_world(cam, cam_from_world)
    a = (directions**2).sum(axis=-1)
    b = directions @ (centre - middle)
    c = ((centre - middle) ** 2).sum() - radius**2
    inside = b**2 - a * c
    with np.errstate(invalid="ignore"):
        return np.where(inside > 0, (-b - np.sqrt(inside)) / a, np.nan).astype(np.float32)


def texture(points: NDArray[np.float64], seed: int = 0) -> NDArray[np.uint8]:
    """Colour [..., 3] of points: a sum of random waves in space, the same from every side."""
    generator = np.random.default_rng(seed)
    total = np.zeros((*points.shape[:-1], 3))
    for wavelength in (0.5, 0.25, 0.12, 0.07):
        for _ in range(6):
            direction = generator.standard_normal(3)
            direction *= 2 * np.pi / wavelength / np.linalg.norm(direction)
            wave = np.sin(points @ direction + generator.uniform(0, 2 * np.pi))
            total += wave[..., None] * generator.uniform(0.3, 1.0, 3) * wavelength**0.3
    return np.clip(128 + 45 * total, 0, 255).astype(np.uint8)


def textured(cam: Camera, cam_from_world: NDArray[np.float64], depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    centre, directions = rays_world(cam, cam_from_world)
    return texture(centre + directions * np.nan_to_num(depth)[..., None])


def exact_map(name: str, cam: Camera, cam_from_world: NDArray[np.float64], depth: NDArray[np.float32]) -> DepthMap:
    known = np.isfinite(depth).astype(np.float32)
    return DepthMap(name, depth, known, cam, cam_from_world, textured(cam, cam_from_world, depth), "exact")


def scene_of(maps: list[DepthMap], num_points: int = 300, seed: int = 0) -> Scene:
    """A sparse map with exact points on the first map's surface, seen wherever they project into view."""
    generator = np.random.default_rng(seed)
    first = maps[0]
    rows, columns = np.nonzero(np.isfinite(first.depth_m))
    chosen = generator.choice(len(rows), num_points, replace=False)
    centre, directions = rays_world(first.camera, first.cam_from_world)
    points = centre + directions[rows[chosen], columns[chosen]] * first.depth_m[rows[chosen], columns[chosen], None]
    views = []
    for depth_map in maps:
        cam_points = points @ depth_map.cam_from_world[:, :3].T + depth_map.cam_from_world[:, 3]
        pixels = cam_points @ depth_map.camera.matrix.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        size = [depth_map.camera.width_px, depth_map.camera.height_px]
        ids = np.nonzero(((pixels >= 0) & (pixels < size)).all(axis=1))[0]
        views.append(PosedView(depth_map.name, depth_map.camera, depth_map.cam_from_world, ids, pixels[ids]))
    colors = np.zeros((num_points, 3), dtype=np.uint8)
    return Scene(tuple(views), points, colors, np.zeros(num_points), (), METRIC)


def plane_maps(num_views: int = 4, slant: float = 0.5) -> list[DepthMap]:
    """Views of a textured slanted plane about 2 m away, 0.2 m apart."""
    normal = np.array([slant, 0.2, -1.0]) / np.linalg.norm([slant, 0.2, -1.0])
    offset = float(normal @ np.array([0.0, 0.0, 2.0]))
    maps = []
    for i in range(num_views):
        pose = look_from(np.array([0.2 * (i - num_views / 2), 0.05 * (i % 2), 0.0]), np.array([0.0, 0.0, 2.0]))
        cam = camera()
        maps.append(exact_map(f"view{i}.jpg", cam, pose, plane_depth(cam, pose, normal, offset)))
    return maps


def sphere_maps(num_views: int = 8, radius: float = 0.5, distance: float = 2.0) -> list[DepthMap]:
    """Views of a sphere at the origin from all round and from above and below."""
    maps = []
    for i in range(num_views):
        angle = 2 * np.pi * i / num_views
        height = 0.8 * (-1) ** i
        centre = distance * np.array([np.cos(angle), height, np.sin(angle)]) / np.hypot(1.0, height)
        cam, pose = camera(), look_from(centre, np.zeros(3))
        maps.append(exact_map(f"view{i}.jpg", cam, pose, sphere_depth(cam, pose, np.zeros(3), radius)))
    return maps
