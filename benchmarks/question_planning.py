"""Dense depth from the same number of questions, spent evenly or coarse to fine; answers by the oracle, in text.

    python -m benchmarks.question_planning --out benchmarks/results/question_planning.json

Rooms of the test split, one photo each. No map is there to align to: the median ratio of each photo is divided out, as
the alignment would do.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tyro

from benchmarks.oracle import public_profile
from benchmarks.provenance import provenance
from recon.evidence.depth import ask_depth
from recon.questions.sampling import Planning
from recon.surface.densify import dense_depth
from recon.surface.frames import Frame
from recon.surface.options import DensifyOptions
from recon.synth.dataset import random_view, split_seed
from recon.synth.oracle import Oracle, OracleView
from recon.synth.render import SynthView
from recon.types import View


@dataclass(frozen=True)
class Options:
    """What is asked."""

    rooms: int = 10
    seeds: tuple[int, ...] = (0, 1)
    """of the oracle's errors"""
    budgets: tuple[int, ...] = (128, 256, 512)
    solve_px: int = 192
    """long side of the grid on which depth is interpolated"""
    out: Path | None = None
    """JSON file to write"""


def relative_errors(view: SynthView, oracle: Oracle, budget: int, planning: Planning, solve_px: int) -> np.ndarray:
    """|depth / truth - 1| of every pixel, the median ratio divided out, [N]."""
    photo = View("photo", Path(), "", view.camera.width_px, view.camera.height_px, "")
    samples = ask_depth(oracle, photo, view.image, view.camera, budget, planning=planning)
    none = np.empty(0)
    frame = Frame(
        "photo", view.image, view.camera, view.camera, view.cam_from_world,
        none.astype(np.int64), none.reshape(0, 2), none,
    )  # fmt: skip
    depth_map = dense_depth(frame, [samples], True, DensifyOptions(solve_px=solve_px))
    assert depth_map is not None
    ratio = (depth_map.depth_m / view.depth_m)[np.isfinite(view.depth_m)]
    return np.abs(ratio / np.median(ratio) - 1)


def main(options: Options) -> dict[str, Any]:
    """Runs the benchmark; returns what is written."""
    views = [random_view(split_seed("test", i), 400, 300, 330.0) for i in range(options.rooms)]
    rows = []
    for budget in options.budgets:
        for planning in get_args(Planning):
            errors = []
            for seed in options.seeds:
                for index, view in enumerate(views):
                    oracle = Oracle([OracleView.of(view, str(index))], public_profile(), seed=seed)
                    errors.append(relative_errors(view, oracle, budget, planning, options.solve_px))
            rows.append(
                {
                    "budget": budget,
                    "planning": planning,
                    "abs_rel": round(float(np.mean([e.mean() for e in errors])), 4),
                    "median": round(float(np.mean([np.median(e) for e in errors])), 4),
                    "beyond_10_percent": round(float(np.mean([(e > 0.1).mean() for e in errors])), 4),
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
    command = "python -m benchmarks.question_planning " + " ".join(sys.argv[1:])
    result = {**provenance(command), "rooms": options.rooms, "seeds": list(options.seeds), "rows": rows}
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=2))
