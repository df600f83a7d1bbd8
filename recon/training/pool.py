"""Pre-rendered pools: procedural views and pairs (:mod:`recon.training.pooled`) kept on disk: training never waits.

One ``.npz`` per view or pair (no pickle): images, float16 z-depth and the pose (8-bit normals too for pairs), and the
things that the view shows. Files are named by seed and written atomically: rendering can be killed and continued, and
training may read a pool that is still growing (what is missing it renders itself).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from recon.cameras.unify import ImageProfile
from recon.errors import BadInputError
from recon.synth.dataset import Scenery, Split, split_seed
from recon.synth.objects import ViewObject
from recon.synth.render import Device
from recon.training.pooled import (
    PooledPair,
    PooledView,
    render_pooled_pair,
    render_pooled_things,
    render_pooled_view,
)
from recon.types import Camera, ImageArray, UnifiedImage

Shape = Literal["view", "pair", "things"]


def pool_path(folder: Path, split: Split, index: int, shape: Shape = "view", scenery: Scenery = "room") -> Path:
    """File of item ``index`` of a split."""
    prefix = ("block-" if scenery == "block" else "") + ("" if shape == "view" else f"{shape}-")
    return folder / f"{prefix}{split_seed(split, index):08d}.npz"


def render_pool(
    folder: Path,
    split: Split,
    first: int,
    count: int,
    profile: ImageProfile,
    progress: Callable[[int, int], None] | None = None,
    shape: Shape = "view",
    scenery: Scenery = "room",
    device: Device = "cpu",
) -> int:
    """Renders items ``first ... first + count - 1`` of a split into ``folder``, leaving out those that are there.

    Several processes may render into one folder, each its own range.

    Returns:
        how many were rendered by this call.

    Raises:
        BadInputError: ``folder`` can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"{folder}: can't be the folder of a pool ({error.strerror})") from error
    rendered = 0
    for done, index in enumerate(range(first, first + count)):
        path = pool_path(folder, split, index, shape, scenery)
        if not path.exists():
            _write(path, _rendered(split_seed(split, index), profile, shape, scenery, device))
            rendered += 1
        if progress is not None:
            progress(done + 1, count)
    return rendered


def pooled_view(
    folder: Path,
    split: Split,
    index: int,
    profile: ImageProfile,
    scenery: Scenery = "room",
    shape: Literal["view", "things"] = "view",
) -> PooledView:
    """View ``index`` of a split from the pool (``things``: one that shows many); rendered when it is not there yet.

    Raises:
        BadInputError: the file is damaged, or was rendered for another profile.
    """
    render_pool(folder, split, index, 1, profile, shape=shape, scenery=scenery)
    path = pool_path(folder, split, index, shape, scenery)
    view = read_view(path)
    _check_profile(path, view, profile)
    return view


def pooled_pair(folder: Path, split: Split, index: int, profile: ImageProfile, scenery: Scenery = "room") -> PooledPair:
    """Pair ``index`` of a split from the pool; as :func:`pooled_view`."""
    render_pool(folder, split, index, 1, profile, shape="pair", scenery=scenery)
    path = pool_path(folder, split, index, "pair", scenery)
    pair = read_pair(path)
    _check_profile(path, pair.first, profile)
    return pair


def _rendered(
    seed: int, profile: ImageProfile, shape: Shape, scenery: Scenery, device: Device
) -> dict[str, NDArray[Any]]:
    if shape != "pair":
        render = render_pooled_view if shape == "view" else render_pooled_things
        return _arrays(render(seed, profile, scenery, device), "")
    pair = render_pooled_pair(seed, profile, scenery, device)
    return _arrays(pair.first, "first_") | _arrays(pair.second, "second_")


def _check_profile(path: Path, view: PooledView, profile: ImageProfile) -> None:
    camera = view.image.camera
    found = camera.focal_px if profile.mode == "focal" else float(max(camera.width_px, camera.height_px))
    if abs(found - profile.target_px) > 0.01 * profile.target_px:
        word = "focal length" if profile.mode == "focal" else "long edge"
        raise BadInputError(
            f"{path}: rendered for a {word} of {found:.1f} px, needed are {profile.target_px:g} px; use another pool "
            f"folder"
        )


def list_pool(folder: Path) -> list[Path]:
    """The pool's views in the order of their seeds (rooms first, then blocks).

    Raises:
        BadInputError: not a folder, or no view in it.
    """
    paths = sorted(folder.glob("[0-9]*.npz")) + sorted(folder.glob("block-[0-9]*.npz")) if folder.is_dir() else []
    if not paths:
        raise BadInputError(f"{folder}: no rendered views (NNNNNNNN.npz) in this pool; render it first")
    return paths


def read_view(path: Path) -> PooledView:
    """Reads a view of a pool.

    Raises:
        BadInputError: the file is damaged or of another kind.
    """
    return _read(path, lambda data: _view(data, ""))


def write_view(path: Path, view: PooledView) -> None:
    """Writes a view as a file of a pool, atomically."""
    _write(path, _arrays(view, ""))


def read_pair(path: Path) -> PooledPair:
    """Reads a pair of a pool; raises as :func:`read_view`."""
    return _read(path, lambda data: PooledPair(_view(data, "first_"), _view(data, "second_")))


def write_pair(path: Path, pair: PooledPair) -> None:
    """Writes a pair as a file of a pool, atomically."""
    _write(path, _arrays(pair.first, "first_") | _arrays(pair.second, "second_"))


def _read(path: Path, build: Callable[[Mapping[str, NDArray[Any]]], Any]) -> Any:
    try:
        with np.load(path, allow_pickle=False) as data:
            return build(data)
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise BadInputError(f"{path}: not of a rendered pool of this version ({error}); delete it") from error


def _arrays(view: PooledView, prefix: str) -> dict[str, NDArray[Any]]:
    rows = [(*thing.box_px, *thing.low_m, *thing.high_m, thing.visible, thing.pixels) for thing in view.objects]
    arrays: dict[str, NDArray[Any]] = {
        "image": view.image.pixels,
        "depth_m": view.depth_m.astype(np.float16),
        "intrinsics": np.array(view.image.camera.fx_fy_cx_cy),
        "pose": view.cam_from_world,
        "names": np.array([thing.name for thing in view.objects], dtype="U32"),
        "objects": np.array(rows, np.float32).reshape(-1, 12),
        "seed": np.array(view.seed),
    }
    if view.normals_world is not None:
        arrays["normals"] = np.rint(view.normals_world * 127).astype(np.int8)
    return {prefix + name: array for name, array in arrays.items()}


def _view(data: Mapping[str, NDArray[Any]], prefix: str) -> PooledView:
    image: ImageArray = data[prefix + "image"]
    fx, fy, cx, cy = (float(value) for value in data[prefix + "intrinsics"])
    camera = Camera.pinhole(image.shape[1], image.shape[0], fx, fy, cx, cy)
    objects = tuple(
        ViewObject(str(name), tuple(row[:4]), tuple(row[4:7]), tuple(row[7:10]), row[10], row[11])
        for name, row in zip(data[prefix + "names"], data[prefix + "objects"].tolist(), strict=True)
    )
    normals: NDArray[np.float32] | None = None
    if prefix + "normals" in data:
        normals = (data[prefix + "normals"] / np.float32(127)).astype(np.float32)  # their length plays no part
    return PooledView(
        UnifiedImage(image, camera, camera),
        data[prefix + "depth_m"].astype(np.float32),
        data[prefix + "pose"],
        objects,
        int(data[prefix + "seed"]),
        normals,
    )


def _write(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    os.replace(temporary, path)
