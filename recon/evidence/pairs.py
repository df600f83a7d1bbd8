"""Which pairs of photos are compared: all when few, otherwise neighbours in order, in space and in looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from recon.capture.gps import enu_positions
from recon.types import Capture


@dataclass(frozen=True)
class PairOptions:
    """Limits of pair selection.

    Attributes:
        exhaustive_up_to: captures of at most this many photos compare all pairs.
        sequence_neighbours: photos compared before and after each one in capture order (1, 2, ... and then also at
            distances 2^k, which close small loops, where the capture is a sequence in time).
        gps_neighbours: nearest photos by GPS compared with each one.
        look_neighbours: most similar photos, by their keypoints, compared with each one where neither time nor GPS
            says what is near.
        loop_neighbours: the same where time or GPS does say it: what a walk comes back to.
    """

    exhaustive_up_to: int = 60
    sequence_neighbours: int = 8
    gps_neighbours: int = 12
    look_neighbours: int = 20
    loop_neighbours: int = 5


_WIDER_THAN_ERRORS = 3.0  # fixes that spread less than this many of their errors don't tell who is near

Looks = Callable[[], NDArray[np.floating]]


def choose_pairs(
    capture: Capture, options: PairOptions | None = None, looks: Looks | None = None
) -> list[tuple[str, str]]:
    """Pairs of photo names, each once and in capture order.

    Args:
        capture: the photos; ``is_sequence`` says that their order is time.
        options: limits.
        looks: gives one feature vector per photo, ``[N, D]``, compared by cosine (zeros: nothing is known of it);
            called for captures of more than ``exhaustive_up_to`` photos only. None: nothing is known; then photos
            without GPS and in no order are all compared.
    """
    options = options or PairOptions()
    names = [view.name for view in capture.views]
    if len(names) <= options.exhaustive_up_to:
        return list(combinations(names, 2))
    chosen, placed = _near_by_order_and_place(capture, options)
    if looks is not None:
        distance = _distances(looks())
        for i, j in chosen:  # frames beside one another look alike anyway: others are wanted
            distance[i, j] = distance[j, i] = np.nan
        chosen |= _nearest(distance, _wanted(placed, options))
    elif not placed.any():
        return list(combinations(names, 2))  # names in order are no evidence
    return [(names[i], names[j]) for i, j in sorted(chosen)]


def most_pairs(capture: Capture, options: PairOptions) -> int:
    """How many pairs :func:`choose_pairs` will choose at most, before anything is known of how photos look."""
    n = len(capture.views)
    if n <= options.exhaustive_up_to:
        return n * (n - 1) // 2
    chosen, placed = _near_by_order_and_place(capture, options)
    return min(len(chosen) + int(_wanted(placed, options).sum()), n * (n - 1) // 2)


def _wanted(placed: NDArray[np.bool_], options: PairOptions) -> NDArray[np.int64]:
    return np.where(placed, options.loop_neighbours, options.look_neighbours)


def _near_by_order_and_place(capture: Capture, options: PairOptions) -> tuple[set[tuple[int, int]], NDArray[np.bool_]]:
    """Index pairs (i < j) that are near in order or by GPS, and of which photos [N] time or GPS tells what is near."""
    n = len(capture.views)
    gaps = set(range(1, options.sequence_neighbours + 1))
    if capture.is_sequence:
        gaps |= {2**k for k in range(1, n.bit_length()) if 2**k < n}
    chosen = {(i, i + gap) for gap in gaps for i in range(n - gap)}
    placed = np.full(n, capture.is_sequence)
    positions = enu_positions([view.gps for view in capture.views])
    if positions is not None:
        flat = positions.enu_m[:, :2]  # altitude from a phone is too coarse to choose by
        distance = np.linalg.norm(flat[:, None] - flat[None], axis=2)  # [N, N]
        chosen |= _nearest(distance, np.full(n, options.gps_neighbours))
        if np.nanstd(flat, axis=0).max() > _WIDER_THAN_ERRORS * np.nanmedian(positions.sigma_m[:, 0]):
            placed |= np.isfinite(flat).all(axis=1)  # and not a walk around a statue, whose fixes are all alike
    return chosen, placed


def _distances(looks: NDArray[np.floating]) -> NDArray[np.floating]:
    """1 - cosine of vectors [N, D], [N, N]; NaN where one is zero."""
    length = np.linalg.norm(looks, axis=1, keepdims=True)
    unit = looks / np.where(length > 0, length, np.nan)
    return np.asarray(1.0 - unit @ unit.T)


def _nearest(distance: NDArray[np.floating], wanted: NDArray[np.int64]) -> set[tuple[int, int]]:
    """Index pairs (i < j) of each row's nearest others, ``wanted`` [N] of them; NaN is never near."""
    distance = np.where(np.isfinite(distance), distance, np.inf)
    np.fill_diagonal(distance, np.inf)
    pairs = set()
    for i, row in enumerate(distance):
        for j in np.argsort(row, kind="stable")[: wanted[i]]:
            if np.isfinite(row[j]):
                pairs.add((min(i, int(j)), max(i, int(j))))
    return pairs
