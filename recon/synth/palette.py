"""Materials of a household: what walls, floors, furniture and things look like, at their true metric scale."""

from __future__ import annotations

import colorsys

import numpy as np

from recon.synth.textures import VARIANTS, texture_id
from recon.synth.world import Colour, Material, WorldBuilder

_WOODS = ((0.36, 0.22, 0.12), (0.62, 0.43, 0.25), (0.78, 0.61, 0.40), (0.50, 0.31, 0.18), (0.85, 0.76, 0.62))


class Palette:
    """Draws materials from ``rng`` and registers them with the builder; each method returns a material's number."""

    def __init__(self, builder: WorldBuilder, rng: np.random.Generator) -> None:
        self.builder = builder
        self.rng = rng

    def _u(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def _texture(self, *kinds: str) -> int:
        return texture_id(str(self.rng.choice(kinds)), int(self.rng.integers(VARIANTS)))

    def _hsv(self, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
        return colorsys.hsv_to_rgb(self._u(0, 1), self._u(*saturation), self._u(*value))

    def _near(self, colour: Colour, change: float) -> Colour:
        """A colour whose brightness differs by the factor ``1 + change`` and whose hue is a bit off."""
        r, g, b = (min(max(c * (1 + change) + self._u(-0.03, 0.03), 0.0), 1.0) for c in colour)
        return r, g, b

    def _wood(self) -> Colour:
        return self._near(_WOODS[int(self.rng.integers(len(_WOODS)))], self._u(-0.1, 0.1))

    def _add(self, material: Material) -> int:
        return self.builder.material(material)

    def wall(self) -> int:
        """Paint, wallpaper, bricks (0.25 x 0.075 m pitch) or wall tiles (0.15 or 0.2 m)."""
        light = self._hsv((0.0, 0.3), (0.65, 0.95))
        what = self.rng.random()
        if what < 0.45:
            colours = (light, self._near(light, -0.13), self._near(light, -0.10))
            return self._add(Material(self._texture("plaster", "plaster", "carpet"), self._u(0.9, 1.4), colours))
        if what < 0.70:
            colours = (light, self._near(light, -0.3), self._hsv((0.2, 0.6), (0.3, 0.8)))
            return self._add(Material(self._texture("floral", "stripes", "weave"), self._u(0.53, 0.64), colours))
        if what < 0.88:
            brick = self._near((0.62, 0.33, 0.25), self._u(-0.3, 0.5))
            colours = (brick, self._near(brick, -0.35), self._near(brick, 0.3))
            grout = self._near((0.75, 0.72, 0.68), self._u(-0.2, 0.1))
            return self._add(
                Material(self._texture("plaster"), 0.8, colours, (0.25, 0.075), 0.5, 0.011, grout, self._u(0.15, 0.35))
            )
        edge = float(self.rng.choice([0.15, 0.2]))
        colours = (light, self._near(light, -0.2), self._near(light, -0.1))
        return self._add(
            Material(
                self._texture("marble", "plaster"), 0.9, colours, (edge, edge), 0.0, 0.003, (0.55, 0.55, 0.53), 0.1
            )
        )

    def ceiling(self) -> int:
        light = self._hsv((0.0, 0.06), (0.85, 0.97))
        if self.rng.random() < 0.25:  # office panels
            colours = (light, self._near(light, -0.2), self._near(light, -0.06))
            return self._add(
                Material(self._texture("carpet"), 0.6, colours, (0.6, 0.6), 0.0, 0.02, (0.7, 0.7, 0.7), 0.03)
            )
        return self._add(
            Material(self._texture("plaster"), 1.5, (light, self._near(light, -0.07), self._near(light, -0.05)))
        )

    def floor(self) -> int:
        """Tiles (0.3 m, some 0.45 or 0.6), planks (0.13-0.19 m wide), or carpet."""
        what = self.rng.random()
        turned = bool(self.rng.random() < 0.5)
        if what < 0.42:
            edge = float(self.rng.choice([0.3, 0.3, 0.3, 0.45, 0.6]))
            tile = self._hsv((0.0, 0.35), (0.35, 0.9))
            colours = (tile, self._near(tile, -0.3), self._near(tile, 0.2))
            checker = self._u(0.4, 0.75) if self.rng.random() < 0.25 else 1.0
            grout = self._near((0.6, 0.58, 0.55), self._u(-0.4, 0.2))
            texture = self._texture("marble", "terrazzo", "plaster", "stones")
            return self._add(
                Material(texture, self._u(0.7, 1.0), colours, (edge, edge), 0.0, 0.006, grout, 0.12, checker)
            )
        if what < 0.82:
            wood = self._wood()
            colours = (wood, self._near(wood, -0.3), self._near(wood, 0.15))
            cell = (self._u(1.1, 1.3), self._u(0.13, 0.19))
            dark = self._near(wood, -0.6)
            return self._add(
                Material(self._texture("wood"), 0.5, colours, cell, 0.37, 0.003, dark, 0.22, 1.0, 0.0, turned)
            )
        base = self._hsv((0.1, 0.5), (0.25, 0.7))
        colours = (base, self._near(base, -0.45), self._near(base, 0.35))
        return self._add(Material(self._texture("carpet", "weave"), self._u(0.45, 0.7), colours))

    def furniture(self) -> int:
        if self.rng.random() < 0.7:
            wood = self._wood()
            return self._add(
                Material(self._texture("wood"), 0.5, (wood, self._near(wood, -0.35), self._near(wood, 0.15)))
            )
        paint = self._hsv((0.0, 0.6), (0.3, 0.95))
        return self._add(
            Material(self._texture("plaster"), 0.7, (paint, self._near(paint, -0.2), self._near(paint, -0.1)))
        )

    def cloth(self) -> int:
        base = self._hsv((0.1, 0.7), (0.25, 0.85))
        colours = (base, self._near(base, -0.4), self._near(base, 0.3))
        return self._add(Material(self._texture("weave", "carpet", "stripes"), self._u(0.35, 0.5), colours))

    def rug(self) -> int:
        colours = (
            self._hsv((0.3, 0.8), (0.3, 0.8)),
            self._hsv((0.3, 0.8), (0.2, 0.9)),
            self._hsv((0, 0.5), (0.5, 0.9)),
        )
        period = 0.0 if self.rng.random() < 0.6 else self._u(0.8, 1.1)
        return self._add(Material(self._texture("poster", "floral", "stripes"), period, colours))

    def printed(self) -> int:
        colours = (self._hsv((0, 0.6), (0.5, 1)), self._hsv((0.3, 0.9), (0.1, 0.8)), self._hsv((0.2, 0.9), (0.2, 0.9)))
        return self._add(Material(self._texture("print", "floral", "poster"), 0.0, colours))

    def poster(self) -> int:
        colours = (self._hsv((0, 0.8), (0.4, 1)), self._hsv((0.3, 1), (0.1, 0.9)), self._hsv((0.3, 1), (0.1, 1)))
        return self._add(Material(self._texture("poster", "poster", "print"), 0.0, colours))

    def books(self) -> int:
        colours = (self._hsv((0.2, 0.8), (0.2, 0.8)), self._hsv((0, 0.8), (0.5, 1)), self._hsv((0.3, 0.9), (0.2, 0.8)))
        return self._add(
            Material(
                self._texture("print", "poster"),
                0.25,
                colours,
                (self._u(0.025, 0.045), 0.5),
                0.0,
                0.003,
                (0.1,) * 3,
                0.6,
            )
        )

    def carton(self) -> int:
        base = self._near((0.68, 0.52, 0.36), self._u(-0.15, 0.15))
        return self._add(Material(self._texture("print"), 0.0, (base, (0.2, 0.17, 0.15), self._near(base, -0.3))))

    def glazed(self) -> int:
        base = self._hsv((0.0, 0.8), (0.3, 0.95))
        return self._add(Material(self._texture("marble", "terrazzo"), 0.3, (base, self._near(base, -0.4), (0.9,) * 3)))

    def metal(self) -> int:
        grey = self._u(0.2, 0.7)
        return self._add(Material(self._texture("plaster"), 0.3, ((grey,) * 3, (grey * 0.7,) * 3, (grey * 1.2,) * 3)))

    def dark(self) -> int:
        return self._add(Material(self._texture("plaster"), 0.3, ((0.12,) * 3, (0.07,) * 3, (0.2,) * 3)))

    def leaf(self) -> int:
        green = colorsys.hsv_to_rgb(self._u(0.22, 0.40), self._u(0.4, 0.8), self._u(0.25, 0.6))
        return self._add(Material(self._texture("floral", "terrazzo"), 0.3, (green, (0.1, 0.2, 0.08), (0.5, 0.7, 0.3))))

    def lampshade(self) -> int:
        return self._add(
            Material(self._texture("weave"), 0.3, ((0.98, 0.9, 0.72), (0.9, 0.8, 0.6), (1, 0.95, 0.8)), emission=0.6)
        )

    def daylight(self) -> int:
        """What is seen through a window: bright sky and blurred shapes."""
        return self._add(
            Material(
                self._texture("poster"), 0.0, ((0.75, 0.87, 1.0), (0.45, 0.6, 0.4), (0.9, 0.93, 1.0)), emission=0.8
            )
        )

    def frame(self) -> int:
        white = self._u(0.75, 0.95) if self.rng.random() < 0.6 else self._u(0.15, 0.4)
        return self._add(
            Material(self._texture("plaster"), 0.5, ((white,) * 3, (white * 0.85,) * 3, (white * 0.9,) * 3))
        )
