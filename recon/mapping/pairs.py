"""Which pairs of photos are compared: all when few, otherwise neighbours in order, in space and in looks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from recon.mapping.georeference import enu_positions
from recon.types import Capture


@dataclass(frozen=True)
class PairOptions:
    """Limits of pair selection.

    Attributes:
        exhaustive_up_to: captures of at most this many photos compare all pairs.
        sequence_neighbours: photos compared before and after each one in capture order (1, 2, ... and then also at
            distances 2^k, which close small loops, where the capture is a sequence in time).
        gps_neighbours: nearest photos by GPS compared with each one.
        look_neighbours: nearest photos by image features compared with each one.
    """

    exhaustive_up_to: int = 60
    sequence_neighbours: int = 8
    gps_neighbours: int = 12
    look_neighbours: int = 12


def choose_pairs(
    capture: Capture, options: PairOptions | None = None, looks: NDArray[np.floating] | None = None
) -> list[tuple[str, str]]:
    """Pairs of photo names, each once and in capture order.

    Args:
        capture: the photos; ``is_sequence`` says that their order is time.
        options: limits.
        looks: one feature vector per photo, ``[N, D]``, compared by cosine.
    """
    options = options or PairOptions()
    names = [view.name for view in capture.views]
    n = len(names)
    if n <= options.exhaustive_up_to:
        return list(combinations(names, 2))
    chosen: set[tuple[int, int]] = set()
    gaps = set(range(1, options.sequence_neighbours + 1))
    if capture.is_sequence:
        gaps |= {2**k for k in range(1, n.bit_length()) if 2**k < n}
    chosen |= {(i, i + gap) for gap in gaps for i in range(n - gap)}

    positions = enu_positions([view.gps for view in capture.views])
    if positions is not None:
        flat = positions.enu_m[:, :2]  # altitude from a phone is too coarse to choose by
        distance = np.linalg.norm(flat[:, None] - flat[None], axis=2)  # [N, N]
        chosen |= _nearest(distance, options.gps_neighbours)
    if looks is not None:
        unit = looks / np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1e-12)
        chosen |= _nearest(1.0 - unit @ unit.T, options.look_neighbours)
    elif positions is None and not capture.is_sequence:
        # Nothing says which photos are near one another: names in order are no evidence, so all pairs it is.
        return list(combinations(names, 2))
    return [(names[i], names[j]) for i, j in sorted(chosen)]


def _nearest(distance: NDArray[np.floating], count: int) -> set[tuple[int, int]]:
    """Index pairs (i < j) of each row's nearest others; NaN is never near."""
    distance = np.where(np.isfinite(distance), distance, np.inf)
    np.fill_diagonal(distance, np.inf)
    pairs = set()
    for i, row in enumerate(distance):
        for j in np.argsort(row, kind="stable")[:count]:
            if np.isfinite(row[j]):
                pairs.add((min(i, int(j)), max(i, int(j))))
    return pairs
