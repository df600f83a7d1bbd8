"""Things of a household with plausible metric sizes, put together from primitives.

Sizes follow what is sold: table tops at 0.72-0.76 m, seats at 0.43-0.47 m, counters at 0.9 m, doors 2.0 m, books
0.2-0.3 m. They are what a network can learn metric scale from, so they vary little.
"""

from __future__ import annotations

import numpy as np

from recon.synth.palette import Palette
from recon.synth.world import WorldBuilder


class Furnisher:
    """Adds things to a world; every method draws its dimensions from ``rng`` and stands at (x, y), turned by yaw.

    In a thing's frame +y points to its back, the side that goes to the wall.
    """

    def __init__(self, builder: WorldBuilder, palette: Palette, rng: np.random.Generator) -> None:
        self.builder = builder
        self.palette = palette
        self.rng = rng

    def _u(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def _legs(self, width: float, depth: float, height: float, thickness: float, material: int) -> None:
        x, y = width / 2 - thickness, depth / 2 - thickness
        for sx, sy in ((-x, -y), (x, -y), (-x, y), (x, y)):
            self.builder.box((sx, sy, height / 2), (thickness, thickness, height), material)

    def table(self, x: float, y: float, yaw: float) -> None:
        b, height = self.builder, self._u(0.72, 0.76)
        width, depth = self._u(1.1, 1.9), self._u(0.7, 0.95)
        top, legs = self.palette.furniture(), self.palette.furniture()
        b.place("table", x, y, yaw)
        b.box((0, 0, height - 0.015), (width, depth, 0.03), top)
        self._legs(width, depth, height - 0.03, self._u(0.05, 0.08), legs)
        spots = self.rng.uniform(-0.5, 0.5, (int(self.rng.integers(3, 9)), 2)) * [width * 0.8, depth * 0.7]
        for dx, dy in spots:
            self._small_thing(*b.to_world(float(dx), float(dy)), height, (x, y, yaw), "table")

    def coffee_table(self, x: float, y: float, yaw: float) -> None:
        b, height = self.builder, self._u(0.40, 0.46)
        width, depth = self._u(0.8, 1.2), self._u(0.5, 0.7)
        b.place("coffee table", x, y, yaw)
        b.box((0, 0, height - 0.02), (width, depth, 0.04), self.palette.furniture())
        self._legs(width, depth, height - 0.04, 0.05, self.palette.furniture())
        for dx in (-0.25, 0.2):
            self._small_thing(*b.to_world(dx * width, self._u(-0.1, 0.1)), height, (x, y, yaw), "coffee table")

    def round_table(self, x: float, y: float, yaw: float) -> None:
        b, height, radius = self.builder, self._u(0.72, 0.76), self._u(0.45, 0.65)
        material = self.palette.furniture()
        b.place("table", x, y, yaw)
        b.cylinder((0, 0, height - 0.015), radius, 0.03, material)
        b.cylinder((0, 0, height / 2), 0.04, height - 0.03, material)
        b.cylinder((0, 0, 0.015), 0.28, 0.03, material)
        for angle in self.rng.uniform(0, 6.28, int(self.rng.integers(2, 6))):
            reach = radius * self._u(0.2, 0.7)
            spot = b.to_world(float(np.cos(angle)) * reach, float(np.sin(angle)) * reach)
            self._small_thing(*spot, height, (x, y, yaw), "table")

    def chair(self, x: float, y: float, yaw: float) -> None:
        b, seat, back = self.builder, self._u(0.43, 0.47), self._u(0.82, 0.95)
        width = self._u(0.40, 0.46)
        frame, cover = self.palette.furniture(), self.palette.cloth()
        b.place("chair", x, y, yaw)
        b.box((0, 0, seat - 0.02), (width, width, 0.04), cover)
        self._legs(width, width, seat - 0.04, 0.04, frame)
        b.box((0, width / 2 - 0.015, seat + (back - seat) * 0.65), (width, 0.03, (back - seat) * 0.7), cover)
        for side in (-1, 1):
            b.box((side * (width / 2 - 0.02), width / 2 - 0.015, (seat + back) / 2), (0.035, 0.035, back - seat), frame)

    def stool(self, x: float, y: float, yaw: float) -> None:
        b, seat = self.builder, self._u(0.44, 0.48)
        b.place("stool", x, y, yaw)
        b.cylinder((0, 0, seat - 0.02), 0.17, 0.04, self.palette.cloth())
        self._legs(0.28, 0.28, seat - 0.04, 0.035, self.palette.furniture())

    def sofa(self, x: float, y: float, yaw: float) -> None:
        b, width, depth = self.builder, self._u(1.5, 2.2), self._u(0.8, 0.95)
        seat, back, arm = self._u(0.40, 0.46), self._u(0.75, 0.90), 0.16
        cover = self.palette.cloth()
        b.place("sofa", x, y, yaw)
        b.box((0, 0, seat / 2 + 0.03), (width, depth, seat - 0.06), cover)
        b.box((0, depth / 2 - 0.11, back / 2 + 0.03), (width, 0.22, back - 0.06), cover)
        for side in (-1, 1):
            b.box((side * (width / 2 - arm / 2), 0, 0.32), (arm, depth, 0.58), cover)
        for k in range(int(self.rng.integers(1, 4))):
            spot = -width / 2 + arm + 0.3 + k * 0.45
            b.box((spot, depth / 2 - 0.30, seat + 0.20), (0.40, 0.12, 0.40), self.palette.printed(), 0.0, -0.3)

    def bed(self, x: float, y: float, yaw: float) -> None:
        b, width, length = self.builder, float(self.rng.choice([0.9, 1.4, 1.6])), self._u(1.95, 2.05)
        wood, sheet = self.palette.furniture(), self.palette.cloth()
        b.place("bed", x, y, yaw)
        b.box((0, 0, 0.16), (width, length, 0.24), wood)
        b.box((0, -0.02, 0.38), (width - 0.04, length - 0.06, 0.20), sheet)
        b.box((0, -0.25, 0.49), (width + 0.02, length - 0.55, 0.04), self.palette.cloth())
        b.box((0, length / 2, 0.50), (width, 0.05, 1.0), wood)
        for side in (-1, 1) if width > 1.0 else (0,):
            b.box((side * width / 4, length / 2 - 0.3, 0.53), (0.55, 0.40, 0.12), self.palette.printed(), 0.0, 0.15)

    def shelf(self, x: float, y: float, yaw: float) -> None:
        b, width, height = self.builder, self._u(0.7, 1.1), float(self.rng.choice([1.06, 1.47, 2.02]))
        depth, wood = 0.28, self.palette.furniture()
        boards = round(height / 0.35)
        b.place("shelf", x, y, yaw)
        for side in (-1, 1):
            b.box((side * (width / 2 - 0.01), 0, height / 2), (0.02, depth, height), wood)
        b.box((0, depth / 2 - 0.005, height / 2), (width, 0.01, height), wood)
        pitch = (height - 0.04) / boards
        for k in range(boards + 1):
            b.box((0, 0, 0.03 + k * pitch), (width - 0.02, depth, 0.02), wood)
        for k in range(boards):
            left, base = -width / 2 + 0.03, 0.04 + k * pitch
            while left < width / 2 - 0.12:
                if self.rng.random() < 0.3:
                    left += self._u(0.1, 0.4)
                    continue
                # A run of books is one printed box: the spines are the print's bars.
                run, tall = min(self._u(0.08, 0.4), width / 2 - 0.02 - left), self._u(0.18, pitch - 0.06)
                b.box((left + run / 2, self._u(-0.03, 0.03), base + tall / 2), (run, 0.19, tall), self.palette.books())
                left += run + 0.01

    def cabinet(self, x: float, y: float, yaw: float) -> None:
        b, width = self.builder, self._u(0.8, 1.6)
        height, depth = (self._u(0.72, 0.92), 0.45) if self.rng.random() < 0.6 else (self._u(1.85, 2.1), 0.58)
        wood, knob = self.palette.furniture(), self.palette.metal()
        b.place("cabinet", x, y, yaw)
        b.box((0, 0, height / 2), (width, depth, height), wood)
        doors = max(round(width / 0.5), 1)
        for k in range(doors):
            centre = -width / 2 + (k + 0.5) * width / doors
            b.box((centre, -depth / 2 - 0.009, height / 2), (width / doors - 0.008, 0.018, height - 0.06), wood)
            b.box((centre + width / doors * 0.38, -depth / 2 - 0.03, height * 0.55), (0.015, 0.025, 0.14), knob)
        if height < 1.0:
            for _ in range(int(self.rng.integers(1, 4))):
                spot = b.to_world(self._u(-0.4, 0.4) * width, self._u(-0.08, 0.08))
                self._small_thing(*spot, height, (x, y, yaw), "cabinet")

    def desk(self, x: float, y: float, yaw: float) -> None:
        b, width, depth, height = self.builder, self._u(1.2, 1.6), self._u(0.6, 0.8), self._u(0.72, 0.75)
        b.place("desk", x, y, yaw)
        b.box((0, 0, height - 0.0125), (width, depth, 0.025), self.palette.furniture())
        self._legs(width, depth, height - 0.025, 0.05, self.palette.metal())
        dark = self.palette.dark()
        b.place("monitor", *b.to_world(0, 0.12), yaw)
        screen = (self.palette.poster(), self.palette.poster(), self.palette.poster(), dark, dark, dark)
        b.box((0, 0, height + 0.34), (0.55, 0.03, 0.33), screen)
        b.box((0, 0.01, height + 0.1), (0.05, 0.03, 0.2), dark)
        b.cylinder((0, 0, height + 0.008), 0.11, 0.016, dark)
        b.place("keyboard", *b.to_world(0, -0.25), yaw)
        b.box((0, 0, height + 0.012), (0.44, 0.14, 0.024), self.palette.printed())

    def wardrobe_boxes(self, x: float, y: float, yaw: float) -> None:
        """A pile of cardboard boxes."""
        b, base = self.builder, 0.0
        b.place("boxes", x, y, yaw)
        for _ in range(int(self.rng.integers(1, 4))):
            size = (self._u(0.3, 0.6), self._u(0.25, 0.4), self._u(0.2, 0.4))
            b.box((self._u(-0.03, 0.03), 0, base + size[2] / 2), size, self.palette.carton(), self._u(-0.3, 0.3))
            base += size[2]

    def plant(self, x: float, y: float, yaw: float) -> None:
        b, radius = self.builder, self._u(0.12, 0.2)
        leaf = self.palette.leaf()
        b.place("plant", x, y, yaw)
        b.cylinder((0, 0, radius), radius, 2 * radius, self.palette.glazed())
        stem = self._u(0.3, 0.8)
        b.cylinder((0, 0, 2 * radius + stem / 2), 0.012, stem, leaf)
        for _ in range(int(self.rng.integers(4, 9))):
            dx, dy, dz = self._u(-0.2, 0.2), self._u(-0.2, 0.2), self._u(0.3, 1.1) * stem
            size = (self._u(0.12, 0.35), self._u(0.12, 0.35), self._u(0.08, 0.25))
            b.ellipsoid((dx, dy, 2 * radius + dz), size, leaf)

    def floor_lamp(self, x: float, y: float, yaw: float) -> None:
        b, height = self.builder, self._u(1.45, 1.75)
        metal = self.palette.metal()
        b.place("lamp", x, y, yaw)
        b.cylinder((0, 0, 0.012), 0.14, 0.024, metal)
        b.cylinder((0, 0, height / 2), 0.013, height, metal)
        b.cylinder((0, 0, height), self._u(0.16, 0.24), self._u(0.22, 0.32), self.palette.lampshade())

    def bin(self, x: float, y: float, yaw: float) -> None:
        self.builder.place("bin", x, y, yaw)
        self.builder.cylinder((0, 0, 0.15), self._u(0.11, 0.15), 0.30, self.palette.glazed())

    def ball(self, x: float, y: float, yaw: float) -> None:
        self.builder.place("ball", x, y, yaw)
        self.builder.ellipsoid((0, 0, 0.11), (0.22, 0.22, 0.22), self.palette.printed())

    def rug(self, x: float, y: float, yaw: float) -> None:
        self.builder.place("rug", x, y, yaw)
        self.builder.box((0, 0, 0.006), (self._u(1.6, 2.4), self._u(1.1, 1.7), 0.012), self.palette.rug())

    def _small_thing(self, x: float, y: float, base: float, owner: tuple[float, float, float], owner_name: str) -> None:
        """Something of hand size at world position (x, y, base); the builder then returns to its owner's frame."""
        b, what = self.builder, int(self.rng.integers(6))
        yaw = self._u(0, 6.28)
        if what == 0:
            b.place("can", x, y, yaw, base)
            b.cylinder((0, 0, 0.061), 0.033, 0.122, self.palette.printed())
        elif what == 1:
            b.place("bottle", x, y, yaw, base)
            b.cylinder((0, 0, 0.10), 0.037, 0.20, self.palette.printed())
            b.cylinder((0, 0, 0.25), 0.014, 0.10, self.palette.glazed())
        elif what == 2:
            b.place("bowl", x, y, yaw, base)
            b.ellipsoid((0, 0, 0.05), (0.22, 0.22, 0.10), self.palette.glazed())
        elif what == 3:
            b.place("books", x, y, yaw, base)
            top = 0.0
            for _ in range(int(self.rng.integers(1, 4))):
                thick = self._u(0.015, 0.045)
                size = (self._u(0.14, 0.22), self._u(0.2, 0.3), thick)
                b.box((0, 0, top + thick / 2), size, self.palette.poster(), self._u(-0.4, 0.4))
                top += thick
        elif what == 4:
            b.place("mug", x, y, yaw, base)
            b.cylinder((0, 0, 0.048), 0.041, 0.096, self.palette.glazed())
        else:
            b.place("box", x, y, yaw, base)
            size = (self._u(0.08, 0.25), self._u(0.06, 0.2), self._u(0.05, 0.3))
            b.box((0, 0, size[2] / 2), size, self.palette.poster())
        b.place(owner_name, owner[0], owner[1], owner[2])
