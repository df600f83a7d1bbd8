"""A workspace of this project as a result: ``sparse/0``, depth maps of ``dense/``, ``summary.json``, the mesh."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from recon.errors import BadInputError
from recon.interop.clouds import SURFACE_FORMATS, read_surface
from recon.interop.result import Reconstructed, Surface
from recon.interop.sparse import count_points, read_cameras_and_poses, read_points
from recon.surface.store import read_depth_map
from recon.surface.types import DepthMap

MARKER = ".vlm3-recon"
STAGES = ("final", "photometric", "prior")  # of the depth maps, the last step first


def find_workspace(path: Path) -> Path | None:
    """The workspace at ``path`` or beside the mesh at ``path``; None when there is none."""
    candidates = [path] if path.is_dir() else [path.parent / f"{path.stem}-workspace"]
    return next((c for c in candidates if (c / MARKER).is_file() and (c / "sparse" / "0").is_dir()), None)


def read_summary(workspace: Path) -> dict[str, Any]:
    """The content of ``summary.json``, empty when the run has not ended yet.

    Raises:
        BadInputError: the file is damaged.
    """
    path = workspace / "summary.json"
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(f"{path}: damaged ({error}); run the reconstruction again, it continues") from error
    if not isinstance(data, dict):
        raise BadInputError(f"{path}: damaged; run the reconstruction again, it continues")
    return data


def output_of(workspace: Path, summary: dict[str, Any]) -> Path | None:
    """The mesh or cloud that the run wrote: the summary's, or one beside the workspace when both were moved."""
    stem = workspace.name.removesuffix("-workspace")
    recorded = Path(str(summary["output"])) if summary.get("output") else None
    beside = [workspace.parent / f"{stem}{suffix}" for suffix in SURFACE_FORMATS]
    if recorded is not None:
        beside.insert(0, workspace.parent / recorded.name)
    candidates = beside + ([recorded] if recorded is not None else [])
    return next((c for c in candidates if c.is_file() and c.suffix.lower() in SURFACE_FORMATS), None)


def depth_files(workspace: Path) -> dict[str, Path]:
    """The depth map of each photo, from the last step that has any."""
    found: dict[str, Path] = {}
    for stage in STAGES:
        for file in sorted(workspace.glob(f"dense/*/{stage}/*.npz")):
            name = _photo_of(file)
            if name is not None:
                found[name] = file
        if found:
            return found
    return found


def _photo_of(file: Path) -> str | None:
    try:
        with np.load(file, allow_pickle=False) as data:
            return str(json.loads(data["meta"].tobytes().decode("utf-8", "surrogateescape"))["name"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # the run makes a damaged one anew


def _photos(summary: dict[str, Any]) -> tuple[str, ...]:
    """All photos that a run was given, registered or not."""
    rows = summary.get("photos", [])
    return tuple(str(row["name"]) for row in rows if isinstance(row, dict) and "name" in row)


def read_run(workspace: Path, surface_path: Path | None = None) -> Reconstructed:
    """A finished (or interrupted after its map) run as a result.

    Raises:
        BadInputError: the map is missing or damaged.
    """
    cameras, poses = read_cameras_and_poses(workspace / "sparse" / "0")
    summary = read_summary(workspace)
    scale = summary.get("scale") or {}
    files = depth_files(workspace)

    def load_depth(name: str) -> DepthMap:
        try:
            return read_depth_map(files[name])
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise BadInputError(f"{files[name]}: damaged ({error}); run the reconstruction again") from error

    output = surface_path or output_of(workspace, summary)
    if output is not None:
        surface: Surface | None = read_surface(output).surface
    else:
        folder = workspace / "sparse" / "0"
        surface = Surface("sparse points", lambda limit, seed: read_points(folder, limit, seed), count_points(folder))
    notes = []
    if not summary:
        notes.append("summary.json is missing: whether the map is metric is not known")
    elif not scale.get("known"):
        notes.append("its scale is unknown")
    return Reconstructed(
        workspace if surface_path is None else surface_path, "our run", poses, cameras, tuple(sorted(files)),
        load_depth if files else None, surface, photos=_photos(summary),
        metric=bool(scale.get("known")), notes=tuple(notes),
    )  # fmt: skip
