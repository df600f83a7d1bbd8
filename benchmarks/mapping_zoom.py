"""Captures in which every second photo comes from a zoom lens: which maps are right, which are doubted.

    python -m benchmarks.mapping_zoom --data ../shared/data --keep FOLDER --out benchmarks/results/mapping_zoom.json

*Real* photos are zoomed by taking their middle, enlarged; *rooms* are procedural, eight photos a sixteenth of a round
and half a metre apart, walls and floors of textures that repeat. Each capture is mapped with EXIF focal lengths and
without. ``auc_5`` is that among the photos of the map; a map counts as right from 0.7 on. (``redkitchen-a`` is left
out: its ground truth is not good enough, see ``benchmarks.mapping_truth``.)
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image

from benchmarks.provenance import provenance
from recon.cameras.intrinsics import initial_cameras
from recon.capture.folder import read_capture
from recon.errors import ReconError
from recon.evaluation.pose import evaluate_poses
from recon.evidence.features import extract_features, match_features
from recon.evidence.pairs import choose_pairs
from recon.interop.groundtruth import read_folder
from recon.mapping.contradictions import explained
from recon.mapping.doubts import doubts
from recon.mapping.map import build_map
from recon.synth.capture import FULL_FRAME_DIAGONAL_MM
from recon.synth.render import Lens, render_view
from recon.synth.room import make_room
from recon.synth.trajectories import PATHS
from recon.types import Camera

RIGHT = 0.7  # AUC@5 among the photos of a map


@dataclass(frozen=True)
class Options:
    """Which captures."""

    real: tuple[str, ...] = ("fountain-P11", "fox")
    rooms: tuple[int, ...] = (7, 33, 157, 201)
    """seeds"""
    ratios: tuple[float, ...] = (1.0, 2.0, 3.0)
    """of the focal lengths; 1: no zoom"""
    data: Path = Path("../shared/data")
    keep: Path | None = None
    """folder for photos and features (default: a temporary one); a second run goes on there"""
    out: Path | None = None
    """JSON file to write"""


def save(path: Path, pixels: Image.Image, focal_px: float, make: str) -> None:
    """A JPEG whose EXIF has the lens."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = make, "camera"
    lens = exif.get_ifd(0x8769)
    lens[0xA405] = round(focal_px * FULL_FRAME_DIAGONAL_MM / np.hypot(*pixels.size))
    pixels.save(path, "JPEG", quality=88, exif=exif)


def real(source: Path, folder: Path, ratio: float, most: int = 12) -> dict[str, Any]:
    """The first photos of a capture, every second one zoomed; poses by name."""
    truth, poses = read_folder(source), {}
    for k, path in enumerate(sorted((source / "images").iterdir())[:most]):
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        (width, height), focal_px = photo.size, truth.cameras[path.name].focal_px
        shrunk = min(1.0, 1000 / max(photo.size))
        if k % 2:
            x, y = width * (1 - 1 / ratio) / 2, height * (1 - 1 / ratio) / 2
            photo = photo.crop((round(x), round(y), round(width - x), round(height - y)))
            shrunk, focal_px = 0.75 * shrunk, focal_px * ratio
        photo = photo.resize((round(width * shrunk), round(height * shrunk)), Image.Resampling.LANCZOS)
        name = f"{'zoomed' if k % 2 else 'wide'}{k:02d}.jpg"
        save(folder / "images" / name, photo, focal_px * shrunk, "zoomed" if k % 2 else "wide")
        poses[name] = np.asarray(truth.poses[path.name]).tolist()
    return poses


def room(seed: int, folder: Path, ratio: float) -> dict[str, Any]:
    """Eight photos of a round of sixteen."""
    world = make_room(seed, (4.4, 3.8, 2.55), 12)
    wide, focal_px = Camera.pinhole(480, 360, 400.0, 400.0, 240.0, 180.0), 400.0 * ratio * 640 / 480
    zoomed = Camera.pinhole(640, 480, focal_px, focal_px, 320.0, 240.0)
    poses = {}
    for k, pose in zip(range(8), PATHS["orbit"](world, wide, 16, seed), strict=False):
        camera, name = (zoomed, f"zoomed{k:02d}.jpg") if k % 2 else (wide, f"wide{k:02d}.jpg")
        image = render_view(world, camera, pose, 1, True, Lens(exposure=1.25, vignette=0.15, noise=1.5, seed=k)).image
        save(folder / "images" / name, Image.fromarray(image), camera.focal_px, "zoomed" if k % 2 else "wide")
        poses[name] = np.asarray(pose)[:3].tolist()
    return poses


def captures(options: Options, folder: Path) -> Iterator[tuple[str, float, Path]]:
    """Name, ratio and folder of each, made when it is not there."""
    names = [*options.real, *(f"room-{seed}" for seed in options.rooms)]
    for name in names:
        for ratio in options.ratios:
            target = folder / f"{name}-x{ratio:g}"
            if not (target / "poses.json").is_file():
                (target / "images").mkdir(parents=True, exist_ok=True)
                if name in options.real:
                    poses = real(options.data / name, target, ratio)
                else:
                    poses = room(int(name.removeprefix("room-")), target, ratio)
                (target / "poses.json").write_text(json.dumps(poses), encoding="utf-8")
            yield name, ratio, target


def run(folder: Path, with_exif: bool) -> dict[str, Any]:
    """One map, its score and its doubts."""
    truth: Mapping[str, NDArray[np.float64]] = {
        name: np.array(pose) for name, pose in json.loads((folder / "poses.json").read_text(encoding="utf-8")).items()
    }
    workspace = folder / ("exif" if with_exif else "no-exif")
    workspace.mkdir(exist_ok=True)
    capture = read_capture(folder / "images", workspace / "images")
    if not with_exif:
        capture = replace(capture, views=tuple(replace(view, exif_focal_px=None) for view in capture.views))
    cameras, features, database = initial_cameras(capture), workspace / "features.db", workspace / "database.db"
    extract_features(features, capture, cameras)
    match_features(features, choose_pairs(capture))
    shutil.copy(features, database)
    row: dict[str, Any] = {"photos": len(capture.views)}
    try:
        scene = build_map(workspace, capture, cameras)
    except ReconError as error:
        return row | {"ends": "no map", "why": str(error)[:160]}
    poses = {view.name: view.cam_from_world for view in scene.views}
    auc = evaluate_poses(poses, {name: truth[name] for name in poses}).auc_exact[5]
    told = explained(scene, features, database)
    ends = ("right" if auc >= RIGHT else "wrong") + ("" if len(poses) == len(truth) else ", partial")
    notes = doubts(scene, cameras, told)
    return row | {
        "ends": ends + (", doubted" if notes else ""),
        "registered": len(poses),
        "auc_5": round(auc, 3),
        "explained": round(told.share, 3),
        "focal_px": sorted({round(view.camera.focal_px) for view in scene.views}),
        "points": len(scene.points_world),
        "doubts": notes,
    }


def main(options: Options) -> None:
    """Maps all captures, prints and writes after each."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name, ratio, folder in captures(options, options.keep or Path(temporary)):
            for with_exif in (True, False):
                rows.append({"capture": name, "zoom": ratio, "exif": with_exif} | run(folder, with_exif))
                print(json.dumps(rows[-1]), flush=True)
            if options.out is not None:
                command = f"python -m benchmarks.mapping_zoom {' '.join(sys.argv[1:])}"
                content = {"measured": provenance(command), "rows": rows}
                options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for ratio in options.ratios:
        print(ratio, dict(Counter(row["ends"] for row in rows if row["zoom"] == ratio)))


if __name__ == "__main__":
    main(tyro.cli(Options))
