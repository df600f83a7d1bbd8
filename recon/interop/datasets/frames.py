"""From photos with depth maps and poses to labels: what all layouts have in common.

A layout (:mod:`recon.interop.datasets.layouts`) lists the frames of every scene; here points are drawn, pairs with
enough overlap are found, and points are taken from one photo to the other, with the other's depth map as the test of
visibility. Everything is a pure function of the files and a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.cameras.pinhole import project, rays
from recon.cameras.pixels import containing_pixels
from recon.errors import BadInputError
from recon.interop.datasets.records import DepthItem, Fault, PairItem
from recon.types import Camera

MIN_OVERLAP = 0.25  # of the pixels with depth, in both directions: VLM3's training pairs (arXiv 2605.30561)
_OVERLAP_PROBES = 400
_SAME_SURFACE = 0.05  # relative difference of depth up to which both photos see one surface
_OCCLUDED = 0.15  # and from which on the second photo surely sees another one


@dataclass(frozen=True)
class Frame:
    """One photo of a scene.

    Attributes:
        name: of the photo, relative to the folder of images that the labels will name.
        image: the file.
        camera: of its pixels.
        depth: loads points with known z-depth: pixels ``[N, 2]`` of the photo and metres ``[N]`` (scene units where the
            scene is not metric); None for a photo without depth. Raises BadInputError for a damaged file.
        depth_map: loads z-depth ``[H, W]`` of the photo's own pixel grid or of a smaller one over the same view, NaN
            unknown; None where there is none (a laser scan that is projected is no map).
        cam_from_world: ``[3, 4]`` or None.
    """

    name: str
    image: Path
    camera: Camera
    depth: Callable[[], tuple[NDArray[np.float64], NDArray[np.float64]]] | None = None
    depth_map: Callable[[], NDArray[np.float32]] | None = None
    cam_from_world: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class SceneFrames:
    """The frames of a scene in order; ``is_metric``: depth and poses are in metres."""

    name: str
    frames: tuple[Frame, ...]
    is_metric: bool = True


def points_of_map(depth_map: NDArray[np.float32], camera: Camera) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixel centres ``[N, 2]`` of the photo where a depth map over its view knows the depth, and metres ``[N]``."""
    rows, columns = np.nonzero(np.isfinite(depth_map) & (depth_map > 0))
    scale = np.array([camera.width_px / depth_map.shape[1], camera.height_px / depth_map.shape[0]])
    pixels = (np.stack([columns, rows], axis=1) + 0.5) * scale
    return pixels, depth_map[rows, columns].astype(np.float64)


def depth_items(
    scenes: Sequence[SceneFrames], num_points: int, seed: int, on_fault: Callable[[Fault], None]
) -> Iterator[DepthItem]:
    """Each frame with at most ``num_points`` of its known depths, drawn at random at whole pixels.

    Frames whose depth can't be read, or is nowhere known, go to ``on_fault`` with their number.
    """
    number = 0
    for scene in scenes:
        if not scene.is_metric:
            raise BadInputError(f"{scene.name}: depths are known up to scale only; they make no metric labels")
        for frame in scene.frames:
            number += 1
            if frame.depth is None:
                continue
            rng = np.random.default_rng([seed, number])
            try:
                pixels, depth_m = frame.depth()
            except BadInputError as error:
                on_fault(Fault(number, str(error)))
                continue
            if len(pixels) == 0:
                on_fault(Fault(number, f"{frame.name}: no pixel has a depth"))
                continue
            chosen = rng.permutation(len(pixels))[:num_points]
            # curated files hold whole pixels: the centre of the one that contains the point
            whole = containing_pixels(pixels[chosen], frame.camera.width_px, frame.camera.height_px) + 0.5
            yield DepthItem(frame.name, frame.image, frame.camera, whole, depth_m[chosen], "z", number)


def pair_items(
    scenes: Sequence[SceneFrames],
    num_points: int,
    pairs_per_scene: int,
    seed: int,
    on_fault: Callable[[Fault], None],
    min_overlap: float = MIN_OVERLAP,
) -> Iterator[PairItem]:
    """Pairs of every scene that share more than ``min_overlap``, at most ``pairs_per_scene``, in random order.

    A point of the first photo is *visible* where the second photo's depth agrees within 5 %, *hidden* (NaN) where it
    leaves the second photo or lies 15 % or more behind what is seen there; what is between is not used.
    """
    number = 0
    for index, scene in enumerate(scenes):
        frames = [frame for frame in scene.frames if frame.cam_from_world is not None and frame.depth_map is not None]
        rng = np.random.default_rng([seed, index])
        candidates = [(i, j) for i in range(len(frames)) for j in range(len(frames)) if i < j]
        maps: dict[int, NDArray[np.float32] | None] = {}
        found = 0
        for i, j in (candidates[k] for k in rng.permutation(len(candidates))):
            if found >= pairs_per_scene:
                break
            pair = (i, j) if rng.random() < 0.5 else (j, i)
            number += 1
            loaded = [_map(frames, maps, k, number, on_fault) for k in pair]
            if loaded[0] is None or loaded[1] is None:
                continue
            first, second = frames[pair[0]], frames[pair[1]]
            forth = overlap(first, loaded[0], second, loaded[1], rng)
            if forth <= min_overlap or overlap(second, loaded[1], first, loaded[0], rng) <= min_overlap:
                continue
            found += 1
            yield _pair(scene, first, loaded[0], second, loaded[1], num_points, rng, number)


def overlap(
    first: Frame,
    map1: NDArray[np.float32],
    second: Frame,
    map2: NDArray[np.float32],
    rng: np.random.Generator,
) -> float:
    """Share of the first photo's pixels with known depth whose surface the second photo sees, from 400 of them."""
    pixels, depth = points_of_map(map1, first.camera)
    if len(pixels) == 0:
        return 0.0
    chosen = rng.permutation(len(pixels))[:_OVERLAP_PROBES]
    _, visible, _ = transfer(first, pixels[chosen], depth[chosen], second, map2)
    return float(visible.mean())


def transfer(
    first: Frame,
    pixels1: NDArray[np.float64],
    depth1: NDArray[np.float64],
    second: Frame,
    map2: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Where points of the first photo are in the second: pixels ``[N, 2]`` (NaN behind the camera), which of them it
    sees, and which it surely does not."""
    relative = cam1_from_cam2(first, second)
    seen1 = rays(first.camera, pixels1) * depth1[:, None]  # [N, 3]
    seen2 = (seen1 - relative[:, 3]) @ relative[:, :3]
    pixels2 = project(second.camera, seen2)
    size = np.array([second.camera.width_px, second.camera.height_px])
    finite = np.isfinite(pixels2).all(axis=1)
    inside = finite & (pixels2 >= 0).all(axis=1) & (pixels2 < size).all(axis=1)
    rows_columns = np.where(inside[:, None], pixels2, 0.0) / size * [map2.shape[1], map2.shape[0]]
    columns, rows = containing_pixels(rows_columns, map2.shape[1], map2.shape[0]).T
    with np.errstate(invalid="ignore"):  # unknown depth compares as not visible and not hidden
        ratio = seen2[:, 2] / map2[rows, columns]
        visible = inside & (np.abs(ratio - 1) < _SAME_SURFACE)
        hidden = np.isfinite(seen1[:, 2]) & (~inside | (ratio > 1 + _OCCLUDED))
    return pixels2, visible, hidden


def cam1_from_cam2(first: Frame, second: Frame) -> NDArray[np.float64]:
    """Rotation and camera 2's centre in camera 1's frame ``[3, 4]``."""
    pose1, pose2 = first.cam_from_world, second.cam_from_world
    assert pose1 is not None
    assert pose2 is not None
    rotation = pose1[:, :3] @ pose2[:, :3].T
    return np.column_stack([rotation, pose1[:, 3] - rotation @ pose2[:, 3]])


def _map(
    frames: Sequence[Frame],
    maps: dict[int, NDArray[np.float32] | None],
    index: int,
    number: int,
    on_fault: Callable[[Fault], None],
) -> NDArray[np.float32] | None:
    """A frame's depth map, kept for the next pair; None when it can't be read (told once)."""
    if index not in maps:
        if len(maps) > 64:
            maps.clear()
        load = frames[index].depth_map
        assert load is not None
        try:
            maps[index] = load()
        except BadInputError as error:
            on_fault(Fault(number, str(error)))
            maps[index] = None
    return maps[index]


def _pair(
    scene: SceneFrames,
    first: Frame,
    map1: NDArray[np.float32],
    second: Frame,
    map2: NDArray[np.float32],
    num_points: int,
    rng: np.random.Generator,
    number: int,
) -> PairItem:
    pixels, depth = points_of_map(map1, first.camera)
    chosen = rng.permutation(len(pixels))[: 2 * num_points]  # some are neither visible nor hidden
    pixels2, visible, hidden = transfer(first, pixels[chosen], depth[chosen], second, map2)
    clear = np.flatnonzero(visible | hidden)[:num_points]
    pixels2[hidden] = np.nan
    return PairItem(
        name1=first.name,
        name2=second.name,
        image1=first.image,
        image2=second.image,
        camera1=first.camera,
        camera2=second.camera,
        pixels1=pixels[chosen][clear],
        pixels2=pixels2[clear],
        cam1_from_cam2=cam1_from_cam2(first, second),
        is_metric=scene.is_metric,
        scene=scene.name,
        line=number,
    )
