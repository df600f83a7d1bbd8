"""What the hits of a view look like: surface coordinates, reflectance and light, for all pixels at once as [N].

Textures are trilinear; their mip level follows the footprint of a pixel on the surface (Williams 1983). All tensors
are float32 on the rays' device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.synth.raycast import Rays, enter
from recon.synth.textures import SIZE, library
from recon.synth.world import Kind, World


@dataclass(frozen=True)
class Surface:
    """Where each pixel hits: world position and normal (rows x y z), material, pattern coordinates in metres."""

    points: Tensor  # [3, N]
    normals: Tensor  # [3, N] towards the camera
    cosine: Tensor  # [N] of the angle between normal and ray
    material: Tensor  # [N] int64
    u: Tensor  # [N] metres along the surface
    v: Tensor
    extent_u: Tensor  # [N] full extent of the face in metres
    extent_v: Tensor
    shift: Tensor  # [N] metres; keeps equal furniture from showing equal patterns


def surface_of(world: World, cam_from_world: NDArray[np.float64], rays: Rays, depth: Tensor, owner: Tensor) -> Surface:
    device = depth.device
    height, width = depth.shape
    t, p = depth.flatten(), owner.flatten()
    x = rays.x.expand(height, -1).flatten()
    y = rays.y[:, None].expand(-1, width).flatten()
    table = torch.cat([rays.matrix.flatten(1), rays.origin], dim=1).T.contiguous()  # [12, P]
    local = [
        table[9 + i][p] + t * (table[3 * i][p] * x + table[3 * i + 1][p] * y + table[3 * i + 2][p]) for i in range(3)
    ]
    magnitude = [c.abs() for c in local]
    on_y = (magnitude[1] > magnitude[0]) & (magnitude[1] >= magnitude[2])
    on_z = (magnitude[2] > magnitude[0]) & ~on_y
    axis = on_y.long() + 2 * on_z.long()
    signed = torch.where(on_z, local[2], torch.where(on_y, local[1], local[0]))
    face = 2 * axis + (signed > 0).long()

    half = _numbers(world.half_m.T, device)  # [3, P]
    own = [half[i][p] for i in range(3)]
    metres = [local[i] * own[i] for i in range(3)]
    on_x = axis == 0
    u = torch.where(on_x, metres[1], metres[0])
    v = torch.where(on_z, metres[1], metres[2])
    extent_u = 2 * torch.where(on_x, own[1], own[0])
    extent_v = 2 * torch.where(on_z, own[1], own[2])

    outward = np.repeat(world.local_from_world, 2, axis=1)  # [P, 6, 3] rows: face normals in world
    outward[:, ::2] *= -1
    normals = _numbers(outward.reshape(-1, 3).T, device)[:, p * 6 + face]  # [3, N]

    kinds = torch.from_numpy(world.kind.astype(np.int64)).to(device)[p]
    for kind in (Kind.CYLINDER, Kind.ELLIPSOID):
        if not (world.kind == kind).any():
            continue
        round_ = ((kinds == kind) & ~(on_z & (kinds == Kind.CYLINDER) & (magnitude[2] > 0.9999))).nonzero()[:, 0]
        q = p[round_]
        unit = torch.stack([local[i][round_] for i in range(3)])  # [3, M]
        if kind == Kind.CYLINDER:
            unit[2] = 0.0
        slope = unit / half[:, q]
        turn = _numbers(world.local_from_world, device)[q]  # [M, 3, 3]
        normal = torch.einsum("mji,jm->im", turn, slope)
        normals[:, round_] = normal / normal.norm(dim=0)
        face[round_] = 0
        radius = half[0][q]
        u[round_] = torch.atan2(unit[1], unit[0]) * radius
        extent_u[round_] = 2 * torch.pi * radius
        if kind == Kind.ELLIPSOID:
            v[round_] = torch.asin(local[2][round_].clamp(-1, 1)) * half[2][q]
        extent_v[round_] = 2 * half[2][q]

    rotation = cam_from_world[:, :3].astype(np.float32).tolist()
    centre = (-cam_from_world[:, :3].T @ cam_from_world[:, 3]).tolist()
    rays_world = [rotation[0][i] * x + rotation[1][i] * y + rotation[2][i] for i in range(3)]
    points = torch.stack([centre[i] + t * rays_world[i] for i in range(3)])
    length = (1.0 + x * x + y * y).sqrt()
    cosine = -(normals[0] * rays_world[0] + normals[1] * rays_world[1] + normals[2] * rays_world[2]) / length
    normals *= cosine.sign()  # the room's faces are seen from inside
    shift = (torch.arange(len(world.kind), device=device) * 0.37)[p]
    material = torch.from_numpy(world.material.astype(np.int64)).to(device)[p, face]
    return Surface(points, normals, cosine.abs(), material, u, v, extent_u, extent_v, shift)


def _numbers(values: Any, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device)


def _hash(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """A pseudo-random number in [0, 1) per integer triple: 32-bit arithmetic in 64-bit integers."""
    low = 0xFFFFFFFF
    h = (a * 0x8DA6B343 & low) ^ (b * 0xD8163841 & low) ^ (c * 0xCB1AB31F & low)
    h = (h ^ (h >> 15)) * 0x2C1B3C6D & low
    h = (h ^ (h >> 12)) * 0x297A2D39 & low
    h = h ^ (h >> 15)
    return (h >> 8).float() * (1 / (1 << 24))


def _linear(colours: Sequence[Any], device: torch.device) -> Tensor:
    return _numbers(np.asarray(colours, np.float32) ** np.float32(2.2), device)


def _joint(position: Tensor, cell: Tensor, grout: Tensor, footprint: Tensor) -> Tensor:
    """Share of each pixel covered by joints along one axis: box-filtered, the mean share when cells are small."""
    share = position / cell
    offset = (share - share.round()).abs() * cell  # distance to the nearest joint's middle
    sharp = ((grout / 2 - offset) / footprint + 0.5).clamp(0.0, 1.0) * (grout / footprint).clamp(max=1.0)
    blur = (2 * footprint / cell - 0.5).clamp(0.0, 1.0)
    return sharp + blur * (grout / cell - sharp)


def albedo(world: World, surface: Surface, footprint: Tensor) -> Tensor:
    """Linear RGB reflectance of every hit, [3, N]."""
    materials, m, device = world.materials, surface.material, surface.u.device

    def each(values: Sequence[Any], of: Tensor) -> Tensor:
        return _numbers(values, device)[of]

    period = each([k.period_m for k in materials], m)
    stretched = period == 0
    scale_u = 1 / torch.where(stretched, surface.extent_u, period)
    scale_v = 1 / torch.where(stretched, surface.extent_v, period)
    u = surface.u + torch.where(stretched, surface.extent_u / 2, surface.shift)
    v = surface.v + torch.where(stretched, surface.extent_v / 2, surface.shift)
    jump, bright, grout = torch.zeros_like(u), torch.ones_like(u), torch.zeros_like(u)
    has_cell = torch.tensor([k.cell_m is not None for k in materials], device=device)
    cells = has_cell[m].nonzero()[:, 0]
    if len(cells):
        k = m[cells]
        size = [each([(c.cell_m or (1.0, 1.0))[i] for c in materials], k) for i in range(2)]
        turned = torch.tensor([c.turned for c in materials], device=device)[k]
        cu, cv = torch.where(turned, v[cells], u[cells]), torch.where(turned, u[cells], v[cells])
        u[cells], v[cells] = cu, cv
        row = (cv / size[1]).floor()
        cu = cu + row * each([c.row_shift for c in materials], k) * size[0]
        column = (cu / size[0]).floor().long()
        row = row.long()
        width = each([c.grout_m for c in materials], k)
        fp = footprint[cells]
        joint_u, joint_v = _joint(cu, size[0], width, fp), _joint(cv, size[1], width, fp)
        grout[cells] = joint_u + joint_v - joint_u * joint_v
        # single cells fade where a pixel covers several
        visible = (1.5 - fp / torch.minimum(size[0], size[1])).clamp(0.0, 1.0)
        chance = _hash(column, row, k)
        jitter = each([c.jitter for c in materials], k)
        checker = each([c.checker for c in materials], k)
        odd = ((row + column) & 1).float()
        bright[cells] = (1 + visible * jitter * (2 * chance - 1)) * (1 + (checker - 1) * (0.5 + visible * (odd - 0.5)))
        jump[cells] = (chance * 1024).floor() / 128  # each cell shows another part of the pattern
    level = (footprint * SIZE * torch.maximum(scale_u, scale_v)).clamp(min=1e-3).log2()
    texture = np.array([k.texture for k in materials])
    baked = library(device)
    baked.require(texture[np.unique(world.material)])
    names = torch.from_numpy(texture).to(device)[m]
    weights = baked.sample(names, u * scale_u + jump, v * scale_v + jump * 0.7, level)
    palette = _linear([k.colours for k in materials], device)  # [M, 3, 3]
    grouts = _linear([k.grout for k in materials], device)  # [M, 3]
    first, second = weights[:, 0], weights[:, 1]
    out = torch.empty(3, len(u), device=device)
    for i in range(3):
        base, one, other = (palette[:, k, i].contiguous() for k in range(3))
        colour = base[m] + first * (one - base)[m] + second * (other - base)[m]
        colour = colour.clamp(0.0, 1.0) * bright
        out[i] = colour + grout * (grouts[:, i][m] - colour)
    return out


def emission(world: World, surface: Surface) -> Tensor:
    """Light that every hit gives off by itself, [N]."""
    return _numbers([k.emission for k in world.materials], surface.u.device)[surface.material]


def illumination(world: World, surface: Surface, shade: Tensor | None) -> Tensor:
    """Linear RGB light falling on every hit, [3, N]; ``shade`` [L, N] is the lit share per light."""
    points, normals = surface.points, surface.normals
    # Light from everywhere, dimmer in the corners of the room and from below (a cheap ambient occlusion).
    size, centre = world.half_m[0].tolist(), world.centre_world_m[0].tolist()
    corner = torch.ones_like(surface.u)
    for i in range(3):
        gap = size[i] - (points[i] - centre[i]).abs()
        gap += normals[i].abs() * 10  # a wall does not darken itself
        corner *= 1 - 0.35 * torch.exp2(gap * -5.0)
    corner *= 0.85 + 0.15 * normals[2]
    total = torch.stack([corner * part for part in world.ambient])
    for index, light in enumerate(world.lights):
        to_light = [light.position_world_m[i] - points[i] for i in range(3)]
        square = to_light[0] ** 2 + to_light[1] ** 2 + to_light[2] ** 2 + 0.05
        facing = to_light[0] * normals[0] + to_light[1] * normals[1] + to_light[2] * normals[2]
        # Softened fall-off: a room's walls bounce light, so it falls slower than 1 / r^2.
        strength = facing.clamp(min=0.0) / (square.sqrt() * (1 + 0.25 * square))
        if shade is not None:
            strength *= shade[index]
        for i in range(3):
            total[i] += strength * light.colour[i]
    return total


def shadows_of(world: World, points: Tensor, normals: Tensor) -> Tensor:
    """Share of each light that reaches each point, [L, N] (0 or 1): a ray from the light to the point must be free."""
    shade = torch.ones(len(world.lights), points.shape[1], device=points.device)
    unit_from_world = world.local_from_world / world.half_m[:, :, None]
    lifted = points + 2e-3 * normals
    for index, light in enumerate(world.lights):
        source = np.asarray(light.position_world_m)
        ray = lifted - _numbers(source, points.device)[:, None]
        length = ray.norm(dim=0)
        for p in range(1, len(world.kind)):
            offset = source - world.centre_world_m[p]
            origin = unit_from_world[p] @ offset
            if np.all(np.abs(origin) < 1.02):
                continue  # a lamp's own shade does not block it
            # Only points farther along the axis to the primitive's bounding ball can be in its shadow.
            reach = float(np.linalg.norm(world.half_m[p]))
            distance = float(np.linalg.norm(offset))
            along = _numbers(-offset / max(distance, 1e-6), points.device) @ ray
            limit = np.sqrt(max(distance**2 - reach**2, 0.0)) / max(distance, 1e-6)
            near = ((along > length * limit) & (length > distance - reach)).nonzero()[:, 0]
            if not len(near):
                continue
            d = _numbers(unit_from_world[p], points.device) @ ray[:, near]
            hit = enter(int(world.kind[p]), [d[0], d[1], d[2]], origin.tolist())
            shade[index, near[hit < 1.0]] = 0.0
    return shade
