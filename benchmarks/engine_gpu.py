"""Everything about the engine that needs a GPU, in one call: checks, peaks, kernels, end to end, bf16 agreement.

    python -m benchmarks.engine_gpu --out benchmarks/results
    python -m benchmarks.engine_gpu --tiny --device cpu --out DIR     # the same code on a small model, without a GPU

Random weights in Qwen3-VL-4B's architecture (no download). Sections run one after the other, each by itself: one that
fails is written down as failed, with what it had measured until then. Each has its own share of the time: what would
begin after it is left out and named, and so is what would begin after ``--budget`` seconds. Results are written after
every single figure, so a call that is cut off keeps what it has.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import engine_gpu_kernels as kernels
from benchmarks import engine_gpu_questions as questions
from benchmarks.engine_gpu_model import Bench, Results, make_bench
from pipelines.bench import report


@dataclass(frozen=True)
class Section:
    """A generator of named results, and the seconds after which it begins nothing more."""

    run: Callable[[Bench], Results]
    budget_s: float


# What matters most comes first.
SECTIONS: dict[str, Section] = {
    "check_kernels": Section(kernels.check_kernels, 60),
    "end_to_end": Section(questions.end_to_end, 110),
    "kernel_speed": Section(kernels.kernel_speed, 50),
    "ratios": Section(questions.ratios, 60),
    "agreement": Section(questions.agreement, 70),
    "parts": Section(questions.parts, 15),
    "elementwise": Section(kernels.elementwise, 40),
    "fp8": Section(questions.fp8, 40),
    "tiles": Section(kernels.tiles, 80),
}


def run(device: torch.device, tiny: bool, out: Path, budget_s: float) -> dict[str, Any]:
    """All sections within the budget; the results so far are written after each figure."""
    begin = time.perf_counter()
    on_gpu = device.type == "cuda"
    data: dict[str, Any] = {
        "benchmark": "engine on a GPU, Qwen3-VL-4B architecture, random weights" + (" (tiny)" if tiny else ""),
        **report.surroundings(on_gpu),
        "sections": {},
    }
    path = out / ("engine_gpu.json" if on_gpu else "engine_gpu_rehearsal.json")
    report.write(path, data)  # a folder that can't be written shows now
    bench = make_bench(device, torch.bfloat16 if on_gpu else torch.float32, tiny)
    data["building_the_model_s"] = time.perf_counter() - begin
    for name, section in SECTIONS.items():
        result: dict[str, Any] = {}
        data["sections"][name] = result
        start = time.perf_counter()
        end = min(start + section.budget_s, begin + budget_s)
        try:
            if start >= begin + budget_s:
                result["left_out"] = f"the budget of {budget_s:.0f} s was used up"
                continue
            for key, value in section.run(bench):
                result[key] = value
                report.write(path, data)
                print(f"{name}: {key}: {json.dumps(value)}", flush=True)
                if time.perf_counter() > end:
                    result["left_out"] = (
                        f"whatever would follow {key!r}: the section's {end - start:.0f} s were used up"
                    )
                    break
        except Exception as error:  # a section's failure is its result; the others still count
            result["error"] = f"{type(error).__name__}: {str(error)[:500]}"
            result["trace"] = traceback.format_exc().splitlines()[-8:]
            print(f"{name}: {result['error']}", flush=True)
        finally:
            result["took_s"] = time.perf_counter() - start
            report.write(path, data)
            gc.collect()
            if on_gpu:
                torch.cuda.empty_cache()
    return data


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small model, for a rehearsal without a GPU")
    parser.add_argument("--budget", type=float, default=480.0, help="nothing begins after this many seconds")
    chosen = parser.parse_args(arguments)
    if chosen.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {chosen.device}: no CUDA device was found; --tiny --device cpu rehearses without one")
    run(torch.device(chosen.device), chosen.tiny, chosen.out, chosen.budget)


if __name__ == "__main__":
    main()
