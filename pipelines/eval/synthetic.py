"""Evaluation data from procedural worlds: photos and exact labels of a split, as the files that real data come in.

The photos are those that training sees (``recon.training.pool``), of worlds that training never sees; they are rendered
for the checkpoint's own image profile and written without loss. Object questions are asked in views that show many
things.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from pipelines.progress import progress_bar
from pipelines.records import write_atomically
from pipelines.workspace import readable_os_errors
from recon.cameras.pixels import corner_from_index, index_from_corner
from recon.cameras.unify import ImageProfile
from recon.errors import BadInputError
from recon.interop.datasets.depth_file import depth_row, intrinsics_of
from recon.interop.datasets.pair_file import pair_row
from recon.interop.datasets.records import DepthItem, PairItem
from recon.questions import object
from recon.synth.correspondence import true_correspondence
from recon.synth.dataset import Scenery, Split, split_seed
from recon.training.pool import PooledView, render_pooled_pair, render_pooled_things, render_pooled_view
from recon.training.samples import MEASURES, named_objects
from recon.types import Task

SPLITS = ("validation", "test")
HIDDEN_SHARE = 0.2  # of match questions, where a pair has hidden points
_FORMAT = 2


def split_of_source(data: str) -> Split | None:
    """``test`` of ``synthetic:test``; None for anything that is not synthetic.

    Raises:
        BadInputError: an unknown split, or the training split.
    """
    if not data.startswith("synthetic:"):
        return None
    split = data.partition(":")[2]
    if split not in SPLITS:
        raise BadInputError(f"--data {data}: accepted: synthetic:test, synthetic:validation")
    return cast(Split, split)


def write_synthetic(
    folder: Path,
    task: Task,
    profile: ImageProfile,
    split: Split,
    first: int,
    count: int,
    questions: int,
    scenery: Scenery = "room",
    quiet: bool = True,
) -> Path:
    """Renders scenes ``first ... first + count - 1`` of a split into ``folder``; returns the label file.

    What a killed call rendered is used again. Scenes that show nothing to ask about have no line.

    Raises:
        BadInputError: no scene shows anything to ask about.
        OutputError: the folder can't be written.
    """
    made_with: dict[str, Any] = {
        "format": _FORMAT,
        "task": task,
        "profile": [profile.mode, profile.target_px, profile.square_pixels],
    }
    made_with |= {"split": split, "questions": questions, "scenery": scenery}
    rows: list[dict[str, Any]] = []
    with readable_os_errors(), progress_bar("rendering", "scenes", quiet) as update:
        for done, index in enumerate(range(first, first + count)):
            seed = split_seed(split, index)
            kept = folder / "scenes" / f"{seed:08d}.json"
            found = _kept_rows(kept, made_with)
            if found is None:
                found = _scene(folder, task, profile, seed, questions, scenery)
                write_atomically(kept, json.dumps({"made_with": made_with, "rows": found}).encode())
            rows += found
            update(done + 1, count)
    if not rows:
        raise BadInputError(f"none of {count} synthetic scenes shows anything to ask about")
    path = folder / ("object.jsonl" if task == "object" else "depth.jsonl" if task == "depth" else "pairs.jsonl")
    with readable_os_errors():
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return path


def _kept_rows(path: Path, made_with: dict[str, Any]) -> list[dict[str, Any]] | None:
    try:
        kept = json.loads(path.read_bytes())
        return list(kept["rows"]) if kept["made_with"] == made_with else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _scene(
    folder: Path, task: Task, profile: ImageProfile, seed: int, questions: int, scenery: Scenery
) -> list[dict[str, Any]]:
    """The lines of one scene; its photos are written."""
    rng = np.random.default_rng([seed, 5])
    if task == "depth":
        return _depth(folder, render_pooled_view(seed, profile, scenery), questions, rng)
    if task == "object":
        return _objects(folder, render_pooled_things(seed, profile, scenery), questions, rng)
    pair = render_pooled_pair(seed, profile, scenery)
    names = [_photo(folder, view, f"{seed:08d}-{k}.png") for k, view in enumerate((pair.first, pair.second), start=1)]
    pixels1, pixels2 = np.zeros((0, 2)), np.zeros((0, 2))
    if task == "match":
        camera = pair.first.image.camera
        pixels1 = _whole_pixels(np.isfinite(pair.first.depth_m), 4 * questions, rng)
        pixels2, visible = true_correspondence(pair.first.geometry(), pair.second.geometry(), pixels1)
        pixels2[~visible] = np.nan
        hidden = np.flatnonzero(~visible)[: round(questions * HIDDEN_SHARE)]
        rows = np.sort(np.concatenate([np.flatnonzero(visible)[: questions - len(hidden)], hidden]))
        pixels1, pixels2 = pixels1[rows], pixels2[rows]
        assert (pixels1 <= [camera.width_px, camera.height_px]).all()
    cameras = pair.first.image.camera, pair.second.image.camera
    item = PairItem(
        names[0], names[1], folder, folder, *cameras, pixels1, pixels2, pair.cam1_from_cam2, True, f"{seed:08d}", 0
    )
    return [pair_row(item)]


def _depth(folder: Path, view: PooledView, questions: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    pixels = _whole_pixels(np.isfinite(view.depth_m), questions, rng)
    columns, rows = index_from_corner(pixels).astype(np.int64).T
    depth_m = view.depth_m[rows, columns].astype(np.float64)
    if not len(pixels):
        return []
    name = _photo(folder, view, f"{view.seed:08d}.png")
    return [depth_row(DepthItem(name, folder / name, view.image.camera, pixels, depth_m, "z", 0))]


def _objects(folder: Path, view: PooledView, questions: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Questions of all categories in turn about things that are seen well, one line each, as SpatialRGPT-Bench."""
    things = named_objects(view)
    names = [str(name) for name in rng.permutation(list(MEASURES))]
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for attempt in range(4 * questions if things else 0):
        if len(rows) == questions:
            break
        form_name = names[attempt % len(names)]
        form = object.get_form(form_name)
        if form.num_regions > len(things):
            continue
        chosen = [things[k] for k in rng.permutation(len(things))[: form.num_regions]]
        value = MEASURES[form_name](chosen[0], chosen[-1])
        if value is None:
            continue
        boxes = [list(thing.box_px) for thing in chosen]
        rows.setdefault((form_name, str(boxes)), _object_row(form_name, form, value, boxes))
    if not rows:
        return []
    photo = {"image": _photo(folder, view, f"{view.seed:08d}.png"), "intrinsics": intrinsics_of(view.image.camera)}
    return [{**photo, **row} for row in rows.values()]


def _object_row(form_name: str, form: object.Form, value: float, boxes: list[list[float]]) -> dict[str, Any]:
    is_qualitative = form.kind == "object_polarity"
    suffix = "_predicate" if is_qualitative else "_data" if form.kind == "object_length" else ""
    return {
        "bbox": boxes,
        "conversations": [
            {"from": "human", "value": form.prompt.format(a="<mask>", b="<mask>")},
            {"from": "gpt", "value": _label(form, value, {"a": "Region [0]", "b": "Region [1]"})},
        ],
        "qa_info": {"type": "qualitative" if is_qualitative else "quantitative", "category": form_name + suffix},
    }


def _label(form: object.Form, value: float, regions: dict[str, str]) -> str:
    if form.kind == "object_polarity":
        return (form.yes if value else form.no).format(**regions)
    number = str(round(value)) if form.kind == "object_clock" else f"{value:.3f}"
    return form.answer.format(value=number, **regions)


def _whole_pixels(known: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Centres of ``count`` random pixels [N, 2] where ``known`` [H, W]; curated files hold whole pixels."""
    rows, columns = np.nonzero(known)
    chosen = rng.permutation(len(rows))[:count]
    return corner_from_index(np.stack([columns[chosen], rows[chosen]], axis=1))


def _photo(folder: Path, view: PooledView, name: str) -> str:
    path = folder / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(view.image.pixels).save(path, format="PNG")
    return f"images/{name}"
