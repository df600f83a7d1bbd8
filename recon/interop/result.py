"""What any tool's output becomes before it is compared: poses, cameras, depth and a surface under one roof."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recon.errors import BadInputError
from recon.surface.types import DepthMap, Mesh, PointCloud
from recon.types import Camera

Kind = Literal[
    "ground truth", "our run", "COLMAP model", "VGGT predictions", "feed-forward COLMAP export", "Depth-Anything-3",
    "nerfstudio transforms", "mesh", "cloud",
]  # fmt: skip


@dataclass(frozen=True)
class Surface:
    """The surface of a result, read when it is asked for.

    ``load(max_points, seed)`` gives a mesh, or a cloud of at most ``max_points`` points drawn at random; ``points`` is
    how many there are in all (None where that isn't known before reading); ``what`` names it for the report.
    """

    what: str
    load: Callable[[int, int], Mesh | PointCloud]
    points: int | None = None


@dataclass(frozen=True)
class Reconstructed:
    """A result of some tool.

    Attributes:
        source: file or folder as the user gave it.
        kind: what it was recognised as.
        poses: ``cam_from_world`` [3, 4] by photo name, in the result's own world.
        cameras: intrinsics of the photos by name, for the size that the tool worked with or the photo's own.
        depth_names: photos with a depth map, in the order in which ``load_depth`` is fastest.
        load_depth: reads one depth map; its camera may differ from the photo's (undistorted).
        surface: mesh or cloud, None when the result has none.
        photos: all photos that the tool was given where that is known, registered or not, else empty.
        metric: lengths are metres.
        has_names: False where the tool stored no photo names: the keys are then ``"#000000"``, ``"#000001"`` ...
        notes: what a reader of the comparison should know.
    """

    source: Path
    kind: Kind
    poses: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    cameras: Mapping[str, Camera] = field(default_factory=dict)
    depth_names: tuple[str, ...] = ()
    load_depth: Callable[[str], DepthMap] | None = None
    surface: Surface | None = None
    photos: tuple[str, ...] = ()
    metric: bool = False
    has_names: bool = True
    notes: tuple[str, ...] = ()

    def renamed(self, new_name: Mapping[str, str], note: str = "") -> Reconstructed:
        """The same result with photos called by other names; photos that the mapping lacks keep theirs."""
        old_name = {new_name.get(old, old): old for old in {*self.poses, *self.cameras, *self.depth_names}}
        load = self.load_depth

        def load_renamed(name: str) -> DepthMap:
            assert load is not None
            return dataclasses.replace(load(old_name[name]), name=name)

        return dataclasses.replace(
            self,
            poses={new_name.get(name, name): pose for name, pose in self.poses.items()},
            cameras={new_name.get(name, name): camera for name, camera in self.cameras.items()},
            depth_names=tuple(new_name.get(name, name) for name in self.depth_names),
            load_depth=None if load is None else load_renamed,
            has_names=True,
            notes=self.notes + ((note,) if note else ()),
        )


def placeholder_names(count: int) -> tuple[str, ...]:
    """Names of photos of a tool that stores none, in its order."""
    return tuple(f"#{index:06d}" for index in range(count))


def named_by_order(result: Reconstructed, other: Reconstructed) -> Reconstructed:
    """A result without photo names gets the other's, in sorted order (such tools read a folder in that order).

    Raises:
        BadInputError: neither the other's registered photos nor all that it was given are as many.
    """
    placeholders = sorted({*result.poses, *result.depth_names})
    for names in (sorted(other.poses), sorted(other.photos)):
        if len(placeholders) == len(names):
            return result.renamed(dict(zip(placeholders, names)), "photo names assigned in sorted order")
    raise BadInputError(
        f"{result.source}: stores {len(placeholders)} photos without names, {other.source} has {len(other.poses)}; put "
        "the photos it was made from in a folder images/ beside it"
    )


def match_names(names: Sequence[str], reference: Sequence[str]) -> tuple[dict[str, str], str]:
    """For each of ``names`` the photo of ``reference`` that it is, and by what they were matched.

    Tried in turn, the first that matches most: the whole name, the file name without folders, the file name without
    folders and extension. A name that would match several photos matches none.
    """
    attempts: list[tuple[str, Callable[[str], str]]] = [
        ("name", lambda name: name),
        ("file name", lambda name: PurePosixPath(name).name),
        ("file name without extension", lambda name: PurePosixPath(name).stem),
    ]
    best: tuple[dict[str, str], str] = ({}, "name")
    for how, key in attempts:
        candidates = Counter(key(name) for name in reference)
        mine = Counter(key(name) for name in names)
        by_key = {key(name): name for name in reference if candidates[key(name)] == 1}
        matched = {name: by_key[key(name)] for name in names if mine[key(name)] == 1 and key(name) in by_key}
        if len(matched) > len(best[0]):
            best = (matched, how)
    return best


def check_photo_name(name: str, source: Path) -> str:
    """A photo's name from a foreign file, with forward slashes.

    Raises:
        BadInputError: the name is empty, absolute or leads out of its folder.
    """
    plain = name.replace("\\", "/")
    parts = PurePosixPath(plain).parts
    if not parts or plain.startswith("/") or ".." in parts or "\0" in plain or ":" in parts[0]:
        raise BadInputError(f"{source}: photo name {name[:80]!r} is not a path within a folder; the file is refused")
    return plain


def check_poses(poses: NDArray[np.floating], source: Path) -> NDArray[np.float64]:
    """Poses [N, 3, 4] or [N, 4, 4] of a foreign file as float64 [N, 3, 4].

    Raises:
        BadInputError: another shape, numbers that are not finite, or rotations that are none (by more than 1e-2).
    """
    if poses.ndim != 3 or poses.shape[1:] not in {(3, 4), (4, 4)}:
        raise BadInputError(f"{source}: poses have shape {poses.shape}; accepted: [N, 3, 4] or [N, 4, 4]")
    checked = np.asarray(poses[:, :3, :], dtype=np.float64)
    if not np.isfinite(checked).all():
        raise BadInputError(f"{source}: poses hold numbers that are not finite")
    rotations = checked[:, :, :3]
    error = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max(initial=0.0)
    if error > 1e-2 or (np.linalg.det(rotations) < 0).any():
        raise BadInputError(f"{source}: poses are not rotations with a translation (deviation {error:.2g})")
    u, _, vt = np.linalg.svd(rotations)  # half-precision poses: the nearest rotation
    return np.concatenate([u @ vt, checked[:, :, 3:]], axis=2)
