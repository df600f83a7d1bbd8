"""The kernels' speed for ``vlm3-recon bench engine`` on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from vlm3_kernels import speed


def measure_kernels(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> list[dict[str, Any]]:
    """Rows of :func:`vlm3_kernels.speed.measure` for Qwen3-VL-4B's shapes."""
    with torch.inference_mode():
        return speed.measure(device, dtype)
