"""One result against another: poses, trajectory, intrinsics, depth and surface, with every assumption stated."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recon.errors import BadInputError
from recon.evaluation.cloud import seen_by
from recon.evaluation.intrinsics import IntrinsicsScores, score_intrinsics
from recon.evaluation.pose import PoseReport, Similarity, evaluate_poses
from recon.evaluation.shared_depth import MAX_PHOTOS, PIXELS_PER_PHOTO, SharedDepth, score_shared_depth
from recon.evaluation.surfaces import (
    METRIC_THRESHOLDS_M,
    RELATIVE_THRESHOLDS,
    IcpMove,
    Sample,
    SurfaceScores,
    moved,
    refine_by_icp,
    sample,
    score_surfaces,
    size_of,
)
from recon.evaluation.trajectory import Alignment, TrajectoryScores, align_cameras, score_trajectory, stack
from recon.interop.result import Reconstructed, match_names, named_by_order

AlignBy = Literal["auto", "similarity", "rigid", "none"]

_ENOUGH_DEPTH = 0.9  # share of the photos whose depth must be there to say what of the surface the photos see


@dataclass(frozen=True)
class CompareOptions:
    """How results are compared."""

    align: AlignBy = "auto"
    """how worlds are laid on each other by their cameras: auto is rigid when both are metric, else similarity"""
    icp: bool = False
    """refine the alignment of the surfaces by ICP"""
    thresholds: tuple[float, ...] = ()
    """distances for precision and recall, in the reference's unit (default: centimetres, or parts of its size)"""
    points: int = 200_000
    """how many random points of each surface are compared"""
    seed: int = 0
    """of all random choices"""

    def check(self) -> None:
        """Raises BadInputError when an option makes no sense."""
        if not 100 <= self.points <= 5_000_000:
            raise BadInputError(f"--points must be between 100 and 5000000, found {self.points}")
        if any(not 0 < t < float("inf") for t in self.thresholds):
            raise BadInputError(f"--thresholds must be positive distances, found {self.thresholds}")


@dataclass(frozen=True)
class SurfaceComparison:
    """Scores of the surfaces, what was compared, and what ICP changed (None without ICP)."""

    what: str
    reference_what: str
    scores: SurfaceScores
    icp: IcpMove | None


@dataclass(frozen=True)
class Comparison:
    """``result`` measured against ``reference``; parts are None where one of the two has nothing to compare.

    ``alignment`` and ``reference_from_result`` [4, 4] hold for depth and surface. ``scale_error`` is the factor of
    lengths (result to reference) minus 1, given where both are metric.
    """

    result: Path
    result_kind: str
    reference: Path
    reference_kind: str
    photos_result: int
    photos_reference: int
    photos_common: int
    matched_by: str
    poses: PoseReport | None
    similarity: TrajectoryScores | None
    rigid: TrajectoryScores | None
    scale_error: float | None
    intrinsics: IntrinsicsScores | None
    alignment: str
    reference_from_result: tuple[tuple[float, ...], ...]
    depth: SharedDepth | None
    surface: SurfaceComparison | None
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON data (numbers may be NaN)."""
        data = dataclasses.asdict(self)
        data["result"], data["reference"] = str(self.result), str(self.reference)
        return data


def compare(result: Reconstructed, reference: Reconstructed, options: CompareOptions | None = None) -> Comparison:
    """Measures ``result`` against ``reference``. Photos that only the reference has count as failures of the result.

    Raises:
        BadInputError: the two have nothing in common that could be compared.
    """
    options = options or CompareOptions()
    options.check()
    result, reference, matched_by = with_common_names(result, reference)
    common = sorted(set(result.poses) & set(reference.poses))
    notes = [f"{result.source}: {note}" for note in result.notes]
    notes += [f"{reference.source}: {note}" for note in reference.notes]
    extra = len(result.poses) - len(common)
    if extra and reference.poses:
        notes.append(f"{extra} photos of {result.source} are not in {reference.source}: not assessed")
    estimated, target = stack(result.poses, common), stack(reference.poses, common)
    poses = similarity = rigid = None
    if result.poses and reference.poses:
        poses = evaluate_poses(result.poses, reference.poses)
        similarity = score_trajectory(estimated, target, with_scale=True)
        rigid = score_trajectory(estimated, target, with_scale=False)
    both_metric = result.metric and reference.metric
    alignment = _alignment(options.align, estimated, target, both_metric)
    scale_known = similarity is not None and len(common) >= 2
    depth = score_shared_depth(
        result, reference, similarity.scale if scale_known and similarity else None, options.seed
    )
    if depth is not None and depth.num_candidates > MAX_PHOTOS:
        notes.append(f"depth compared on {MAX_PHOTOS} of {depth.num_candidates} photos, evenly chosen")
    if depth is not None:
        notes.append(
            f"depth compared at up to {PIXELS_PER_PHOTO} random pixels of a photo, where the reference has any"
        )
    surface, alignment = _surfaces(result, reference, alignment, both_metric, options, notes)
    if poses is None and surface is None and depth is None:
        raise BadInputError(
            f"{result.source} and {reference.source} have nothing in common to compare: photos {len(result.poses)} and "
            f"{len(reference.poses)}, surfaces {_what(result)} and {_what(reference)}"
        )
    return Comparison(
        result.source, result.kind, reference.source, reference.kind, len(result.poses), len(reference.poses),
        len(common), matched_by, poses, similarity, rigid,
        similarity.scale - 1 if both_metric and scale_known and similarity else None,
        score_intrinsics(result.cameras, reference.cameras, sorted(set(result.cameras) & set(reference.cameras))),
        alignment.method, tuple(tuple(row) for row in alignment.matrix.tolist()), depth, surface, tuple(notes),
    )  # fmt: skip


def with_common_names(result: Reconstructed, reference: Reconstructed) -> tuple[Reconstructed, Reconstructed, str]:
    """Both with the reference's photo names, and how they were matched.

    Raises:
        BadInputError: both have photos, but none in common.
    """
    if not result.poses or not reference.poses:
        return result, reference, "nothing (one has no photos)"
    if not result.has_names and reference.has_names:
        return named_by_order(result, reference), reference, "sorted order"
    if result.has_names and not reference.has_names:
        return result, named_by_order(reference, result), "sorted order"
    mine = sorted({*result.poses, *result.depth_names})
    theirs = sorted({*reference.poses, *reference.depth_names})
    matched, how = match_names(mine, theirs)
    if not matched:
        raise BadInputError(
            f"no photo of {result.source} ({mine[0]} ...) is one of {reference.source} ({theirs[0]} ...); the names "
            "of the photo files must agree"
        )
    # a photo without partner must not take the name of another's by accident
    taken = set(matched.values())
    renaming = {name: matched.get(name, name if name not in taken else f"{name} (unmatched)") for name in mine}
    return result.renamed(renaming), reference, how


def _alignment(by: AlignBy, estimated: np.ndarray, target: np.ndarray, both_metric: bool) -> Alignment:
    if by == "none":
        return Alignment(Similarity(1.0, np.eye(3), np.zeros(3)), "none (asked for)")
    if len(estimated) == 0:
        return Alignment(
            Similarity(1.0, np.eye(3), np.zeros(3)), "none (no camera in common): taken to be in one world"
        )
    with_scale = by == "similarity" or (by == "auto" and not both_metric)
    return align_cameras(estimated, target, with_scale)


def _surfaces(
    result: Reconstructed, reference: Reconstructed, alignment: Alignment, both_metric: bool, options: CompareOptions,
    notes: list[str],
) -> tuple[SurfaceComparison | None, Alignment]:  # fmt: skip
    if result.surface is None or reference.surface is None:
        return None, alignment
    ours = moved(_sampled(result, options, notes), alignment.transform)
    theirs = _sampled(reference, options, notes)
    most_have_depth = len(reference.depth_names) >= _ENOUGH_DEPTH * len(reference.poses)
    if reference.kind == "ground truth" and reference.load_depth is not None and most_have_depth:
        maps = (reference.load_depth(name) for name in reference.depth_names)
        seen = seen_by(theirs.points, maps)
        if not seen.any():
            raise BadInputError(f"{reference.source}: its depth maps see nothing of its own surface")
        theirs = Sample(theirs.points[seen], theirs.normals[seen], theirs.normals_estimated)
        notes.append(f"the ground truth is reduced to the {seen.mean():.0%} that its depth maps see")
    icp = None
    if options.icp:
        step, icp = refine_by_icp(ours.points, theirs.points, with_scale=not both_metric and options.align != "rigid")
        ours = moved(ours, step)
        before = alignment.transform
        refined = Similarity(
            step.scale * before.scale, step.rotation @ before.rotation, step.apply(before.translation[None])[0]
        )
        alignment = Alignment(refined, f"{alignment.method}; then ICP on the surfaces")
    thresholds = options.thresholds or METRIC_THRESHOLDS_M
    if not options.thresholds and not reference.metric:
        size = size_of(theirs.points)
        thresholds = tuple(float(f"{fraction * size:.3g}") for fraction in RELATIVE_THRESHOLDS)
        notes.append("distances are in the reference's own unit (it is not metric); thresholds are parts of its size")
    scores = score_surfaces(ours, theirs, thresholds)
    return SurfaceComparison(result.surface.what, reference.surface.what, scores, icp), alignment


def _sampled(result: Reconstructed, options: CompareOptions, notes: list[str]) -> Sample:
    surface = result.surface
    assert surface is not None
    loaded = surface.load(options.points, options.seed)
    try:
        # different seeds would hide nothing, but equal surfaces shall give equal samples: distance zero to itself
        drawn = sample(loaded, options.points, options.seed)
    except BadInputError as error:
        raise BadInputError(f"{result.source}: {error}") from error
    if surface.points is not None and surface.points > options.points:
        notes.append(f"{result.source}: {len(drawn.points)} of {surface.points} points drawn at random")
    return drawn


def _what(result: Reconstructed) -> str:
    return result.surface.what if result.surface is not None else "none"
