"""Asking the checkpoints about every photo and every pair, each answer set stored as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pipelines.models import TaskModel
from pipelines.stages import Stages
from recon.capture.folder import load_pixels, load_sensor_depth
from recon.capture.masks import load_mask
from recon.errors import BadInputError
from recon.questions.sampling import Planning
from recon.types import Camera, Capture, DepthSamples, ImageArray, Matches, Rejected, RelativePose, View

Pair = tuple[str, str]


@dataclass(frozen=True)
class AskOptions:
    """How many questions are asked."""

    budget: int = 256
    """depth questions per photo"""
    planning: Planning = "uniform"
    """how they are spent: evenly, or three quarters so and the rest where those answers leave most open"""
    match_budget: int = 64
    """correspondence questions per pair of photos"""

    def __post_init__(self) -> None:
        for name in ("budget", "match_budget"):
            if getattr(self, name) < 1:
                raise BadInputError(f"--{name.replace('_', '-')} must be 1 or more, found {getattr(self, name)}")


def ask_depths(
    stages: Stages, model: TaskModel, capture: Capture, cameras: Mapping[str, Camera], options: AskOptions
) -> list[DepthSamples]:
    """Metric depth at pixels of every photo, chosen as ``options.planning`` says."""
    from recon.evidence.depth import ask_depth

    def ask(name: str) -> DepthSamples:
        view = capture.view(name)
        return ask_depth(
            model.engine, view, load_pixels(view), cameras[name], options.budget, load_mask(view),
            planning=options.planning,
        )  # fmt: skip

    plan = (options.budget, options.planning)
    keys = {v.name: (model.identity, _pixels(v), cameras[v.name], plan) for v in capture.views}
    found = stages.each("depth answers", DepthSamples, keys, ask, room="evidence", counts=_depth_counts)
    model.release()
    return list(found.values())


def read_sensors(stages: Stages, capture: Capture, options: AskOptions) -> list[DepthSamples]:
    """Sensor depth at pixels spread over every photo that has it; ``budget`` as for questions."""
    from recon.evidence.depth import sensor_samples

    def read(name: str) -> DepthSamples:
        view = capture.view(name)
        depth_m = load_sensor_depth(view)
        if depth_m is None:
            raise BadInputError(f"{name}: has no sensor depth")
        return sensor_samples(view, depth_m, options.budget, load_mask(view))

    keys = {v.name: (_pixels(v), v.depth_path, options.budget) for v in capture.views if v.depth_path is not None}
    return list(stages.each("sensor depth", DepthSamples, keys, read, room="evidence").values())


def ask_pairs_for_matches(
    stages: Stages,
    model: TaskModel,
    capture: Capture,
    cameras: Mapping[str, Camera],
    pairs: Sequence[Pair],
    options: AskOptions,
) -> list[Matches]:
    """Correspondences of every pair, checked by asking the way back."""
    from recon.evidence.matches import ask_matches

    load = _photo_loader(capture)

    def ask(pair: Pair) -> Matches:
        view1, view2 = capture.view(pair[0]), capture.view(pair[1])
        return ask_matches(
            model.engine, view1, load(view1.name), cameras[view1.name], view2, load(view2.name), cameras[view2.name],
            options.match_budget, load_mask(view1), load_mask(view2),
        )  # fmt: skip

    keys = _pair_keys(model, capture, cameras, pairs, options.match_budget)
    found = stages.each(
        "match answers", Matches, keys, ask, room="evidence", unit="pairs",
        counts=lambda results: {"matches": sum(len(m.pixels1) for m in results.values())},
    )  # fmt: skip
    model.release()
    return list(found.values())


def ask_pairs_for_poses(
    stages: Stages, model: TaskModel, capture: Capture, cameras: Mapping[str, Camera], pairs: Sequence[Pair]
) -> list[RelativePose]:
    """The camera's motion between the photos of every pair; contradicting answers are rejected."""
    from recon.evidence.poses import ask_pose

    load = _photo_loader(capture)

    def ask(pair: Pair) -> RelativePose | Rejected:
        view1, view2 = capture.view(pair[0]), capture.view(pair[1])
        reasons: list[Rejected] = []
        pose = ask_pose(
            model.engine, view1, load(view1.name), cameras[view1.name], view2, load(view2.name), cameras[view2.name],
            on_rejected=reasons.append,
        )  # fmt: skip
        return pose if pose is not None else reasons[0]

    keys = _pair_keys(model, capture, cameras, pairs)
    found = stages.each("pose answers", RelativePose, keys, ask, room="evidence", unit="pairs")
    model.release()
    return list(found.values())


def _pair_keys(
    model: TaskModel, capture: Capture, cameras: Mapping[str, Camera], pairs: Sequence[Pair], *more: object
) -> dict[Pair, tuple[object, ...]]:
    """What each pair's answers depend on."""
    photos = {view.name: (_pixels(view), cameras[view.name]) for view in capture.views}
    identity = model.identity
    return {(a, b): (identity, photos[a], photos[b], *more) for a, b in pairs}


def _pixels(view: View) -> tuple[object, ...]:
    """What a photo's answers depend on (the name is part of the evidence)."""
    return (view.name, view.content_hash, view.mask_path)


def _photo_loader(capture: Capture) -> Callable[[str], ImageArray]:
    """Loads photos by name and keeps the last few: pairs come sorted by their first photo."""

    @lru_cache(maxsize=8)
    def load(name: str) -> ImageArray:
        return load_pixels(capture.view(name))

    return load


def _depth_counts(results: Mapping[str, DepthSamples]) -> dict[str, int | float]:
    return {
        "asked": sum(s.num_asked for s in results.values()),
        "parsed": sum(s.num_parsed for s in results.values()),
        "kept": sum(len(s.depth_m) for s in results.values()),
    }
