"""Where a photo's depth questions should go: plans against spending the same budget evenly, answer for answer.

    python -m benchmarks.question_planning --keep FOLDER --out benchmarks/results/question_planning.json

Rooms of the validation split, with their true poses and with exact points at their corners, so that nothing but the
questions differs. Each room's photometric depth is found once, around a prior from 256 even answers, and its confirmed
pixels are shared; what is measured is the depth of all other pixels, which rests on the answers. Plans, each within the
same budget:

- ``uniform`` and ``coarse-to-fine``: those of ``--planning``;
- ``low-texture``: a third on an even grid, the rest evenly where windows of the photo vary too little to be matched;
- ``unconfirmed``: a third on an even grid, the rest evenly where no neighbouring photo confirms a depth. The questions
  would have to come after the map for this;
- ``exact``: an even grid whose answers are true, to see what better answers would be worth.

Answers are the oracle's, in text; the same question has the same answer in every plan. Rows are written when they are
done, and the same command goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.oracle import known_views, public_profile
from benchmarks.oracle_scoring import textured
from benchmarks.provenance import provenance
from recon.cameras import pinhole
from recon.evaluation.bootstrap import bootstrap
from recon.evidence.depth import ask_depth
from recon.questions.sampling import Planning
from recon.surface.build import build_depth_maps
from recon.surface.densify import photo_to_frame
from recon.surface.frames import Frame
from recon.surface.options import MultiviewOptions, SurfaceOptions
from recon.surface.store import FolderDepthStore, MemoryDepthStore, StoredDepthMaps
from recon.surface.types import DepthMap, Photos
from recon.synth.capture import SynthCaptureOptions, write_capture
from recon.synth.dataset import split_seed
from recon.synth.oracle import Oracle, OracleErrors, OracleView
from recon.types import DepthSamples, MetricScale, PosedView, Scene, View

PLANS = ("uniform", "coarse-to-fine", "unconfirmed", "low-texture", "exact")
COARSE_SHARE = 1 / 3
CORNERS = 100  # points per photo at most
STEP = 0.03  # relative difference of depth around a corner that lies on an edge of something: no point of the map
SAME_DEPTH = 0.01  # of a point's own depth and the photo's there, when it is seen


@dataclass(frozen=True)
class Options:
    """What is asked."""

    rooms: tuple[int, ...] = (0, 1, 2)
    """of the validation split"""
    seeds: tuple[int, ...] = (0, 1)
    """of the oracle's errors"""
    budgets: tuple[int, ...] = (256, 64)
    plans: tuple[str, ...] = PLANS
    """see above"""
    views: int = 12
    """photos of a room"""
    width: int = 640
    """of a photo"""
    work_px: int = 320
    """long side of the depth maps"""
    keep: Path | None = None
    """folder for captures and photometric depth (default: a temporary one)"""
    out: Path | None = None
    """JSON file to write"""


@dataclass(frozen=True)
class Room:
    """What is the same for all plans: photos with their truth, a map, photometric depth, and by photo what neighbours
    confirm of it (NaN elsewhere)."""

    views: list[OracleView]
    scene: Scene
    photos: Photos
    surface: SurfaceOptions
    photometric: dict[str, DepthMap]
    confirmed: dict[str, DepthMap]


def make_room(index: int, folder: Path, options: Options) -> Room:
    """A room of the split with its photometric depth; both are kept in ``folder``."""
    capture = folder / f"validation-{index}"
    if not (capture / "gt" / "mesh.ply").is_file():
        size = SynthCaptureOptions(
            num_views=options.views, depth_views=options.views, width_px=options.width,
            height_px=options.width * 3 // 4, focal_px=482.0 * options.width / 640,
        )  # fmt: skip
        write_capture(capture, split_seed("validation", index), options=size)
    views = known_views(capture)
    scene = true_scene(views)
    photos = Photos({view.name: view.image for view in views}.__getitem__)
    surface = SurfaceOptions(multiview=MultiviewOptions(work_px=options.work_px), device="cpu")
    store = FolderDepthStore(folder / f"validation-{index}-{options.work_px}px")
    oracle = Oracle(views, public_profile(), seed=options.seeds[0])
    even = [ask(view, oracle, 256, "uniform") for view in views]
    build_depth_maps(scene, photos, even, surface, store)
    names = [view.name for view in views]
    photometric, confirmed = (
        {depth_map.name: depth_map for depth_map in StoredDepthMaps(store, stage, names)}
        for stage in ("photometric", "confirmed")
    )
    return Room(views, scene, photos, surface, photometric, confirmed)


def true_scene(views: Sequence[OracleView]) -> Scene:
    """A map as structure from motion would leave it, without its errors: points at corners of the photos, away from
    edges of things, each seen where it projects to and is not hidden."""
    points = np.concatenate([_corners(view) for view in views])  # [P, 3]
    posed = []
    for view in views:
        points_cam = points @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
        pixels = pinhole.project(view.camera, points_cam)
        with np.errstate(invalid="ignore"):
            inside = (pixels >= 0).all(axis=1) & (pixels < [view.camera.width_px, view.camera.height_px]).all(axis=1)
        ids = np.nonzero(inside & (points_cam[:, 2] > 0))[0]
        column, row = pixels[ids].astype(np.int64).T
        with np.errstate(invalid="ignore"):
            ids = ids[np.abs(view.depth_m[row, column] / points_cam[ids, 2] - 1) < SAME_DEPTH]
        posed.append(PosedView(view.name, view.camera, view.cam_from_world, ids, pixels[ids]))
    nothing = np.zeros(len(points))
    metric = MetricScale(1.0, 1.0, 1.0, ("truth",), ())
    return Scene(tuple(posed), points, np.zeros((len(points), 3), np.uint8), nothing, (), metric)


def _corners(view: OracleView) -> NDArray[np.float64]:
    """World points [N, 3] at corners of a photo."""
    grey = cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY)
    found = cv2.goodFeaturesToTrack(grey, CORNERS, 0.01, view.camera.width_px / 60)
    column, row = found.reshape(-1, 2).astype(np.int64).T  # positions are pixel indices
    window = np.ones((7, 7), np.uint8)
    smooth = cv2.dilate(view.depth_m, window) / cv2.erode(view.depth_m, window) - 1 < STEP
    column, row = column[smooth[row, column]], row[smooth[row, column]]
    rays = pinhole.rays(view.camera, np.stack([column, row], axis=-1) + 0.5)
    points_cam = rays / rays[:, 2:] * view.depth_m[row, column, None]
    return (points_cam - view.cam_from_world[:, 3]) @ view.cam_from_world[:, :3]


def ask(
    view: OracleView, oracle: Oracle, budget: int, planning: Planning, mask: NDArray[np.bool_] | None = None
) -> DepthSamples:
    """A photo's answers."""
    photo = View(view.name, Path(), "", view.camera.width_px, view.camera.height_px, "")
    return ask_depth(oracle, photo, view.image, view.camera, budget, mask, planning=planning)


def ask_by_plan(view: OracleView, oracle: Oracle, budget: int, plan: str, confirmed: DepthMap) -> DepthSamples:
    """At most ``budget`` answers in all, placed by a plan of :data:`PLANS`."""
    if plan == "exact":
        oracle = Oracle([view], public_profile(), OracleErrors.none())
    if plan in ("uniform", "exact", "coarse-to-fine"):
        return ask(view, oracle, budget, "coarse-to-fine" if plan == "coarse-to-fine" else "uniform")
    known = textured(confirmed) if plan == "low-texture" else np.isfinite(confirmed.depth_m)
    size = (view.camera.width_px, view.camera.height_px)
    mask = ~cv2.resize(known.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    coarse = ask(view, oracle, round(COARSE_SHARE * budget), "uniform")
    fine = ask(view, oracle, budget - coarse.num_asked, "uniform", mask)
    return joined(coarse, fine)


def joined(first: DepthSamples, second: DepthSamples) -> DepthSamples:
    """Two rounds of answers about a photo as one."""
    return dataclasses.replace(
        first,
        pixels=np.concatenate([first.pixels, second.pixels]),
        depth_m=np.concatenate([first.depth_m, second.depth_m]),
        log_sigma=np.concatenate([first.log_sigma, second.log_sigma]),
        num_asked=first.num_asked + second.num_asked,
        num_parsed=first.num_parsed + second.num_parsed,
    )


def measure(room: Room, oracle: Oracle, budget: int, plan: str) -> list[dict[str, Any]]:
    """Errors of the filled and of all final depth of every photo, the median ratio of its confirmed pixels divided
    out."""
    samples = {
        view.name: ask_by_plan(view, oracle, budget, plan, room.confirmed[view.name]) for view in room.views
    }  # fmt: skip
    store = _Shared(room)
    final = build_depth_maps(room.scene, room.photos, list(samples.values()), room.surface, store).depth_maps
    rows = []
    for view, depth_map in zip(room.views, final, strict=True):
        known = np.isfinite(room.confirmed[view.name].depth_m)
        nothing = np.empty(0)
        frame = Frame(
            view.name, depth_map.color, depth_map.camera, view.camera, view.cam_from_world,
            nothing.astype(np.int64), nothing.reshape(0, 2), nothing,
        )  # fmt: skip
        ratio = depth_map.depth_m / photo_to_frame(frame, view.depth_m, np.float32(np.nan))
        error = np.abs(ratio / np.nanmedian(ratio[known]) - 1)
        has = np.isfinite(error)
        pixels = samples[view.name].pixels * depth_map.camera.width_px / view.camera.width_px
        column, row = pixels.astype(np.int64).T
        rows.append(
            {
                "photo": view.name,
                "asked": samples[view.name].num_asked,
                "asked_in_holes": _round((~known)[row, column].mean()),
                "filled_share": _round((has & ~known).mean()),
                "filled": _round(error[has & ~known].mean()),
                "filled_median": _round(np.median(error[has & ~known])),
                "all": _round(error[has].mean()),
            }
        )
    return rows


class _Shared(MemoryDepthStore):
    """What all plans have in common is there; the rest is kept in memory."""

    def __init__(self, room: Room) -> None:
        super().__init__()
        for name in room.confirmed:
            self.save("photometric", room.photometric[name])
            self.save("confirmed", room.confirmed[name])


FIGURES = ("filled", "filled_median", "all")


def compared(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean figures of each plan and budget; against ``uniform`` on the same photos and errors the mean difference and
    its 95 % interval, photos drawn with all their errors."""
    even = {_draw(row): row for row in rows if row["plan"] == "uniform"}
    summary = []
    for budget, plan in dict.fromkeys((row["budget"], row["plan"]) for row in rows):
        mine = [row for row in rows if (row["budget"], row["plan"]) == (budget, plan)]
        line: dict[str, Any] = {"budget": budget, "plan": plan, "photos": len(mine)}
        for name in ("asked", "asked_in_holes", *FIGURES):
            line[name] = _round(np.mean([row[name] for row in mine]))
        pairs = [(row, even[_draw(row)]) for row in mine if _draw(row) in even]
        if plan != "uniform" and pairs:
            line["against_uniform"] = _differences(pairs)
        summary.append(line)
    return summary


def _differences(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, list[float]]:
    """Of the first's figures from the second's: mean, and the ends of its interval."""
    off = {name: np.array([row[name] - other[name] for row, other in pairs]) for name in FIGURES}

    def means(chosen: NDArray[np.int64]) -> dict[str, float]:
        return {name: float(values[chosen].mean()) for name, values in off.items()}

    spread = bootstrap(means, [(row["room"], row["photo"]) for row, _ in pairs])
    return {name: [_round(v.mean()), _round(spread[name].low), _round(spread[name].high)] for name, v in off.items()}


def _draw(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("room", "photo", "seed", "budget"))


def _round(value: float) -> float:
    return round(float(value), 5)


def main(options: Options) -> dict[str, Any]:
    """Runs what ``--out`` does not hold yet; returns what is written."""
    unknown = set(options.plans) - set(PLANS)
    if unknown:
        raise SystemExit(f"--plans: no such plan {', '.join(sorted(unknown))}; accepted: {', '.join(PLANS)}")
    kept: dict[str, Any] = {}
    if options.out is not None and options.out.is_file():
        kept = json.loads(options.out.read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = kept.get("rows", [])
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        for index in options.rooms:
            wanted: list[dict[str, Any]] = [
                {"room": index, "seed": seed, "budget": budget, "plan": plan}
                for budget in options.budgets for seed in options.seeds for plan in options.plans
            ]  # fmt: skip
            wanted = [run for run in wanted if not any(run.items() <= row.items() for row in rows)]
            if not wanted:
                continue
            room = make_room(index, folder, options)
            for run in wanted:
                oracle = Oracle(room.views, public_profile(), seed=run["seed"])
                measured = measure(room, oracle, run["budget"], run["plan"])
                rows += [run | row for row in measured]
                filled = _round(np.mean([row["filled"] for row in measured]))
                print(run | {"filled": filled}, file=sys.stderr, flush=True)
                _write(options, kept, rows)
    return _result(rows)


def _result(rows: list[dict[str, Any]]) -> dict[str, Any]:
    command = "python -m benchmarks.question_planning " + " ".join(sys.argv[1:])
    return {**provenance(command), "summary": compared(rows), "rows": rows}


def _write(options: Options, kept: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        partial = options.out.with_suffix(".tmp")
        partial.write_text(json.dumps({**kept, **_result(rows)}, indent=1) + "\n", encoding="utf-8")
        partial.replace(options.out)


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options))["summary"], indent=2))
