"""The YAML file of a mixture (:mod:`recon.training.mixture`)::

seed: 1
dialect: recon-1
weights: explicit            # or: uniform, by-size (number of items)
group: 1                     # so many samples in a row from one data set: batches of one task need less padding
strict: false                # true: stop at the first unusable item of real data instead of counting it
datasets:
  depth-rooms:
    task: depth              # or: match, pose, object
    rooms: 20000             # seeds of the training split, taken in turn
    pool: pools/train        # rendered views and pairs are kept here; relative to this file
    questions: 32            # per image or pair (pose always asks its four)
    weight: 1.0              # for explicit weights only
    layout: packed           # questions do not see each other; or: turns, of one chat
    scenery: room            # or: block (outdoors)
    views: any               # or, for task object: things (each view the best of six places)
    image: {mode: focal, target_px: 224}   # optional: other images than the dialect's (mode focal or long_edge)
    round_m: 0.5             # optional, depth only: coarse labels for a beginner
    coarse: true             # optional, pose and object only: coarse labels (recon/training/coarse.py)
    hidden: 0.25             # optional, match only: at most this share asks for points that can't be seen
    regions: true            # optional, object only: region units learn too (recon/training/regions.py)
    motion: true             # optional, pose only: the motion in numbers too (recon/training/motion_lessons.py)
  real:
    format: depthlm-jsonl    # recon/training/sources.py lists the formats
    task: depth
    path: curated/labels.jsonl
    questions: 10
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import yaml
from numpy.typing import NDArray

from recon.cameras.unify import ImageProfile
from recon.errors import BadInputError
from recon.questions import strict_json
from recon.questions.dialects import DIALECTS, get_dialect
from recon.synth.dataset import Scenery
from recon.training.datasets import FileDataset, RoomDataset
from recon.training.encode import Layout
from recon.training.mixture import BLOCK, Mixture
from recon.training.samples import HIDDEN_SHARE
from recon.training.sources import OPENERS, SourceSpec
from recon.types import Task

WEIGHTINGS = ("uniform", "by-size", "explicit")
TASKS = ("depth", "match", "pose", "object")


def load_mixture(path: Path) -> Mixture:
    """Reads a mixture file.

    Raises:
        BadInputError: unreadable, or a key or value that is not accepted (the message names them).
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a safe loader
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInputError(f"{path}: not a readable mixture ({' '.join(str(error).split())})") from error
    return parse_mixture(data, path.parent, str(path))


class _Loader(yaml.SafeLoader):
    """Plain values only; a key that stands twice is an error instead of a data set lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_mixture(data: Any, base: Path, where: str) -> Mixture:
    """A mixture from parsed YAML; relative paths start at ``base``; ``where`` names the file in errors."""
    _check_keys(data, ("datasets",), ("seed", "dialect", "weights", "group", "strict"), where)
    weighting = data.get("weights", "explicit")
    if weighting not in WEIGHTINGS:
        raise BadInputError(f"{where}: weights is {weighting!r}; accepted: {', '.join(WEIGHTINGS)}")
    seed, group, strict = data.get("seed", 0), data.get("group", 1), data.get("strict", False)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise BadInputError(f"{where}: seed is {seed!r}; accepted: a whole number from 0")
    if isinstance(group, bool) or not isinstance(group, int) or group < 1:
        raise BadInputError(f"{where}: group is {group!r}; accepted: a whole number from 1")
    if not isinstance(strict, bool):
        raise BadInputError(f"{where}: strict is {strict!r}; accepted: true, false")
    name = data.get("dialect", "recon-1")
    if not isinstance(name, str) or name not in DIALECTS:
        raise BadInputError(f"{where}: dialect is {name!r}; accepted: {', '.join(DIALECTS)}")
    dialect = get_dialect(name)
    entries = data["datasets"]
    if not isinstance(entries, dict) or not entries:
        raise BadInputError(f"{where}: datasets must name at least one data set")
    datasets = tuple(_read_dataset(str(name), entry, base, where, strict) for name, entry in entries.items())
    for dataset in datasets:
        if dataset.task not in dialect.tasks:
            raise BadInputError(
                f"{where}: datasets.{dataset.name}.task: dialect {dialect.name!r} has no {dataset.task} questions; it "
                f"has: {', '.join(dialect.tasks)}"
            )
    return Mixture(datasets, _shares(datasets, weighting, where), dialect, seed, group)


def _shares(datasets: tuple[RoomDataset | FileDataset, ...], weighting: str, where: str) -> NDArray[np.float64]:
    if weighting == "uniform":
        weights = np.ones(len(datasets))
    elif weighting == "by-size":
        weights = np.array([float(len(dataset)) for dataset in datasets])
    else:
        weights = np.array([dataset.weight for dataset in datasets])
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise BadInputError(f"{where}: weights must be finite, not negative and not all 0, found {weights.tolist()}")
    if len(datasets) > BLOCK // 8:
        raise BadInputError(f"{where}: {len(datasets)} data sets; accepted: at most {BLOCK // 8}")
    return weights / weights.sum()


_KINDS: Mapping[str, Any] = {
    "task": str, "rooms": int, "pool": str, "questions": int, "weight": (int, float), "split": str, "scenery": str,
    "layout": str, "round_m": (int, float), "format": str, "path": str, "strict": bool, "image": dict,
    "views": str, "coarse": bool, "hidden": (int, float), "regions": bool, "motion": bool,
}  # fmt: skip
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "task": TASKS,
    "split": ("train", "validation"),
    "scenery": ("room", "block"),
    "layout": ("packed", "turns"),
    "views": ("any", "things"),
}


def _read_dataset(name: str, entry: Any, base: Path, where: str, strict: bool) -> RoomDataset | FileDataset:
    place = f"{where}: datasets.{name}"
    from_files = isinstance(entry, Mapping) and "format" in entry
    if from_files:
        _check_keys(entry, ("format", "task", "path"), ("questions", "weight", "layout", "strict"), place)
    else:
        optional = (
            "questions",
            "weight",
            "split",
            "scenery",
            "layout",
            "round_m",
            "image",
            "views",
            "coarse",
            "hidden",
            "regions",
            "motion",
        )
        _check_keys(entry, ("task", "rooms", "pool"), optional, place)
    for key, value in entry.items():
        if (isinstance(value, bool) and _KINDS[key] is not bool) or not isinstance(value, _KINDS[key]):
            raise BadInputError(f"{place}.{key}: found {value!r}, a value of the wrong kind")
        if key in _CHOICES and value not in _CHOICES[key]:
            raise BadInputError(f"{place}.{key}: found {value!r}; accepted: {', '.join(_CHOICES[key])}")
    for key in ("rooms", "questions"):
        if entry.get(key, 1) < 1:
            raise BadInputError(f"{place}.{key}: found {entry[key]}; accepted: 1 or more")
    weight, layout = float(entry.get("weight", 1.0)), cast(Layout, entry.get("layout", "packed"))
    task = cast(Task, entry["task"])
    if from_files:
        if entry["format"] not in OPENERS:
            raise BadInputError(f"{place}.format: found {entry['format']!r}; accepted: {', '.join(OPENERS)}")
        spec = SourceSpec(
            name, entry["format"], task, base / entry["path"], entry.get("questions", 10), entry.get("strict", strict)
        )
        source = OPENERS[spec.format](spec)
        if not len(source):
            raise BadInputError(f"{place}.path: {spec.path} holds nothing usable")
        return FileDataset(name, task, source, weight, layout, spec.strict)
    if not 0 <= entry.get("round_m", 0.0) <= 10:
        raise BadInputError(f"{place}.round_m: found {entry['round_m']}; accepted: 0 (exact) to 10 metres")
    if entry.get("views") == "things" and task != "object":
        raise BadInputError(f"{place}.views: things are for task object, found task {task!r}")
    if "round_m" in entry and task != "depth":
        raise BadInputError(f"{place}.round_m: it is for depth, found task {task!r}")
    for key, tasks in (
        ("coarse", ("pose", "object")),
        ("hidden", ("match",)),
        ("regions", ("object",)),
        ("motion", ("pose",)),
    ):
        if key in entry and task not in tasks:
            raise BadInputError(f"{place}.{key}: it is for {' and '.join(tasks)}, found task {task!r}")
    if not 0 <= entry.get("hidden", 0.0) <= 1:
        raise BadInputError(f"{place}.hidden: found {entry['hidden']}; accepted: 0 to 1")
    return RoomDataset(
        name=name,
        task=task,
        rooms=entry["rooms"],
        pool=base / entry["pool"],
        questions=entry.get("questions", 32),
        weight=weight,
        round_m=float(entry.get("round_m", 0.0)),
        split=cast(Literal["train", "validation"], entry.get("split", "train")),
        scenery=cast(Scenery, entry.get("scenery", "room")),
        layout=layout,
        views=cast(Literal["any", "things"], entry.get("views", "any")),
        image=_read_image(entry["image"], f"{place}.image") if "image" in entry else None,
        coarse=entry.get("coarse", False),
        hidden=float(entry.get("hidden", HIDDEN_SHARE)),
        regions=entry.get("regions", False),
        motion=entry.get("motion", False),
    )


def _read_image(entry: Any, place: str) -> ImageProfile:
    _check_keys(entry, ("mode", "target_px"), (), place)
    if isinstance(entry["target_px"], bool) or not isinstance(entry["target_px"], (int, float)):
        raise BadInputError(f"{place}.target_px: found {entry['target_px']!r}; accepted: a number of pixels")
    try:
        return ImageProfile(entry["mode"], float(entry["target_px"]))
    except BadInputError as error:
        raise BadInputError(f"{place}: {error}") from error


def _check_keys(data: Any, required: tuple[str, ...], optional: tuple[str, ...], where: str) -> None:
    strict_json.keys(data, required, optional, where, "keys and values", BadInputError)
