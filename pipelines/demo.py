"""``make demo``: reconstruct the example room with the embedded checkpoint and compare it with its ground truth."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

from pipelines.cli import guarded
from pipelines.compare import compare_all, text
from pipelines.models import ModelOptions
from pipelines.options import Options
from pipelines.reconstruct import reconstruct
from recon.errors import MappingError
from recon.evaluation.compare import CompareOptions
from recon.surface.options import MultiviewOptions, SurfaceOptions

ROOM = Path(__file__).resolve().parent.parent / "examples" / "room"
# The room is as synthetic as what the embedded checkpoint was trained on, so its metres may be trusted here. Half the
# usual resolution of the depth maps keeps the demo under three minutes on two cores.
WORK_PX = 320


def demo_options(out: Path) -> Options:
    """The demo's settings; everything else is as in ``vlm3-recon examples/room --out ...``."""
    surface = SurfaceOptions()
    surface = dataclasses.replace(surface, multiview=dataclasses.replace(MultiviewOptions(), work_px=WORK_PX))
    return Options(scene=ROOM, out=out, models=ModelOptions(trust_model=True), surface=surface)


def demo(out: Path) -> str:
    """Reconstructs, compares, and returns the report."""
    started = time.perf_counter()
    summary = reconstruct(demo_options(out))
    if summary.scene is None:
        raise MappingError(f"{ROOM}: no map was made")
    took = time.perf_counter() - started
    (comparison,) = compare_all(out, (ROOM,), CompareOptions())
    return f"{summary.text()}\n\n{text(comparison)}\n\n{took:.0f} s in all"


if __name__ == "__main__":
    sys.exit(guarded(lambda: print(demo(Path("runs") / "demo" / "room.ply"))))
