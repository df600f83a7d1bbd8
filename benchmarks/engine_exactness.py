"""Thousands of random questions against ``generate`` one by one; writes ``results/engine_exactness.json``.

    python -m benchmarks.engine_exactness [NUM_QUESTIONS]

A random-weight checkpoint, all dialects, odd image sizes, one and two images, shuffled; asked with several option sets:
waves of changing size, one with prefixes evicted all the time, one in buffers of fixed size as CUDA graphs use them.
What is counted are answers whose tokens are all equal.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from pipelines.bench import report
from recon.engine.engine import Engine, EngineOptions
from recon.questions.dialects import DIALECTS
from tests.engine.conftest import NUM_TOKENS, make_checkpoint, questions_about
from tests.engine.oracle import generate, random_image

OPTIONS = {
    "default": EngineOptions(max_new_tokens=NUM_TOKENS),
    "every wave size, no speculation": EngineOptions(max_new_tokens=NUM_TOKENS, speculation=False),
    "chunks of 13 tokens, evicting": EngineOptions(max_new_tokens=NUM_TOKENS, chunk_tokens=13, kv_memory_bytes=200_000),
    "buffers of fixed size": EngineOptions(max_new_tokens=NUM_TOKENS),
}


def main(num_questions: int) -> None:
    checkpoint = make_checkpoint(seed=7)
    engines = {name: Engine(checkpoint, options) for name, options in OPTIONS.items()}
    engines["buffers of fixed size"].decoder = engines["buffers of fixed size"].make_decoder(fixed_sizes=True)
    rng = np.random.default_rng(7)
    asked, equal, lengths, wave_sizes = 0, dict.fromkeys(engines, 0), [], []
    while asked < num_questions:
        images = [random_image(rng, *rng.integers(32, 260, 2).tolist()) for _ in range(int(rng.integers(1, 3)))]
        questions = [q for dialect in DIALECTS.values() for q in questions_about(images, rng, 20, dialect)]
        questions = [questions[i] for i in rng.permutation(len(questions))][: num_questions - asked]
        expected = [generate(checkpoint, images, question, NUM_TOKENS) for question in questions]
        wave_sizes.append(len(wave_sizes) + 1)
        engines["every wave size, no speculation"]._largest_wave = wave_sizes[-1]
        for name, engine in engines.items():
            answers = engine.ask(images, questions)
            equal[name] += sum(a.token_ids == e for a, e in zip(answers, expected, strict=True))
        asked += len(questions)
        lengths += [len(ids) for ids in expected]
        print(f"{asked} of {num_questions}: {equal}", flush=True)
    data = {
        "benchmark": "engine exactness, float32, CPU",
        "questions": asked,
        "tokens": int(np.sum(lengths)),
        "answers_equal": equal,
        "wave_sizes": [min(wave_sizes), max(wave_sizes)],
        "prefixes_evicted": engines["chunks of 13 tokens, evicting"].prefixes.stats.num_evicted,
        "fixed_passes": engines["buffers of fixed size"].decoder.stats.num_fixed_steps,
        "versions": report.versions("torch", "transformers"),
        "commit": report.commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
    path = Path(__file__).parent / "results" / "engine_exactness.json"
    report.write(path, data)
    print(json.dumps(data, indent=2))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
