"""Whether keypoints hold a map by themselves: a checkpoint's matches, whose refinement takes most of the time, then add
nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from recon.mapping.answers import agreement, cycle_closing
from recon.mapping.lookalikes import look_alikes
from recon.mapping.model import MapModel
from recon.types import RelativePose

_log = logging.getLogger(__name__)

MIN_OBSERVATIONS = 10  # of a registered photo: fewer do not hold its six unknowns
_MIN_TIED = 5  # of them, of points that three photos see
_FIRMLY = 100  # observations of a photo that needs no more of them
_LEAST_ANSWERS = 3  # about a photo's pose that can confirm it
_LEAST_AGREEING = 0.8  # share of them that must agree


def is_confirmed(
    model: MapModel | None,
    names: Sequence[str],
    relative_poses: Sequence[RelativePose],
    verified: Iterable[tuple[str, str]],
) -> bool:
    """Whether a map made of keypoints alone holds all photos firmly and the answers about poses say the same, and its
    ``verified`` pairs hide no look-alikes.

    Every photo needs three answers or more that close cycles, of which four in five agree with the map: a map that
    look-alikes have bent somewhere fails there.
    """
    if model is None or len(model.names) < len(names) or loose(model):
        return False
    if (model.observations_per_view() < _FIRMLY).any():
        return False
    answers = cycle_closing(relative_poses)
    index = {name: i for i, name in enumerate(model.names)}
    asked, agreeing = np.zeros(len(index), dtype=np.int64), np.zeros(len(index), dtype=np.int64)
    for answer, (agrees, _) in zip(answers, agreement(model, answers), strict=True):
        for name in (answer.name1, answer.name2):
            asked[index[name]] += 1
            agreeing[index[name]] += agrees
    share = agreeing / np.maximum(asked, 1)
    agreed = bool((asked >= _LEAST_ANSWERS).all() and (share >= _LEAST_AGREEING).all())
    confirmed = agreed and not look_alikes(model, verified)
    _log.info("keypoints hold %d photos; answers agree by %.2f at least: %s", len(index), share.min(), confirmed)
    return confirmed


def loose(model: MapModel) -> list[str]:
    """Photos that too few observations hold, or too few of points that two others see as well.

    The latter tie a photo to the scale of the rest; a mapper that placed it by map points had fifteen of them.
    """
    obs = model.observations
    shared = np.bincount(obs.point, minlength=len(model.state.points))[obs.point] >= 3
    tied: NDArray[np.int64] = np.bincount(obs.view[shared], minlength=len(model.names))
    enough = (model.observations_per_view() >= MIN_OBSERVATIONS) & ((tied >= _MIN_TIED) | (len(model.names) < 3))
    return [name for name, good in zip(model.names, enough, strict=True) if not good]
