"""Visibility: which primitive each pixel sees, and how deep, exactly; in torch, on any device.

Slabs for boxes, interval intersection for cylinders (Kay & Kajiya 1986), quadratic equations for round shapes. On a CPU
each primitive is tested only inside the bounding rectangle of its projected box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.synth.world import Kind, World
from recon.types import Camera

NEAR_M = 0.02
MISS = 3.0e38
_AXES = np.array([[-1, -1, -1], [1, -1, -1], [-1, 1, -1], [1, 1, -1], [-1, -1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, 1]])
_EDGES = np.array([[i, i | bit] for bit in (1, 2, 4) for i in range(8) if not i & bit])  # [12, 2] corner numbers
_CHUNK_ELEMENTS = 1 << 23  # of rays times primitives at once, off the CPU


@dataclass(frozen=True)
class Rays:
    """Rays of a camera through the unit frames of all primitives; a ray is ``origin + depth matrix (x, y, 1)``."""

    x: Tensor  # [W] normalised image coordinate of each column
    y: Tensor  # [H]
    matrix: Tensor  # [P, 3, 3] unit frame from camera
    origin: Tensor  # [P, 3] camera centre in the unit frame


def camera_rays(
    world: World, camera: Camera, cam_from_world: NDArray[np.float64], device: str | torch.device = "cpu"
) -> Rays:
    fx, fy, cx, cy = camera.fx_fy_cx_cy
    x = (np.arange(camera.width_px) + 0.5 - cx) / fx
    y = (np.arange(camera.height_px) + 0.5 - cy) / fy
    rotation = cam_from_world[:, :3]
    centre = -rotation.T @ cam_from_world[:, 3]
    unit_from_world = world.local_from_world / world.half_m[:, :, None]  # [P, 3, 3]
    matrix = unit_from_world @ rotation.T
    origin = np.einsum("pij,pj->pi", unit_from_world, centre - world.centre_world_m)
    return Rays(*(torch.from_numpy(part.astype(np.float32)).to(device) for part in (x, y, matrix, origin)))


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


def _slab(direction: Tensor, origin: Tensor | float) -> tuple[Tensor, Tensor]:
    """Depths where rays enter and leave the slab |coordinate| <= 1."""
    inverse = torch.where(direction.abs() < 1e-12, 1e-12, direction).reciprocal_()
    middle = inverse * -origin
    reach = inverse.abs_()
    return middle - reach, middle + reach


def _quadric(squares: Tensor, mixed: Tensor, constant: Tensor | float) -> tuple[Tensor, Tensor]:
    """Depths where ``squares t^2 + 2 mixed t + constant = 0``; an empty interval where there is no root."""
    root = mixed * mixed - squares * constant
    half = root.clamp(min=0.0).sqrt()
    inverse = squares.clamp(min=1e-20).reciprocal()
    hit = root > 0
    return torch.where(hit, (-mixed - half) * inverse, MISS), torch.where(hit, (half - mixed) * inverse, -MISS)


def enter(kind: int, d: Sequence[Tensor], o: Sequence[Tensor | float]) -> Tensor:
    """Depth of the first hit with a unit solid (for the room: where the ray leaves it), ``MISS`` without one.

    ``d``: the rays' directions in the unit frame, three tensors of one shape; ``o``: their origin, three numbers or
    tensors that broadcast.
    """
    if kind in (Kind.BOX, Kind.ROOM):
        near_x, far_x = _slab(d[0], o[0])
        near_y, far_y = _slab(d[1], o[1])
        near_z, far_z = _slab(d[2], o[2])
        far = torch.minimum(torch.minimum(far_x, far_y), far_z)
        if kind == Kind.ROOM:
            return far
        near = torch.maximum(torch.maximum(near_x, near_y), near_z)
    elif kind == Kind.CYLINDER:
        near, far = _quadric(d[0] * d[0] + d[1] * d[1], d[0] * o[0] + d[1] * o[1], o[0] * o[0] + o[1] * o[1] - 1.0)
        near_z, far_z = _slab(d[2], o[2])
        near, far = torch.maximum(near, near_z), torch.minimum(far, far_z)
    else:
        near, far = _quadric(
            d[0] * d[0] + d[1] * d[1] + d[2] * d[2],
            d[0] * o[0] + d[1] * o[1] + d[2] * o[2],
            o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 1.0,
        )
    return torch.where((near < far) & (near > NEAR_M), near, MISS)


def visibility(world: World, camera: Camera, cam_from_world: NDArray[np.float64], rays: Rays) -> tuple[Tensor, Tensor]:
    """Z-depth (float32) and primitive (int64) of every pixel centre, [H, W] each, on the rays' device."""
    if rays.x.device.type == "cpu":
        return _by_rectangle(world, rays, _rectangles(world, camera, cam_from_world))
    return _by_chunk(world, rays)


def _by_rectangle(world: World, rays: Rays, rectangles: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """One primitive after another, each within its rectangle: the least work."""
    depth = torch.full((len(rays.y), len(rays.x)), MISS)
    owner = torch.zeros(depth.shape, dtype=torch.int64)
    matrices, origins, kinds = rays.matrix.tolist(), rays.origin.tolist(), world.kind.tolist()
    for p, (left, right, top, bottom) in enumerate(rectangles.tolist()):
        if left >= right or top >= bottom:
            continue
        x, y = rays.x[left:right], rays.y[top:bottom, None]
        hit = enter(kinds[p], [(y * m[1] + m[2]) + x * m[0] for m in matrices[p]], origins[p])
        window = depth[top:bottom, left:right]
        closer = hit < window
        window.copy_(torch.where(closer, hit, window))
        owner[top:bottom, left:right].masked_fill_(closer, p)
    return depth, owner


def _by_chunk(world: World, rays: Rays) -> tuple[Tensor, Tensor]:
    """Many primitives of a kind at once against all pixels: few launches. Of equal depths the first primitive's counts,
    as above."""
    shape = (len(rays.y), len(rays.x))
    device = rays.x.device
    depth = torch.full(shape, MISS, device=device)
    owner = torch.zeros(shape, dtype=torch.int64, device=device)
    at_once = max(1, _CHUNK_ELEMENTS // (shape[0] * shape[1]))
    for kind in np.unique(world.kind).tolist():
        for chosen in torch.from_numpy(np.flatnonzero(world.kind == kind)).to(device).split(at_once):
            matrix, origin = rays.matrix[chosen], rays.origin[chosen]  # [C, 3, 3], [C, 3]
            directions = [
                (rays.y[:, None] * matrix[:, i, 1, None, None] + matrix[:, i, 2, None, None])
                + rays.x * matrix[:, i, 0, None, None]
                for i in range(3)
            ]  # [C, H, W]
            hit = enter(kind, directions, [origin[:, i, None, None] for i in range(3)])
            best = hit.amin(dim=0)
            first = torch.where(hit == best, chosen[:, None, None], len(world.kind)).amin(dim=0)
            closer = (best < depth) | ((best == depth) & (first < owner))
            depth = torch.where(closer, best, depth)
            owner = torch.where(closer, first, owner)
    return depth, owner
