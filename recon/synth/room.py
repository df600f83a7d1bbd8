"""Procedural indoor rooms: shell, doors, windows, pictures, furniture along the walls and in the middle, lights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recon.synth.furniture import Furnisher
from recon.synth.palette import Palette
from recon.synth.world import Kind, Light, World, WorldBuilder

DOOR_HEIGHT_M = 2.0
Placer = Callable[[float, float, float], None]


class _FloorPlan:
    """Keeps the things on the floor apart: discs already taken, in metres."""

    def __init__(self, width: float, length: float) -> None:
        self.width, self.length = width, length
        self.taken: list[tuple[float, float, float]] = []

    def claim(self, x: float, y: float, radius: float) -> bool:
        if any((x - a) ** 2 + (y - b) ** 2 < (radius + r) ** 2 for a, b, r in self.taken):
            return False
        self.taken.append((x, y, radius))
        return True


def _wall_spot(side: int, along: float, gap: float, width: float, length: float) -> tuple[float, float, float]:
    """Position and yaw of a thing with its back (+y) to wall ``side`` (0 +y, 1 -x, 2 -y, 3 +x), ``gap`` from it."""
    if side == 0:
        return along, length / 2 - gap, 0.0
    if side == 1:
        return -width / 2 + gap, along, np.pi / 2
    if side == 2:
        return along, -length / 2 + gap, np.pi
    return width / 2 - gap, along, -np.pi / 2


def _wall_length(side: int, width: float, length: float) -> float:
    return width if side in (0, 2) else length


def _openings(
    b: WorldBuilder, palette: Palette, rng: np.random.Generator, plan: _FloorPlan, size: tuple[float, float, float]
) -> list[tuple[int, float, float]]:
    """Doors and windows; returns the stretches of wall they use as (side, along, half width)."""
    width, length, height = size
    used: list[tuple[int, float, float]] = []

    def spot(half: float) -> tuple[int, float] | None:
        for _ in range(12):
            side = int(rng.integers(4))
            room = _wall_length(side, width, length) / 2 - half - 0.15
            along = float(rng.uniform(-room, room))
            if all(s != side or abs(a - along) > half + h + 0.1 for s, a, h in used):
                used.append((side, along, half))
                return side, along
        return None

    for _ in range(int(rng.integers(1, 3))):
        wide = float(rng.choice([0.80, 0.85, 0.90]))
        place = spot(wide / 2 + 0.08)
        if place is None:
            continue
        x, y, yaw = _wall_spot(*place, 0.0, width, length)
        leaf, frame, metal = palette.furniture(), palette.frame(), palette.metal()
        b.place("door", x, y, yaw)
        b.box((0, -0.01, DOOR_HEIGHT_M / 2), (wide, 0.03, DOOR_HEIGHT_M), leaf)
        for offset in (0.36, 1.20):  # panels
            b.box((0, -0.028, offset + 0.3), (wide - 0.26, 0.012, 0.6), leaf)
        for side in (-1, 1):
            b.box((side * (wide / 2 + 0.035), -0.02, 1.035), (0.07, 0.05, 2.07), frame)
        b.box((0, -0.02, DOOR_HEIGHT_M + 0.035), (wide, 0.05, 0.07), frame)
        b.box((wide / 2 - 0.09, -0.05, 1.05), (0.12, 0.02, 0.02), metal)
        plan.taken.append((*b.to_world(0, -0.5), 0.45))
    for _ in range(int(rng.integers(1, 3))):
        wide, tall, sill = float(rng.uniform(0.9, 1.7)), float(rng.uniform(1.1, 1.4)), float(rng.uniform(0.8, 1.0))
        place = spot(wide / 2 + 0.1)
        if place is None:
            continue
        x, y, yaw = _wall_spot(*place, 0.0, width, length)
        glass, frame = palette.daylight(), palette.frame()
        b.place("window", x, y, yaw)
        top = min(sill + tall, height - 0.1)
        middle, tall = (sill + top) / 2, top - sill
        b.box((0, -0.005, middle), (wide, 0.01, tall), glass)
        for side in (-1, 0, 1):
            b.box((side * wide / 2, -0.025, middle), (0.06, 0.05, tall), frame)
        for z in (sill, top):
            b.box((0, -0.025, z), (wide + 0.06, 0.05, 0.06), frame)
        b.box((0, -0.08, sill - 0.04), (wide + 0.16, 0.16, 0.03), frame)
        if rng.random() < 0.4:
            curtain = palette.cloth()
            for side in (-1, 1):
                b.box((side * (wide / 2 + 0.12), -0.09, top - 0.6), (0.3, 0.06, 1.5), curtain)
    return used


def _pictures(
    b: WorldBuilder,
    palette: Palette,
    rng: np.random.Generator,
    used: list[tuple[int, float, float]],
    size: tuple[float, float, float],
    attempts: int,
) -> None:
    width, length, _ = size
    for _ in range(attempts):
        wide, tall = float(rng.choice([0.3, 0.42, 0.5, 0.6, 0.84, 1.0])), float(rng.choice([0.3, 0.42, 0.6, 0.84]))
        side = int(rng.integers(4))
        room = _wall_length(side, width, length) / 2 - wide / 2 - 0.1
        along = float(rng.uniform(-room, room))
        if any(s == side and abs(a - along) < wide / 2 + h + 0.05 for s, a, h in used):
            continue
        used.append((side, along, wide / 2))
        x, y, yaw = _wall_spot(side, along, 0.0, width, length)
        centre = float(rng.uniform(1.35, 1.65))
        b.place("picture", x, y, yaw)
        if rng.random() < 0.6:
            b.box((0, -0.008, centre), (wide + 0.06, 0.016, tall + 0.06), palette.frame())
        b.box((0, -0.010, centre), (wide, 0.020, tall), palette.poster())


def _furnish(b: WorldBuilder, palette: Palette, rng: np.random.Generator, plan: _FloorPlan) -> None:
    width, length = plan.width, plan.length
    make = Furnisher(b, palette, rng)
    area = width * length
    # (what, half width along the wall, depth from the wall to its middle)
    at_wall: tuple[tuple[Placer, float, float], ...] = (
        (make.shelf, 0.55, 0.16),
        (make.cabinet, 0.8, 0.31),
        (make.sofa, 1.1, 0.50),
        (make.bed, 0.8, 1.05),
        (make.desk, 0.8, 0.42),
        (make.wardrobe_boxes, 0.35, 0.32),
        (make.plant, 0.3, 0.42),
        (make.floor_lamp, 0.3, 0.36),
        (make.bin, 0.2, 0.25),
        (make.chair, 0.3, 0.30),
    )
    chances = np.array([3, 3, 2, 1.5, 2, 1.5, 2, 1.5, 1, 1])
    for _ in range(int(rng.integers(4, 8 + int(area) // 6))):
        thing, half, gap = at_wall[int(rng.choice(len(at_wall), p=chances / chances.sum()))]
        side = int(rng.integers(4))
        room = _wall_length(side, width, length) / 2 - half - 0.05
        if room <= 0:
            continue
        along = float(rng.uniform(-room, room))
        x, y, yaw = _wall_spot(side, along, gap, width, length)
        if not plan.claim(x, y, max(half, gap) * 0.85):
            continue
        thing(x, y, float(yaw))
    middle: tuple[tuple[Placer, float], ...] = ((make.table, 0.75), (make.round_table, 0.6), (make.coffee_table, 0.5))
    for _ in range(1 + int(area > 16) + int(area > 28)):
        table, radius = middle[int(rng.integers(len(middle)))]
        reach_x, reach_y = width / 2 - 1.3, length / 2 - 1.3
        if reach_x <= 0 or reach_y <= 0:
            continue
        x, y = float(rng.uniform(-reach_x, reach_x)), float(rng.uniform(-reach_y, reach_y))
        if not plan.claim(x, y, radius):
            continue
        yaw = float(rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.1))
        table(x, y, yaw)
        for angle in rng.permutation([0.0, 0.5, 1.0, 1.5])[: int(rng.integers(1, 5))] * np.pi:
            reach = radius + float(rng.uniform(0.05, 0.35))
            cx, cy = x + reach * np.cos(angle + yaw), y + reach * np.sin(angle + yaw)
            if abs(cx) < width / 2 - 0.3 and abs(cy) < length / 2 - 0.3 and plan.claim(cx, cy, 0.16):
                make.chair(cx, cy, float(angle + yaw - np.pi / 2 + rng.normal(0, 0.2)))
    if rng.random() < 0.6:
        make.rug(float(rng.uniform(-0.4, 0.4)), float(rng.uniform(-0.4, 0.4)), float(rng.choice([0.0, np.pi / 2])))
    for thing in (make.stool, make.ball, make.bin, make.wardrobe_boxes):
        if rng.random() < 0.45:
            x, y = float(rng.uniform(-0.5, 0.5) * (width - 0.8)), float(rng.uniform(-0.5, 0.5) * (length - 0.8))
            if plan.claim(x, y, 0.25):
                thing(x, y, float(rng.uniform(0, 6.28)))


def make_room(seed: int, size_m: tuple[float, float, float] | None = None, extra_pictures: int = 0) -> World:
    """A furnished room, a pure function of its arguments.

    Args:
        seed: of everything random.
        size_m: width (x), length (y), height of the room in metres; drawn from ``seed`` when None.
        extra_pictures: try to hang this many more pictures, e.g. for a room that is easy to tell places apart in.
    """
    rng = np.random.default_rng([seed, 1])
    b = WorldBuilder()
    palette = Palette(b, rng)
    if size_m is None:
        big = rng.random() < 0.2
        width, length = (float(v) for v in rng.uniform(2.6, 5.2, 2) + (rng.uniform(1.5, 5.0, 2) if big else 0.0))
        height = float(rng.uniform(2.4, 2.75) if not big else rng.uniform(2.6, 3.4))
    else:
        width, length, height = size_m
    size = (width, length, height)
    walls = palette.wall(), palette.wall()
    feature = walls[0] if rng.random() < 0.5 else walls[1]  # one wall of another kind in half of the rooms
    b.place("room", 0.0, 0.0)
    shell = (walls[0], walls[0], walls[0], feature, palette.floor(), palette.ceiling())
    b.add(Kind.ROOM, (0.0, 0.0, height / 2), size, shell)
    b.place("skirting", 0.0, 0.0)
    trim = palette.frame()
    for side in range(4):
        x, y, _ = _wall_spot(side, 0.0, 0.0, width, length)
        along_x = side in (0, 2)
        b.box((x, y, 0.04), (width, 0.024, 0.08) if along_x else (0.024, length, 0.08), trim)
    plan = _FloorPlan(width, length)
    used = _openings(b, palette, rng, plan, size)
    _furnish(b, palette, rng, plan)
    _pictures(b, palette, rng, used, size, int(rng.integers(4, 11)))
    extra = np.random.default_rng([seed, 5])
    _pictures(b, Palette(b, extra), extra, used, size, extra_pictures)
    lights = []
    brightness = float(rng.uniform(0.55, 1.0))
    shade = palette.lampshade()
    for _ in range(int(rng.integers(1, 3)) + int(width * length > 25)):
        x, y = float(rng.uniform(-0.35, 0.35) * width), float(rng.uniform(-0.35, 0.35) * length)
        b.place("ceiling lamp", x, y)
        b.cylinder((0, 0, height - 0.05), float(rng.uniform(0.12, 0.22)), 0.08, shade)
        warm = float(rng.uniform(0.0, 0.25))
        power = brightness * float(rng.uniform(0.6, 1.1))
        lights.append(Light((x, y, height - 0.15), (power, power * (1 - warm * 0.5), power * (1 - warm))))
    sky = float(rng.uniform(0.25, 0.5))
    ambient = (sky * float(rng.uniform(0.92, 1.05)), sky, sky * float(rng.uniform(0.92, 1.08)))
    return b.build(tuple(lights), ambient, seed)
