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
from recon.cameras.pixels import containing_pixels, corner_from_index, resize_pixels
from recon.errors import BadInputError
from recon.interop.datasets.records import DepthItem, Fault, PairItem
from recon.types import Camera

MIN_OVERLAP = 0.25  # of the pixels with depth, in both directions: VLM3's training pairs (arXiv 2605.30561)
_OVERLAP_PROBES = 400
_SAME_SURFACE = 0.05  # relative difference of depth up to which both photos see one surface
_OCCLUDED = 0.15  # and from which on the second photo surely sees another one
_KEPT_FRAMES = 24  # depths in memory


@dataclass(frozen=True)
class FrameDepth:
    """What is known of a frame's depth: z-depth ``depth_m`` ``[N]`` (scene units where the scene is not metric) at
    ``pixels`` ``[N, 2]`` of the photo, and, where there is one, a z-depth map ``[H, W]`` over the photo's view, of its
    pixel grid or of a smaller one, NaN unknown: the test of what the photo sees (a laser scan has none)."""

    pixels: NDArray[np.float64]
    depth_m: NDArray[np.float64]
    map_m: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Frame:
    """One photo of a scene.

    Attributes:
        name: of the photo, relative to the folder of images that the labels will name.
        image: the file.
        camera: of its pixels.
        load_depth: reads its depth; raises BadInputError for a damaged file. None for a photo without depth.
        cam_from_world: ``[3, 4]`` or None.
    """

    name: str
    image: Path
    camera: Camera
    load_depth: Callable[[], FrameDepth] | None = None
    cam_from_world: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class SceneFrames:
    """The frames of a scene in order; ``is_metric``: depth and poses are in metres."""

    name: str
    frames: tuple[Frame, ...]
    is_metric: bool = True


def depth_of_map(map_m: NDArray[np.float32], camera: Camera) -> FrameDepth:
    """The depth of a frame whose map covers its view: points at the centres of the map's known pixels."""
    rows, columns = np.nonzero(np.isfinite(map_m) & (map_m > 0))
    scale = np.array([camera.width_px / map_m.shape[1], camera.height_px / map_m.shape[0]])
    pixels = (np.stack([columns, rows], axis=1) + 0.5) * scale
    return FrameDepth(pixels, map_m[rows, columns].astype(np.float64), map_m)


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
            if frame.load_depth is None:
                continue
            rng = np.random.default_rng([seed, number])
            try:
                known = frame.load_depth()
            except BadInputError as error:
                on_fault(Fault(number, str(error)))
                continue
            if len(known.pixels) == 0:
                on_fault(Fault(number, f"{frame.name}: no pixel has a depth"))
                continue
            chosen = rng.permutation(len(known.pixels))[:num_points]
            # curated files hold whole pixels: the centre of the one that contains the point
            size = frame.camera.width_px, frame.camera.height_px
            whole = corner_from_index(containing_pixels(known.pixels[chosen], *size))
            yield DepthItem(frame.name, frame.image, frame.camera, whole, known.depth_m[chosen], "z", number)


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
        frames = [frame for frame in scene.frames if frame.cam_from_world is not None and frame.load_depth is not None]
        rng = np.random.default_rng([seed, index])
        candidates = [(i, j) for i in range(len(frames)) for j in range(i + 1, len(frames))]
        loaded = _Loaded(frames, on_fault)
        found = 0
        for k in rng.permutation(len(candidates)):
            if found >= pairs_per_scene:
                break
            i, j = candidates[k] if rng.random() < 0.5 else candidates[k][::-1]
            number += 1
            known1, known2 = loaded.get(i, number), loaded.get(j, number)
            if known1 is None or known2 is None:
                continue
            if overlap(frames[i], known1, frames[j], known2, rng) <= min_overlap:
                continue
            if overlap(frames[j], known2, frames[i], known1, rng) <= min_overlap:
                continue
            found += 1
            yield _pair(scene, (frames[i], known1), (frames[j], known2), num_points, rng, number)


def overlap(first: Frame, known1: FrameDepth, second: Frame, known2: FrameDepth, rng: np.random.Generator) -> float:
    """Share of the first photo's points with known depth whose surface the second photo sees, from 400 of them."""
    if len(known1.pixels) == 0:
        return 0.0
    chosen = rng.permutation(len(known1.pixels))[:_OVERLAP_PROBES]
    _, visible, _ = transfer(first, known1.pixels[chosen], known1.depth_m[chosen], second, known2)
    return float(visible.mean())


def transfer(
    first: Frame,
    pixels1: NDArray[np.float64],
    depth1: NDArray[np.float64],
    second: Frame,
    known2: FrameDepth,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Where points of the first photo are in the second: pixels ``[N, 2]`` (NaN behind the camera), which of them it
    sees ``[N]``, and which it surely does not ``[N]``. Without a depth map of the second, nothing is known seen."""
    relative = cam1_from_cam2(first, second)
    seen1 = rays(first.camera, pixels1) * depth1[:, None]  # [N, 3]
    seen2 = (seen1 - relative[:, 3]) @ relative[:, :3]
    pixels2 = project(second.camera, seen2)
    known = np.isfinite(seen1[:, 0])
    x, y = np.nan_to_num(pixels2, nan=-1.0).T
    inside = (x >= 0) & (x < second.camera.width_px) & (y >= 0) & (y < second.camera.height_px)
    map2 = known2.map_m
    if map2 is None:
        return pixels2, np.zeros(len(pixels2), dtype=bool), known & ~inside
    size = (second.camera.width_px, second.camera.height_px)
    cells = resize_pixels(np.where(inside[:, None], pixels2, 0.0), size, (map2.shape[1], map2.shape[0]))
    columns, rows = containing_pixels(cells, map2.shape[1], map2.shape[0]).T
    with np.errstate(invalid="ignore"):  # unknown depth compares as neither seen nor hidden
        ratio = seen2[:, 2] / map2[rows, columns]
        visible = inside & (np.abs(ratio - 1) < _SAME_SURFACE)
        hidden = known & (~inside | (ratio > 1 + _OCCLUDED))
    return pixels2, visible, hidden


def cam1_from_cam2(first: Frame, second: Frame) -> NDArray[np.float64]:
    """Rotation and camera 2's centre in camera 1's frame ``[3, 4]``."""
    pose1, pose2 = first.cam_from_world, second.cam_from_world
    assert pose1 is not None
    assert pose2 is not None
    rotation = pose1[:, :3] @ pose2[:, :3].T
    return np.column_stack([rotation, pose1[:, 3] - rotation @ pose2[:, 3]])


class _Loaded:
    """Depths of a scene's frames, the last of them kept; a frame that can't be read is told of once."""

    def __init__(self, frames: Sequence[Frame], on_fault: Callable[[Fault], None]) -> None:
        self._frames, self._on_fault = frames, on_fault
        self._kept: dict[int, FrameDepth] = {}
        self._bad: set[int] = set()

    def get(self, index: int, number: int) -> FrameDepth | None:
        if index in self._bad:
            return None
        if index not in self._kept:
            if len(self._kept) >= _KEPT_FRAMES:
                self._kept.pop(next(iter(self._kept)))
            load = self._frames[index].load_depth
            assert load is not None
            try:
                self._kept[index] = load()
            except BadInputError as error:
                self._bad.add(index)
                self._on_fault(Fault(number, str(error)))
                return None
        return self._kept[index]


def _pair(
    scene: SceneFrames,
    one: tuple[Frame, FrameDepth],
    two: tuple[Frame, FrameDepth],
    num_points: int,
    rng: np.random.Generator,
    number: int,
) -> PairItem:
    (first, known1), (second, known2) = one, two
    chosen = rng.permutation(len(known1.pixels))[: 2 * num_points]  # some are neither seen nor surely hidden
    pixels1 = known1.pixels[chosen]
    pixels2, visible, hidden = transfer(first, pixels1, known1.depth_m[chosen], second, known2)
    clear = np.flatnonzero(visible | hidden)[:num_points]
    pixels2[hidden] = np.nan
    return PairItem(
        name1=first.name,
        name2=second.name,
        image1=first.image,
        image2=second.image,
        camera1=first.camera,
        camera2=second.camera,
        pixels1=pixels1[clear],
        pixels2=pixels2[clear],
        cam1_from_cam2=cam1_from_cam2(first, second),
        is_metric=scene.is_metric,
        scene=scene.name,
        line=number,
    )
