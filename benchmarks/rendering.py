"""How fast procedural worlds are rendered and made into training samples.

    python -m benchmarks.rendering --out benchmarks/results/rendering.json

Times are of the process's clock (on one thread of a CPU that is what an idle core takes; on a GPU use --clock wall).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

from benchmarks.provenance import provenance
from recon.questions.dialects import get_dialect
from recon.synth.dataset import Scenery, random_view, split_seed
from recon.training.datasets import RoomDataset, image_profile
from recon.training.encode import Encoder
from recon.training.export import build_parts
from recon.training.mixture import Mixture
from recon.training.pooled import render_pooled_pair, render_pooled_view
from recon.types import Task


@dataclass(frozen=True)
class Options:
    count: int = 20
    """Views, pairs and samples per figure."""
    device: str = "cpu"
    """Where to render."""
    clock: Literal["process", "wall"] = "process"
    """Which clock: the process's, or the wall's (GPU)."""
    out: Path | None = None
    """JSON file to write."""


def main(options: Options) -> dict[str, object]:
    """Runs the benchmark; returns what is written."""
    torch.set_num_threads(1)
    dialect = get_dialect("recon-1")
    profile = image_profile(dialect, "depth")
    clock = time.process_time if options.clock == "process" else time.perf_counter

    def seconds(work: Callable[[int], object]) -> float:
        work(0)  # textures are baked, caches filled
        started = clock()
        for index in range(options.count):
            work(index)
        return (clock() - started) / options.count

    figures: dict[str, float] = {}
    sceneries: tuple[Scenery, ...] = ("room", "block")
    for scenery in sceneries:
        shapes = [random_view(split_seed("train", k), focal_px=224.0, scenery=scenery).image.shape for k in range(5)]
        figures[f"{scenery}: pixels per view"] = float(np.mean([height * width for height, width, _ in shapes]))
        figures[f"{scenery}: seconds per view of focal 224"] = seconds(
            lambda k, s=scenery: random_view(split_seed("train", k), focal_px=224.0, scenery=s, device=options.device)
        )
        figures[f"{scenery}: seconds per pooled view"] = seconds(
            lambda k, s=scenery: render_pooled_view(split_seed("train", k), profile, s, options.device)
        )
        figures[f"{scenery}: seconds per pooled pair"] = seconds(
            lambda k, s=scenery: render_pooled_pair(split_seed("train", k), profile, s, options.device)
        )
    parts = build_parts("tiny", 0)
    encoder = Encoder(parts.tokenizer, parts.image_processor, parts.model.config.image_token_id)
    tasks: tuple[Task, ...] = ("depth", "match", "pose", "object")
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks:
            dataset = RoomDataset(task, task, options.count, Path(folder), 10 if task == "object" else 32)
            data = Mixture((dataset,), np.ones(1), dialect, seed=0)
            for index in range(4 * options.count):  # fills the pool
                data.draw(index)
            figures[f"{task}: seconds per sample from a filled pool"] = seconds(
                lambda k, d=data: encoder.encode(d.sample(k))
            )
        sizes = [(path.name.startswith("pair"), path.stat().st_size) for path in Path(folder).glob("*.npz")]
        for name, wanted in (("view", False), ("pair", True)):
            figures[f"bytes per pooled {name}"] = float(np.mean([size for is_pair, size in sizes if is_pair == wanted]))
    result: dict[str, object] = {
        "count": options.count,
        "device": options.device,
        "clock": options.clock,
        "figures": {name: round(value, 4) for name, value in figures.items()},
        **provenance("python -m benchmarks.rendering " + " ".join(sys.argv[1:])),
    }
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=2))
