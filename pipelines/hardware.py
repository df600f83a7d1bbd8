"""What machine this is, for the record of a run or a measurement."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from pathlib import Path


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def hardware() -> dict[str, str | int | float]:
    """Processor, cores, memory, and the GPU when PyTorch is loaded and sees one (it is not loaded for this)."""
    found: dict[str, str | int | float] = {"cpu": cpu_name(), "cpu_count": os.cpu_count() or 0}
    with contextlib.suppress(ValueError, OSError):  # not every system says
        found["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
