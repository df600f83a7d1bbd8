"""``vlm3-recon info RUN|SCENE``: what is there, what would be done, and roughly what that takes."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from tyro.conf import OmitArgPrefixes, Positional

from pipelines.asking import AskOptions
from pipelines.models import EMBEDDED, ModelOptions, TaskModel, local_folder
from pipelines.summary import known_numbers
from pipelines.workspace import MARKER, readable_os_errors
from recon.capture.exif import read_exif
from recon.capture.given import find_intrinsics
from recon.capture.masks import find_depth, find_mask
from recon.capture.sources import Source, find_source
from recon.errors import BadInputError, ReconError
from recon.evidence.pairs import most_pairs
from recon.interop.run import depth_files, output_of, read_summary
from recon.interop.sparse import count_points
from recon.mapping.map import MapOptions
from recon.surface.options import SurfaceOptions
from recon.types import Capture, Task, View

TASKS: tuple[Task, ...] = ("depth", "match", "pose")
POSE_QUESTIONS = 4  # rotation angle, yaw pitch roll, direction, distance

# Seconds of one CPU core, measured on fountain-P11 (11 photos of 1024x683) and the example room (16 of 640x480) with
# the embedded checkpoint, by the clock of the process. Megapixels are those that a step works on: photos are reduced.
# Estimated and measured: 81 and 77 s, 1.5 and 1.1 GiB (fountain); 121 and 136 s, 1.5 and 1.9 GiB (room). Two cores
# share some of it; other machines and checkpoints differ, so that only the order of size is said.
_SECONDS_PER_MEGAPIXEL = {"photos": 0.05, "features": 1.3, "dense depth": 15.0}
_SECONDS_PER_PHOTO = {"map": 0.6, "mesh": 0.7, "report": 0.15}
_SECONDS_PER_PAIR = {"features": 0.08}
_SECONDS_PER_QUESTION = 0.002
_BASE_MIB = 1500  # libraries, and the surface's volume of a room
_MIB_PER_MEGAPIXEL = 60  # of the largest photo: features, depth search
_DISK_MIB_PER_MEGAPIXEL = 12  # photo, features, depth maps


@dataclass(frozen=True)
class Options:
    """Say what a scene or a run holds, what would be done, and roughly what that takes."""

    path: Positional[Path]
    """a folder of photos, a video, a workspace, or the mesh beside it"""
    json: bool = False
    """print JSON instead of text"""
    models: OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)
    asking: OmitArgPrefixes[AskOptions] = field(default_factory=AskOptions)
    mapping: MapOptions = field(default_factory=MapOptions)
    surface: SurfaceOptions = field(default_factory=SurfaceOptions)


@dataclass(frozen=True)
class SceneInfo:
    """What a scene holds and what a run would do; ``seconds`` and MiB are orders of size (see ``_SECONDS_...``)."""

    photos: int
    unreadable: tuple[str, ...]
    video: str | None
    sizes: Mapping[str, int]
    megapixels: float
    largest_megapixels: float
    cameras: Mapping[str, int]
    with_exif_focal: int
    with_gps: int
    with_mask: int
    with_depth: int
    known_intrinsics: str | None
    pairs: int
    questions: Mapping[str, int]
    seconds: Mapping[str, float]
    memory_mib: int
    disk_mib: int
    notes: tuple[str, ...]


def run(options: Options) -> None:
    """The command. Raises ReconError with one line about what can't be read."""
    path = options.path
    if not path.exists():
        raise BadInputError(f"{path}: does not exist; accepted: a folder of photos, a video, a workspace, or its mesh")
    workspace = _workspace(path)
    with readable_os_errors():
        if workspace is not None:
            content = run_info(workspace)
            text = run_text(content)
        else:
            info = scene_info(path, options)
            content = {"kind": "scene", "path": str(path), **{k: _plain(v) for k, v in vars(info).items()}}
            text = scene_text(path, info)
    print(json.dumps(known_numbers(content), indent=1, ensure_ascii=False) if options.json else text)


def _workspace(path: Path) -> Path | None:
    """The workspace at the path or beside it, also of a run that has no map yet."""
    candidates = [path] if path.is_dir() else [path.parent / f"{path.stem}-workspace"]
    return next((c for c in candidates if (c / MARKER).is_file()), None)


# ---------------------------------------------------------------------------------------------------------------------
# a run


def run_info(workspace: Path) -> dict[str, Any]:
    """What a workspace holds, as JSON data; the summary of its last run is the entry ``summary``.

    Raises:
        BadInputError: its summary is damaged.
    """
    summary = read_summary(workspace)
    output = output_of(workspace, summary)
    images = workspace / "images"
    sparse = workspace / "sparse" / "0"
    return {
        "kind": "run",
        "path": str(workspace),
        "status": summary.get("status", "no run has ended here yet"),
        "output": str(output) if output is not None else None,
        "photos": sum(1 for file in images.rglob("*") if file.is_file()) if images.is_dir() else 0,
        "has_map": sparse.is_dir(),
        "points": count_points(sparse) if sparse.is_dir() else 0,
        "depth_maps": len(depth_files(workspace)),
        "disk_mib": round(_disk_bytes(workspace) / (1 << 20), 1),
        "summary": summary,
    }


def run_text(content: Mapping[str, Any]) -> str:
    """A run for people."""
    summary = content["summary"]
    reason = f": {summary['reason']}" if summary.get("reason") else ""
    lines = [f"run       {content['path']}", f"status    {content['status']}{reason}"]
    if summary.get("source"):
        lines.append(f"scene     {summary['source']}")
    if "photos_given" in summary:
        lines.append(f"photos    {summary.get('photos_registered', 0)} of {summary['photos_given']} registered")
        left_out = [row for row in summary.get("photos", []) if not row.get("registered")]
        lines += [f"          {row.get('name')}: {row.get('reason', 'no reason stored')}" for row in left_out[:20]]
        lines += [f"          ... and {len(left_out) - 20} more"] if len(left_out) > 20 else []
    else:
        lines.append(f"photos    {content['photos']}")
    scale = summary.get("scale") or {}
    if scale.get("known"):
        factor, low, high = (float(scale.get(key) or "nan") for key in ("metres_per_unit", "low", "high"))
        interval = f", 95 % interval {100 * (low / factor - 1):+.1f} % to {100 * (high / factor - 1):+.1f} %"
        lines.append(f"scale     metric{interval}, from {', '.join(scale.get('used', []))}")
    elif content["has_map"]:
        lines.append("scale     unknown")
    lines.append(f"map       {content['points']} points" if content["has_map"] else "map       none yet")
    lines.append(f"depth     {content['depth_maps']} maps")
    mesh = summary.get("mesh") or {}
    size = f": {mesh.get('vertices')} vertices, {mesh.get('faces')} faces" if mesh.get("vertices") else ""
    lines.append(f"output    {content['output']}{size}" if content["output"] else "output    none")
    lines.append(f"disk      {content['disk_mib']} MiB")
    stages = [f"{s['name']} {s['seconds']:.1f} s" for s in summary.get("stages", []) if s.get("status") != "skipped"]
    lines += ["time      " + "   ".join(stages)] if stages else []
    if content["has_map"]:
        lines.append(f"next      vlm3-recon export {content['path']} --format ...   vlm3-recon compare ... --with ...")
    return "\n".join(lines)


def _disk_bytes(folder: Path) -> int:
    total = 0
    for current, _, files in os.walk(folder):
        for name in files:
            path = Path(current) / name
            total += path.lstat().st_size if not path.is_symlink() else 0
    return total


# ---------------------------------------------------------------------------------------------------------------------
# a scene


def scene_info(path: Path, options: Options) -> SceneInfo:
    """Looks at a scene without importing it: only the photos' headers are read.

    Raises:
        BadInputError: nothing there that is a scene.
    """
    source = find_source(path, path / "no-workspace")
    views, unreadable, sizes, cameras, masks, depths = _headers(source)
    notes = [f"{item.name}: {item.reason}" for item in source.rejected]
    known = None
    if source.intrinsics_roots:
        found = find_intrinsics(list(source.intrinsics_roots))
        known = str(found.source) if found is not None else None
    megapixels = [view.width_px * view.height_px / 1e6 for view in views]
    total, largest = sum(megapixels), max(megapixels, default=0.0)
    pairs = most_pairs(Capture(tuple(views)), options.mapping.pairs)
    questions, weights_mib = _questions(options.models, options.asking, len(views), pairs, notes)
    worked_on = {
        "photos": total,
        "features": sum(_megapixels(view, options.mapping.features.max_image_px) for view in views),
        "dense depth": sum(_megapixels(view, options.surface.multiview.work_px) for view in views),
    }
    seconds = {name: rate * worked_on[name] for name, rate in _SECONDS_PER_MEGAPIXEL.items()}
    for name, rate in _SECONDS_PER_PHOTO.items():
        seconds[name] = seconds.get(name, 0.0) + rate * len(views)
    for name, rate in _SECONDS_PER_PAIR.items():
        seconds[name] = seconds.get(name, 0.0) + rate * pairs
    seconds["questions"] = _SECONDS_PER_QUESTION * sum(questions.values())
    if any(options.models.source(task) != EMBEDDED for task in TASKS if questions.get(task)):
        notes.append("the time of the questions is the embedded checkpoint's; larger ones were not measured")
    if source.video is not None:
        notes.append("how many frames a video gives is known after it was decoded; nothing is estimated")
    elif len(views) < 2:
        notes.append("a map takes at least 2 photos that overlap")
    return SceneInfo(
        photos=len(views), unreadable=tuple(unreadable), video=str(source.video) if source.video else None,
        sizes=sizes, megapixels=round(total, 2), largest_megapixels=round(largest, 2), cameras=cameras,
        with_exif_focal=sum(view.exif_focal_px is not None for view in views),
        with_gps=sum(view.gps is not None for view in views), with_mask=masks, with_depth=depths,
        known_intrinsics=known, pairs=pairs, questions=questions,
        seconds={name: round(value, 1) for name, value in seconds.items()},
        memory_mib=round(_BASE_MIB + weights_mib + _MIB_PER_MEGAPIXEL * largest),
        disk_mib=round(_DISK_MIB_PER_MEGAPIXEL * total), notes=tuple(notes),
    )  # fmt: skip


def _megapixels(view: View, longest_px: int) -> float:
    """Megapixels of a photo whose longer side is reduced to ``longest_px``."""
    shrink = min(1.0, longest_px / max(view.width_px, view.height_px))
    return view.width_px * view.height_px * shrink**2 / 1e6


def _headers(source: Source) -> tuple[list[View], list[str], dict[str, int], dict[str, int], int, int]:
    """Views as far as their headers tell, unreadable photos, and counts of sizes, cameras, masks and depth."""
    views: list[View] = []
    unreadable: list[str] = []
    cameras: Counter[str] = Counter()
    masks = depths = 0
    for photo in source.photos:
        try:
            with Image.open(photo.path) as picture:
                exif = read_exif(picture)
                width, height = picture.size
                turned = picture.getexif().get(0x0112, 1) in {5, 6, 7, 8}
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            unreadable.append(f"{photo.relative}: {' '.join(str(error).split())[:120]}")
            continue
        width, height = (height, width) if turned else (width, height)
        cameras[exif.camera or "not said"] += 1
        if source.beside is not None:
            masks += find_mask(source.beside, photo.relative) is not None
            depths += find_depth(source.beside, photo.relative) is not None
        name = str(photo.relative)
        views.append(View(name, photo.path, "", width, height, exif.camera, exif.focal_px, exif.gps))
    sizes = Counter(f"{view.width_px}x{view.height_px}" for view in views)
    return views, unreadable, dict(sizes.most_common(8)), dict(cameras.most_common(8)), masks, depths


def _questions(
    models: ModelOptions, asking: AskOptions, photos: int, pairs: int, notes: list[str]
) -> tuple[dict[str, int], float]:
    """Questions per task as the checkpoints' profiles offer them, and the size of the largest checkpoint in MiB."""
    counts: dict[Task, int] = {
        "depth": asking.budget * photos, "match": asking.match_budget * pairs, "pose": POSE_QUESTIONS * pairs
    }  # fmt: skip
    questions: dict[str, int] = {}
    largest = 0.0
    for task in TASKS:
        try:
            model = TaskModel(models, task)
            offered = model.offers_task and not model.too_coarse  # what reconstruct will ask
        except ReconError as error:
            notes.append(f"{task} questions: {error}")
            continue
        questions[task] = counts[task] if offered else 0
        folder = local_folder(models.source(task))
        weights = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder is not None else 0
        largest = max(largest, weights / (1 << 20))
    return questions, largest


def scene_text(path: Path, info: SceneInfo) -> str:
    """A scene for people."""
    lines = [f"scene     {path}"]
    if info.video is not None:
        lines.append(f"video     {info.video}")
    else:
        sizes = ", ".join(f"{count} of {size}" for size, count in info.sizes.items())
        lines.append(f"photos    {info.photos}" + (f" ({sizes})" if sizes else ""))
        lines += [f"          unreadable {line}" for line in info.unreadable[:20]]
        lines += _work_lines(info) if info.photos else []
    lines += [f"note      {note}" for note in info.notes]
    return "\n".join(lines)


def _work_lines(info: SceneInfo) -> list[str]:
    """What is known about the photos, and what a run would do with them."""
    asked = ", ".join(f"{count} {task}" for task, count in info.questions.items()) or "none"
    parts = ", ".join(f"{name} {duration(value)}" for name, value in info.seconds.items())
    total = duration(sum(info.seconds.values()))
    return [
        f"cameras   {', '.join(f'{name} ({count})' for name, count in info.cameras.items())}",
        f"known     focal length from EXIF in {info.with_exif_focal}, GPS in {info.with_gps}, masks for "
        f"{info.with_mask}, sensor depth for {info.with_depth}",
        f"          intrinsics in {info.known_intrinsics}"
        if info.known_intrinsics
        else "          no intrinsics given",
        f"work      {info.pairs} pairs of photos to match; questions: {asked}",
        f"time      of the order of {total} on 2 CPU cores with the embedded checkpoint ({parts})",
        f"memory    about {info.memory_mib / 1024:.1f} GiB; disk about {info.disk_mib} MiB",
    ]


def duration(seconds: float) -> str:
    """A duration with the precision of an estimate."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
