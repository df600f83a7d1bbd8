"""The figure and the numbers of ``docs/ablations.md`` from ``benchmarks/results/ablations.json``.

    python -m benchmarks.ablations_figure

Intervals are 95 %, bootstrap over photos, with the seeds of an arm averaged per photo: they say how far other photos
would move the figure, not other seeds, whose own means are printed beside and drawn as points. Differences are of the
same photos.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.ablations import RESULTS
from recon.evaluation.bootstrap import bootstrap

FIGURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "ablations.png"


@dataclass(frozen=True)
class Figure:
    """A mean over photos with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def per_photo(
    runs: dict[str, Any], comparison: str, arm: str, name: str, figure: str = "delta1"
) -> NDArray[np.float64]:
    """A figure of every photo of a set, averaged over the arm's seeds."""
    found = [run["sets"][name][figure] for run in runs.values() if (run["comparison"], run["arm"]) == (comparison, arm)]
    return np.mean(found, axis=0)


def per_seed(runs: dict[str, Any], comparison: str, arm: str, *names: str) -> list[float]:
    """Mean δ1 over the photos of a set (or the mean of several sets') for every seed of an arm."""
    chosen = [run for run in runs.values() if (run["comparison"], run["arm"]) == (comparison, arm)]
    chosen.sort(key=lambda run: int(run["seed"]))
    return [float(np.mean([np.mean(run["sets"][name]["delta1"]) for name in names])) for run in chosen]


def mean_of(*sets: NDArray[np.float64]) -> Figure:
    """The mean of the sets' means over photos."""
    groups = [f"{k}-{photo}" for k, values in enumerate(sets) for photo in range(len(values))]
    rows = np.concatenate([np.stack([np.full(len(values), k), values], axis=1) for k, values in enumerate(sets)])

    def statistic(chosen: NDArray[np.int64]) -> dict[str, float]:
        drawn = rows[chosen]
        parts = [drawn[drawn[:, 0] == k, 1] for k in range(len(sets))]
        return {"mean": float(np.mean([part.mean() for part in parts])) if all(map(len, parts)) else float("nan")}

    interval = bootstrap(statistic, groups)["mean"]
    return Figure(float(np.mean([values.mean() for values in sets])), interval.low, interval.high)


def scale_error_per_zoom(runs: dict[str, Any], arm: str) -> Figure:
    """How ln(estimate / truth) of a photo grows with the ln of its field of view (long edge in focal lengths): 0 when
    the lens is known, 1 when nothing in the picture tells it."""
    wide = np.log(per_photo(runs, "focal", arm, "rooms", "long_edge"))
    error = per_photo(runs, "focal", arm, "rooms", "log_ratio")

    def statistic(rows: NDArray[np.int64]) -> dict[str, float]:
        away = wide[rows] - wide[rows].mean()
        spread = float((away**2).sum())  # 0 when one photo alone was drawn
        return {"slope": float((away * error[rows]).sum()) / spread if spread > 1e-12 else float("nan")}

    everything = np.arange(len(wide))
    slope = bootstrap(statistic, everything.tolist())["slope"]
    return Figure(statistic(everything)["slope"], slope.low, slope.high)


def summary(runs: dict[str, Any]) -> dict[str, Figure]:
    """All figures of the page by name."""
    figures: dict[str, Figure] = {}
    seen = {arm: per_photo(runs, "focal", arm, "rooms") for arm in ("unified", "not unified")}
    for arm, values in seen.items():
        figures[f"focal / {arm}"] = mean_of(values)
        figures[f"focal / {arm} / scale error per field of view"] = scale_error_per_zoom(runs, arm)
    figures["focal / unified - not unified"] = mean_of(seen["unified"] - seen["not unified"])
    asked = {
        arm: per_photo(runs, "questions", arm, "rooms")
        for arm in ("1", "10")
        if any((run["comparison"], run["arm"]) == ("questions", arm) for run in runs.values())
    }
    for arm, values in asked.items():
        figures[f"questions / {arm}"] = mean_of(values)
    if len(asked) == 2:
        figures["questions / 10 - 1"] = mean_of(asked["10"] - asked["1"])
    arms = mixture_arms(runs)
    sets = {arm: [per_photo(runs, "mixture", arm, name) for name in ("rooms", "blocks")] for arm in arms}
    for arm in arms:
        for name, values in zip(("rooms", "blocks"), sets[arm], strict=True):
            figures[f"mixture / {arm} / {name}"] = mean_of(values)
        figures[f"mixture / {arm} / mean"] = mean_of(*sets[arm])
    difference = [a - b for a, b in zip(sets["uniform"], sets["by-size"], strict=True)]
    figures["mixture / uniform - by-size / mean"] = mean_of(*difference)
    # every other photo chooses the share, the rest say what the choice is worth
    tuned = max(arms, key=lambda arm: float(np.mean([values[::2].mean() for values in sets[arm]])))
    figures[f"mixture / tuned ({tuned}) / mean, other photos"] = mean_of(*(values[1::2] for values in sets[tuned]))
    return figures


def seeds_summary(runs: dict[str, Any]) -> dict[str, list[float]]:
    """Mean δ1 of every seed, by comparison, arm and set."""
    sets = {"focal": {"rooms": ("rooms",)}, "questions": {"rooms": ("rooms",)}}
    sets["mixture"] = {"rooms": ("rooms",), "blocks": ("blocks",), "mean": ("rooms", "blocks")}
    arms = dict.fromkeys((run["comparison"], run["arm"]) for run in runs.values())
    return {
        f"{comparison} / {arm} / {label}": per_seed(runs, comparison, arm, *names)
        for comparison, arm in arms
        for label, names in sets[comparison].items()
    }


def mixture_arms(runs: dict[str, Any]) -> dict[str, float]:
    """Share of the blocks of every arm of the third comparison, from little to much."""
    shares = {run["arm"]: run["share_of_blocks"] for run in runs.values() if run["comparison"] == "mixture"}
    return dict(sorted(shares.items(), key=lambda entry: entry[1]))


def draw(runs: dict[str, Any], path: Path) -> None:
    """Writes the figure."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figures = summary(runs)
    canvas, (left, middle, right) = plt.subplots(1, 3, figsize=(11.5, 3.4), layout="constrained")
    bars = [figures["focal / unified"], figures["focal / not unified"]]
    _bars(left, ["one focal\nlength", "one long\nedge"], bars, "#4477aa",
          [per_seed(runs, "focal", arm, "rooms") for arm in ("unified", "not unified")])  # fmt: skip
    left.set_title("Focal length unified?", fontsize=10)
    left.set_ylabel("δ1 on validation worlds")
    asked = [arm for arm in ("1", "10") if f"questions / {arm}" in figures]
    _bars(middle, asked, [figures[f"questions / {arm}"] for arm in asked], "#228833",
          [per_seed(runs, "questions", arm, "rooms") for arm in asked])  # fmt: skip
    middle.set_title("Questions per image", fontsize=10)
    arms = mixture_arms(runs)
    for name, colour in (("rooms", "#4477aa"), ("blocks", "#ee6677"), ("mean", "#222222")):
        points = [figures[f"mixture / {arm} / {name}"] for arm in arms]
        errors = [[p.value - p.low for p in points], [p.high - p.value for p in points]]
        right.errorbar(
            list(arms.values()), [p.value for p in points], errors, color=colour, marker="o", capsize=3, label=name
        )
        sets = ("rooms", "blocks") if name == "mean" else (name,)
        for arm, share in arms.items():
            found = per_seed(runs, "mixture", arm, *sets)
            right.plot([share + 0.012] * len(found), found, "_", color=colour, markersize=7)
    right.set_title("Share of the blocks in the mixture", fontsize=10)
    right.set_xticks(list(arms.values()), [f"{share:.2f}\n{arm}" for arm, share in arms.items()], fontsize=8)
    right.set_ylim(0, None)
    right.legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=110)


def _bars(axes: Any, names: list[str], figures: list[Figure], colour: str, seeds: list[list[float]]) -> None:
    errors = [[f.value - f.low for f in figures], [f.high - f.value for f in figures]]
    axes.bar(names, [f.value for f in figures], yerr=errors, color=colour, width=0.55, capsize=4)
    for place, (figure, found) in enumerate(zip(figures, seeds, strict=True)):
        axes.plot([place - 0.12] * len(found), found, "_", color="#222222", markersize=9)
        axes.text(place + 0.05, figure.value, f"{figure.value:.3f}", va="bottom", ha="left", fontsize=9)


@dataclass(frozen=True)
class Options:
    results: Path = RESULTS
    """What ``benchmarks.ablations`` wrote."""
    out: Path = FIGURE
    """Picture to write."""


def main(options: Options) -> None:
    """Draws the figure and prints the numbers."""
    runs = json.loads(options.results.read_text(encoding="utf-8"))["runs"]
    for name, figure in summary(runs).items():
        print(f"{name}: {figure}")
    for name, means in seeds_summary(runs).items():
        print(f"{name}, seeds: {' '.join(f'{mean:.3f}' for mean in means)}")
    draw(runs, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options))
