"""The map of a capture: from photos (and what else is known about them) to poses, points and reasons.

Features, pairs and verified matches go into COLMAP's database; COLMAP's mappers, or for RGB-D captures our own mapper,
make the first model; one adjustment with all evidence refines it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.errors import MappingError
from recon.evidence.added import add_matches
from recon.evidence.features import (
    FeatureOptions,
    extract_features,
    image_ids,
    match_features,
    verified_counts,
)
from recon.evidence.looks import photo_looks
from recon.evidence.pairs import PairOptions, choose_pairs
from recon.evidence.subpixel import SubpixelOptions
from recon.mapping.answers import answered_scale, cycle_closing, in_answered_metres, place, pose_factors
from recon.mapping.bundle import reprojection_errors
from recon.mapping.coarse import sharpen
from recon.mapping.complete import complete_map
from recon.mapping.focal_priors import focal_priors
from recon.mapping.held import MIN_OBSERVATIONS, is_confirmed, loose
from recon.mapping.incremental import MapperOptions, run_mappers
from recon.mapping.lookalikes import drop_pairs_between, look_alikes, two_places
from recon.mapping.model import MapModel, drop_views, to_scene, write_model
from recon.mapping.positions import in_gps_metres
from recon.mapping.reasons import no_map, reasons
from recon.mapping.refine import RefineOptions, refine
from recon.mapping.rgbd import map_with_depth
from recon.mapping.rgbd_pairs import RgbdOptions
from recon.mapping.veto import drop_contradicted_pairs
from recon.types import Camera, Capture, Matches, Rejected, RelativePose, Scene

_log = logging.getLogger(__name__)

_AGREED = 0.9  # share of the answers about poses that agree with a map which nothing has bent
_MORE_STARTS = 3  # of the mapper where fewer do
_MOST_PLACES = 4  # that look alike are taken apart one after the other


@dataclass(frozen=True)
class MapOptions:
    """Options of every step of mapping."""

    features: FeatureOptions = field(default_factory=FeatureOptions)
    pairs: PairOptions = field(default_factory=PairOptions)
    subpixel: SubpixelOptions = field(default_factory=SubpixelOptions)
    mapper: MapperOptions = field(default_factory=MapperOptions)
    rgbd: RgbdOptions = field(default_factory=RgbdOptions)
    refine: RefineOptions = field(default_factory=RefineOptions)


def build_map(
    workspace: Path,
    capture: Capture,
    cameras: Mapping[str, Camera],
    matches: Sequence[Matches] = (),
    relative_poses: Sequence[RelativePose] = (),
    options: MapOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scene:
    """Recovers poses and points of as many photos as the evidence allows.

    Reads ``workspace/images``, writes ``workspace/database.db`` and ``workspace/sparse/0``. What the database holds
    already is not computed again. The scene's unit is arbitrary (``scale`` unknown) except that RGB-D captures come
    out in sensor metres, which ``estimate_scale`` then confirms.

    Args:
        workspace: folder in COLMAP's layout.
        capture: the photos.
        cameras: initial intrinsics by photo name.
        matches: a checkpoint's matches, not yet verified.
        relative_poses: a checkpoint's relative poses; those that are trusted and agree with the map hold it together.
        options: of every step.
        progress: called with (steps done, steps).

    Raises:
        MappingError: fewer than two photos can be placed, with the reason.
    """
    options = options or MapOptions()
    report = progress or (lambda done, total: None)
    if len(capture.views) < 2:
        found = "no photo" if not capture.views else "one photo"
        raise MappingError(f"{workspace / 'images'}: found {found}; a map takes at least 2 photos that overlap")
    database_path, images_dir = workspace / "database.db", workspace / "images"
    given = {view.name: cameras[view.name] for view in capture.views if view.camera is not None}
    counts = extract_features(database_path, capture, cameras, options.features)
    report(1, 4)
    pairs = choose_pairs(capture, options.pairs, lambda: photo_looks(database_path, [v.name for v in capture.views]))
    match_features(database_path, pairs, options.features)
    drop_contradicted_pairs(database_path, cameras, relative_poses)
    model: MapModel | None = None
    log: list[str] = []
    apart: dict[str, str] = {}
    answers: list[Matches] = []
    with_depth = any(view.depth_path for view in capture.views)
    if matches and relative_poses and not with_depth:
        first, log = run_mappers(database_path, images_dir, options.mapper, frozenset(given), attempts=1)
        first = _with_given(first, given)
        names, verified = [view.name for view in capture.views], verified_counts(database_path)
        model = first if is_confirmed(first, names, relative_poses, verified) else None
    if model is None:
        answers = sharpen(capture, cameras, matches, options.subpixel)
        if answers:
            add_matches(database_path, answers, options.features)
            drop_contradicted_pairs(database_path, cameras, relative_poses)
        model, log, apart = _first_model_of_one_place(database_path, images_dir, capture, cameras, options)
        if model is not None and not with_depth:
            model = _most_agreed(model, database_path, images_dir, relative_poses, options.mapper, given)
    report(2, 4)
    if model is not None and _solid(model) is not model:
        log.append(f"{model.num_registered} photos, but fewer than {MIN_OBSERVATIONS} observations in some")
        model = _solid(model)
    all_given = len(given) == len(capture.views)

    def why_not(registered: Sequence[str]) -> list[Rejected]:
        limits = options.features.min_inliers, options.mapper.min_registration_inliers
        return reasons(database_path, capture, counts, set(registered), *limits, apart)

    model = _with_answers(model, database_path, capture, cameras, answers, relative_poses, all_given)
    report(3, 4)
    if model is None:
        raise no_map(why_not(()), log)

    def adjusted(current: MapModel) -> tuple[MapModel, NDArray[np.float64]]:
        if np.isfinite(current.observations.depth).any():  # RGB-D: the depth maps have placed the photos
            return current, reprojection_errors(current.state, current.observations)
        positions = None
        if len(current.observations.view) <= options.refine.max_observations:
            current, positions = in_gps_metres(current, capture)
        factors = pose_factors(relative_poses, {name: i for i, name in enumerate(current.names)}, current.state.poses)
        priors = focal_priors(current.names, current.state.camera_of_view, cameras)
        return refine(current, options.refine, factors, positions, constant_intrinsics=all_given, focal_priors=priors)

    model, errors = adjusted(model)
    weak = _weak(model, relative_poses)
    if len(model.names) - len(weak) < 2:
        log.append(f"of {len(model.names)} photos fewer than two keep {MIN_OBSERVATIONS} observations")
        raise no_map(why_not(()), log)
    if weak:
        model = drop_views(model, weak)
        model, errors = adjusted(model)
    unregistered = why_not(model.names)
    scene = to_scene(model, errors, unregistered)
    write_model(scene, workspace / "sparse" / "0", image_ids(database_path))
    report(4, 4)
    return scene


def _first_model_of_one_place(
    database_path: Path, images_dir: Path, capture: Capture, cameras: Mapping[str, Camera], options: MapOptions
) -> tuple[MapModel | None, list[str], dict[str, str]]:
    """The first model, made again without the pairs that lay one place on another that looks alike.

    The third value names for each photo of such places one of the other place.
    """
    model, log = _first_model(database_path, images_dir, capture, cameras, options)
    apart: dict[str, str] = {}
    for _ in range(_MOST_PLACES):
        pairs = look_alikes(model, verified_counts(database_path)) if model is not None else []
        if model is None or not pairs:
            break
        first, second = two_places(model, pairs[0])
        _log.warning("%s and %s show places that look alike and are not the same", first, second)
        log.append(f"{len(first)} and {len(second)} photos of places that look alike were taken apart")
        apart |= dict.fromkeys(first, second[0]) | dict.fromkeys(second, first[0])
        drop_pairs_between(database_path, first, second)
        model, more = _first_model(database_path, images_dir, capture, cameras, options)
        log += more
    return model, log, apart


def _most_agreed(
    model: MapModel,
    database_path: Path,
    images_dir: Path,
    relative_poses: Sequence[RelativePose],
    options: MapperOptions,
    given: Mapping[str, Camera],
) -> MapModel:
    """The model, or one that starts otherwise, of as many photos, where answers about poses agree with that better.

    Where some pairs are look-alikes, chance decides which pairs a mapper believes first, and with them the map.
    """
    answers = cycle_closing(relative_poses)
    share = answered_scale(model, answers)[1]
    for seed in range(options.seed + 1, options.seed + 1 + _MORE_STARTS):
        if share >= _AGREED:
            break
        other, _ = run_mappers(
            database_path, images_dir, dataclasses.replace(options, seed=seed), frozenset(given), attempts=1
        )
        other = _with_given(other, given)
        if other is None or other.num_registered < model.num_registered:
            continue
        better = answered_scale(other, answers)[1]
        _log.info("answers agree with %.2f of the map, started otherwise %.2f", share, better)
        if better > share:
            model, share = other, better
    return model


def _first_model(
    database_path: Path, images_dir: Path, capture: Capture, cameras: Mapping[str, Camera], options: MapOptions
) -> tuple[MapModel | None, list[str]]:
    """The better of COLMAP's model and, where the photos have sensor depth, the model made with it."""
    given = {view.name: cameras[view.name] for view in capture.views if view.camera is not None}
    model, log = run_mappers(database_path, images_dir, options.mapper, frozenset(given))
    model = _with_given(model, given)
    with_depth = sum(view.depth_path is not None for view in capture.views)
    if with_depth >= 2:
        start = dict(cameras)
        if model is not None and model.num_registered >= 0.5 * len(capture.views):
            start |= {
                name: model.state.cameras[model.state.camera_of_view[i]]
                for i, name in enumerate(model.names)
                if cameras[name].focal_source == "prior"
            }
        rgbd = map_with_depth(database_path, capture, start, options.rgbd)
        if rgbd is not None:
            log.append(f"with sensor depth: {rgbd.num_registered} of {len(capture.views)} photos")
            if model is None or rgbd.num_registered >= model.num_registered:
                model = rgbd
    return model, log


def _with_given(model: MapModel | None, given: Mapping[str, Camera]) -> MapModel | None:
    """The model with the cameras that the user knows: COLMAP's global mapper and its merging know none as constant."""
    if model is None:
        return None
    state = model.state
    known = tuple(
        next((given[n] for n, c in zip(model.names, state.camera_of_view) if c == k and n in given), camera)
        for k, camera in enumerate(state.cameras)
    )
    return dataclasses.replace(model, state=dataclasses.replace(state, cameras=known))


def _solid(model: MapModel) -> MapModel | None:
    """The model without photos that too few observations hold; None when fewer than two are left."""
    while True:
        weak = loose(model)
        if not weak:
            return model
        if len(model.names) - len(weak) < 2:
            return None
        model = drop_views(model, weak)


def _with_answers(
    model: MapModel | None,
    database_path: Path,
    capture: Capture,
    cameras: Mapping[str, Camera],
    answers: Sequence[Matches],
    relative_poses: Sequence[RelativePose],
    given: bool,
) -> MapModel | None:
    """The model with the photos that only a checkpoint's answers can place, in the metres of its distances."""
    if model is not None:
        metres, agreement = answered_scale(model, relative_poses)
        if agreement >= 0.5 and not np.isfinite(model.observations.depth).any():
            model = in_answered_metres(model, metres)
        if agreement >= 0.5 and model.num_registered == len(capture.views):
            return model
    placement = place([view.name for view in capture.views], model, relative_poses)
    if placement is None or (model is not None and len(placement.names) <= model.num_registered):
        return model
    factors = pose_factors(relative_poses, {name: i for i, name in enumerate(placement.names)}, placement.poses)
    completed = complete_map(database_path, capture, cameras, placement, model, answers, factors, given)
    return completed if completed is not None else model


def _weak(model: MapModel, relative_poses: Sequence[RelativePose]) -> list[str]:
    """Photos with too few observations to hold them, and no two answers about their pose that agree with the map."""
    few = set(loose(model))
    if not few:
        return []
    index = {name: i for i, name in enumerate(model.names)}
    factors = pose_factors(relative_poses, index, model.state.poses)
    support = np.zeros(len(model.names), dtype=np.int64)
    if factors is not None:
        agrees = np.linalg.norm(factors.values(model.state.poses)[:, :6], axis=1) < 4.5
        np.add.at(support, np.concatenate([factors.view1[agrees], factors.view2[agrees]]), 1)
    return [name for name in model.names if name in few and support[index[name]] < 2]
