"""One metric scale for the map from every source that knows about metres, with an interval.

Each source gives one vote: metres per map unit as the robust mean of its measurements (one per photo or pair), with a
spread that holds both their scatter and what all measurements of the source have in common (a depth network that is
10 % off is 10 % off in every pixel). Votes that agree are averaged by precision; those that do not are named in a note.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import t as student

from recon.capture.gps import enu_positions
from recon.capture.masks import load_sensor_depth
from recon.errors import BadInputError
from recon.evidence.depth import z_depth_m
from recon.mapping.georeference import fit_similarity
from recon.types import Capture, DepthSamples, MetricScale, PosedView, RelativePose, ScaleVote, Scene

Float64Array = NDArray[np.float64]


@dataclass(frozen=True)
class ScaleOptions:
    """What is known about the sources.

    Attributes:
        depth_systematic: spread of ln(depth) that all samples of one checkpoint share (published AbsRel about 0.10).
        sensor_systematic: the same for a depth sensor.
        distance_systematic: the same for a checkpoint's translation distances. Nothing is published about it, so
            nothing says that it differs from that of depth.
        known_distance_sigma: relative error of a distance measured by the user.
        max_log_sigma: votes with a larger spread say nothing and are not used.
        agreement_sigmas: votes further apart than this many of their joint sigmas disagree.
        search_radius: a depth sample belongs to map points within this fraction of the longer side.
    """

    depth_systematic: float = 0.10
    sensor_systematic: float = 0.01
    distance_systematic: float = 0.10
    known_distance_sigma: float = 0.01
    max_log_sigma: float = 0.5
    agreement_sigmas: float = 3.0
    search_radius: float = 0.01


def estimate_scale(
    scene: Scene,
    depth_samples: Sequence[DepthSamples] = (),
    capture: Capture | None = None,
    known_distance: tuple[str, str, float] | None = None,
    relative_poses: Sequence[RelativePose] = (),
    options: ScaleOptions | None = None,
) -> MetricScale:
    """The metric scale of ``scene`` as it stands (metres per its present unit), with a 95 % interval.

    Args:
        scene: the map.
        depth_samples: of any source; untrusted ones are listed as votes and never used.
        capture: for GPS fixes and sensor depth of its photos.
        known_distance: two photo names and the distance between their camera centres in metres.
        relative_poses: distances between photos as a checkpoint says.
        options: what is known about the sources.

    Raises:
        BadInputError: ``known_distance`` names a photo that is not in the map, or is not a positive distance.
    """
    options = options or ScaleOptions()
    votes: list[ScaleVote] = []
    untrusted: set[str] = set()
    if known_distance is not None:
        votes.append(_known_vote(scene, known_distance, options))
    sensor = _sensor_vote(scene, capture, options) if capture is not None else None
    if sensor is not None:
        votes.append(sensor)
    for source in dict.fromkeys(s.source for s in depth_samples):
        mine = [s for s in depth_samples if s.source == source]
        if source == "sensor" and sensor is not None:
            continue  # the same measurements, coarser
        vote = _depth_vote(scene, mine, options)
        if vote is not None:
            votes.append(vote)
            if not all(s.trusted for s in mine):
                untrusted.add(vote.source)
    for source in dict.fromkeys(p.source for p in relative_poses):
        poses = [p for p in relative_poses if p.source == source]
        vote = _distance_vote(scene, poses, options)
        if vote is not None:
            votes.append(vote)
            if not all(p.trusted for p in poses):
                untrusted.add(vote.source)
    if capture is not None:
        vote = _gps_vote(scene, capture)
        if vote is not None:
            votes.append(vote)
    return fuse(votes, untrusted, options)


def fuse(
    votes: Sequence[ScaleVote], untrusted: set[str] | frozenset[str] = frozenset(), options: ScaleOptions | None = None
) -> MetricScale:
    """Precision-weighted mean of the largest set of votes that agree with one another (:func:`_joined`).

    A distance given by the user is always in that set. Otherwise the set with the greatest total precision wins. The
    interval widens (Birge ratio) when the used votes scatter more than their spreads say.
    """
    options = options or ScaleOptions()
    notes = [
        f"{v.source}: not used, its checkpoint was not trained for such photos" for v in votes if v.source in untrusted
    ]
    usable = []
    for vote in votes:
        if vote.source in untrusted:
            continue
        if not (math.isfinite(vote.log_sigma) and 0 < vote.metres_per_unit < math.inf):
            notes.append(f"{vote.source}: not used, no finite value")
        elif vote.log_sigma > options.max_log_sigma:
            notes.append(f"{vote.source}: not used, its spread of {100 * vote.log_sigma:.0f} % says nothing")
        else:
            usable.append(vote)
    if not usable:
        notes.insert(0, "scale: unknown (no trusted source of metric evidence)")
        return MetricScale(float("nan"), float("nan"), float("nan"), (), tuple(votes), tuple(notes))
    anchors = [v for v in usable if v.source == KNOWN_DISTANCE] or usable
    groups = [[v for v in usable if _agree(anchor, v, options)] for anchor in anchors]
    used = max(groups, key=lambda group: sum(1 / v.log_sigma**2 for v in group))
    mean, sigma = _joined(used, options)
    for vote in usable:
        if vote not in used:
            percent = 100 * (vote.metres_per_unit / math.exp(mean) - 1)
            notes.append(
                f"warning: {vote.source} disagrees: its scale is {percent:+.0f} % off, outside the errors; not used"
            )
    return MetricScale(
        math.exp(mean),
        math.exp(mean - 1.96 * sigma),
        math.exp(mean + 1.96 * sigma),
        tuple(v.source for v in used),
        tuple(votes),
        tuple(notes),
    )


def _joined(votes: Sequence[ScaleVote], options: ScaleOptions) -> tuple[float, float]:
    """ln of the scale that votes agree on, and its spread.

    What a family of checkpoints believes a metre to be in a place, its depths and its distances have in common: one
    backbone, one training set. Among themselves they weigh by their own scatter, and what they share does not average
    out. All other votes are independent.
    """
    family = [v for v in votes if _shared(v, options) > 0]
    rest = [v for v in votes if _shared(v, options) == 0]
    logs = [math.log(v.metres_per_unit) for v in rest]
    variances = [v.log_sigma**2 for v in rest]
    if family:
        common = min(_shared(v, options) for v in family)
        own = [max(v.log_sigma**2 - common**2, _LEAST_OWN**2) for v in family]
        mean, variance = _average([math.log(v.metres_per_unit) for v in family], own)
        logs.append(mean)
        variances.append(common**2 + variance)
    mean, variance = _average(logs, variances)
    return mean, math.sqrt(variance)


def _average(values: Sequence[float], variances: Sequence[float]) -> tuple[float, float]:
    """Mean weighted by precision and its variance, widened when the values scatter more than stated (Birge 1932)."""
    x, weight = np.array(values), 1 / np.array(variances)
    mean = float((weight * x).sum() / weight.sum())
    birge = max(1.0, float((weight * (x - mean) ** 2).sum()) / max(len(x) - 1, 1))
    return mean, birge / float(weight.sum())


def _shared(vote: ScaleVote, options: ScaleOptions) -> float:
    """The spread that a checkpoint's vote has in common with others of its family; 0 for all other sources."""
    if not vote.source.startswith("vlm:"):
        return 0.0
    shared = options.distance_systematic if vote.source.endswith(" distance") else options.depth_systematic
    return min(shared, vote.log_sigma)


KNOWN_DISTANCE = "known distance"

_LEAST_OWN = 0.002  # spread of a checkpoint's vote beside what it shares with the others

_BIWEIGHT = 6.0  # median deviations (as standard deviations) from which a value counts for nothing


def apply_scale(scene: Scene, scale: MetricScale) -> Scene:
    """The scene in metres; where the scale is unknown only the statement is attached."""
    if not scale.is_known:
        return dataclasses.replace(scene, scale=scale)
    factor = scale.metres_per_unit
    views = []
    for view in scene.views:
        pose = view.cam_from_world.copy()
        pose[:, 3] *= factor
        views.append(dataclasses.replace(view, cam_from_world=pose))
    return dataclasses.replace(scene, views=tuple(views), points_world=scene.points_world * factor, scale=scale)


def _agree(first: ScaleVote, second: ScaleVote, options: ScaleOptions) -> bool:
    difference = abs(math.log(first.metres_per_unit / second.metres_per_unit))
    return difference <= options.agreement_sigmas * math.hypot(first.log_sigma, second.log_sigma)


def _robust(log_ratios: Float64Array, systematic: float, source: str, count: int) -> ScaleVote | None:
    """The vote of independent log ratios (one per photo or pair): robust mean, and its spread."""
    log_ratios = log_ratios[np.isfinite(log_ratios)]
    if len(log_ratios) == 0:
        return None
    centre, sigma = robust_mean(log_ratios)
    # Few photos alone show no scatter between photos: they count as half the systematic spread.
    if len(log_ratios) <= 2:
        sigma = 1.2533 * systematic / 2 / math.sqrt(len(log_ratios))
    return ScaleVote(source, math.exp(centre), math.hypot(systematic, sigma), count)


def robust_mean(values: Float64Array) -> tuple[float, float]:
    """Tukey's biweight mean of ``values`` [N] and its standard error (Mosteller and Tukey 1977).

    Its spread is that of the mean within 5 % where all values are good, and it holds where a fifth is wrong; the
    median's is 25 % wider, which for a scale from a dozen photos is the difference between 2.6 and 3.2 %. The standard
    error is widened by Student's factor, so that 1.96 of it are a 95 % interval also for few values.
    """
    centre = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - centre)))
    if len(values) < 3 or spread < 1e-12:
        return centre, 0.0
    for _ in range(10):
        weight = np.clip(1 - ((values - centre) / (_BIWEIGHT * spread)) ** 2, 0, None) ** 2
        centre = float((weight * values).sum() / weight.sum())
    off = (values - centre) / (_BIWEIGHT * spread)
    inside = np.abs(off) < 1
    off, residual = off[inside], (values - centre)[inside]
    slope = abs(float(((1 - off**2) * (1 - 5 * off**2)).sum()))
    error = math.sqrt(float((residual**2 * (1 - off**2) ** 4).sum())) / max(slope, 1e-12)
    return centre, error * float(student.ppf(0.975, len(values) - 1)) / 1.96


def _known_vote(scene: Scene, known: tuple[str, str, float], options: ScaleOptions) -> ScaleVote:
    name1, name2, metres = known
    if not (math.isfinite(metres) and metres > 0):
        raise BadInputError(f"--known-distance takes a positive number of metres, found {metres}")
    names = [view.name for view in scene.views]
    for name in (name1, name2):
        if name not in names:
            reason = next((r.reason for r in scene.unregistered if r.name == name), "no such photo")
            raise BadInputError(f"--known-distance: {name} is not in the map ({reason}); name two registered photos")
    length = float(np.linalg.norm(scene.view(name1).centre_world - scene.view(name2).centre_world))
    if length <= 0:
        raise BadInputError(f"--known-distance: {name1} and {name2} were taken from the same place")
    return ScaleVote(KNOWN_DISTANCE, metres / length, options.known_distance_sigma, 1)


def _map_depth(scene: Scene, view: PosedView) -> Float64Array:
    """z-depth [M] in map units of the points observed in a view."""
    return scene.points_world[view.point_ids] @ view.cam_from_world[2, :3] + view.cam_from_world[2, 3]


def _sensor_vote(scene: Scene, capture: Capture, options: ScaleOptions) -> ScaleVote | None:
    by_name = {view.name: view for view in scene.views}
    medians, count = [], 0
    for photo in capture.views:
        view = by_name.get(photo.name)
        if view is None or photo.depth_path is None or len(view.point_ids) == 0:
            continue
        depth = load_sensor_depth(photo)
        if depth is None:
            continue
        column = np.clip(view.pixels[:, 0].astype(int), 0, depth.shape[1] - 1)
        row = np.clip(view.pixels[:, 1].astype(int), 0, depth.shape[0] - 1)
        with np.errstate(all="ignore"):
            ratios = np.log(depth[row, column] / _map_depth(scene, view))
        ratios = ratios[np.isfinite(ratios)]
        if len(ratios) >= 5:
            medians.append(float(np.median(ratios)))
            count += len(ratios)
    return _robust(np.array(medians), options.sensor_systematic, "sensor depth", count)


def _depth_vote(scene: Scene, samples: Sequence[DepthSamples], options: ScaleOptions) -> ScaleVote | None:
    by_name = {view.name: view for view in scene.views}
    medians, count = [], 0
    for sample in samples:
        view = by_name.get(sample.name)
        if view is None or len(view.point_ids) == 0 or len(sample.pixels) == 0:
            continue
        depth = z_depth_m(sample, view.camera)
        radius = options.search_radius * max(view.camera.width_px, view.camera.height_px)
        distance, nearest = cKDTree(sample.pixels).query(view.pixels, distance_upper_bound=radius)
        near = np.isfinite(distance)
        with np.errstate(all="ignore"):
            ratios = np.log(depth[nearest[near]] / _map_depth(scene, view)[near])
        ratios = ratios[np.isfinite(ratios)]
        if len(ratios) >= 5:
            medians.append(float(np.median(ratios)))
            count += len(ratios)
    is_sensor = bool(samples) and samples[0].source == "sensor"
    systematic = options.sensor_systematic if is_sensor else options.depth_systematic
    source = "sensor depth" if is_sensor else f"{samples[0].source} depth"
    return _robust(np.array(medians), systematic, source, count)


def _distance_vote(scene: Scene, poses: Sequence[RelativePose], options: ScaleOptions) -> ScaleVote | None:
    """Distances of pairs whose direction agrees with the map (three sigmas): the others are wrong about more."""
    by_name = {view.name: view for view in scene.views}
    logs = []
    for pose in poses:
        first, second = by_name.get(pose.name1), by_name.get(pose.name2)
        if first is None or second is None or not (math.isfinite(pose.distance_m) and pose.distance_m > 0):
            continue
        offset = first.cam_from_world[:, :3] @ (second.centre_world - first.centre_world)
        length = float(np.linalg.norm(offset))
        if length <= 0:
            continue
        angle = math.degrees(math.acos(float(np.clip(offset @ pose.direction1 / length, -1, 1))))
        if angle <= 3 * pose.direction_sigma_deg:
            logs.append(math.log(pose.distance_m / length))
    if not logs:
        return None
    return _robust(np.array(logs), options.distance_systematic, f"{poses[0].source} distance", len(logs))


def _gps_vote(scene: Scene, capture: Capture) -> ScaleVote | None:
    """Camera centres against GPS: the spread follows from the residuals and the extent of the track."""
    fixes = {view.name: view.gps for view in capture.views}
    gps = enu_positions([fixes.get(view.name) for view in scene.views])
    if gps is None:
        return None
    fit = fit_similarity(np.array([view.centre_world for view in scene.views]), gps)
    if fit is None:
        return None
    return ScaleVote("GPS", fit.scale, fit.log_scale_sigma, fit.num_used)
