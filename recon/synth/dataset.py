"""Random views and pairs of procedural worlds for training and tests, and exact correspondence between views.

Everything is a pure function of a seed. A seed names a room (or an outdoor block); worlds belong to a split for good
(``split_of``), so that a network is never scored on a world that it has seen.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recon.synth.block import make_block
from recon.synth.correspondence import covisible_share, true_correspondence
from recon.synth.render import Device, Lens, SynthView, render_depth, render_view
from recon.synth.room import make_room
from recon.synth.world import World
from recon.types import Camera

__all__ = [
    "Split",
    "SynthView",
    "covisible_share",
    "look_at",
    "make_room",
    "make_world",
    "random_camera",
    "random_lens",
    "random_pair",
    "random_view",
    "random_viewpoint",
    "render_view",
    "split_of",
    "split_seed",
    "true_correspondence",
]

Split = Literal["train", "validation", "test"]
Scenery = Literal["room", "block"]
_PERIOD = 20  # of every 20 seeds in a row 18 train, 1 validates, 1 tests
MIN_OVERLAP = 0.25  # share of pixels seen by both views of a pair (VLM3's training pairs, arXiv 2605.30561)


def split_of(seed: int) -> Split:
    """The split that a seed's room belongs to, fixed for good."""
    place = seed % _PERIOD
    return "validation" if place == 18 else "test" if place == 19 else "train"


def split_seed(split: Split, index: int) -> int:
    """The ``index``-th seed of a split (0, 1, 2 ...). Raises ValueError for an unknown split or a negative index."""
    if index < 0:
        raise ValueError(f"index must not be negative, got {index}")
    if split == "train":
        return index // 18 * _PERIOD + index % 18
    if split == "validation":
        return index * _PERIOD + 18
    if split == "test":
        return index * _PERIOD + 19
    raise ValueError(f"split must be train, validation or test, got {split!r}")


# ---------------------------------------------------------------------------------------------------------------------
# cameras and poses


def look_at(
    eye_world_m: NDArray[np.float64], target_world_m: NDArray[np.float64], roll_rad: float = 0.0
) -> NDArray[np.float64]:
    """``cam_from_world`` [3, 4] of a camera at ``eye`` that looks at ``target``, upright but for ``roll``.

    Raises ValueError when the view goes straight up or down, where upright has no meaning.
    """
    forward = np.asarray(target_world_m, np.float64) - eye_world_m
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < 1e-6:
        raise ValueError("look_at: the view direction is vertical")
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll_rad), np.sin(roll_rad)
    rotation = np.stack([c * right + s * down, -s * right + c * down, forward])
    return np.concatenate([rotation, (-rotation @ eye_world_m)[:, None]], axis=1)


def random_camera(
    rng: np.random.Generator, width_px: int | None = None, height_px: int | None = None, focal_px: float | None = None
) -> Camera:
    """A PINHOLE camera; what is None is drawn: focal about 224 px, phone-like aspect and field of view.

    The long edge is 1.0 to 1.65 focal lengths (53 to 79 degrees), the principal point within 1 % of the middle.
    """
    focal = 224.0 if focal_px is None else float(focal_px)
    if width_px is None or height_px is None:
        long = focal * float(rng.uniform(1.0, 1.65))
        aspect = float(rng.choice([4 / 3, 4 / 3, 4 / 3, 3 / 2, 16 / 9, 1.0]))
        size = (round(long), round(long / aspect))
        if rng.random() < 0.3:
            size = size[::-1]
        width_px = width_px or size[0]
        height_px = height_px or size[1]
    shift = np.clip(rng.normal(0, 0.004, 2), -0.01, 0.01)
    return Camera.pinhole(
        width_px, height_px, focal, focal, width_px * (0.5 + float(shift[0])), height_px * (0.5 + float(shift[1]))
    )


def random_lens(rng: np.random.Generator) -> Lens:
    """Exposure, white balance, vignetting and noise as they vary between hand-held photos."""
    red, blue = rng.normal(1.0, 0.07, 2)
    return Lens(
        exposure=float(np.exp(rng.normal(0.05, 0.28))),
        white_balance=(float(red), 1.0, float(blue)),
        vignette=float(rng.uniform(0.0, 0.35)),
        noise=float(rng.uniform(0.0, 5.0)),
        seed=int(rng.integers(1 << 31)),
    )


def _probe(camera: Camera, pixels: int = 28) -> Camera:
    """The same field of view with few pixels, to judge a pose cheaply."""
    scale = pixels / max(camera.width_px, camera.height_px)
    return camera.resized(max(round(camera.width_px * scale), 8), max(round(camera.height_px * scale), 8))


def _eye_height(rng: np.random.Generator, world: World) -> float:
    if world.outdoors and rng.random() < 0.2:  # a drone, or a window across the street
        return float(rng.uniform(3.0, 14.0))
    usual = float(np.clip(rng.normal(1.45, 0.2), 1.0, 1.8))
    height = usual if rng.random() < 0.8 else float(rng.uniform(0.4, 2.1))
    return height if world.outdoors else min(height, float(world.room_size_m[2]) - 0.3)


def _random_pose(rng: np.random.Generator, world: World, camera: Camera) -> NDArray[np.float64]:
    """A pose in free space that sees more than one near surface: the best of a few tries if none is good."""
    probe = _probe(camera)
    best, best_score = None, -np.inf
    walk = np.array(world.walk_m)
    for _ in range(12):
        ground = rng.uniform(-0.5, 0.5, (8, 2)) * (walk - 0.5)
        height = _eye_height(rng, world)
        eyes = np.concatenate([ground, np.full((8, 1), height)], axis=1)
        free = np.flatnonzero(world.is_free(eyes, 0.2))
        if free.size == 0:
            continue
        eye = eyes[free[0]]
        # Half of the photos look across the room, the others anywhere.
        towards = rng.uniform(-0.35, 0.35, 2) * walk if rng.random() < 0.5 else eye[:2] + rng.normal(0, 1, 2)
        yaw = np.arctan2(*(towards - eye[:2])[::-1])
        level = (0.05 if height < 2.5 else -0.45) if world.outdoors else -0.2
        tilt = np.clip(rng.normal(level, 0.2), -1.0 if world.outdoors else -0.8, 0.4)
        aim = eye + np.array([np.cos(yaw) * np.cos(tilt), np.sin(yaw) * np.cos(tilt), np.sin(tilt)])
        roll = rng.normal(0, 0.05) if rng.random() < 0.93 else rng.normal(0, 0.3)
        pose = look_at(eye, aim, float(roll))
        depth = render_depth(world, probe, pose)
        known = depth[np.isfinite(depth)]
        if known.size < 0.5 * depth.size:
            continue
        nearest, middle = np.quantile(known, [0.02, 0.5])
        score = min(nearest / 0.35, 1.0) + min(middle / 1.2, 1.0)
        if score > best_score:
            best, best_score = pose, score
        if score >= 2.0:
            break
    if best is None:  # a room crammed full: from under the ceiling's middle there is always air
        eye = np.array([0.0, 0.0, 15.0 if world.outdoors else world.room_size_m[2] - 0.25])
        best = look_at(eye, eye + np.array([1.0, 0.5, -0.4]))
    return best


def make_world(seed: int, scenery: Scenery = "room") -> World:
    """The world of ``seed``: a furnished room, or an outdoor block."""
    return make_block(seed) if scenery == "block" else make_room(seed)


def random_view(
    seed: int,
    width_px: int | None = None,
    height_px: int | None = None,
    focal_px: float | None = None,
    scenery: Scenery = "room",
    device: Device = "cpu",
    attempt: int = 0,
) -> SynthView:
    """A view of the world of ``seed``, from a random place with a random lens.

    Args:
        seed: names the world and everything else.
        width_px, height_px, focal_px: of the picture; what is None is drawn (``random_camera``).
        scenery: indoors or outdoors.
        device: where the picture is rendered (the places are looked for on the CPU).
        attempt: names another view of the same world.
    """
    world = make_world(seed, scenery)
    camera, pose, lens = random_viewpoint(world, width_px, height_px, focal_px, attempt)
    return render_view(world, camera, pose, lens=lens, device=device)


def random_viewpoint(
    world: World,
    width_px: int | None = None,
    height_px: int | None = None,
    focal_px: float | None = None,
    attempt: int = 0,
) -> tuple[Camera, NDArray[np.float64], Lens]:
    """Camera, pose [3, 4] and lens of a view of ``random_view``, a function of the world's seed and the arguments."""
    rng = np.random.default_rng([world.seed, 2, attempt] if attempt else [world.seed, 2])
    camera = random_camera(rng, width_px, height_px, focal_px)
    pose = _random_pose(rng, world, camera)
    return camera, pose, random_lens(rng)


def random_pair(
    seed: int,
    width_px: int | None = None,
    height_px: int | None = None,
    focal_px: float | None = None,
    min_overlap: float = MIN_OVERLAP,
    scenery: Scenery = "room",
    attempt: int = 0,
    device: Device = "cpu",
) -> tuple[SynthView, SynthView]:
    """Two views of one world that share more than ``min_overlap`` of their pixels, in both directions.

    The second camera stands 0.1 to 2.5 m (outdoors 8 m) from the first and looks near a point that the first one sees.
    Arguments as for ``random_view``; with free sizes the second photo may have another aspect. ``attempt`` names
    another pair of the same world (for the rare world where none is found: then both views are the same).
    """
    rng = np.random.default_rng([seed, 3, attempt] if attempt else [seed, 3])
    world = make_world(seed, scenery)
    camera1 = random_camera(rng, width_px, height_px, focal_px)
    camera2 = random_camera(rng, width_px, height_px, focal_px) if rng.random() < 0.2 else camera1
    pose1 = _random_pose(rng, world, camera1)
    probe1, probe2 = _probe(camera1), _probe(camera2)
    depth1 = render_depth(world, probe1, pose1)
    eye1 = -pose1[:, :3].T @ pose1[:, 3]
    reach = float(np.exp(rng.normal(np.log(0.7), 0.7)))
    farthest = 2.5
    if world.outdoors:
        reach, farthest = 3 * reach, 8.0
    pose2 = pose1
    for attempt in range(40):
        # Shorter and shorter steps make sure that the search ends; most pairs are accepted in the first tries.
        step = rng.normal(0, 1, 3) * [1, 1, 0.3]
        length = float(np.clip(reach, 0.1, farthest)) * 0.9**attempt
        eye2 = eye1 + step / np.linalg.norm(step) * length
        if not world.is_free(eye2[None], 0.15)[0]:
            continue
        column, row = (int(n * rng.uniform(0.2, 0.8)) for n in (probe1.width_px, probe1.height_px))
        if not np.isfinite(depth1[row, column]):
            continue
        fx, fy, cx, cy = probe1.fx_fy_cx_cy
        ray = np.array([(column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy, 1.0])
        target = eye1 + depth1[row, column] * (pose1[:, :3].T @ ray)
        aim = target - eye2
        if np.linalg.norm(aim) < 0.4 or abs(aim[2]) > 0.95 * np.linalg.norm(aim):
            continue
        candidate = look_at(eye2, target, float(rng.normal(0, 0.06)))
        depth2 = render_depth(world, probe2, candidate)
        if not np.nanquantile(depth2, 0.02) >= 0.3:
            continue
        forth = covisible_share(depth1, probe1, pose1, depth2, probe2, candidate)
        back = covisible_share(depth2, probe2, candidate, depth1, probe1, pose1)
        if min(forth, back) > min_overlap + 0.03:  # the probe is coarse: leave a margin
            pose2 = candidate
            break
    lens = random_lens(rng)
    lens2 = lens if rng.random() < 0.3 else random_lens(rng)
    return (
        render_view(world, camera1, pose1, lens=lens, device=device),
        render_view(world, camera2, pose2, lens=lens2, device=device),
    )
