"""Registers, spills and shared memory of every kernel per architecture; writes ``results/kernels_aot.json``.

    python -m benchmarks.kernels_aot

Compiles ahead of time, so no GPU is needed; nothing about speed is measured.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

from vlm3_kernels import ahead_of_time

from pipelines.bench import report


def main() -> None:
    rows = [ahead_of_time.build(v, target) for target in ahead_of_time.TARGETS for v in ahead_of_time.variants(target)]
    print(f"{'kernel':<28}{'target':<8}{'registers':>10}{'spills':>8}{'shared B':>10}  tensor cores")
    for row in rows:
        print(
            f"{row.kernel:<28}{row.target:<8}{row.registers:>10}{row.spills:>8}{row.shared_bytes:>10}  "
            f"{'yes' if row.uses_tensor_cores else 'no'}"
        )
    data = {
        "benchmark": "kernels compiled ahead of time, Qwen3-VL-4B shapes, bfloat16",
        "versions": report.versions("triton"),
        "commit": report.commit(),
        "date": time.strftime("%Y-%m-%d"),
        "speed": "not measured",
        "rows": [asdict(row) for row in rows],
    }
    path = Path(__file__).parent / "results" / "kernels_aot.json"
    report.write(path, data)


if __name__ == "__main__":
    main()
