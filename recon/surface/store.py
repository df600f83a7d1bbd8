"""Depth maps on disk: one file per photo and stage, written atomically, read one at a time."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from recon.errors import OutputError
from recon.surface.lazy import LazyDepthMaps
from recon.surface.types import DepthMap
from recon.types import Camera

logger = logging.getLogger(__name__)

Stage = Literal["prior", "photometric", "confirmed", "filled", "final"]


class DepthStore(Protocol):
    """Where the surface step keeps its depth maps between (and within) runs."""

    def load(self, stage: Stage, name: str) -> DepthMap | None:
        """The map saved for a photo, None when there is none (or it is damaged)."""

    def save(self, stage: Stage, depth_map: DepthMap) -> None:
        """Keep a map under its name."""


class MemoryDepthStore:
    """Maps held in memory, for small scenes and tests."""

    def __init__(self) -> None:
        self._maps: dict[tuple[Stage, str], DepthMap] = {}

    def load(self, stage: Stage, name: str) -> DepthMap | None:
        return self._maps.get((stage, name))

    def save(self, stage: Stage, depth_map: DepthMap) -> None:
        self._maps[stage, depth_map.name] = depth_map


class FolderDepthStore:
    """Maps as ``.npz`` files below ``folder``.

    Give a folder whose name depends on everything that the maps depend on (photos, poses, options): a map found there
    is taken as it is. A kill at any moment leaves either the whole file or none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, stage: Stage, name: str) -> Path:
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return self._folder / stage / f"{digest}.npz"

    def load(self, stage: Stage, name: str) -> DepthMap | None:
        path = self._path(stage, name)
        if not path.is_file():
            return None
        try:
            return read_depth_map(path)
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, json.JSONDecodeError) as error:
            logger.warning("%s is damaged (%s): computed again", path, error)
            return None

    def save(self, stage: Stage, depth_map: DepthMap) -> None:
        write_depth_map(depth_map, self._path(stage, depth_map.name))


class StoredDepthMaps(LazyDepthMaps):
    """The maps of one stage as a sequence that reads each map when it's asked for."""

    def __init__(self, store: DepthStore, stage: Stage, names: Sequence[str]) -> None:
        super().__init__(range(len(names)))
        self._store, self._stage, self._names = store, stage, tuple(names)

    def _at(self, index: int) -> DepthMap:
        depth_map = self._store.load(self._stage, self._names[index])
        if depth_map is None:
            raise OutputError(f"the depth map of {self._names[index]} vanished from the workspace while it was in use")
        return depth_map


def write_depth_map(depth_map: DepthMap, path: Path) -> None:
    """Write a map to ``path`` (.npz) through a temporary file beside it.

    Raises:
        OutputError: the file can't be written.
    """
    meta = {
        "name": depth_map.name,
        "source": depth_map.source,
        "stats": depth_map.stats,
        "camera": [
            depth_map.camera.model,
            depth_map.camera.width_px,
            depth_map.camera.height_px,
            list(depth_map.camera.params),
            depth_map.camera.focal_source,
        ],
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".depth-", suffix=".tmp", delete=False) as file:
            try:
                np.savez(
                    file,
                    depth_m=depth_map.depth_m.astype(np.float32),
                    confidence=depth_map.confidence.astype(np.float16),
                    color=depth_map.color,
                    cam_from_world=depth_map.cam_from_world,
                    meta=np.frombuffer(json.dumps(meta).encode("utf-8", "surrogateescape"), dtype=np.uint8),
                )
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                os.unlink(file.name)
                raise
        os.replace(file.name, path)
    except OSError as error:
        raise OutputError(f"{path}: the depth map can't be written: {error.strerror or error}") from error


def read_depth_map(path: Path) -> DepthMap:
    """Read a map written by :func:`write_depth_map` (raises ValueError, KeyError or OSError on a damaged file)."""
    with np.load(path, allow_pickle=False) as data:
        meta = json.loads(data["meta"].tobytes().decode("utf-8", "surrogateescape"))
        model, width_px, height_px, params, focal_source = meta["camera"]
        return DepthMap(
            name=meta["name"],
            depth_m=data["depth_m"],
            confidence=data["confidence"].astype(np.float32),
            camera=Camera(model, width_px, height_px, tuple(params), focal_source),
            cam_from_world=data["cam_from_world"],
            color=data["color"],
            source=meta["source"],
            stats=meta["stats"],
        )
