"""Poses from a checkpoint's answers: which answers agree with one another, and where they put the photos.

Answers about pairs form a pose graph. Cycles show the wrong ones; the others place photos that no keypoints connect,
beside those that COLMAP has placed already, in metres.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from recon.mapping.factors import PoseFactors, RigidFactors
from recon.mapping.model import MapModel
from recon.mapping.pose_graph import (
    components,
    compose,
    consistent_edges,
    inverse,
    optimise,
    select,
    spanning_poses,
    triangles,
)
from recon.questions.profile import COARSE_ROTATION_DEG
from recon.types import RelativePose

_log = logging.getLogger(__name__)

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_AGREES = 4.5  # whitened residual of an edge (six numbers, 2.4 on average) up to which it supports a photo's place
_MIN_SUPPORT = 2  # edges that must agree on a photo's place: one alone is believed by nobody
_MAX_CLIQUE = 60  # registered photos up to which every pair of them closes triangles


@dataclass(frozen=True)
class Placement:
    """Where the answers put photos: ``poses`` [N, 3, 4] in metres of ``names`` [N]; ``support`` [N] agreeing answers.

    Photos of the model that was given come first and are exactly where it has them, in metres.
    """

    names: tuple[str, ...]
    poses: Float64Array
    support: IntArray
    metres_per_unit: float


def pose_factors(
    relative_poses: Sequence[RelativePose], index: Mapping[str, int], poses: Float64Array
) -> PoseFactors | None:
    """Factors of the trusted answers about photos in ``index``, None without any.

    An answer counts when it closes more triangles of answers than it breaks; one in no triangle when it agrees with
    ``poses`` [N, 3, 4] within three of its sigmas.
    """
    chosen = [p for p in relative_poses if p.trusted and p.name1 in index and p.name2 in index]
    if not chosen:
        return None
    factors = PoseFactors(
        view1=np.array([index[p.name1] for p in chosen]),
        view2=np.array([index[p.name2] for p in chosen]),
        rotation=np.array([p.rotation_cam1_from_cam2 for p in chosen]),
        direction=np.array([p.direction1 for p in chosen]),
        distance=np.array([p.distance_m for p in chosen]),
        rotation_sigma=np.radians([p.rotation_sigma_deg for p in chosen]),
        direction_sigma=np.radians([p.direction_sigma_deg for p in chosen]),
        distance_sigma=np.array([p.distance_log_sigma for p in chosen]),
    )
    closed, broken = np.zeros(len(chosen), dtype=np.int64), np.zeros(len(chosen), dtype=np.int64)
    full = np.flatnonzero(np.isfinite(factors.distance))
    if len(full):
        closed[full], broken[full] = triangles(_edges([chosen[k] for k in full], index), len(poses))
    residual = factors.values(poses)
    agrees = (np.linalg.norm(residual[:, :3], axis=1) < 3.0) & (np.linalg.norm(residual[:, 3:6], axis=1) < 3.0)
    keep = (closed > broken) | ((closed + broken == 0) & agrees)
    if not keep.any():
        return None
    _log.info("%d of %d relative poses close cycles or agree with the map", int(keep.sum()), len(chosen))
    return PoseFactors(**{name: getattr(factors, name)[keep] for name in PoseFactors.__dataclass_fields__})


def cycle_closing(relative_poses: Sequence[RelativePose]) -> list[RelativePose]:
    """The trusted answers with distances that close more triangles of answers than they break (at least one)."""
    usable = [p for p in relative_poses if p.trusted and p.distance_m > 0]
    if not usable:
        return []
    names = list(dict.fromkeys(name for p in usable for name in (p.name1, p.name2)))
    closed, broken = triangles(_edges(usable, {name: i for i, name in enumerate(names)}), len(names))
    return [p for p, good in zip(usable, closed > broken, strict=True) if good]


def with_own_spread(factors: PoseFactors, poses: Float64Array) -> PoseFactors:
    """Factors whose stated sigmas are replaced by what their cycles show, where there are many of them.

    The answers are solved by themselves (from ``poses`` [N, 3, 4]); what they leave over measures their errors on these
    photos, for rotation, direction and distance each by its median. A checkpoint's stated errors are averages over
    other photos, so they may be off by up to a factor of four here. Errors that close cycles do not show.
    """
    known = np.isfinite(factors.distance) & np.isfinite(factors.distance_sigma)
    redundancy = 1.0 - (len(poses) - 1) / max(int(known.sum()), 1)
    if redundancy < 0.5:
        return factors
    length, spread = factors.distance[known], np.hypot(factors.direction_sigma[known], factors.distance_sigma[known])
    edges = RigidFactors(
        factors.view1[known],
        factors.view2[known],
        np.concatenate(
            [factors.rotation[known], (factors.direction * factors.distance[:, None])[known, :, None]], axis=2
        ),
        factors.rotation_sigma[known],
        np.maximum(length * spread, 0.01),
    )
    settled, _ = optimise(poses, edges)
    residual = factors.values(settled)[known] ** 2
    changes = []
    for columns, median in ((slice(0, 3), 2.366), (slice(3, 6), 1.386), (slice(6, 7), 0.455)):  # of chi squared 3, 2, 1
        left = float(np.median(residual[:, columns].sum(axis=1)))
        changes.append(float(np.clip(np.sqrt(left / (median * redundancy)), 0.25, 4.0)))
    _log.info("relative poses: rotation, direction, distance err %.2f, %.2f, %.2f times as stated", *changes)
    return dataclasses.replace(
        factors,
        rotation_sigma=factors.rotation_sigma * changes[0],
        direction_sigma=factors.direction_sigma * changes[1],
        distance_sigma=factors.distance_sigma * changes[2],
    )


def _edges(poses: Sequence[RelativePose], index: Mapping[str, int]) -> RigidFactors:
    """Answers with distances as rigid motions; a shift's spread is its length's and its direction's together."""
    length = np.array([p.distance_m for p in poses])
    direction = np.radians([p.direction_sigma_deg for p in poses])
    motion = [np.column_stack([p.rotation_cam1_from_cam2, p.direction1 * p.distance_m]) for p in poses]
    return RigidFactors(
        view1=np.array([index[p.name1] for p in poses], dtype=np.int64),
        view2=np.array([index[p.name2] for p in poses], dtype=np.int64),
        cam1_from_cam2=np.array(motion).reshape(-1, 3, 4),
        rotation_sigma=np.radians([p.rotation_sigma_deg for p in poses]),
        translation_sigma=np.maximum(length * np.hypot(direction, [p.distance_log_sigma for p in poses]), 0.01),
    )


def answered_scale(model: MapModel, relative_poses: Sequence[RelativePose]) -> tuple[float, float]:
    """Metres per unit of ``model`` as the distances say (NaN without any), and the share of answers about its photos
    that agree with it within five of their sigmas (1 below three).

    Answers too coarse for maps don't count in that share: five of their sigmas are half a turn, and a checkpoint that
    coarse doesn't know its errors either, so nothing it says is a reason to give up a map.
    """
    names = set(model.names)
    about = [p for p in relative_poses if p.trusted and {p.name1, p.name2} <= names and p.distance_m > 0]
    judged = [(p, *verdict) for p, verdict in zip(about, agreement(model, about), strict=True)]
    judged = [(p, agrees, metres) for p, agrees, metres in judged if np.isfinite(metres)]
    logs = [np.log(metres) for _, agrees, metres in judged if agrees]
    votes = [agrees for p, agrees, _ in judged if p.rotation_sigma_deg <= COARSE_ROTATION_DEG]
    share = float(np.mean(votes)) if len(votes) >= 3 else 1.0
    return (float(np.exp(np.median(logs))) if logs else float("nan")), share


def agreement(model: MapModel, answers: Sequence[RelativePose]) -> list[tuple[bool, float]]:
    """For every answer about photos of ``model``: whether rotation and direction agree with it within five of their
    sigmas, and metres per unit (NaN where the photos stand in one place, about which no direction is true)."""
    index, result = {name: i for i, name in enumerate(model.names)}, []
    for p in answers:
        motion = compose(model.state.poses[index[p.name1]], inverse(model.state.poses[index[p.name2]]))
        length = float(np.linalg.norm(motion[:, 3]))
        if length <= 0:
            result.append((False, float("nan")))
            continue
        cosine = (np.trace(motion[:, :3] @ p.rotation_cam1_from_cam2.T) - 1) / 2
        turn = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        heading = np.degrees(np.arccos(np.clip(motion[:, 3] @ p.direction1 / length, -1, 1)))
        agrees = bool(turn <= 5 * p.rotation_sigma_deg and heading <= 5 * p.direction_sigma_deg)
        result.append((agrees, p.distance_m / length))
    return result


def in_answered_metres(model: MapModel, metres_per_unit: float) -> MapModel:
    """The model with the given unit; as it is where that is not known."""
    if not np.isfinite(metres_per_unit):
        return model
    poses = model.state.poses.copy()
    poses[:, :, 3] *= metres_per_unit
    state = dataclasses.replace(model.state, poses=poses, points=model.state.points * metres_per_unit)
    return dataclasses.replace(model, state=state)


def place(names: Sequence[str], model: MapModel | None, relative_poses: Sequence[RelativePose]) -> Placement | None:
    """Places the photos that trusted answers with distances can place; None when they add none.

    A photo's place needs two answers that agree with it, so a single wrong answer places nothing.
    """
    known = model.names if model is not None else ()
    metres = 1.0
    if model is not None:
        metres, agreement = answered_scale(model, relative_poses)
        if not np.isfinite(metres):
            return None
        if agreement < 0.5:
            _log.info("answers contradict the model of %d photos: they are placed without it", len(known))
            known, model = (), None
    order = [*known, *(name for name in names if name not in known)]
    index = {name: i for i, name in enumerate(order)}
    usable = [
        p
        for p in relative_poses
        if p.trusted and p.distance_m > 0 and p.name1 in index and p.name2 in index
        and not (p.name1 in known and p.name2 in known)
    ]  # fmt: skip
    if not usable:
        return None
    edges = _edges(usable, index)
    if model is not None:
        edges = _joined(_model_edges(in_answered_metres(model, metres)), edges)
    edges = select(edges, consistent_edges(edges, len(order)))
    if len(edges.view1) == 0:
        return None
    while True:
        label = components(edges, len(order))
        inside = label == (label[0] if known else np.argmax(np.bincount(label)))
        members = np.flatnonzero(inside)
        row = np.full(len(order), -1)
        row[members] = np.arange(len(members))
        edges = select(edges, inside[edges.view1])
        local = dataclasses.replace(edges, view1=row[edges.view1], view2=row[edges.view2])
        if len(members) < 2 or len(local.view1) == 0:
            return None
        poses = spanning_poses(local, 1.0 / local.rotation_sigma, len(members), root=0)
        poses, residual = optimise(poses, local)
        good = residual <= _AGREES
        support = np.bincount(np.concatenate([local.view1[good], local.view2[good]]), minlength=len(members))
        # two photos alone have one answer between them: nothing can check it, and there is nothing better
        alone = len(members) == 2 and not known
        if (support >= (1 if alone else _MIN_SUPPORT)).all() or good.sum() == 0:
            break
        weak = members[support < _MIN_SUPPORT]
        weak = weak[weak >= len(known)]
        if len(weak) == 0:
            break
        edges = select(edges, ~np.isin(edges.view1, weak) & ~np.isin(edges.view2, weak))
        if len(edges.view1) == 0:
            return None
    if good.sum() == 0 or len(members) <= len(known):
        return None
    if known:  # the first photo is held still by the graph, the others of the model by stiff edges
        start = in_answered_metres(model, metres).state.poses if model is not None else poses
        poses = compose(poses, start[0][None])
        poses[: len(known)] = start
    chosen = tuple(order[m] for m in members)
    _log.info("answers place %d photos beside %d of the model", len(chosen) - len(known), len(known))
    return Placement(chosen, poses, support.astype(np.int64), metres if known else 1.0)


def _model_edges(model: MapModel) -> RigidFactors:
    """Stiff edges between the model's photos: all pairs, or a star when they are many."""
    n = len(model.names)
    pairs = np.array(list(combinations(range(n), 2)) if n <= _MAX_CLIQUE else [(0, k) for k in range(1, n)])
    poses = model.state.poses
    motion = compose(poses[pairs[:, 0]], inverse(poses[pairs[:, 1]]))
    extent = float(np.linalg.norm(np.ptp(inverse(poses)[:, :, 3], axis=0)))
    count = len(pairs)
    return RigidFactors(pairs[:, 0], pairs[:, 1], motion, np.full(count, 1e-4), np.full(count, 1e-4 * extent + 1e-9))


def _joined(first: RigidFactors, second: RigidFactors) -> RigidFactors:
    both = zip(dataclasses.astuple(first), dataclasses.astuple(second), strict=True)
    return RigidFactors(*(np.concatenate(pair) for pair in both))
