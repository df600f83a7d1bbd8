"""Intervals of any figure by the bootstrap over photos or scenes: answers about one photo share their errors, so whole
groups are drawn, not single answers (the cluster bootstrap; Efron and Tibshirani, 1993, percentile intervals).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of a figure over the resamples; NaN at both ends when there are not two groups to draw from."""

    low: float
    high: float


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], Mapping[str, float]],
    groups: Sequence[Hashable],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of every figure that ``statistic`` returns.

    Args:
        statistic: figures by name of chosen rows ``[M]`` (a row occurs as often as its group was drawn). A figure may
            be NaN where the rows do not define it; such resamples are left out for it.
        groups: the group (photo, pair, scene) of each of the N rows.
        resamples: how many times as many groups as there are are drawn with replacement.
        seed: of the draws.

    Raises:
        ValueError: no rows, or fewer than 2 resamples.
    """
    if len(groups) == 0 or resamples < 2:
        raise ValueError(f"expected rows and at least 2 resamples, got {len(groups)} rows and {resamples} resamples")
    rows_of: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows_of.setdefault(group, []).append(row)
    members = [np.array(rows, dtype=np.int64) for rows in rows_of.values()]
    names = list(statistic(np.arange(len(groups))))
    if len(members) < 2:
        return {name: Interval(float("nan"), float("nan")) for name in names}
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(resamples):
        chosen = rng.integers(0, len(members), len(members))
        figures = statistic(np.concatenate([members[i] for i in chosen]))
        for name in names:
            drawn[name].append(figures[name])
    tail = 50.0 * (1.0 - LEVEL)
    intervals = {}
    for name, values in drawn.items():
        known = np.array(values, dtype=np.float64)
        known = known[np.isfinite(known)]
        low, high = np.percentile(known, [tail, 100.0 - tail]) if len(known) else (np.nan, np.nan)
        intervals[name] = Interval(float(low), float(high))
    return intervals
