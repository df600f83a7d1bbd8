"""Visibility: which primitive each pixel sees, and how deep, exactly.

Each primitive is tested only inside the bounding rectangle of its projected box: slabs for boxes, interval intersection
for cylinders (Kay & Kajiya 1986), quadratic equations for round shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.synth.world import Kind, World
from recon.types import Camera

Float32 = NDArray[np.floating]  # computed in float32 throughout
NEAR_M = 0.02
MISS = np.float32(3.0e38)
_AXES = np.array([[-1, -1, -1], [1, -1, -1], [-1, 1, -1], [1, 1, -1], [-1, -1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, 1]])
_EDGES = np.array([[i, i | bit] for bit in (1, 2, 4) for i in range(8) if not i & bit])  # [12, 2] corner numbers


@dataclass(frozen=True)
class Rays:
    """Rays of a camera through the unit frames of all primitives; a ray is ``origin + depth matrix (x, y, 1)``."""

    x: Float32  # [W] normalised image coordinate of each column
    y: Float32  # [H]
    matrix: Float32  # [P, 3, 3] unit frame from camera
    origin: Float32  # [P, 3] camera centre in the unit frame


def camera_rays(world: World, camera: Camera, cam_from_world: NDArray[np.float64]) -> Rays:
    fx, fy, cx, cy = camera.fx_fy_cx_cy
    x = ((np.arange(camera.width_px) + 0.5 - cx) / fx).astype(np.float32)
    y = ((np.arange(camera.height_px) + 0.5 - cy) / fy).astype(np.float32)
    rotation = cam_from_world[:, :3]
    centre = -rotation.T @ cam_from_world[:, 3]
    unit_from_world = world.local_from_world / world.half_m[:, :, None]  # [P, 3, 3]
    matrix = unit_from_world @ rotation.T
    origin = np.einsum("pij,pj->pi", unit_from_world, centre - world.centre_world_m)
    return Rays(x, y, matrix.astype(np.float32), origin.astype(np.float32))


def _rectangles(world: World, camera: Camera, cam_from_world: NDArray[np.float64]) -> NDArray[np.int64]:
    """Pixel rectangles (column from, to, row from, to) holding each primitive, [P, 4]; empty when out of sight."""
    rotation = cam_from_world[:, :3] @ world.local_from_world.transpose(0, 2, 1)  # [P, 3, 3] cam from local
    centres = world.centre_world_m @ cam_from_world[:, :3].T + cam_from_world[:, 3]
    corners = (
        np.einsum("pij,pkj->pki", rotation, world.half_m[:, None, :] * _AXES[None]) + centres[:, None]
    )  # [P, 8, 3]
    start, end = corners[:, _EDGES[:, 0]], corners[:, _EDGES[:, 1]]  # [P, 12, 3]
    step = end[..., 2] - start[..., 2]
    cut = np.clip((NEAR_M - start[..., 2]) / np.where(np.abs(step) < 1e-12, 1e-12, step), 0.0, 1.0)
    crossing = start + cut[..., None] * (end - start)
    points = np.concatenate([corners, crossing], axis=1)  # [P, 20, 3]
    valid = points[..., 2] >= NEAR_M * (1 - 1e-6)
    depth = np.where(valid, points[..., 2], 1.0)
    fx, fy, cx, cy = camera.fx_fy_cx_cy
    u = points[..., 0] / depth * fx + cx
    v = points[..., 1] / depth * fy + cy
    low = np.stack([np.where(valid, u, np.inf).min(1), np.where(valid, v, np.inf).min(1)], -1)
    high = np.stack([np.where(valid, u, -np.inf).max(1), np.where(valid, v, -np.inf).max(1)], -1)
    size = np.array([camera.width_px, camera.height_px])
    first = np.clip(np.floor(low - 0.5), 0, size)
    last = np.clip(np.ceil(high + 0.5), 0, size)
    return np.stack([first[:, 0], last[:, 0], first[:, 1], last[:, 1]], -1).astype(np.int64)


def _slab(direction: Float32, origin: np.float32) -> tuple[Float32, Float32]:
    """Depths where rays enter and leave the slab |coordinate| <= 1."""
    inverse = 1.0 / np.where(np.abs(direction) < 1e-12, np.float32(1e-12), direction)
    middle = -origin * inverse
    reach = np.abs(inverse)
    return middle - reach, middle + reach


def _quadric(squares: Float32, mixed: Float32, constant: float) -> tuple[Float32, Float32]:
    """Depths where ``squares t^2 + 2 mixed t + constant = 0``; an empty interval where there is no root."""
    root = mixed * mixed - squares * constant
    half = np.sqrt(np.maximum(root, 0.0))
    inverse = 1.0 / np.maximum(squares, np.float32(1e-20))
    hit = root > 0
    return np.where(hit, (-mixed - half) * inverse, MISS), np.where(hit, (-mixed + half) * inverse, -MISS)


def _directions(rays: Rays, p: int, columns: slice, rows: slice) -> list[Float32]:
    m = rays.matrix[p]
    x, y = rays.x[columns], rays.y[rows]
    return [(m[i, 1] * y + m[i, 2])[:, None] + (m[i, 0] * x)[None, :] for i in range(3)]


def enter(kind: int, d: list[Float32], o: Float32) -> Float32:
    """Depth of the first hit with a unit solid (for the room: where the ray leaves it), ``MISS`` without one."""
    if kind in (Kind.BOX, Kind.ROOM):
        near_x, far_x = _slab(d[0], o[0])
        near_y, far_y = _slab(d[1], o[1])
        near_z, far_z = _slab(d[2], o[2])
        far = np.minimum(np.minimum(far_x, far_y), far_z)
        if kind == Kind.ROOM:
            return far
        near = np.maximum(np.maximum(near_x, near_y), near_z)
    elif kind == Kind.CYLINDER:
        near, far = _quadric(
            d[0] * d[0] + d[1] * d[1], d[0] * o[0] + d[1] * o[1], float(o[0] * o[0] + o[1] * o[1]) - 1.0
        )
        near_z, far_z = _slab(d[2], o[2])
        near, far = np.maximum(near, near_z), np.minimum(far, far_z)
    else:
        near, far = _quadric(
            d[0] * d[0] + d[1] * d[1] + d[2] * d[2],
            d[0] * o[0] + d[1] * o[1] + d[2] * o[2],
            float(o @ o) - 1.0,
        )
    return np.where((near < far) & (near > NEAR_M), near, MISS)


def visibility(
    world: World, camera: Camera, cam_from_world: NDArray[np.float64], rays: Rays
) -> tuple[Float32, NDArray[np.int16]]:
    """Z-depth and primitive of every pixel centre, [H, W] each."""
    shape = (camera.height_px, camera.width_px)
    depth = np.full(shape, MISS, np.float32)
    owner = np.zeros(shape, np.int16)
    rectangles = _rectangles(world, camera, cam_from_world)
    for p, (left, right, top, bottom) in enumerate(rectangles.tolist()):
        if left >= right or top >= bottom:
            continue
        columns, rows = slice(left, right), slice(top, bottom)
        hit = enter(int(world.kind[p]), _directions(rays, p, columns, rows), rays.origin[p])
        window = depth[rows, columns]
        closer = hit < window
        np.copyto(window, hit, where=closer)
        np.copyto(owner[rows, columns], np.int16(p), where=closer)
    return depth, owner
