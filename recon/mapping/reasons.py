"""Why photos are not in the map, in words for the one who took them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from recon.errors import MappingError
from recon.evidence.features import turning_pairs, verified_counts
from recon.types import Capture, Rejected


def no_map(reasons: Sequence[Rejected], log: Sequence[str]) -> MappingError:
    """The error of a capture of which no two photos could be placed."""
    detail = "; ".join(f"{r.name}: {r.reason}" for r in reasons[:3])
    return MappingError(
        f"no two photos could be placed ({'; '.join(log)}); {detail}; photos must overlap, show texture and be "
        "taken from different places"
    )


def reasons(
    database_path: Path,
    capture: Capture,
    counts: Mapping[str, int],
    registered: set[str],
    min_keypoints: int,
    need: int,
    apart: Mapping[str, str],
) -> list[Rejected]:
    """Why each photo outside ``registered`` is not in the map; ``apart``: a photo of a place that looks alike."""
    verified = verified_counts(database_path)
    turning = turning_pairs(database_path)
    result = []
    for view in capture.views:
        if view.name in registered:
            continue
        mine = {pair: n for pair, n in verified.items() if view.name in pair}
        others = {a if b == view.name else b for a, b in mine}
        inside = others & registered
        best = max(mine.values(), default=0)
        twin = next(
            (v.name for v in capture.views if v.content_hash == view.content_hash and v.name != view.name), None
        )
        if twin is not None:
            reason = f"its pixels equal those of {twin}: no baseline between them"
        elif counts[view.name] < min_keypoints:
            reason = f"only {counts[view.name]} keypoints found: blurred, empty or masked"
        elif view.name in apart:
            reason = (
                f"its place looks like that of {apart[view.name]}, but what is around differs, and nothing else ties "
                "it to the map: photos that lead from one place to the other would"
            )
        elif not mine:
            reason = "no verified matches with any other photo"
        elif registered and not inside:
            reason = f"matches only {len(others)} photos that are not in the map themselves (at most {best} matches)"
        elif not registered and all(pair in turning for pair in mine):
            reason = (
                f"its {sum(mine.values())} matches with {len(others)} photos fit a camera that only turned in its "
                "place: without a step aside nothing tells depth"
            )
        else:
            with_map = sum(n for pair, n in mine.items() if set(pair) & inside) if inside else sum(mine.values())
            reason = (
                f"{with_map} verified matches with {len(inside or others)} photos (at most {best} with one), too few "
                f"or too contradictory to place it (needs {need} that agree with map points)"
            )
        result.append(Rejected(view.name, reason))
    return result
