"""The method's three choices about data, each against its alternative, with the smallest model of this project.

    python -m benchmarks.ablations --pool pools/rooms --work runs/ablations

- ``focal``: photos of mixed focal lengths, all brought to one focal length, or all to one long edge.
- ``questions``: 1 or 10 questions per image, the same images and steps.
- ``mixture``: many rooms and few outdoor blocks, drawn uniformly, by size, or with other shares.

``focal`` and ``mixture`` school a new vision tower on dense depth (``recon.training.vision``, the first part of
``vlm3-recon train --school-vision``); ``questions`` trains a new text side by SFT (``recon.training.sft``, the second
part) behind one such tower. Scores are of validation worlds, never of test worlds. Every run is written
when it is done, and the command goes on where it was stopped; ``benchmarks.ablations_figure`` draws what came out.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.ablations_views import LONGEST_ZOOM, POOL_IMAGE, MixedViews, make_views, scores_of_views
from benchmarks.provenance import provenance
from recon.cameras.unify import ImageProfile
from recon.training.dense import DenseViews
from recon.training.export import Parts, build_parts, export_checkpoint
from recon.training.mixture import Mixture
from recon.training.mixture_file import parse_mixture
from recon.training.pool import list_pool, pool_path, render_pool
from recon.training.sft import train
from recon.training.sft_settings import SftSettings
from recon.training.tokenizer import build_image_processor
from recon.training.vision import VisionSettings, school_vision

RESULTS = Path(__file__).parent / "results" / "ablations.json"
UNIFIED = ImageProfile("focal", 171)  # as many image tokens on average as the next line's images have: 24.5
NOT_UNIFIED = ImageProfile("long_edge", 192)
SIZE = "tiny"
ROOMS, BLOCKS = 2000, 150  # training views
SEEN_ROOMS, SEEN_BLOCKS = 150, 100  # validation views
# Shares of the blocks: 0.07 by size, 0.5 uniform. "Tuned" is the best of all, chosen on other photos (figure's script).
BLOCK_SHARES = {"by-size": None, "0.2": 0.2, "uniform": None}
TOWER = VisionSettings(steps=600, tokens=500)
# Few images in many steps: the same processor time takes a tower further, in rooms and on blocks beyond the constant.
MIXED_TOWER = VisionSettings(steps=1500, tokens=250, bf16=True)
ASKED_TOWER = VisionSettings(steps=1000, tokens=500, bf16=True)  # that the text sides see with
ROUND_M = 0.25  # of the text sides' labels: finer digits are noise to beginners
SFT = SftSettings(steps=400, batch=4, learning_rate=8e-4, matrix_rate=2e-3, vision_scale=0, warmup=20, decay=200,
                  hold_structure=True, bf16=True, save_every=10**6, log_every=40)  # fmt: skip
ASKED_ROOMS, ASKED_QUESTIONS = 60, 20  # of the text side


@dataclass(frozen=True)
class Options:
    pool: Path
    """Folder of rendered training rooms; what is missing is rendered there."""
    work: Path
    """Folder for everything else that is made on the way."""
    out: Path = RESULTS
    """JSON file of the results; runs that it holds are not made again."""
    seeds: int = 3
    """Runs per arm."""
    only: tuple[str, ...] = ()
    """Comparisons to make (default: focal, questions, mixture)."""


@dataclass(frozen=True)
class Run:
    """One training; ``make`` returns its scores: set -> figure -> one number per validation photo."""

    comparison: str
    arm: str
    seed: int
    make: Callable[[], dict[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.comparison}/{self.arm}/{self.seed}"


def main(options: Options) -> dict[str, Any]:
    """Makes the runs that are missing; returns the results."""
    results = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {"runs": {}}
    for run in runs(options):
        if run.name in results["runs"] or (options.only and run.comparison not in options.only):
            continue
        started = time.process_time()
        made = run.make()
        about = provenance("python -m benchmarks.ablations --pool POOL --work WORK")
        results["runs"][run.name] = {
            "commit": about["commit"],
            "comparison": run.comparison,
            "arm": run.arm,
            "seed": run.seed,
            "processor_seconds": round(time.process_time() - started, 1),
            **made,
        }
        results = {**about, "runs": results["runs"]}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(_text(results), encoding="utf-8")
        print(run.name, {name: round(float(np.mean(s["delta1"])), 4) for name, s in made["sets"].items()}, flush=True)
    return results


def runs(options: Options) -> Iterator[Run]:
    """All runs, the first seed of everything before the second."""
    for seed in range(options.seeds):
        for arm, profile in (("unified", UNIFIED), ("not unified", NOT_UNIFIED)):
            yield Run("focal", arm, seed, partial(_focal, options, profile, seed))
        for arm in BLOCK_SHARES:
            yield Run("mixture", arm, seed, partial(_mixture, options, arm, seed))
        for count in (1, 10):
            yield Run("questions", str(count), seed, partial(_questions, options, count, seed))


def _focal(options: Options, profile: ImageProfile, seed: int) -> dict[str, Any]:
    parts = build_parts(SIZE, seed)
    views = _in_memory(_views(options, "room", profile))
    dense, losses = school_vision(parts.model, views, _with_seed(TOWER, seed))
    seen = sorted(_seen(options, "room", profile).glob("*.npz"))
    return {"sets": {"rooms": scores_of_views(dense, parts.image_processor, seen)}, "loss": _rounded(losses)}


def _mixture(options: Options, arm: str, seed: int) -> dict[str, Any]:
    parts = build_parts(SIZE, seed)
    mixture = mixture_of(arm)
    pools = (_views(options, "room", UNIFIED), _views(options, "block", UNIFIED))
    views = MixedViews(mixture, tuple(_in_memory(pool) for pool in pools))
    dense, losses = school_vision(parts.model, views, _with_seed(MIXED_TOWER, seed))  # type: ignore[arg-type]
    sets = {}
    for name, scenery in (("rooms", "room"), ("blocks", "block")):
        seen = sorted(_seen(options, scenery, UNIFIED).glob("*.npz"))
        sets[name] = scores_of_views(dense, parts.image_processor, seen)
    return {"share_of_blocks": round(float(mixture.shares[1]), 4), "sets": sets, "loss": _rounded(losses)}


def mixture_of(arm: str) -> Mixture:
    """The mixture of rooms and blocks of an arm of the third comparison."""
    share = BLOCK_SHARES[arm]
    datasets: dict[str, dict[str, Any]] = {
        "rooms": {"task": "depth", "rooms": ROOMS, "pool": "rooms"},
        "blocks": {"task": "depth", "rooms": BLOCKS, "pool": "blocks", "scenery": "block"},
    }
    if share is not None:
        datasets["rooms"]["weight"], datasets["blocks"]["weight"] = 1 - share, share
    weights = arm if share is None else "explicit"
    return parse_mixture({"seed": 1, "weights": weights, "datasets": datasets}, Path(), "ablations")


def _questions(options: Options, count: int, seed: int) -> dict[str, Any]:
    from pipelines.eval.command import Options as EvalOptions
    from pipelines.eval.command import evaluate
    from pipelines.eval.synthetic import write_synthetic
    from pipelines.models import ModelOptions

    parts = build_parts(SIZE, seed)
    _give_tower(parts, options)
    pool = str(options.pool.absolute())
    rooms = {"task": "depth", "rooms": ROOMS, "pool": pool, "questions": count, "round_m": ROUND_M}
    mixture = parse_mixture({"seed": seed, "group": SFT.batch, "datasets": {"rooms": rooms}}, Path(), "ablations")
    out = options.work / f"questions-{count}-{seed}"
    settings = SftSettings(**{**vars(SFT), "seed": seed})
    log = train(parts.model, parts.tokenizer, parts.image_processor, mixture, out, settings, resume=True)
    export_checkpoint(parts, out / "final", mixture.dialect.name, ["depth"], "procedural rooms")
    form = mixture.dialect.depth
    assert form is not None
    labels = write_synthetic(
        options.work / "asked", "depth", form.image, "validation", 0, ASKED_ROOMS, ASKED_QUESTIONS
    )  # fmt: skip
    report = evaluate(EvalOptions("depth", str(labels), quiet=True, models=ModelOptions(model=str(out / "final"))))
    right = report.scores.right.reshape(-1, ASKED_QUESTIONS)
    figures = {name: report.scores.figures[name] for name in ("delta1", "abs_rel", "silog", "parse_rate")}
    return {
        "sets": {"rooms": {"delta1": right.mean(axis=1).tolist()}},
        "figures": figures,
        "loss": _rounded([entry["loss"] for entry in log]),
        "answer_tokens": int(sum(entry["answer_tokens/rooms"] for entry in log)),
    }


def _give_tower(parts: Parts, options: Options) -> None:
    """The tower that all text sides of 'questions' see with, schooled on the training rooms."""
    from safetensors.torch import load_file, save_file

    kept, visual = options.work / "tower.safetensors", parts.model.model.visual
    if kept.exists():
        visual.load_state_dict(load_file(kept))
        return
    teacher = build_parts(SIZE, 0)
    render_pool(options.pool, "train", 0, ROOMS, POOL_IMAGE)
    views = DenseViews(
        [pool_path(options.pool, "train", index) for index in range(ROOMS)], teacher.image_processor
    )  # fmt: skip
    school_vision(teacher.model, views, ASKED_TOWER)
    visual.load_state_dict(teacher.model.model.visual.state_dict())
    save_file({name: tensor.contiguous() for name, tensor in visual.state_dict().items()}, kept)


# ---------------------------------------------------------------------------------------------------------------------


@functools.cache
def _in_memory(pool: Path) -> DenseViews:
    return DenseViews(list_pool(pool), build_image_processor())


def _with_seed(settings: VisionSettings, seed: int) -> VisionSettings:
    return replace(settings, seed=seed)


def _views(options: Options, scenery: str, profile: ImageProfile) -> Path:
    if scenery == "room":
        return _made(options, options.pool, "train", "room", ROOMS, profile)
    return _made(options, options.work / "blocks", "train", "block", BLOCKS, profile)


def _seen(options: Options, scenery: str, profile: ImageProfile) -> Path:
    count = SEEN_ROOMS if scenery == "room" else SEEN_BLOCKS
    return _made(options, options.work / f"{scenery}s-validation", "validation", scenery, count, profile)


def _made(options: Options, pool: Path, split: Any, scenery: Any, count: int, profile: ImageProfile) -> Path:
    folder = options.work / f"{scenery}s-{split}-{profile.mode}-{profile.target_px:g}"
    return make_views(pool, folder, split, count, scenery, profile, LONGEST_ZOOM)


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 4) for value in values]


def _text(results: dict[str, Any]) -> str:
    """JSON with one line per list of numbers."""

    def line(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: line(part) for key, part in value.items()}
        if isinstance(value, list) and value and isinstance(value[0], float):
            return _rounded(value)
        return value

    text = json.dumps(line(results), indent=1)
    return _joined(text) + "\n"


def _joined(text: str) -> str:
    return re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found.group().split()), text)


if __name__ == "__main__":
    main(tyro.cli(Options))
