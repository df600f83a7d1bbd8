"""The Triton kernels without a GPU: run in the interpreter, and compiled ahead of time for three architectures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="Triton exists on Linux only")

ROOT = Path(__file__).resolve().parents[2]


def test_kernels_in_the_interpreter() -> None:
    """In a process of its own: whether Triton interprets is decided when it is first imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/kernels/interpreted.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "37 passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_exact_float32_compiles_within_the_chip(target: str) -> None:
    """Its products are unrolled, so large tiles would spill tens of kilobytes and compile for minutes."""
    import torch
    from vlm3_kernels import ahead_of_time

    for variant in ahead_of_time.variants(target, torch.float32):
        built = ahead_of_time.build(variant, target)
        assert built.spills < 1024, built  # measured worst 468
        assert built.shared_bytes <= 48 * 1024, built


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
@pytest.mark.parametrize("index", range(4))
def test_kernels_compile_for(target: str, index: int) -> None:
    """For Qwen3-VL-4B's shapes in bfloat16: tensor cores in use, nothing spilled, shared memory within the chip's."""
    from vlm3_kernels import ahead_of_time

    variants = ahead_of_time.variants(target)
    assert len(variants) == 4
    built = ahead_of_time.build(variants[index], target)
    assert built.uses_tensor_cores
    assert built.spills == 0
    assert built.registers <= (512 if target == "gfx942" else 255)
    assert built.shared_bytes <= {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "gfx942": 64 * 1024}[target]
