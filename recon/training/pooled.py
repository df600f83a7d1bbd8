"""Procedural views and pairs as a checkpoint sees them: photos unified to its profile, with exact ground truth.

Images are made as inference would make them from photos (rendered at a larger focal length, through JPEG half of the
time, then unified); depth, normals and things are rendered anew at the unified image's own pixel centres.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon.cameras.unify import ImageProfile, unify
from recon.errors import BadInputError
from recon.synth.correspondence import true_correspondence
from recon.synth.dataset import (
    MIN_OVERLAP,
    Scenery,
    make_world,
    random_pair,
    random_view,
    random_viewpoint,
)
from recon.synth.objects import ViewObject, view_objects, well_seen
from recon.synth.render import Device, SynthView, render_geometry
from recon.synth.world import World
from recon.types import Camera, FloatArray, ImageArray, UnifiedImage

PHOTO_SCALE = (250 / 224, 500 / 224)  # pretended photos are so much larger than the unified image ...
LARGE_PHOTO_SCALE = (1.05, 1.3)  # ... or so much, where rendering takes seconds
LARGE_TARGET_PX = 512
MIN_BASELINE_M = 0.05
_ATTEMPTS = 8
_CANDIDATES = 6  # viewpoints to choose from where things shall be seen
_PROBE_PX = 96
_GRID = 24  # overlap is measured at 24 x 24 points


@dataclass(frozen=True)
class PooledView:
    """A unified image with exact ground truth at its pixel centres.

    ``depth_m`` [H, W] float32 z-depth, NaN for sky; ``cam_from_world`` [3, 4]; ``objects`` what can be named by a box;
    ``normals_world`` [H, W, 3] float32, unit length within 1 % (views of pairs only); ``seed`` of the world.
    """

    image: UnifiedImage
    depth_m: FloatArray
    cam_from_world: NDArray[np.float64]
    objects: tuple[ViewObject, ...]
    seed: int
    normals_world: NDArray[np.float32] | None = None

    def flipped(self) -> PooledView:
        """The mirrored view: as true a world as the first."""
        camera = self.image.camera
        fx, fy, cx, cy = camera.fx_fy_cx_cy
        mirrored = Camera.pinhole(camera.width_px, camera.height_px, fx, fy, camera.width_px - cx, cy)
        pixels = np.ascontiguousarray(self.image.pixels[:, ::-1])
        mirror = np.diag([-1.0, 1.0, 1.0])  # of the camera's and the world's x axis alike
        pose = np.column_stack([mirror @ self.cam_from_world[:, :3] @ mirror, mirror @ self.cam_from_world[:, 3]])
        normals = None if self.normals_world is None else self.normals_world[:, ::-1] * np.array([-1, 1, 1], np.float32)
        objects = tuple(_flipped_object(thing, camera.width_px) for thing in self.objects)
        return PooledView(UnifiedImage(pixels, mirrored, mirrored), self.depth_m[:, ::-1], pose, objects, self.seed,
                          normals)  # fmt: skip

    def geometry(self) -> SynthView:
        """The view as the renderer's type (without ids), for exact correspondence; ValueError without normals."""
        if self.normals_world is None:
            raise ValueError("a single pooled view keeps no normals; correspondence needs a view of a pair")
        return SynthView(
            self.image.pixels, self.image.camera, self.cam_from_world, self.depth_m, self.normals_world,
            np.zeros(self.depth_m.shape, np.int16), (), self.seed,
        )  # fmt: skip


@dataclass(frozen=True)
class PooledPair:
    """Two views of one world that share more than ``MIN_OVERLAP`` of what they show, both ways."""

    first: PooledView
    second: PooledView

    def flipped(self) -> PooledPair:
        """Both views mirrored."""
        return PooledPair(self.first.flipped(), self.second.flipped())

    def swapped(self) -> PooledPair:
        """The other order."""
        return PooledPair(self.second, self.first)

    @property
    def cam1_from_cam2(self) -> NDArray[np.float64]:
        """Relative pose [3, 4]: rotation, and the second camera's centre in the first camera's frame, in metres."""
        pose1, pose2 = self.first.cam_from_world, self.second.cam_from_world
        rotation = pose1[:, :3] @ pose2[:, :3].T
        return np.column_stack([rotation, pose1[:, 3] - rotation @ pose2[:, 3]])

    def overlap(self) -> float:
        """Share of one view's pixels that the other sees too, the smaller of both directions."""
        shares = []
        for one, other in ((self.first, self.second), (self.second, self.first)):
            size = np.array([one.image.camera.width_px, one.image.camera.height_px])
            steps = (np.arange(_GRID) + 0.5) / _GRID
            points = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2) * size
            shares.append(float(true_correspondence(one.geometry(), other.geometry(), points)[1].mean()))
        return min(shares)


# ---------------------------------------------------------------------------------------------------------------------
# rendering


def render_pooled_view(
    seed: int, profile: ImageProfile, scenery: Scenery = "room", device: Device = "cpu"
) -> PooledView:
    """Renders one view of the world of ``seed`` and treats it as a photo that is unified to the profile."""
    rng = np.random.default_rng([seed, 11])
    view = random_view(seed, focal_px=_photo_focal_px(rng, profile), scenery=scenery, device=device)
    return _pooled(view, make_world(seed, scenery), profile, rng, with_normals=False)


def render_pooled_things(
    seed: int, profile: ImageProfile, scenery: Scenery = "room", device: Device = "cpu"
) -> PooledView:
    """As :func:`render_pooled_view`, from that of 6 places that shows the most things well: for object questions."""
    rng = np.random.default_rng([seed, 13])
    world, focal_px = make_world(seed, scenery), _photo_focal_px(rng, profile)
    most, best = -1, 0
    for attempt in range(1, 1 + _CANDIDATES):
        camera, pose, _ = random_viewpoint(world, focal_px=focal_px, attempt=attempt)
        scale = _PROBE_PX / max(camera.width_px, camera.height_px)
        probe = camera.resized(round(camera.width_px * scale), round(camera.height_px * scale))
        count = len(well_seen(view_objects(world, probe, pose, render_geometry(world, probe, pose)[2]), probe))
        if count > most:
            most, best = count, attempt
    view = random_view(seed, focal_px=focal_px, scenery=scenery, device=device, attempt=best)
    return _pooled(view, world, profile, rng, with_normals=False)


def render_pooled_pair(
    seed: int, profile: ImageProfile, scenery: Scenery = "room", device: Device = "cpu"
) -> PooledPair:
    """Renders two views of the world of ``seed``; tries other places until they overlap and the camera has moved.

    Raises:
        BadInputError: no such pair found in 8 attempts.
    """
    world = make_world(seed, scenery)
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([seed, 12, attempt])
        focal_px = _photo_focal_px(rng, profile)
        views = random_pair(seed, focal_px=focal_px, scenery=scenery, attempt=attempt, device=device)
        first, second = (_pooled(view, world, profile, rng, with_normals=True) for view in views)
        pair = PooledPair(first, second)
        if np.linalg.norm(pair.cam1_from_cam2[:, 3]) > MIN_BASELINE_M and pair.overlap() > MIN_OVERLAP:
            return pair
    raise BadInputError(f"seed {seed}: no two views of this {scenery} share more than {MIN_OVERLAP:.0%}")


def _photo_focal_px(rng: np.random.Generator, profile: ImageProfile) -> float:
    low, high = PHOTO_SCALE if profile.target_px <= LARGE_TARGET_PX else LARGE_PHOTO_SCALE
    usual = profile.target_px if profile.mode == "focal" else profile.target_px / 1.3  # long edges are 1.0-1.65 focals
    return float(rng.uniform(low, high)) * usual


def _pooled(
    view: SynthView, world: World, profile: ImageProfile, rng: np.random.Generator, with_normals: bool
) -> PooledView:
    pixels = view.image
    if rng.random() < 0.5:
        pixels = _through_jpeg(pixels, quality=int(rng.integers(80, 97)))
    unified = unify(pixels, view.camera, profile)
    # exact at the unified image's own pixel centres, where sampling the photo's would be off by half a pixel
    depth_m, normals, ids = render_geometry(world, unified.camera, view.cam_from_world)
    objects = view_objects(world, unified.camera, view.cam_from_world, ids)
    unified = UnifiedImage(unified.pixels, unified.camera, unified.camera)
    return PooledView(unified, depth_m, view.cam_from_world, objects, view.seed, normals if with_normals else None)


def _through_jpeg(pixels: ImageArray, quality: int) -> ImageArray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _flipped_object(thing: ViewObject, width_px: int) -> ViewObject:
    left, top, right, bottom = thing.box_px
    (low_x, *low), (high_x, *high) = thing.low_m, thing.high_m
    return replace(
        thing,
        box_px=(width_px - right, top, width_px - left, bottom),
        low_m=(-high_x, low[0], low[1]),
        high_m=(-low_x, high[0], high[1]),
    )
