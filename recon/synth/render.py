"""A vectorised ray caster for ``World``: colour, exact z-depth, object ids and normals, in torch on any device.

Pixels are found first (``raycast``), then shaded together (``shading``): deferred shading. Results come back as numpy
arrays. ``docs/training-data.md`` states the rates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.synth.raycast import camera_rays, visibility
from recon.synth.shading import Surface, albedo, emission, illumination, shadows_of, surface_of
from recon.synth.world import World
from recon.types import Camera, ImageArray

_GAMMA = torch.from_numpy((np.linspace(0.0, 1.0, 4096) ** (1 / 2.2) * 255.0 + 0.5).astype(np.uint8))
Device = str | torch.device


@dataclass(frozen=True)
class SynthView:
    """One rendered view.

    Attributes:
        image: RGB, [H, W, 3] uint8.
        camera: the PINHOLE camera of these pixels.
        cam_from_world: [3, 4].
        depth_m: z-depth along the ray of each pixel's centre, [H, W] float32; NaN for sky (rooms are closed).
        normals_world: unit surface normals towards the camera, [H, W, 3] float32.
        object_id: row of ``object_names`` seen by each pixel's centre, [H, W] int16.
        object_names: see ``World``.
        seed: of the world.
    """

    image: ImageArray
    camera: Camera
    cam_from_world: NDArray[np.float64]
    depth_m: NDArray[np.float32]
    normals_world: NDArray[np.float32]
    object_id: NDArray[np.int16]
    object_names: tuple[str, ...]
    seed: int

    @property
    def centre_world_m(self) -> NDArray[np.float64]:
        """Camera centre, [3]."""
        return -self.cam_from_world[:, :3].T @ self.cam_from_world[:, 3]


@dataclass(frozen=True)
class Lens:
    """What a camera does to the light before it becomes 8-bit numbers.

    Attributes:
        exposure: factor on the linear light.
        white_balance: factors on linear red, green, blue.
        vignette: loss of light in the corners, in [0, 1].
        noise: standard deviation of the pixel noise in 8-bit steps.
        seed: of the noise.
    """

    exposure: float = 1.0
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    vignette: float = 0.0
    noise: float = 0.0
    seed: int = 0


def render_depth(
    world: World, camera: Camera, cam_from_world: NDArray[np.float64], device: Device = "cpu"
) -> NDArray[np.float32]:
    """Z-depth of every pixel centre alone, [H, W] float32 metres, NaN for sky: the cheap part of ``render_view``."""
    depth, owner = visibility(world, camera, cam_from_world, camera_rays(world, camera, cam_from_world, device))
    return _known(world, depth, owner)


def render_geometry(
    world: World, camera: Camera, cam_from_world: NDArray[np.float64], device: Device = "cpu"
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int16]]:
    """Z-depth [H, W], unit normals towards the camera [H, W, 3] and object ids [H, W] at the pixel centres."""
    rays = camera_rays(world, camera, cam_from_world, device)
    depth, owner = visibility(world, camera, cam_from_world, rays)
    return _geometry(world, depth, owner, surface_of(world, cam_from_world, rays, depth, owner))


def _geometry(
    world: World, depth: Tensor, owner: Tensor, surface: Surface
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int16]]:
    normals = surface.normals.T.reshape(*depth.shape, 3).contiguous().cpu().numpy()
    return _known(world, depth, owner), normals, world.object_id[owner.cpu().numpy()]


def _known(world: World, depth: Tensor, owner: Tensor) -> NDArray[np.float32]:
    if world.outdoors:  # the shell is the sky
        depth = depth.masked_fill(owner == 0, torch.nan)
    return depth.cpu().numpy()


def _shade(
    world: World, camera: Camera, cam_from_world: NDArray[np.float64], lens: Lens, shadows: bool, device: Device
) -> tuple[Tensor, Tensor, Tensor, Surface]:
    """Linear RGB [3, H, W], depth and primitive [H, W], and the surface."""
    rays = camera_rays(world, camera, cam_from_world, device)
    depth, owner = visibility(world, camera, cam_from_world, rays)
    surface = surface_of(world, cam_from_world, rays, depth, owner)
    footprint = depth.flatten() / camera.focal_px / surface.cosine.clamp(min=0.08).sqrt()
    light = illumination(world, surface, shadows_of(world, surface.points, surface.normals) if shadows else None)
    light += emission(world, surface)
    light *= albedo(world, surface, footprint)
    radius = (rays.x[None, :] ** 2 + rays.y[:, None] ** 2).flatten()
    gain = lens.exposure * (1 - lens.vignette * radius / (1 + radius))
    for i in range(3):
        light[i] *= gain * lens.white_balance[i]
    light = light / (1 + 0.35 * light)  # highlights roll off like in a camera
    light *= 1.35
    return light.reshape(3, *depth.shape), depth, owner, surface


def render_view(
    world: World,
    camera: Camera,
    cam_from_world: NDArray[np.float64],
    supersample: int = 1,
    shadows: bool = False,
    lens: Lens | None = None,
    device: Device = "cpu",
) -> SynthView:
    """Render one view.

    Args:
        world: the scene.
        camera: PINHOLE camera of the picture.
        cam_from_world: pose, [3, 4], OpenCV axes; the centre must be inside the room and outside every thing.
        supersample: average this many samples per pixel along each axis; depth, normals and ids are always those of
            the pixel's centre.
        shadows: cast shadows of the point lights (several times slower).
        lens: exposure, white balance, vignette and noise; neutral when None.
        device: where to compute; other devices than the CPU give the same picture up to rounding.

    Returns:
        the view.

    Raises:
        ValueError: camera model other than PINHOLE, or ``supersample`` below 1.
    """
    if camera.model != "PINHOLE":
        raise ValueError(f"render_view needs a PINHOLE camera, got {camera.model}")
    if supersample < 1:
        raise ValueError(f"supersample must be at least 1, got {supersample}")
    lens = lens or Lens()
    s = supersample
    fine = camera.resized(camera.width_px * s, camera.height_px * s) if s > 1 else camera
    light, depth, owner, surface = _shade(world, fine, cam_from_world, lens, shadows, device)
    if s > 1:
        shape = (3, camera.height_px, s, camera.width_px, s)
        light = light.clamp(max=1.0).reshape(shape).mean(dim=(2, 4))
        rays = camera_rays(world, camera, cam_from_world, device)
        depth, owner = visibility(world, camera, cam_from_world, rays)
        surface = surface_of(world, cam_from_world, rays, depth, owner)
    levels = (light * 4095.0).clamp(0, 4095).long()
    image: ImageArray = _GAMMA.to(levels.device)[levels].permute(1, 2, 0).contiguous().cpu().numpy()
    if lens.noise > 0:
        rng = np.random.default_rng([lens.seed, 7])
        grain = rng.standard_normal(image.shape, np.float32) * np.float32(lens.noise)
        image = np.clip(image + grain + np.float32(0.5), 0, 255).astype(np.uint8)
    depth_m, normals, object_id = _geometry(world, depth, owner, surface)
    return SynthView(
        image=np.ascontiguousarray(image),
        camera=replace(camera, focal_source="given"),
        cam_from_world=np.asarray(cam_from_world, np.float64),
        depth_m=depth_m,
        normals_world=normals,
        object_id=object_id,
        object_names=world.object_names,
        seed=world.seed,
    )
