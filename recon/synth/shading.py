"""What the hits of a view look like: surface coordinates, reflectance and light, for all pixels at once as [N].

Textures are trilinear; their mip level follows the footprint of a pixel on the surface (Williams 1983).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.synth.raycast import Float32, Rays, enter
from recon.synth.textures import SIZE, library
from recon.synth.world import Kind, World


@dataclass(frozen=True)
class Surface:
    """Where each pixel hits: world position and normal (rows x y z), material, pattern coordinates in metres."""

    points: Float32  # [3, N]
    normals: Float32  # [3, N] towards the camera
    cosine: Float32  # [N] of the angle between normal and ray
    material: NDArray[np.int16]  # [N]
    u: Float32  # [N] metres along the surface
    v: Float32
    extent_u: Float32  # [N] full extent of the face in metres
    extent_v: Float32
    shift: Float32  # [N] metres; keeps equal furniture from showing equal patterns


def surface_of(
    world: World,
    cam_from_world: NDArray[np.float64],
    rays: Rays,
    depth: Float32,
    owner: NDArray[np.int16],
) -> Surface:
    height, width = depth.shape
    t = depth.ravel()
    p = owner.ravel()
    x = np.broadcast_to(rays.x[None, :], (height, width)).ravel()
    y = np.broadcast_to(rays.y[:, None], (height, width)).ravel()
    table = np.concatenate([rays.matrix.reshape(-1, 9), rays.origin], axis=1).T.copy()  # [12, P]
    local = [
        table[9 + i][p] + t * (table[3 * i][p] * x + table[3 * i + 1][p] * y + table[3 * i + 2][p]) for i in range(3)
    ]
    magnitude = [np.abs(c) for c in local]
    on_y = (magnitude[1] > magnitude[0]) & (magnitude[1] >= magnitude[2])
    on_z = (magnitude[2] > magnitude[0]) & ~on_y
    axis = on_y.astype(np.int8) + 2 * on_z.astype(np.int8)
    signed = np.where(on_z, local[2], np.where(on_y, local[1], local[0]))
    face = 2 * axis + (signed > 0)

    half = world.half_m.astype(np.float32).T.copy()  # [3, P]
    metres = [local[i] * half[i][p] for i in range(3)]
    u = np.where(axis == 0, metres[1], metres[0])
    v = np.where(axis == 2, metres[1], metres[2])
    extent_u = 2 * np.where(axis == 0, half[1][p], half[0][p])
    extent_v = 2 * np.where(axis == 2, half[1][p], half[2][p])

    outward = np.repeat(world.local_from_world, 2, axis=1).astype(np.float32)  # [P, 6, 3] rows: face normals in world
    outward[:, ::2] *= -1
    flat = outward.reshape(-1, 3).T.copy()  # [3, P * 6]
    row = p.astype(np.int32) * 6 + face
    normals = np.stack([component[row] for component in flat])

    kinds = world.kind[p]
    for kind in (Kind.CYLINDER, Kind.ELLIPSOID):
        round_ = np.flatnonzero((kinds == kind) & ~(on_z & (kinds == Kind.CYLINDER) & (magnitude[2] > 0.9999)))
        if round_.size == 0:
            continue
        q = p[round_]
        unit = np.stack([local[i][round_] for i in range(3)])  # [3, M]
        if kind == Kind.CYLINDER:
            unit[2] = 0.0
        slope = unit / half[:, q]
        turn = world.local_from_world.astype(np.float32)[q]  # [M, 3, 3]
        normal = np.einsum("mji,jm->im", turn, slope)
        normals[:, round_] = normal / np.linalg.norm(normal, axis=0)
        face[round_] = 0
        radius = half[0][q]
        u[round_] = np.arctan2(unit[1], unit[0]) * radius
        extent_u[round_] = 2 * np.pi * radius
        if kind == Kind.ELLIPSOID:
            v[round_] = np.arcsin(np.clip(local[2][round_], -1, 1)) * half[2][q]
        extent_v[round_] = 2 * half[2][q]

    rotation = cam_from_world[:, :3].astype(np.float32)
    centre = (-cam_from_world[:, :3].T @ cam_from_world[:, 3]).astype(np.float32)
    rays_world = [rotation[0, i] * x + rotation[1, i] * y + rotation[2, i] for i in range(3)]
    points = np.stack([centre[i] + t * rays_world[i] for i in range(3)])
    length = np.sqrt(1.0 + x * x + y * y)
    cosine = -(normals[0] * rays_world[0] + normals[1] * rays_world[1] + normals[2] * rays_world[2]) / length
    flip = np.sign(cosine)  # the room's faces are seen from inside
    normals *= flip
    shift = (np.arange(len(world.kind), dtype=np.float32) * np.float32(0.37))[p]
    return Surface(points, normals, np.abs(cosine), world.material[p, face], u, v, extent_u, extent_v, shift)


def _hash(a: NDArray[np.int32], b: NDArray[np.int32], c: NDArray[np.integer]) -> Float32:
    """A pseudo-random number in [0, 1) per integer triple."""
    h = a.astype(np.uint32) * np.uint32(0x8DA6B343) ^ b.astype(np.uint32) * np.uint32(0xD8163841)
    h ^= c.astype(np.uint32) * np.uint32(0xCB1AB31F)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    h = (h ^ (h >> np.uint32(12))) * np.uint32(0x297A2D39)
    h ^= h >> np.uint32(15)
    return (h >> np.uint32(8)).astype(np.float32) * np.float32(1 / (1 << 24))


def _linear(colours: Any) -> Float32:
    return np.asarray(colours, np.float32) ** np.float32(2.2)


def _joint(position: Float32, cell: Float32, grout: Any, footprint: Any) -> Any:
    """Share of each pixel covered by joints along one axis: box-filtered, the mean share when cells are small."""
    share = position / cell
    offset = np.abs(share - np.round(share)) * cell  # distance to the nearest joint's middle
    sharp = np.clip((grout / 2 - offset) / footprint + 0.5, 0.0, 1.0) * np.minimum(grout / footprint, 1.0)
    blur = np.clip(2 * footprint / cell - 0.5, 0.0, 1.0)
    return sharp + blur * (grout / cell - sharp)


def albedo(world: World, surface: Surface, footprint: Float32) -> Float32:
    """Linear RGB reflectance of every hit, [3, N]."""
    materials = world.materials
    m = surface.material
    period = np.array([k.period_m for k in materials], np.float32)[m]
    texture = np.array([k.texture for k in materials], np.int32)
    stretched = period == 0
    scale_u = 1 / np.where(stretched, surface.extent_u, period)
    scale_v = 1 / np.where(stretched, surface.extent_v, period)
    u = surface.u + np.where(stretched, surface.extent_u / 2, surface.shift)
    v = surface.v + np.where(stretched, surface.extent_v / 2, surface.shift)
    jump = np.zeros_like(u)
    bright = np.ones_like(u)
    grout = np.zeros_like(u)
    has_cell = np.array([k.cell_m is not None for k in materials])
    grouts = _linear([k.grout for k in materials]).T.copy()
    cells = np.flatnonzero(has_cell[m])
    if cells.size:
        k = m[cells]
        size = np.array([c.cell_m or (1.0, 1.0) for c in materials], np.float32).T[:, k]
        turned = np.array([c.turned for c in materials])[k]
        cu, cv = np.where(turned, v[cells], u[cells]), np.where(turned, u[cells], v[cells])
        u[cells], v[cells] = cu, cv
        row = np.floor(cv / size[1])
        cu = cu + row * np.array([c.row_shift for c in materials], np.float32)[k] * size[0]
        column = np.floor(cu / size[0]).astype(np.int32)
        row = row.astype(np.int32)
        width = np.array([c.grout_m for c in materials], np.float32)[k]
        fp = footprint[cells]
        joint_u, joint_v = _joint(cu, size[0], width, fp), _joint(cv, size[1], width, fp)
        grout[cells] = joint_u + joint_v - joint_u * joint_v
        visible = np.clip(1.5 - fp / size.min(0), 0.0, 1.0)  # single cells fade where a pixel covers several
        chance = _hash(column, row, k)
        jitter = np.array([c.jitter for c in materials], np.float32)[k]
        checker = np.array([c.checker for c in materials], np.float32)[k]
        odd = ((row + column) & 1).astype(np.float32)
        bright[cells] = (1 + visible * jitter * (2 * chance - 1)) * (1 + (checker - 1) * (0.5 + visible * (odd - 0.5)))
        jump[cells] = np.floor(chance * 1024) / 128  # each cell shows another part of the pattern
    fine = footprint * SIZE * np.maximum(scale_u, scale_v)
    level = np.log2(np.maximum(fine, 1e-3))
    names = texture[m]
    baked = library()
    baked.require(texture[np.unique(m)])
    weights = baked.sample(names, u * scale_u + jump, v * scale_v + jump * np.float32(0.7), level)
    palette = _linear([k.colours for k in materials])  # [M, 3, 3]
    steps = (palette[:, 0].T.copy(), (palette[:, 1] - palette[:, 0]).T.copy(), (palette[:, 2] - palette[:, 0]).T.copy())
    first, second = weights.real, weights.imag
    out = np.empty((3, len(u)), np.float32)
    for i in range(3):
        colour = steps[0][i][m] + first * steps[1][i][m] + second * steps[2][i][m]
        colour = np.clip(colour, 0.0, 1.0) * bright
        out[i] = colour + grout * (grouts[i][m] - colour)
    return out


def illumination(world: World, surface: Surface, shade: Float32 | None) -> Float32:
    """Linear RGB light falling on every hit, [3, N]; ``shade`` [L, N] is the lit share per light."""
    points, normals = surface.points, surface.normals
    # Light from everywhere, dimmer in the corners of the room and from below (a cheap ambient occlusion).
    size = world.half_m[0].astype(np.float32)
    centre = world.centre_world_m[0].astype(np.float32)
    corner = np.ones(points.shape[1], np.float32)
    for i in range(3):
        gap = size[i] - np.abs(points[i] - centre[i])
        gap += np.abs(normals[i]) * 10  # a wall does not darken itself
        corner *= 1 - np.float32(0.35) * np.exp2(gap * np.float32(-5.0))
    corner *= np.float32(0.85) + np.float32(0.15) * normals[2]
    total = np.asarray(world.ambient, np.float32)[:, None] * corner
    for index, light in enumerate(world.lights):
        to_light = np.asarray(light.position_world_m, np.float32)[:, None] - points
        square = to_light[0] ** 2 + to_light[1] ** 2 + to_light[2] ** 2 + np.float32(0.05)
        facing = to_light[0] * normals[0] + to_light[1] * normals[1] + to_light[2] * normals[2]
        # Softened fall-off: a room's walls bounce light, so it falls slower than 1 / r^2.
        strength = np.maximum(facing, 0.0) / (np.sqrt(square) * (1 + np.float32(0.25) * square))
        if shade is not None:
            strength *= shade[index]
        total = total + np.asarray(light.colour, np.float32)[:, None] * strength
    return total


def shadows_of(world: World, points: Float32, normals: Float32) -> Float32:
    """Share of each light that reaches each point, [L, N] (0 or 1): a ray from the light to the point must be free."""
    shade = np.ones((len(world.lights), points.shape[1]), np.float32)
    unit_from_world = (world.local_from_world / world.half_m[:, :, None]).astype(np.float32)
    lifted = points + np.float32(2e-3) * normals
    for index, light in enumerate(world.lights):
        source = np.asarray(light.position_world_m, np.float32)
        for p in range(1, len(world.kind)):
            offset = source - world.centre_world_m[p].astype(np.float32)
            origin = unit_from_world[p] @ offset
            if np.all(np.abs(origin) < 1.02):
                continue  # a lamp's own shade does not block it
            # Only points farther along the axis to the primitive's bounding ball can be in its shadow.
            reach = float(np.linalg.norm(world.half_m[p]))
            distance = float(np.linalg.norm(offset))
            axis = -offset / max(distance, 1e-6)
            ray = lifted - source[:, None]
            along = axis @ ray
            length = np.sqrt((ray * ray).sum(0))
            limit = np.sqrt(max(distance**2 - reach**2, 0.0)) / max(distance, 1e-6)
            near = np.flatnonzero((along > length * np.float32(limit)) & (length > distance - reach))
            if near.size == 0:
                continue
            d = unit_from_world[p] @ ray[:, near]
            hit = enter(int(world.kind[p]), [d[0], d[1], d[2]], origin)
            shade[index, near[hit < 1.0]] = 0.0
    return shade
