"""Outdoor blocks: a street between rows of houses, with bricks, doors, windows, cars, trees and street furniture.

Sizes follow what is built: bricks of 0.25 x 0.075 m pitch, floors of 2.8-3.1 m, doors of 2.1 m, kerbs of 0.12 m, lanes
of 3 m, paving slabs of 0.4-0.5 m, cars of 4-4.7 x 1.75 m. The street runs along y, its middle at x = 0.
"""

from __future__ import annotations

import colorsys

import numpy as np

from recon.synth.palette import Palette
from recon.synth.world import Colour, Kind, Light, Material, World, WorldBuilder

SKY_M = 400.0
KERB_M = 0.12
_SUN_M = 300.0


class _Outdoors(Palette):
    """What streets and houses are made of."""

    def facade(self) -> int:
        """Bricks, or rendered or natural stone walls."""
        what = self.rng.random()
        if what < 0.5:
            brick = self._near(((0.62, 0.33, 0.25), (0.72, 0.6, 0.42), (0.5, 0.42, 0.38))[int(self.rng.integers(3))],
                               self._u(-0.3, 0.3))  # fmt: skip
            colours = (brick, self._near(brick, -0.35), self._near(brick, 0.3))
            grout = self._near((0.75, 0.72, 0.68), self._u(-0.25, 0.1))
            return self._add(
                Material(self._texture("plaster"), 0.8, colours, (0.25, 0.075), 0.5, 0.011, grout, self._u(0.15, 0.35))
            )
        base = self._hsv((0.0, 0.35), (0.55, 0.95))
        colours = (base, self._near(base, -0.25), self._near(base, -0.12))
        if what < 0.75:
            return self._add(Material(self._texture("plaster", "carpet"), self._u(1.2, 2.0), colours))
        cell = (float(self.rng.choice([0.6, 0.8])), float(self.rng.choice([0.3, 0.4])))
        return self._add(
            Material(self._texture("marble", "plaster"), 1.5, colours, cell, 0.5, 0.012, self._near(base, -0.3), 0.15)
        )

    def asphalt(self) -> int:
        grey = self._u(0.2, 0.4)
        colours: tuple[Colour, Colour, Colour] = ((grey,) * 3, (grey * 0.6,) * 3, (min(grey * 1.4, 1.0),) * 3)
        return self._add(Material(self._texture("carpet", "terrazzo"), self._u(0.8, 1.2), colours))

    def paving(self) -> int:
        edge, grey = float(self.rng.choice([0.4, 0.5])), self._u(0.45, 0.75)
        base: Colour = (grey, grey * self._u(0.93, 1.0), grey * self._u(0.85, 1.0))
        colours = (base, self._near(base, -0.25), self._near(base, 0.1))
        return self._add(
            Material(self._texture("terrazzo", "plaster"), 0.9, colours, (edge, edge), 0.0, 0.01, (0.3,) * 3, 0.12)
        )

    def grass(self) -> int:
        green = colorsys.hsv_to_rgb(self._u(0.2, 0.34), self._u(0.4, 0.7), self._u(0.3, 0.55))
        return self._add(Material(self._texture("carpet"), 0.9, (green, self._near(green, -0.5), (0.5, 0.5, 0.25))))

    def sky(self) -> int:
        blue = colorsys.hsv_to_rgb(self._u(0.54, 0.62), self._u(0.05, 0.45), self._u(0.8, 1.0))
        clouds = self._near((0.9, 0.91, 0.93), self._u(-0.2, 0.05))
        return self._add(Material(self._texture("plaster"), 0.0, (blue, clouds, blue), emission=self._u(0.9, 1.4)))

    def glass(self) -> int:
        """Windows by day: dark rooms and what is mirrored."""
        dark = self._u(0.08, 0.3)
        colours: tuple[Colour, Colour, Colour] = ((dark,) * 3, self._hsv((0.0, 0.4), (0.3, 0.8)), (0.6, 0.7, 0.8))
        return self._add(Material(self._texture("poster", "marble"), 0.0, colours))

    def paint(self) -> int:
        base = self._hsv((0.0, 0.9), (0.15, 0.95))
        return self._add(Material(self._texture("plaster"), 1.0, (base, self._near(base, -0.1), self._near(base, 0.1))))

    def bark(self) -> int:
        brown = self._near((0.36, 0.27, 0.2), self._u(-0.3, 0.3))
        return self._add(Material(self._texture("wood", "stones"), 0.4, (brown, self._near(brown, -0.4), brown)))


class _Builder:
    """Puts things of the street into a world; every method draws its sizes."""

    def __init__(self, builder: WorldBuilder, palette: _Outdoors, rng: np.random.Generator) -> None:
        self.b, self.palette, self.rng = builder, palette, rng

    def _u(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def house(self, side: int, front_m: float, y: float, width: float) -> None:
        """A house whose facade stands at ``x = side * front_m``; in its frame the facade looks along -y."""
        b, floors, pitch = self.b, int(self.rng.integers(1, 5)), self._u(2.8, 3.1)
        height, depth = floors * pitch + self._u(0.4, 1.2), self._u(8.0, 11.0)
        yaw = -side * np.pi / 2
        wall, frame, glass = self.palette.facade(), self.palette.frame(), self.palette.glass()
        door = self.palette.furniture()
        b.place("building", side * front_m, y, yaw)
        b.box((0, depth / 2, height / 2), (width, depth, height), wall)
        b.box((0, depth / 2 - 0.1, height + 0.1), (width + 0.3, depth + 0.3, 0.25), frame)  # eaves
        if self.rng.random() < 0.6:
            b.box((0, -0.03, 0.25), (width, 0.06, 0.5), self.palette.paving())  # plinth
        bays = max(int(width / self._u(2.2, 3.0)), 2)
        bay, wide, tall = width / bays, self._u(0.9, 1.3), self._u(1.3, 1.7)
        at = int(self.rng.integers(bays))
        for floor in range(floors):
            for k in range(bays):
                x, sill = (k + 0.5) * bay - width / 2, floor * pitch + self._u(0.85, 0.95)
                where = b_frame(side, front_m, y, x, yaw)
                if floor == 0 and k == at:
                    b.place("door", *where, yaw)
                    b.box((0, -0.02, 1.05), (0.95, 0.06, 2.1), door)
                    b.box((0, -0.03, 2.16), (1.15, 0.1, 0.1), frame)
                    b.box((0, -0.25, 0.06 + KERB_M / 2), (1.3, 0.5, KERB_M), self.palette.paving())
                    continue
                b.place("window", *where, yaw)
                b.box((0, -0.015, sill + tall / 2), (wide, 0.03, tall), glass)
                b.box((0, -0.02, sill + tall / 2), (0.05, 0.05, tall), frame)
                b.box((0, -0.06, sill - 0.03), (wide + 0.14, 0.14, 0.06), frame)

    def car(self, x: float, y: float, yaw: float) -> None:
        b, length, width = self.b, self._u(3.9, 4.7), self._u(1.7, 1.82)
        body, glass, dark = self.palette.paint(), self.palette.glass(), self.palette.dark()
        b.place("car", x, y, yaw)
        b.box((0, 0, 0.55), (length, width, 0.55), body)
        b.box((-0.15, 0, 1.05), (length * 0.52, width - 0.18, 0.46), glass)
        b.box((-0.15, 0, 1.30), (length * 0.46, width - 0.22, 0.08), body)
        for sx in (-1, 1):
            for sy in (-1, 1):
                b.add(Kind.CYLINDER, (sx * length * 0.31, sy * (width / 2 - 0.09), 0.31), (0.62, 0.62, 0.2), dark,
                      tilt_rad=np.pi / 2)  # fmt: skip

    def tree(self, x: float, y: float) -> None:
        b, trunk, leaf = self.b, self._u(1.8, 3.0), self.palette.leaf()
        b.place("tree", x, y)
        b.cylinder((0, 0, trunk / 2), self._u(0.08, 0.2), trunk, self.palette.bark())
        for _ in range(int(self.rng.integers(4, 8))):
            size = (self._u(1.0, 2.4), self._u(1.0, 2.4), self._u(0.9, 2.0))
            b.ellipsoid((self._u(-0.6, 0.6), self._u(-0.6, 0.6), trunk + self._u(0.1, 1.6)), size, leaf)

    def lamp(self, x: float, y: float, side: int) -> None:
        b, height, metal = self.b, self._u(4.0, 6.0), self.palette.metal()
        b.place("lamp post", x, y)
        b.cylinder((0, 0, height / 2), 0.06, height, metal)
        b.box((-side * 0.3, 0, height), (0.7, 0.16, 0.1), metal)

    def bench(self, x: float, y: float, yaw: float) -> None:
        b, wood, metal = self.b, self.palette.furniture(), self.palette.metal()
        b.place("bench", x, y, yaw, KERB_M)
        b.box((0, 0, 0.44), (1.6, 0.45, 0.05), wood)
        b.box((0, 0.22, 0.72), (1.6, 0.04, 0.3), wood)
        for side in (-1, 1):
            b.box((side * 0.7, 0, 0.22), (0.06, 0.4, 0.43), metal)
            b.box((side * 0.7, 0.22, 0.6), (0.06, 0.04, 0.4), metal)

    def hedge(self, x: float, y: float) -> None:
        self.b.place("hedge", x, y, np.pi / 2)
        height = self._u(0.7, 1.3)
        self.b.box((0, 0, KERB_M + height / 2), (self._u(1.5, 4.0), self._u(0.5, 0.7), height), self.palette.leaf())

    def small(self, x: float, y: float) -> None:
        """A bin, a bollard, a sign, a flower pot or a parcel box."""
        b, what = self.b, int(self.rng.integers(5))
        b.place(("bin", "bollard", "sign", "pot", "box")[what], x, y, self._u(0, 6.28), KERB_M)
        if what == 0:
            b.cylinder((0, 0, 0.45), 0.24, 0.9, self.palette.paint())
        elif what == 1:
            b.cylinder((0, 0, 0.45), 0.06, 0.9, self.palette.metal())
        elif what == 2:
            b.cylinder((0, 0, 1.2), 0.03, 2.4, self.palette.metal())
            b.box((0, -0.04, 2.15), (0.6, 0.02, 0.6), self.palette.poster())
        elif what == 3:
            b.cylinder((0, 0, 0.25), 0.3, 0.5, self.palette.glazed())
            b.ellipsoid((0, 0, 0.7), (0.7, 0.7, 0.6), self.palette.leaf())
        else:
            size = (self._u(0.4, 0.9), self._u(0.4, 0.6), self._u(0.4, 1.2))
            b.box((0, 0, size[2] / 2), size, self.palette.carton())


def b_frame(side: int, front_m: float, y: float, x: float, yaw: float) -> tuple[float, float]:
    """Ground position of a point at ``x`` along the facade of a house."""
    return side * front_m + x * float(np.cos(yaw)), y + x * float(np.sin(yaw))


def _lights(rng: np.random.Generator) -> tuple[tuple[Light, ...], Colour]:
    """A sun far away (its fall-off is undone) and the light of the sky."""
    lift, turn, power = float(rng.uniform(0.35, 1.2)), float(rng.uniform(0, 6.28)), float(rng.uniform(0.3, 0.9))
    towards = np.array([np.cos(lift) * np.cos(turn), np.cos(lift) * np.sin(turn), np.sin(lift)])
    place = (towards * _SUN_M).tolist()
    strength = power * (1 + 0.25 * _SUN_M**2)
    warm = float(rng.uniform(0.0, 0.25))
    sun = Light((place[0], place[1], place[2]), (strength, strength * (1 - warm * 0.4), strength * (1 - warm)))
    sky = float(rng.uniform(0.35, 0.6))
    return (sun,), (sky * 0.95, sky, sky * float(rng.uniform(1.0, 1.12)))


def make_block(seed: int) -> World:
    """A street with houses on both sides, a pure function of ``seed``; see the module's text."""
    rng = np.random.default_rng([seed, 21])
    b = WorldBuilder()
    palette = _Outdoors(b, rng)
    make = _Builder(b, palette, rng)
    half_road, pavement = float(rng.uniform(2.6, 4.0)), float(rng.uniform(1.8, 3.2))
    half_length = float(rng.uniform(14.0, 26.0))
    front = half_road + pavement
    b.place("sky", 0.0, 0.0)
    b.add(Kind.ROOM, (0.0, 0.0, 0.0), (SKY_M, SKY_M, SKY_M), palette.sky())
    b.place("ground", 0.0, 0.0)
    b.box((0, 0, -0.1), (SKY_M, SKY_M, 0.2), palette.asphalt() if rng.random() < 0.6 else palette.grass())
    b.place("street", 0.0, 0.0)
    b.box((0, 0, 0.002), (2 * half_road, 4 * half_length, 0.004), palette.asphalt())
    white = palette.frame()
    for y in np.arange(-half_length, half_length, 6.0):
        b.box((0, float(y), 0.005), (0.12, 3.0, 0.01), white)
    paving = palette.paving()
    for side in (-1, 1):
        b.place("pavement", side * (half_road + pavement / 2), 0.0)
        b.box((0, 0, KERB_M / 2), (pavement, 4 * half_length, KERB_M), paving)
        y = -half_length - float(rng.uniform(0.0, 4.0))
        while y < half_length:
            width = float(rng.uniform(7.0, 14.0))
            if rng.random() < 0.88:
                make.house(side, front, y + width / 2, width)
            else:  # a gap with a tree behind a hedge
                make.hedge(side * (front + 0.4), y + width / 2)
                make.tree(side * (front + 3.0), y + width / 2)
            y += width + (0.0 if rng.random() < 0.7 else float(rng.uniform(1.0, 3.0)))
        for y in np.arange(-half_length, half_length, float(rng.uniform(4.0, 7.0))).tolist():
            y += float(rng.uniform(-1.0, 1.0))
            what, kerb = rng.random(), side * (half_road + 0.45)
            if what < 0.25:
                make.tree(kerb, y)
            elif what < 0.4:
                make.lamp(kerb, y, side)
            elif what < 0.8:
                make.small(kerb + side * float(rng.uniform(0, 0.5)), y)
            if rng.random() < 0.15:
                make.bench(side * (front - 0.5), y, -side * np.pi / 2)
            if rng.random() < 0.4:
                make.car(side * (half_road - 1.0), y, np.pi / 2 + float(rng.normal(0, 0.03)))
    if rng.random() < 0.7:  # something at the street's end
        make.tree(float(rng.uniform(-2, 2)), half_length * float(rng.uniform(1.1, 1.5)))
    lights, ambient = _lights(rng)
    return b.build(lights, ambient, seed, (2 * front, 2 * half_length))
