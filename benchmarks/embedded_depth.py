"""Scores a checkpoint's metric depth on procedural rooms it has never seen, beside the best constant guess.

    python -m benchmarks.embedded_depth --model embedded --split test --rooms 200

Questions go through the engine (greedy). The constants are tuned on training rooms. Writes JSON with the command,
versions and hardware.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import transformers
import tyro
from numpy.typing import NDArray
from tqdm import tqdm

import recon
from recon.cameras.pixels import containing_pixels
from recon.engine.checkpoint import load_checkpoint
from recon.engine.engine import Engine, EngineOptions
from recon.evaluation.depth import best_constants, score_depth
from recon.questions import depth
from recon.questions.dialects import get_dialect
from recon.questions.profile import PROFILE_FILE, load_profile
from recon.synth.dataset import split_seed
from recon.training.pool import PooledView, render_pooled_view


@dataclass(frozen=True)
class Options:
    model: str = "embedded"
    """Checkpoint folder, hub id, or 'embedded'."""
    split: Literal["validation", "test"] = "validation"
    """Rooms to score on; test is for final figures, never for choices."""
    rooms: int = 200
    """How many rooms, one photo each."""
    first: int = 0
    """Index of the first room in the split."""
    questions: int = 20
    """Questions per photo, at random pixels."""
    constant_rooms: int = 200
    """Training rooms that the best constants are tuned on."""
    out: Path | None = None
    """JSON file to write."""
    record: bool = False
    """Write the figures into the checkpoint folder's profile: from validation rooms the error (log_sigma) that answers
    are given, from test rooms the figures for the record."""


def sampled_depths(view: PooledView, count: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Random pixels ``[N, 2]`` of a view and their true depths ``[N]`` in metres."""
    camera = view.image.camera
    pixels = np.random.default_rng([seed, 5]).random((count, 2)) * [camera.width_px, camera.height_px]
    columns, rows = containing_pixels(pixels, camera.width_px, camera.height_px).T
    return pixels, view.depth_m[rows, columns].astype(np.float64)


def main(options: Options) -> dict[str, object]:
    """Runs the benchmark; returns what is written."""
    checkpoint = load_checkpoint(options.model, device="cpu", dtype="float32")
    dialect, profile = get_dialect(checkpoint.profile.dialect), checkpoint.profile.depth
    engine = Engine(checkpoint, EngineOptions())
    predicted: list[float] = []
    truth: list[float] = []
    seconds = 0.0
    for index in tqdm(range(options.first, options.first + options.rooms), desc="rooms"):
        seed = split_seed(options.split, index)
        view = render_pooled_view(seed, profile.image)
        pixels, depths_m = sampled_depths(view, options.questions, seed)
        started = time.perf_counter()
        answers = engine.ask([view.image], depth.ask(dialect, view.image, pixels))
        seconds += time.perf_counter() - started
        predicted += [answer.value[0] if answer.status == "ok" and answer.value else np.nan for answer in answers]
        truth += depths_m.tolist()
    tuning = []
    for index in range(options.constant_rooms):
        seed = split_seed("train", index)
        tuning.append(sampled_depths(render_pooled_view(seed, profile.image), options.questions, seed)[1])
    constants = best_constants(np.concatenate(tuning))
    result: dict[str, object] = {
        "command": "python -m benchmarks.embedded_depth " + " ".join(sys.argv[1:]),
        "split": options.split,
        "rooms": options.rooms,
        "questions_per_room": options.questions,
        "model": score_depth(predicted, truth).to_json(),
        "constant_for_delta1": {
            "metres": constants.for_delta1_m,
            **score_depth(np.full(len(truth), constants.for_delta1_m), truth).to_json(),
        },
        "constant_for_abs_rel": {
            "metres": constants.for_abs_rel_m,
            **score_depth(np.full(len(truth), constants.for_abs_rel_m), truth).to_json(),
        },
        "seconds_answering": round(seconds, 1),
        "hardware": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if options.record:
        embedded = Path(recon.__file__).parent / "assets" / "embedded"
        record(embedded if options.model == "embedded" else Path(options.model), options.split, result)
    return result


def record(folder: Path, split: str, result: dict[str, object]) -> None:
    """Writes figures into ``vlm3_profile.json`` of a checkpoint folder."""
    path = folder / PROFILE_FILE
    profile = load_profile(path)
    model, constant = result["model"], result["constant_for_delta1"]
    other = result["constant_for_abs_rel"]
    assert isinstance(model, dict)
    assert isinstance(constant, dict)
    assert isinstance(other, dict)
    if split == "validation":
        # the standard deviation with its tails, not the robust one: evidence is weighed by it
        depth_profile = replace(profile.depth, log_sigma=round(model["silog"] / 100, 3))
        profile = replace(profile, tasks={**profile.tasks, "depth": depth_profile})
    else:
        figures = {
            "test_depth_delta1": model["delta1"],
            "test_depth_abs_rel": model["abs_rel"],
            "test_depth_delta1_of_best_constant": constant["delta1"],
            "test_depth_abs_rel_of_best_constant": other["abs_rel"],
        }
        profile = replace(profile, measured={**profile.measured, **{k: round(v, 4) for k, v in figures.items()}})
    path.write_text(json.dumps(profile.to_json(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=2))
