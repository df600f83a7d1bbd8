"""``vlm3-recon convert``: labels for training and evaluation from data sets as they lie on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from tyro.conf import Positional

from pipelines.progress import progress_bar
from pipelines.records import write_atomically
from pipelines.workspace import check_output_folder
from recon.errors import BadInputError, OutputError
from recon.interop.datasets.depth_file import depth_row
from recon.interop.datasets.frames import MIN_OVERLAP, SceneFrames, depth_items, pair_items
from recon.interop.datasets.layouts import read_layout
from recon.interop.datasets.pair_file import pair_row
from recon.interop.datasets.records import Fault

DEPTH_FILE, PAIR_FILE = "depth.jsonl", "pairs.jsonl"
_SHOWN_FAULTS = 5
Layout = Literal["scannetpp", "eth3d", "nyuv2", "kitti", "nuscenes", "megadepth"]


@dataclass(frozen=True)
class Options:
    """Make labels out of a data set.

    Writes depth.jsonl (metric depth) and pairs.jsonl (matches and motions) where the data set has them, for
    `vlm3-recon eval` and for mixtures of `vlm3-recon train`. Photos stay where they are, behind a link in the folder.
    """

    layout: Positional[Layout]
    """how the data set lies on disk"""
    root: Positional[Path]
    """its root folder"""
    out: Path
    """folder for the labels"""
    points: int = 100
    """most labelled points per photo or pair"""
    pairs_per_scene: int = 50
    """most pairs per scene"""
    min_overlap: float = MIN_OVERLAP
    """least share of pixels that both photos of a pair see"""
    seed: int = 0
    """of the points and pairs that are drawn"""
    strict: bool = False
    """stop at the first photo whose depth can't be read"""
    quiet: bool = False
    """no progress, no summary"""

    def __post_init__(self) -> None:
        if self.points < 1 or self.pairs_per_scene < 1 or self.seed < 0:
            raise BadInputError("--points and --pairs-per-scene must be at least 1, --seed not negative")
        if not 0 <= self.min_overlap < 1:
            raise BadInputError(f"--min-overlap must be at least 0 and below 1, found {self.min_overlap}")


@dataclass(frozen=True)
class Converted:
    """What was written: number of lines by file, and what was left out."""

    lines: dict[str, int]
    faults: tuple[Fault, ...]


def run(options: Options) -> None:
    """Converts and says what came out. Raises ReconError with one line about what is wrong."""
    made = convert(options)
    if options.quiet:
        return
    for name, count in made.lines.items():
        print(f"{options.out / name}: {count} lines")
    for fault in made.faults[:_SHOWN_FAULTS]:
        print(f"left out    photo or pair {fault.line}: {fault.reason}")
    if len(made.faults) > _SHOWN_FAULTS:
        print(f"left out    {len(made.faults) - _SHOWN_FAULTS} more")


def convert(options: Options) -> Converted:
    """Reads the layout and writes the labels; raises BadInputError when there is nothing to write."""
    check_output_folder(options.out, "--out")
    images = options.out / "images"
    work = images if options.layout == "nyuv2" else options.out
    scenes = read_layout(options.layout, options.root, work)
    if all(frame.image.is_relative_to(options.root) for scene in scenes for frame in scene.frames):
        _link(images, options.root)
    scenes = [_below_images(scene) for scene in scenes]
    faults: list[Fault] = []

    def on_fault(fault: Fault) -> None:
        if options.strict:
            raise BadInputError(f"{fault.reason}; without --strict such photos are left out")
        faults.append(fault)

    lines: dict[str, int] = {}
    if all(scene.is_metric for scene in scenes):
        items = depth_items(scenes, options.points, options.seed, on_fault)
        lines[DEPTH_FILE] = _write(options, DEPTH_FILE, items, depth_row)
    if any(frame.cam_from_world is not None for scene in scenes for frame in scene.frames):
        pairs = pair_items(scenes, options.points, options.pairs_per_scene, options.seed, on_fault, options.min_overlap)
        lines[PAIR_FILE] = _write(options, PAIR_FILE, pairs, pair_row)
    lines = {name: count for name, count in lines.items() if count}
    if not lines:
        reason = f" ({faults[0].reason})" if faults else ""
        raise BadInputError(f"{options.root}: no photo with depth and no pair with enough overlap{reason}")
    return Converted(lines, tuple(faults))


def _below_images(scene: SceneFrames) -> SceneFrames:
    return replace(scene, frames=tuple(replace(frame, name=f"images/{frame.name}") for frame in scene.frames))


def _link(images: Path, root: Path) -> None:
    """``images`` leads to the data set's root."""
    try:
        images.parent.mkdir(parents=True, exist_ok=True)
        if images.is_symlink() or not images.exists():
            images.unlink(missing_ok=True)
            os.symlink(root.resolve(), images)
        elif images.resolve() != root.resolve():
            raise OutputError(f"{images}: is in the way of the link to {root}; choose another --out")
    except OSError as error:
        raise OutputError(f"{images}: can't link to {root} ({error.strerror or error})") from error


def _write(options: Options, name: str, items: Iterable[Any], row: Callable[[Any], dict[str, Any]]) -> int:
    rows = []
    with progress_bar(name, "lines", options.quiet) as update:
        for item in items:
            rows.append(json.dumps(row(item), ensure_ascii=False))
            update(len(rows), len(rows))
    if rows:
        try:
            write_atomically(options.out / name, ("\n".join(rows) + "\n").encode("utf-8"))
        except OSError as error:
            raise OutputError(f"{options.out / name}: can't be written ({error.strerror or error})") from error
    return len(rows)


if __name__ == "__main__":
    run(tyro.cli(Options))
