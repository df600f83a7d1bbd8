"""Where the engine's time goes on a CPU; writes ``results/engine_profile.json``.

    python -m benchmarks.engine_profile

The embedded checkpoint, one made-up photo, 432 depth questions, one thread. Parts are timed by themselves in processor
time; the operators' shares are ``torch.profiler``'s. Way (c), a shared prefix cache around ``generate``, takes turns
with ours in the same run.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from pipelines.bench import report
from pipelines.bench.engine import load_image
from recon.engine.baselines import Baselines
from recon.engine.checkpoint import load_checkpoint
from recon.engine.engine import Engine
from recon.engine.prompts import common_prefix_length
from recon.questions import depth
from recon.questions.dialects import get_dialect

COLUMNS, LINES = 24, 18


def main() -> None:
    torch.set_num_threads(1)
    checkpoint = load_checkpoint("embedded", "cpu")
    image = load_image("")
    width, height = image.camera.width_px, image.camera.height_px
    x, y = np.meshgrid((np.arange(COLUMNS) + 0.5) * width / COLUMNS, (np.arange(LINES) + 0.5) * height / LINES)
    questions = depth.ask(get_dialect(checkpoint.profile.dialect), image, np.stack([x.ravel(), y.ravel()], axis=1))
    limit = checkpoint.profile.depth.max_new_tokens
    engine, baselines = Engine(checkpoint), Baselines(checkpoint, limit)

    def ours() -> None:
        engine.prefixes.clear()
        engine.ask([image], questions)

    turns: dict[str, list[float]] = {"ours": [], "(c) shared prefix, batches of 32": []}
    ways: list[Callable[[], object]] = [ours, lambda: baselines.shared_prefix(image.pixels, questions, 32)]
    for turn in range(4):
        for name, way in zip(turns, ways, strict=True):
            seconds = processor_seconds(way, 1)
            if turn:
                turns[name].append(seconds)

    with torch.inference_mode():
        prompts = engine._prompts.encode([question.text for question in questions], 1)
        shared = common_prefix_length(prompts)
        suffixes = [prompt[shared:] for prompt in prompts]

        def prefix() -> object:
            engine.prefixes.clear()
            return engine.prefixes.get(engine._segments([image], prompts[0][:shared]))

        made = engine.prefixes.get(engine._segments([image], prompts[0][:shared]))
        generated = engine.decoder.decode(made, suffixes, [limit] * len(suffixes))
        parts = {
            "prefix (image processor, vision tower, text)": prefix,
            "prompts to tokens": lambda: engine._prompts.encode([question.text for question in questions], 1),
            "prefill and decoding": lambda: engine.decoder.decode(made, suffixes, [limit] * len(suffixes)),
            "tokens to answers": lambda: [
                engine._reader.read(q, [image], g) for q, g in zip(questions, generated, strict=True)
            ],
        }
        seconds_of = {name: processor_seconds(part, 5) for name, part in parts.items()}
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            parts["prefill and decoding"]()
    events = recorded.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    shares = {event.key: event.self_cpu_time_total / total for event in events}
    data = {
        "benchmark": "where the engine's time goes, embedded checkpoint, 432 depth questions, one thread",
        **report.surroundings(False),
        "load_average": os.getloadavg()[0],
        "processor_s": {name: report.percentiles(values) for name, values in turns.items()},
        "parts_processor_s": seconds_of,
        "operator_shares_of_decoding": dict(sorted(shares.items(), key=lambda item: -item[1])[:14]),
    }
    report.write(Path(__file__).parent / "results" / "engine_profile.json", data)
    print(json.dumps(data, indent=2))


def processor_seconds(work: Callable[[], object], repeats: int) -> float:
    """The least processor time of some calls."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


if __name__ == "__main__":
    main()
