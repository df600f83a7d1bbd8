"""Which tile sizes are fastest on this device: those in the kernels were chosen by what compiles without spills.

Each choice is timed in the shapes of :mod:`vlm3_kernels.speed`, launched as the engine launches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vlm3_kernels import speed
from vlm3_kernels.lm_head import kernel as head
from vlm3_kernels.prefix_attention import kernel as attention

Choice = tuple[str, Callable[[], list[dict[str, Any]]]]  # its name, and what measures it

PREFILL = [
    attention.Tiles(m, n, warps, stages)
    for m, n, warps in ((128, 64, 8), (128, 128, 8), (128, 64, 4), (64, 64, 4))
    for stages in (2, 3)
]
OWN = [attention.Tiles(16, n, warps, 2) for n in (32, 64, 128) for warps in (1, 2, 4)]
HEAD = [
    head.Tiles(128, 128, 64, 8, 3),
    head.Tiles(128, 128, 64, 4, 4),
    head.Tiles(128, 256, 64, 8, 3),
    head.Tiles(256, 128, 64, 8, 3),
]


def choices(device: torch.device, dtype: torch.dtype) -> Iterator[Choice]:
    """Names of choices and what measures each; the rows are those of :func:`vlm3_kernels.speed.measure_case`."""
    s = speed.Shapes()
    architecture = attention._architecture(device)

    def timed(holder: dict[str, Any], key: str, tiles: Any, case: Callable[..., list[speed.KernelRow]]) -> Choice:
        def measure() -> list[dict[str, Any]]:
            with _instead(holder, key, tiles):
                return speed.measure_case(str(tiles), lambda: case(device, dtype, s), device)

        return f"{case.__name__} {tiles}", measure

    for tiles in PREFILL:
        yield timed(attention.PREFILL_TILES, architecture, tiles, speed.prefill)
    for tiles in OWN:
        yield timed(vars(attention), "OWN_TILES", tiles, speed.decode)
    for sizes in HEAD:
        yield timed(vars(head), "TILES", sizes, speed.lm_head)


@contextmanager
def _instead(holder: dict[str, Any], key: str, value: Any) -> Iterator[None]:
    before = holder[key]
    holder[key] = value
    try:
        yield
    finally:
        holder[key] = before
