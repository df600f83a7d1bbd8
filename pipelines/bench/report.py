"""What a benchmark says: the table, and the data with hardware, versions and commit."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recon.errors import OutputError


@dataclass(frozen=True)
class Row:
    """One way of asking: seconds per run (wall clock and processor time), questions per second, token agreement."""

    name: str
    num_questions: int
    wall_s: dict[str, float]
    cpu_s: dict[str, float]
    questions_per_s: float
    questions_per_cpu_s: float
    same_tokens_as_a: float


def print_table(rows: Sequence[Row]) -> None:
    """The table: times per run, questions per second, and how much faster than the Hugging Face ways (wall clock)."""
    headings = "".join(f"{heading:>9}" for heading in ("wall s", "p10", "p90", "CPU s", "q/s", "q/CPU s"))
    print(f"{'way':<46}{'asked':>6}{headings}{'same':>8}" + "".join(f"{f'x {_letter(row)}':>8}" for row in rows[:3]))
    for row in rows:
        faster = "".join(f"{row.questions_per_s / other.questions_per_s:>8.1f}" for other in rows[:3])
        print(
            f"{row.name:<46}{row.num_questions:>6}{row.wall_s['median']:>9.3f}{row.wall_s['p10']:>9.3f}"
            f"{row.wall_s['p90']:>9.3f}{row.cpu_s['median']:>9.3f}{row.questions_per_s:>9.1f}"
            f"{row.questions_per_cpu_s:>9.1f}{row.same_tokens_as_a:>8.1%}{faster}"
        )
    print("x (a): questions per second of wall-clock time, relative to (a); same: answers with the tokens of (a)")


def faster(rows: Sequence[Row]) -> dict[str, float]:
    """How many times more questions per second (wall clock) ours answers than each Hugging Face way."""
    ours = next(row for row in rows if _letter(row) == "(d)")
    return {_letter(row): ours.questions_per_s / row.questions_per_s for row in rows if _letter(row) != "(d)"}


def _letter(row: Row) -> str:
    return row.name[:3]


def print_kernels(rows: Sequence[Mapping[str, Any]]) -> None:
    """The table of kernels: time, and what it achieves beside the peaks measured in the same run."""
    print(f"{'kernel':<52}{'ms':>10}{'TFLOP/s':>10}{'GB/s':>10}")
    for row in rows:
        if "error" in row:
            print(f"{row['name']:<52}  {row['error']}")
            continue
        figures = "".join(f"{row[key]:>10.1f}" if row[key] is not None else f"{'':>10}" for key in ("tflops", "gbytes"))
        print(f"{row['name']:<52}{row['ms']:>10.3f}{figures}")


def surroundings(on_gpu: bool) -> dict[str, Any]:
    """Where and with what a benchmark ran: the head of every result file."""
    import torch

    return {
        "hardware": {
            "device": torch.cuda.get_device_name() if on_gpu else cpu_name(),
            "cpu": cpu_name(),
            "cpu_count": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "versions": versions("torch", "transformers", "triton"),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "gpu_figures": "measured" if on_gpu else "not measured",
    }


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Writes results as JSON.

    Raises:
        OutputError: the folder can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"--out {path.parent}: can't be written ({error.strerror})") from error


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Median, 10th and 90th percentile."""
    p10, median, p90 = np.percentile(values, [10, 50, 90])
    return {"median": float(median), "p10": float(p10), "p90": float(p90)}


def cpu_name() -> str:
    """The processor as the system calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit that is checked out; ``unknown`` outside a checkout."""
    try:
        root = Path(__file__).resolve().parent
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
