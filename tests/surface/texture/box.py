"""A painted box and plates before it, photographed exactly: by intersecting one ray per pixel with boxes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.surface.mesh import with_normals
from recon.surface.types import Mesh, Photos
from recon.types import Camera, PosedView
from tests.surface.scenes import look_from, rays_world, texture

CAMERA = Camera.pinhole(160, 120, 200.0, 200.0, 81.5, 58.0)
RED = (255, 0, 0)
BOX = (np.array([-0.5, -0.4, -0.3]), np.array([0.5, 0.4, 0.3]))
Box = tuple[NDArray[np.float64], NDArray[np.float64]]


def paint(points: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colours [..., 3] of places on the box, with detail down to 4 cm, never red."""
    fine = np.sin(points @ np.array([100.0, 25.0, 60.0])) * np.sin(points @ np.array([-20.0, 110.0, 40.0]))
    colors = 0.6 * texture(points) + 40 + 35 * fine[..., None]
    return np.clip(colors, 20, 220).astype(np.uint8)


def poses(count: int, height: float = 0.9) -> list[NDArray[np.float64]]:
    """Cameras round the box, alternately above and below its middle, all looking at it."""
    angles = 2 * np.pi * np.arange(count) / count + 0.3
    centres = [np.array([1.7 * np.cos(a), height * (-1) ** i, 1.7 * np.sin(a)]) for i, a in enumerate(angles)]
    return [look_from(centre, np.zeros(3)) for centre in centres]


def photograph(pose: NDArray[np.float64], plates: Sequence[Box] = (), camera: Camera = CAMERA) -> NDArray[np.uint8]:
    """What the camera sees: the painted box, red plates, white behind."""
    fine = camera.resized(2 * camera.width_px, 2 * camera.height_px)
    centre, directions = rays_world(fine, pose)
    image = np.full((*directions.shape[:2], 3), 255.0)
    nearest = np.full(directions.shape[:2], np.inf)
    for number, (low, high) in enumerate((BOX, *plates)):
        with np.errstate(divide="ignore", invalid="ignore"):
            one, other = (low - centre) / directions, (high - centre) / directions
        enter, leave = np.minimum(one, other).max(axis=-1), np.maximum(one, other).min(axis=-1)
        hit = (enter < leave) & (enter > 0) & (enter < nearest)
        nearest[hit] = enter[hit]
        image[hit] = paint(centre + directions[hit] * enter[hit][:, None]) if number == 0 else RED
    image = image.reshape(camera.height_px, 2, camera.width_px, 2, 3).mean(axis=(1, 3))
    return np.rint(image).astype(np.uint8)


def box_mesh(boxes: Sequence[Box] = (BOX,)) -> Mesh:
    """The boxes as 12 triangles each, seen counter-clockwise from outside, with the paint's colours at the corners."""
    vertices, faces = [], []
    for low, high in boxes:
        corners = np.array([[(low, high)[b][axis] for axis, b in enumerate(bits)] for bits in
                            itertools.product((0, 1), repeat=3)])  # fmt: skip
        first = 8 * len(vertices)
        for a, b, c, d in ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)):
            faces += [[first + a, first + b, first + c], [first + a, first + c, first + d]]
        vertices.append(corners)
    places = np.concatenate(vertices)
    return with_normals(Mesh(places, np.array(faces, dtype=np.int32), paint(places)))


@dataclass(frozen=True)
class Shoot:
    """Photos [H, W, 3] by name and their views, as the texturing wants them."""

    views: list[PosedView]
    photos: Photos


def shoot(
    images: Sequence[NDArray[np.uint8]],
    at: Sequence[NDArray[np.float64]],
    masks: dict[str, NDArray[np.bool_]] | None = None,
    camera: Camera = CAMERA,
) -> Shoot:
    names = [f"{i}.jpg" for i in range(len(images))]
    nothing = np.zeros(0, np.int64)
    views = [PosedView(name, camera, pose, nothing, np.zeros((0, 2))) for name, pose in zip(names, at)]
    by_name = dict(zip(names, images))
    return Shoot(views, Photos(by_name.__getitem__, mask=(masks or {}).get))


def psnr(image: NDArray[np.uint8], truth: NDArray[np.uint8], where: NDArray[np.bool_]) -> float:
    difference = image[where].astype(float) - truth[where]
    return float(10 * np.log10(255**2 / (difference**2).mean()))
