"""Paths of whole captures through a world: an orbit, a walk through, a grid flown over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recon.errors import BadInputError
from recon.synth.dataset import look_at
from recon.synth.render import render_depth
from recon.synth.world import World
from recon.types import Camera

PathKind = Literal["orbit", "walk", "drone"]
_ABOVE_ROOFS_M = 7.0


def orbit(world: World, camera: Camera, num_views: int, seed: int) -> list[NDArray[np.float64]]:
    """Poses [3, 4] of a walk once around the room's middle, looking across it, as one films a room by hand.

    Every eye is in free space with 0.35 m or more to what it sees; heights and aims waver a little with ``seed``.
    Outdoors it is flown in a circle above the roofs, looking at the street's middle.

    Raises:
        BadInputError: no free place found for a photo (the room is too full).
    """
    rng = np.random.default_rng([seed, 4])
    half = np.array(world.walk_m) / 2
    probe = camera.resized(32, 24)
    poses = []
    for k in range(num_views):
        angle = 2 * np.pi * k / num_views
        heading = np.array([np.cos(angle), np.sin(angle)])
        if world.outdoors:
            radius = float(half.max()) * 0.7
            eye = np.array([*(heading * radius), _roofs_m(world) + _ABOVE_ROOFS_M + rng.normal(0, 0.3)])
            poses.append(look_at(eye, np.array([*rng.normal(0, 0.5, 2), 2.0]), float(rng.normal(0, 0.02))))
            continue
        best, best_score = None, 0.0
        for _ in range(60):
            reach = (half - 0.45) * rng.uniform(0.62, 1.0)
            eye = np.array([*(heading * reach), rng.normal(1.5, 0.1)])
            # Past the middle, towards the other side: neighbours on the orbit share most of what they see.
            target = np.array([*(-heading * half * 0.35 + rng.normal(0, 0.08, 2)), rng.normal(0.85, 0.06)])
            if not world.is_free(eye[None], 0.2)[0]:
                continue
            pose = look_at(eye, target, float(rng.normal(0, 0.02)))
            nearest = float(np.quantile(render_depth(world, probe, pose), 0.01))
            score = min(nearest, 0.8)
            if score > max(best_score, 0.35):
                best, best_score = pose, score
        if best is None:
            raise BadInputError(f"seed {seed}: no free place for photo {k} on the orbit; choose another seed")
        poses.append(best)
    return poses


def walk_through(world: World, camera: Camera, num_views: int, seed: int) -> list[NDArray[np.float64]]:
    """Poses [3, 4] of a walk from one end to the other, at eye height, looking ahead and to one side.

    The path gives way to what stands in it, and neighbours stay close: sideways by what is free nearest to the last.

    Raises:
        BadInputError: the way is blocked.
    """
    rng = np.random.default_rng([seed, 6])
    walk = np.array(world.walk_m)
    along = int(walk.argmax())
    margin = 0.5 if not world.outdoors else 1.0
    stations = np.linspace(-0.5, 0.5, num_views) * (walk[along] - 2 * margin) * (0.6 if world.outdoors else 1.0)
    lanes = np.linspace(-0.5, 0.5, 33) * (walk[1 - along] - 2 * margin)
    lane, side = 0.0, float(rng.choice([-1, 1]))
    poses = []
    for k, station in enumerate(stations.tolist()):
        height = float(rng.normal(1.55, 0.03))
        eyes = np.full((len(lanes), 3), height)
        eyes[:, along], eyes[:, 1 - along] = station, lanes
        free = np.flatnonzero(world.is_free(eyes, 0.25))
        if not free.size:
            raise BadInputError(f"seed {seed}: the way is blocked at photo {k} of the walk; choose another seed")
        lane = float(lanes[free[np.abs(lanes[free] - lane).argmin()]])
        eye = eyes[free[np.abs(lanes[free] - lane).argmin()]]
        aside = side * (0.9 + 0.15 * np.sin(2 * np.pi * k / max(num_views, 1))) + float(rng.normal(0, 0.03))
        ahead = np.zeros(3)
        ahead[along], ahead[1 - along] = np.cos(aside), np.sin(aside)
        ahead[2] = (0.08 if world.outdoors else -0.2) + float(rng.normal(0, 0.02))
        poses.append(look_at(eye, eye + ahead, float(rng.normal(0, 0.02))))
    return poses


def drone_grid(world: World, camera: Camera, num_views: int, seed: int) -> list[NDArray[np.float64]]:
    """Poses [3, 4] of a flight in lanes, there and back, looking steeply down; indoors below the ceiling."""
    rng = np.random.default_rng([seed, 8])
    walk = np.array(world.walk_m)
    if world.outdoors:
        height, area = _roofs_m(world) + _ABOVE_ROOFS_M, walk * [1.0, 0.7]
    else:
        height, area = float(world.room_size_m[2]) - 0.25, walk - 1.0
    lanes = max(1, round(np.sqrt(num_views * area[0] / area[1])))
    rows = int(np.ceil(num_views / lanes))
    poses = []
    for k in range(num_views):
        lane, row = divmod(k, rows)
        row = row if lane % 2 == 0 else rows - 1 - row
        place = (np.array([(lane + 0.5) / lanes, (row + 0.5) / rows]) - 0.5) * area
        eye = np.array([*place, height + rng.normal(0, 0.05)])
        down = np.array([rng.normal(0, 0.03), 0.45 + rng.normal(0, 0.03), -1.0])
        poses.append(look_at(eye, eye + down, float(rng.normal(0, 0.02))))
    return poses


def _roofs_m(world: World) -> float:
    """Height of the tallest thing."""
    reach = np.abs(world.local_from_world[1:, :, 2] * world.half_m[1:]).sum(axis=1)
    return float((world.centre_world_m[1:, 2] + reach).max())


PATHS: Mapping[str, Callable[[World, Camera, int, int], list[NDArray[np.float64]]]] = MappingProxyType(
    {"orbit": orbit, "walk": walk_through, "drone": drone_grid}
)
