"""Worlds made of solid primitives with metric sizes: boxes, elliptic cylinders, ellipsoids, inside an open-box room.

World frame: metres, z up, floor at z = 0. Every primitive is the image of a unit solid (cube, cylinder or ball of half
extent 1) under scale, rotation and translation, so that one ray test serves each kind whatever its pose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from recon.synth.textures import texture_id

Colour = tuple[float, float, float]  # sRGB in [0, 1]


class Kind(IntEnum):
    """Shape of a primitive; ``ROOM`` is a box seen from inside."""

    BOX = 0
    CYLINDER = 1
    ELLIPSOID = 2
    ROOM = 3


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    Attributes:
        texture: number of a pattern (``textures.texture_id``).
        period_m: edge of the pattern on the surface in metres; 0 stretches it once over the face (posters, prints).
        colours: three sRGB colours mixed by the pattern's two weights.
        cell_m: size (u, v) of tiles, bricks or planks in metres; None for a surface without joints.
        row_shift: shift of every other row, in cells (0.5 for running-bond bricks).
        grout_m: width of the joints in metres.
        grout: sRGB colour of the joints.
        jitter: relative brightness variation from cell to cell.
        checker: brightness factor of every other cell (1 = none).
        emission: light given off, relative to a white wall in full light.
        turned: swap u and v (planks along the other axis).
    """

    texture: int
    period_m: float
    colours: tuple[Colour, Colour, Colour]
    cell_m: tuple[float, float] | None = None
    row_shift: float = 0.0
    grout_m: float = 0.0
    grout: Colour = (0.5, 0.5, 0.5)
    jitter: float = 0.0
    checker: float = 1.0
    emission: float = 0.0
    turned: bool = False


@dataclass(frozen=True)
class Light:
    """A point light: position [3] in metres and linear RGB power (1 = lights a white wall fully at one metre)."""

    position_world_m: tuple[float, float, float]
    colour: Colour


@dataclass(frozen=True)
class World:
    """Primitives as arrays, materials, lights.

    Attributes:
        kind: ``Kind`` of each primitive, [P] int8; row 0 is the room.
        centre_world_m: [P, 3].
        local_from_world: rotations, [P, 3, 3].
        half_m: half extents in the local frame, [P, 3].
        material: row of ``materials`` for the faces -x +x -y +y -z +z, [P, 6] (cylinder: side 0, caps 4 and 5;
            ellipsoid: 0).
        object_id: which thing the primitive belongs to, [P]; 0 is the room's shell.
        object_names: what each thing is (``table``, ``door`` ...), by object id.
        materials, lights: see there. ``ambient``: linear RGB light from everywhere.
        seed: what the world was made from.
        street_m: outdoors, width (x) and length (y) of the street to walk in, and the shell (row 0) is the sky, which
            has no depth; None indoors.
    """

    kind: NDArray[np.int8]
    centre_world_m: NDArray[np.float64]
    local_from_world: NDArray[np.float64]
    half_m: NDArray[np.float64]
    material: NDArray[np.int16]
    object_id: NDArray[np.int16]
    object_names: tuple[str, ...]
    materials: tuple[Material, ...]
    lights: tuple[Light, ...]
    ambient: Colour
    seed: int = 0
    street_m: tuple[float, float] | None = None

    @property
    def outdoors(self) -> bool:
        """Whether the shell is the sky."""
        return self.street_m is not None

    @property
    def walk_m(self) -> tuple[float, float]:
        """Width (x) and length (y) of the ground where cameras stand: the room's, or the street's."""
        return self.street_m or (2 * float(self.half_m[0, 0]), 2 * float(self.half_m[0, 1]))

    @property
    def room_size_m(self) -> NDArray[np.float64]:
        """Width (x), length (y) and height (z) of the room, [3]."""
        return 2.0 * self.half_m[0]

    def is_free(self, points_world_m: NDArray[np.float64], margin_m: float) -> NDArray[np.bool_]:
        """Whether points [N, 3] are inside the room and at least ``margin_m`` from every primitive's box, [N]."""
        local = np.einsum(
            "pij,npj->npi", self.local_from_world, points_world_m[:, None, :] - self.centre_world_m[None]
        )  # [N, P, 3]
        inside_room = np.all(np.abs(local[:, 0]) < self.half_m[0] - margin_m, axis=-1)
        blocked = np.all(np.abs(local[:, 1:]) < self.half_m[1:] + margin_m, axis=-1).any(axis=-1)
        return inside_room & ~blocked


def yaw_matrix(yaw_rad: float) -> NDArray[np.float64]:
    """Rotation about z by ``yaw_rad``, [3, 3], as ``world_from_local``."""
    c, s = float(np.cos(yaw_rad)), float(np.sin(yaw_rad))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


@dataclass
class WorldBuilder:
    """Collects primitives in a movable frame: ``place`` starts a thing, ``add`` puts primitives into its frame."""

    _rows: list[tuple[int, NDArray, NDArray, tuple[float, float, float], tuple[int, ...], int]] = field(
        default_factory=list
    )
    _materials: list[Material] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _origin: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    _turn: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))

    def material(self, material: Material) -> int:
        """Register a material, returns its number."""
        self._materials.append(material)
        return len(self._materials) - 1

    def place(self, name: str, x_m: float, y_m: float, yaw_rad: float = 0.0, z_m: float = 0.0) -> None:
        """Start a new thing whose frame stands at (x, y, z), turned about the vertical."""
        self._names.append(name)
        self._origin = np.array([x_m, y_m, z_m])
        self._turn = yaw_matrix(yaw_rad)

    def to_world(self, x_m: float, y_m: float) -> tuple[float, float]:
        """Ground position of a point of the current thing's frame."""
        x, y, _ = self._turn @ np.array([x_m, y_m, 0.0]) + self._origin
        return float(x), float(y)

    def add(
        self,
        kind: Kind,
        centre_m: tuple[float, float, float],
        size_m: tuple[float, float, float],
        material: int | tuple[int, ...],
        yaw_rad: float = 0.0,
        tilt_rad: float = 0.0,
    ) -> None:
        """Add a primitive of full extents ``size_m`` at ``centre_m`` in the current thing's frame.

        ``yaw_rad`` turns it about the vertical, ``tilt_rad`` first about its own x axis; ``material`` is one number
        or six (faces -x +x -y +y -z +z).
        """
        turn = self._turn
        if yaw_rad:
            turn = turn @ yaw_matrix(yaw_rad)
        if tilt_rad:
            c, s = float(np.cos(tilt_rad)), float(np.sin(tilt_rad))
            turn = turn @ np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
        faces = (material,) * 6 if isinstance(material, int) else material
        centre = self._turn @ np.array(centre_m) + self._origin
        half = (size_m[0] / 2, size_m[1] / 2, size_m[2] / 2)
        self._rows.append((int(kind), centre, turn.T, half, faces, len(self._names) - 1))

    def box(
        self,
        centre_m: tuple[float, float, float],
        size_m: tuple[float, float, float],
        material: int | tuple[int, ...],
        yaw_rad: float = 0.0,
        tilt_rad: float = 0.0,
    ) -> None:
        """A box; see ``add``."""
        self.add(Kind.BOX, centre_m, size_m, material, yaw_rad, tilt_rad)

    def cylinder(
        self, centre_m: tuple[float, float, float], radius_m: float, height_m: float, material: int | tuple[int, ...]
    ) -> None:
        """An upright cylinder."""
        self.add(Kind.CYLINDER, centre_m, (2 * radius_m, 2 * radius_m, height_m), material)

    def ellipsoid(
        self, centre_m: tuple[float, float, float], size_m: tuple[float, float, float], material: int
    ) -> None:
        """An ellipsoid with axes along the frame."""
        self.add(Kind.ELLIPSOID, centre_m, size_m, material)

    def build(
        self, lights: tuple[Light, ...], ambient: Colour, seed: int, street_m: tuple[float, float] | None = None
    ) -> World:
        """Freeze what was added. The first primitive must be the room (outdoors: the sky)."""
        kinds, centres, turns, halves, faces, owners = zip(*self._rows)
        assert kinds[0] == Kind.ROOM
        return World(
            kind=np.array(kinds, np.int8),
            centre_world_m=np.array(centres),
            local_from_world=np.array(turns),
            half_m=np.array(halves),
            material=np.array(faces, np.int16),
            object_id=np.array(owners, np.int16),
            object_names=tuple(self._names),
            materials=tuple(self._materials),
            lights=lights,
            ambient=ambient,
            seed=seed,
            street_m=street_m,
        )


def plain(kind: str, variant: int, period_m: float, *colours: Colour) -> Material:
    """A material without joints."""
    first, second, third = colours
    return Material(texture_id(kind, variant), period_m, (first, second, third))
