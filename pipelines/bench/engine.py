"""``vlm3-recon bench engine``: the engine against Hugging Face's ``generate``, same questions, one process, one run."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from pipelines.bench import report
from recon.errors import BadInputError


@dataclass(frozen=True)
class Options:
    """Measures how fast questions are answered and whether all ways give the same tokens.

    Attributes:
        what: what to measure.
        model: checkpoint: a folder, a hub id, or ``embedded``.
        image: a photo to ask about; by default a made-up picture of 288 x 224 pixels.
        num_questions: depth questions on a grid over the image.
        num_baseline: questions for the slow way (a), evenly chosen from them; 0: all.
        batch_size: batch of the Hugging Face ways (b) and (c).
        repeats: runs of each way; the ways take turns.
        threads: CPU threads; 0: as set by the environment.
        device: auto, cpu, cuda ...
        out: folder for the results; not written when empty.
    """

    what: tyro.conf.Positional[Literal["engine"]]
    model: str = "embedded"
    image: str = ""
    num_questions: int = 432
    num_baseline: int = 0
    batch_size: int = 32
    repeats: int = 5
    threads: int = 0
    device: str = "auto"
    out: Path = Path("benchmarks/results")


def run(options: Options) -> None:
    """Runs the benchmark, prints the table and writes the data."""
    if options.num_questions < 2 or options.repeats < 1:
        raise BadInputError("--num-questions must be at least 2 and --repeats at least 1")
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    rows = measure(options)
    report.print_table(rows)
    on_gpu = torch.cuda.is_available() and options.device != "cpu"
    kernels: list[dict[str, Any]] = []
    if on_gpu:
        from recon.engine.kernel_speed import measure_kernels

        kernels = measure_kernels(torch.device("cuda"))
        report.print_kernels(kernels)
    if str(options.out) in ("", "."):
        return
    where = "cuda" if on_gpu else f"cpu_{torch.get_num_threads()}_threads"
    path = options.out / f"{options.what}_{where}.json"
    data = {
        "benchmark": f"bench {options.what}",
        "options": {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()},
        **report.surroundings(on_gpu),
        "load_average": os.getloadavg()[0],
        "times_faster": report.faster(rows),
        "rows": [asdict(row) for row in rows],
        "kernels": kernels,
    }
    report.write(path, data)
    print(f"written: {path}")


def measure(options: Options) -> list[report.Row]:
    """All ways, in turns; the first way is (a)."""
    from recon.engine.baselines import Baselines
    from recon.engine.checkpoint import load_checkpoint
    from recon.engine.engine import Engine, EngineOptions
    from recon.questions import depth
    from recon.questions.dialects import get_dialect

    checkpoint = load_checkpoint(options.model, options.device)
    limit = checkpoint.profile.depth.max_new_tokens
    unified = load_image(options.image)
    width, height = unified.camera.width_px, unified.camera.height_px
    columns = max(1, round(math.sqrt(options.num_questions * width / height)))
    lines = math.ceil(options.num_questions / columns)
    x, y = np.meshgrid((np.arange(columns) + 0.5) * width / columns, (np.arange(lines) + 0.5) * height / lines)
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)[: options.num_questions]
    questions = depth.ask(get_dialect(checkpoint.profile.dialect), unified, pixels)
    step = max(1, len(questions) // options.num_baseline) if options.num_baseline else 1
    few = list(range(0, len(questions), step))[: options.num_baseline or None]

    baselines = Baselines(checkpoint, limit)
    plain = {"speculation": False, "share_beginnings": False, "prune_last_layer": False}
    variants: dict[str, dict[str, bool]] = {
        "(d) ours": {},
        "(d) without speculation": {"speculation": False},
        "(d) without shared coordinates": {"share_beginnings": False},
        "(d) without last-layer pruning": {"prune_last_layer": False},
        "(d) packing and prefix alone": plain,
        "(d) stopping after the number": {"stop_after_number": True},
    }
    ways: dict[str, tuple[list[int], Callable[[], Sequence[tuple[int, ...]]]]] = {
        "(a) generate per question": (
            few,
            lambda: baselines.one_by_one(unified.pixels, [questions[i] for i in few]),
        ),
        f"(b) generate, batches of {options.batch_size}": (
            list(range(len(questions))),
            lambda: baselines.batched(unified.pixels, questions, options.batch_size),
        ),
        f"(c) generate, shared prefix, batches of {options.batch_size}": (
            list(range(len(questions))),
            lambda: baselines.shared_prefix(unified.pixels, questions, options.batch_size),
        ),
    }
    for name, changes in variants.items():
        engine = Engine(checkpoint, EngineOptions(**changes))

        def ours(engine: Engine = engine) -> list[tuple[int, ...]]:
            engine.prefixes.clear()  # from the decoded image, as the others
            return [answer.token_ids for answer in engine.ask([unified], questions)]

        ways[name] = (list(range(len(questions))), ours)
    return _time(ways, options.repeats)


def _time(ways: dict[str, tuple[list[int], Callable[[], Sequence[tuple[int, ...]]]]], repeats: int) -> list[report.Row]:
    import torch

    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    said: dict[str, dict[int, tuple[int, ...]]] = {}
    for turn in range(repeats + 1):  # the first turn warms up: memory, thread pools, templates
        for name, (indices, ask) in ways.items():
            if turn == 0 and name.startswith("(a)") and repeats > 1:
                continue  # slow, and has no state to warm
            start_wall, start_cpu = time.perf_counter(), time.process_time()
            ids = ask()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                wall[name].append(time.perf_counter() - start_wall)
                cpu[name].append(time.process_time() - start_cpu)
            said[name] = dict(zip(indices, ids, strict=True))
    first = next(iter(ways))
    rows = []
    for name, (indices, _) in ways.items():
        same = statistics.mean(said[name][i] == ids for i, ids in said[first].items())
        rows.append(
            report.Row(
                name,
                len(indices),
                report.percentiles(wall[name]),
                report.percentiles(cpu[name]),
                len(indices) / statistics.median(wall[name]),
                len(indices) / statistics.median(cpu[name]),
                same,
            )
        )
    return rows


def load_image(path: str) -> Any:
    """A photo as the unified image of a made-up camera; without a path a made-up picture."""
    from recon.types import Camera, UnifiedImage

    if path:
        from PIL import Image

        try:
            pixels = np.asarray(Image.open(path).convert("RGB"))
        except OSError as error:
            raise BadInputError(f"--image {path}: not a readable image") from error
    else:
        rng = np.random.default_rng(0)
        shade = np.linspace(20, 200, 288)[None, :, None] * np.linspace(0.5, 1, 224)[:, None, None]
        pixels = (shade + rng.integers(0, 40, (224, 288, 3))).astype(np.uint8)
    height, width = pixels.shape[:2]
    camera = Camera.pinhole(width, height, 224.0, 224.0, width / 2, height / 2)
    return UnifiedImage(pixels, camera, camera)
