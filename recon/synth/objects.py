"""Things of a world as a view sees them: exact 3D boxes in the levelled camera frame, and boxes in the image.

The levelled frame is the camera's, turned so that y points straight down (gravity) and z lies in the horizontal plane:
"left", "behind", "above", "wide" and "tall" mean there what people mean, whatever the camera's tilt (the frame of
SpatialRGPT's labels, arXiv 2406.01584).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.synth.world import Kind, World
from recon.types import Camera

BACKGROUND = frozenset({"room", "skirting", "ground", "sky", "street", "pavement", "rug"})
"""Things that nobody would ask the size or place of by a box."""


@dataclass(frozen=True)
class ViewObject:
    """One thing in a view.

    Attributes:
        name: what it is.
        box_px: the box around its visible pixels, corner-based (left, top, right, bottom).
        low_m, high_m: corners of the box around the whole thing, in the levelled camera frame (origin at the camera).
        visible: how much of the whole thing's image box the visible part's box covers, in [0, 1].
        pixels: share of the image's pixels that show it.
    """

    name: str
    box_px: tuple[float, float, float, float]
    low_m: tuple[float, float, float]
    high_m: tuple[float, float, float]
    visible: float
    pixels: float


MIN_VISIBLE = 0.55  # of a thing's image box, for questions about it
MIN_PIXELS = 0.002  # of the image
MIN_SIDE = 0.02  # of the image's long edge


def well_seen(things: Sequence[ViewObject], camera: Camera) -> tuple[ViewObject, ...]:
    """Those of a view's things that are seen well enough to be asked about."""
    side = MIN_SIDE * max(camera.width_px, camera.height_px)
    return tuple(
        thing
        for thing in things
        if thing.visible >= MIN_VISIBLE
        and thing.pixels >= MIN_PIXELS
        and min(thing.box_px[2] - thing.box_px[0], thing.box_px[3] - thing.box_px[1]) >= side
    )


def levelled_from_cam(cam_from_world: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation [3, 3] from the camera's axes to the levelled ones (x right, y down along gravity, z forward)."""
    rotation = cam_from_world[:, :3]  # rows: the camera's axes in the world
    forward = rotation[2] * [1.0, 1.0, 0.0]
    if np.linalg.norm(forward) < 1e-3:  # straight down or up: forward is where the image's top (bottom) points
        forward = -np.sign(-rotation[2, 2]) * rotation[1] * [1.0, 1.0, 0.0]
    forward = forward / np.linalg.norm(forward)
    down = np.array([0.0, 0.0, -1.0])
    axes_world = np.stack([np.cross(down, forward), down, forward])  # rows right, down, forward
    return axes_world @ rotation.T


def extents_along(world: World, axes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact extents of every thing along unit vectors ``axes`` [A, 3] of the world: lowest and highest, [O, A] each.

    Things without primitives have (inf, -inf).
    """
    local = np.einsum("pij,aj->pai", world.local_from_world, axes)  # [P, A, 3] axes in each primitive's frame
    reach = local * world.half_m[:, None, :]
    box = np.abs(reach).sum(-1)
    round_ = np.hypot(reach[..., 0], reach[..., 1]) + np.abs(reach[..., 2])
    ball = np.linalg.norm(reach, axis=-1)
    kind = world.kind[:, None]
    half = np.where(kind == Kind.CYLINDER, round_, np.where(kind == Kind.ELLIPSOID, ball, box))  # [P, A]
    middle = world.centre_world_m @ axes.T
    shape = (len(world.object_names), len(axes))
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    np.minimum.at(low, world.object_id, middle - half)
    np.maximum.at(high, world.object_id, middle + half)
    return low, high


def _image_boxes(world: World, camera: Camera, cam_from_world: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes [O, 4] around the projected corners of every thing's primitives, not clipped; infinite behind the lens."""
    signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), -1).reshape(8, 3)
    corners = np.einsum("pji,pkj->pki", world.local_from_world, signs[None] * world.half_m[:, None])  # [P, 8, 3]
    seen = (corners + world.centre_world_m[:, None]) @ cam_from_world[:, :3].T + cam_from_world[:, 3]
    ahead = seen[..., 2] > 0.02
    depth = np.where(ahead, seen[..., 2], 1.0)
    fx, fy, cx, cy = camera.fx_fy_cx_cy
    u = np.where(ahead, seen[..., 0] / depth * fx + cx, np.inf)
    v = np.where(ahead, seen[..., 1] / depth * fy + cy, np.inf)
    behind = ~ahead.all(axis=1)
    boxes = np.tile([np.inf, np.inf, -np.inf, -np.inf], (len(world.object_names), 1))
    for column, values in ((0, u.min(1)), (1, v.min(1))):
        np.minimum.at(boxes[:, column], world.object_id, np.where(behind, -np.inf, values))
    for column, values in ((2, u.max(1)), (3, v.max(1))):
        np.maximum.at(boxes[:, column], world.object_id, np.where(behind, np.inf, values))
    return boxes


def view_objects(
    world: World, camera: Camera, cam_from_world: NDArray[np.float64], object_id: NDArray[np.integer]
) -> tuple[ViewObject, ...]:
    """The things that a view shows, background left out.

    Args:
        world: the scene.
        camera: PINHOLE camera of ``object_id``.
        cam_from_world: [3, 4].
        object_id: thing at each pixel, [H, W]; negative where there is none (sky).
    """
    axes = levelled_from_cam(cam_from_world) @ cam_from_world[:, :3]
    low, high = extents_along(world, axes)
    eye = axes @ (-cam_from_world[:, :3].T @ cam_from_world[:, 3])
    whole = _image_boxes(world, camera, cam_from_world)
    found = []
    for number in np.unique(object_id[object_id >= 0]).tolist():
        name = world.object_names[number]
        if name in BACKGROUND:
            continue
        mask = object_id == number
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
        area = (box[2] - box[0]) * (box[3] - box[1])
        left, top, right, bottom = whole[number]
        covered = area / ((right - left) * (bottom - top)) if np.isfinite(whole[number]).all() else 0.0
        bottom_corner, top_corner = low[number] - eye, high[number] - eye
        found.append(
            ViewObject(
                name,
                box,
                (float(bottom_corner[0]), float(bottom_corner[1]), float(bottom_corner[2])),
                (float(top_corner[0]), float(top_corner[1]), float(top_corner[2])),
                min(float(covered), 1.0),
                float(mask.mean()),
            )
        )
    return tuple(found)
