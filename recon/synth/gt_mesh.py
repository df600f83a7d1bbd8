"""The visible part of a world's surface as a triangle mesh: exact, and small because flat parts merge.

Each face is cut into cells; cells that no view sees are left out (undersides, backs of furniture, wall behind a
picture), neighbours on a flat face are merged into rectangles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recon.surface.types import Mesh
from recon.synth.correspondence import visible_points
from recon.synth.render import SynthView
from recon.synth.world import Kind, World

_MOST_CELLS = 1500  # along an edge: the ground of an outdoor block is 400 m wide


def _patches(kind: int, size_m: NDArray[np.float64], cell_m: float) -> list[tuple[NDArray[np.float64], bool]]:
    """Grids of corners [R + 1, C + 1, 3] over the unit solid's faces and whether they are flat."""
    counts = np.clip(np.ceil(size_m / cell_m), 1, _MOST_CELLS).astype(int)
    found: list[tuple[NDArray[np.float64], bool]] = []
    if kind in (Kind.BOX, Kind.ROOM):
        for axis in range(3):
            first, second = (axis + 1) % 3, (axis + 2) % 3
            a = np.linspace(-1, 1, counts[first] + 1)
            b = np.linspace(-1, 1, counts[second] + 1)
            for sign in (-1.0, 1.0):
                grid = np.empty((len(b), len(a), 3))
                grid[..., first], grid[..., second], grid[..., axis] = a[None, :], b[:, None], sign
                inward = kind == Kind.ROOM
                found.append((grid if (sign > 0) != inward else grid[:, ::-1], True))
        return found
    turns = np.linspace(0, 2 * np.pi, 33)
    if kind == Kind.CYLINDER:
        z = np.linspace(-1, 1, counts[2] + 1)
        grid = np.empty((len(z), len(turns), 3))
        grid[..., 0], grid[..., 1], grid[..., 2] = np.cos(turns), np.sin(turns), z[:, None]
        found.append((grid, False))
        radii = np.linspace(1e-6, 1, max(counts[0] // 2, 1) + 1)
        for sign in (-1.0, 1.0):
            cap = np.empty((len(radii), len(turns), 3))
            cap[..., 0], cap[..., 1] = radii[:, None] * np.cos(turns), radii[:, None] * np.sin(turns)
            cap[..., 2] = sign
            found.append((cap if sign < 0 else cap[:, ::-1], False))
        return found
    lift = np.linspace(-np.pi / 2 + 1e-6, np.pi / 2 - 1e-6, 17)[:, None]
    ball = np.stack(np.broadcast_arrays(np.cos(lift) * np.cos(turns), np.cos(lift) * np.sin(turns), np.sin(lift)), -1)
    return [(ball, False)]


def _rectangles(seen: NDArray[np.bool_], merge: bool) -> list[tuple[int, int, int, int]]:
    """Rectangles (row from, to, column from, to) that tile the true cells; single cells unless ``merge``."""
    if not merge:
        return [(int(r), int(r) + 1, int(c), int(c) + 1) for r, c in np.argwhere(seen)]
    left = seen.copy()
    out = []
    for row in range(seen.shape[0]):
        column = 0
        while column < seen.shape[1]:
            if not left[row, column]:
                column += 1
                continue
            end = column
            while end < seen.shape[1] and left[row, end]:
                end += 1
            bottom = row + 1
            while bottom < seen.shape[0] and left[bottom, column:end].all():
                bottom += 1
            left[row:bottom, column:end] = False
            out.append((row, bottom, column, end))
            column = end
    return out


def visible_mesh(world: World, views: Sequence[SynthView], cell_m: float = 0.025) -> Mesh:
    """Triangles of all surface cells that at least one view sees, [V, 3] and [F, 3], counter-clockwise from outside.

    ``cell_m`` is the size of the cells on flat faces; round shapes have 32 sides. Rectangles merge without regard to
    their neighbours' corners, so the mesh has T-junctions: it is for measuring distances, not for display.
    """
    vertices: list[NDArray[np.float64]] = []
    faces: list[NDArray[np.int32]] = []
    count = 0
    for p in range(1 if world.outdoors else 0, len(world.kind)):  # the sky has no surface
        half, turn, centre = world.half_m[p], world.local_from_world[p], world.centre_world_m[p]
        for unit, flat in _patches(int(world.kind[p]), 2 * half, cell_m):
            grid = (unit * half) @ turn + centre  # rows of turn are the local axes in the world
            middle = 0.25 * (grid[:-1, :-1] + grid[1:, :-1] + grid[:-1, 1:] + grid[1:, 1:])
            if not flat:  # from the chords' middles back to the curved surface, where the views see it
                unit_middle = 0.25 * (unit[:-1, :-1] + unit[1:, :-1] + unit[:-1, 1:] + unit[1:, 1:])
                if world.kind[p] == Kind.ELLIPSOID:
                    unit_middle /= np.linalg.norm(unit_middle, axis=-1, keepdims=True)
                elif np.ptp(unit[..., 2]) > 0:
                    unit_middle[..., :2] /= np.linalg.norm(unit_middle[..., :2], axis=-1, keepdims=True)
                middle = (unit_middle * half) @ turn + centre
            outward = np.cross(grid[1:, 1:] - grid[:-1, :-1], grid[1:, :-1] - grid[:-1, 1:])
            seen = np.zeros(middle.shape[:2], bool)
            for view in views:
                rest = ~seen & (((view.centre_world_m - middle) * outward).sum(-1) > 0)
                seen[rest] = visible_points(view, middle[rest], relative=5e-4, absolute_m=5e-4)[1]
            for top, bottom, left, right in _rectangles(seen, flat):
                vertices.append(grid[[top, top, bottom, bottom], [left, right, right, left]])
                faces.append(np.array([[0, 1, 2], [0, 2, 3]], np.int32) + count)
                count += 4
    if not vertices:
        return Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int32))
    corners, index = np.unique(np.concatenate(vertices).round(6), axis=0, return_inverse=True)
    triangles = np.asarray(index).reshape(-1)[np.concatenate(faces)]
    a, b, c = triangles.T
    triangles = triangles[(a != b) & (b != c) & (c != a)]  # those at the middle of a cap or the pole of a ball
    used, triangles = np.unique(triangles, return_inverse=True)
    return Mesh(corners[used], triangles.reshape(-1, 3).astype(np.int32))
