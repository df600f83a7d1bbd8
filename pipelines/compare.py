"""``vlm3-recon compare RESULT --with OTHER``: how a result agrees with other tools' results and with ground truth."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from pipelines.report.write import check_report_path, write_report
from pipelines.summary import known_numbers, versions
from pipelines.workspace import check_output_folder, readable_os_errors, write_text
from recon.errors import BadInputError
from recon.evaluation.compare import CompareOptions, Comparison, compare
from recon.evaluation.depth import DepthScores
from recon.evaluation.trajectory import TrajectoryScores
from recon.interop.results import read_result

__all__ = ["Options", "compare_all", "plain_data", "run", "text"]


@dataclass(frozen=True)
class Options:
    """Compare a result with another tool's, another run's, or ground truth.

    Read are workspaces and meshes of ours, COLMAP models, VGGT, Depth-Anything-3 and MapAnything outputs, nerfstudio's
    transforms.json, folders with gt/cameras.json, and surfaces (.ply .obj .stl .glb .pcd).
    """

    result: Positional[Path]
    """what is measured"""
    with_: Annotated[UseAppendAction[tuple[Path, ...]], arg(name="with", metavar="OTHER")]
    """what it is measured against; can be given several times"""
    json: Path | None = None
    """also write everything as JSON to this file"""
    report: Path | None = None
    """also write a page with tables and plots to this file (.html); of a run of ours it is the whole report"""
    quiet: bool = False
    """no table"""
    how: OmitArgPrefixes[CompareOptions] = field(default_factory=CompareOptions)


def run(options: Options) -> None:
    """The command: prints a table per comparison and writes the JSON. Raises ReconError with one line about a fault."""
    if not options.with_:
        raise BadInputError("--with OTHER is missing; give one or more results or ground truths to compare with")
    if options.json is not None:
        check_output_folder(options.json.absolute().parent, "--json")
    if options.report is not None:
        check_report_path(options.report, "--report")
    comparisons = compare_all(options.result, options.with_, options.how)
    if options.json is not None:
        content = {"format": 1, "comparisons": [c.as_json() for c in comparisons], "versions": versions()}
        with readable_os_errors():
            write_text(options.json, json.dumps(known_numbers(plain_data(content)), indent=1) + "\n")
    if options.report is not None:
        write_report(options.result, options.report, comparisons)
    if not options.quiet:
        print("\n\n".join(text(comparison) for comparison in comparisons))


def compare_all(result: Path, others: tuple[Path, ...], how: CompareOptions) -> list[Comparison]:
    """``result`` against each of ``others``; the others, too, against each that is ground truth.

    Raises:
        ReconError: something can't be read, or two have nothing in common.
    """
    how.check()
    first = read_result(result)
    read = [read_result(other) for other in others]
    comparisons = [compare(first, other, how) for other in read]
    truths = [other for other in read if other.kind == "ground truth"]
    comparisons += [compare(other, truth, how) for truth in truths for other in read if other.kind != "ground truth"]
    return comparisons


def text(c: Comparison) -> str:
    """A comparison as a table for the console."""
    unit = "" if c.scale_error is None else " m"
    lines = [f"{c.result} ({c.result_kind})", f"  against {c.reference} ({c.reference_kind})"]
    if c.poses is not None:
        lines.append(
            f"photos       {c.photos_common} in common (by {c.matched_by}), {c.photos_result} in the result, "
            f"{c.photos_reference} in the reference"
        )
        thresholds = sorted(c.poses.auc_exact)
        lines.append(
            "pose AUC     " + "".join(f"{f'@{t} deg':>10}" for t in thresholds) + f"   {c.poses.num_pairs} pairs"
        )
        lines.append("  exact      " + "".join(f"{c.poses.auc_exact[t]:10.4f}" for t in thresholds) + "   trapezoid")
        lines.append(
            "  histogram  " + "".join(f"{c.poses.auc_histogram[t]:10.4f}" for t in thresholds) + "   1 degree bins"
        )
        lines.append(
            f"pair errors  rotation {_n(c.poses.median_rotation_deg)} deg, direction "
            f"{_n(c.poses.median_direction_deg)} deg (medians)"
        )
    for name, scores in (("similarity", c.similarity), ("rigid", c.rigid)):
        if scores is not None:
            lines.append(_trajectory(name, scores, unit))
    if c.scale_error is not None:
        lines.append(f"scale error  {100 * c.scale_error:+.3g} % (lengths to be multiplied by {1 + c.scale_error:.5g})")
    elif c.similarity is not None and c.similarity.num_photos >= 2:
        lines.append(f"scale        lengths to be multiplied by {c.similarity.scale:.5g} (not both are metric)")
    if c.intrinsics is not None:
        i = c.intrinsics
        lines.append(
            f"intrinsics   focal {i.focal_percent_median:+.3g} % (worst {i.focal_percent_worst:+.3g} %), principal "
            f"point {_n(i.centre_px_median)} px, all together {_n(i.pixel_shift_px_median)} px; {i.num_photos} photos"
            + (f", {i.num_skipped} skipped (cropped or unknown model)" if i.num_skipped else "")
        )
    lines.append(f"aligned by   {c.alignment}")
    if c.depth is not None:
        lines.append(
            f"depth        {c.depth.num_pixels} pixels of {c.depth.num_photos} photos"
            + (f", {c.depth.num_skipped} skipped (cropped or unknown model)" if c.depth.num_skipped else "")
        )
        for how, depth in (
            ("as it is", c.depth.as_is),
            ("scaled by cameras", c.depth.by_cameras),
            (f"scaled by median {c.depth.median_factor:.4g}", c.depth.by_median),
        ):
            if depth is not None:
                lines.append("  " + _depth(how, depth))
    if c.surface is not None:
        s = c.surface.scores.scores
        lines.append(f"surface      {c.surface.what} against {c.surface.reference_what}")
        lines.append("  distance   " + "".join(f"{t:10.4g}" for t in s.thresholds_m) + unit)
        for name, values in (("precision", s.precision), ("recall", s.recall), ("F-score", s.f_score)):
            lines.append(f"  {name:10} " + "".join(f"{v:10.4f}" for v in values))
        lines.append(
            f"  accuracy {_n(s.accuracy_mean_m)}{unit} mean, {_n(s.accuracy_median_m)}{unit} median; completeness "
            f"{_n(s.completeness_mean_m)}{unit} mean, {_n(s.completeness_median_m)}{unit} median"
        )
        estimated = ", some normals estimated from neighbours" if c.surface.scores.normals_estimated else ""
        lines.append(
            f"  normal consistency {_n(c.surface.scores.normal_consistency)}{estimated}; {s.num_points} and "
            f"{s.num_truth_points} points"
        )
        if c.surface.icp is not None:
            icp = c.surface.icp
            lines.append(
                f"  ICP turned {_n(icp.turn_deg)} deg, moved {_n(icp.shift)}{unit}, scaled {icp.scale:.5g}: inlier "
                f"distance {_n(icp.distance_before)} to {_n(icp.distance_after)}{unit} in {icp.iterations} steps"
            )
    lines += [f"note         {note}" for note in c.notes if note]
    return "\n".join(lines)


def _trajectory(name: str, s: TrajectoryScores, unit: str) -> str:
    return (
        f"{name:12} ATE {_n(s.ate.rmse)}{unit} rmse, {_n(s.ate.median)}{unit} median, {_n(s.ate.max)}{unit} worst; "
        f"RPE {_n(s.rpe_translation.rmse)}{unit}, {_n(s.rpe_rotation_deg.rmse)} deg rmse; {s.num_photos} photos"
    )


def _depth(how: str, s: DepthScores) -> str:
    return (
        f"{how}: delta1 {s.delta1:.4f}, delta2 {s.delta2:.4f}, AbsRel {_n(s.abs_rel)}, RMSE {_n(s.rmse_m)}, SILog "
        f"{_n(s.silog)}, depth at {100 * s.parse_rate:.1f} % of the "
        "pixels (none counts as wrong)"
    )


def _n(value: float) -> str:
    """A number of 4 digits; tiny ones are zero to the eye."""
    if not math.isfinite(value):
        return "unknown"
    return "0" if abs(value) < 1e-9 else f"{value:.4g}"


def plain_data(value: object) -> object:
    """Tuples as lists and keys as text, as JSON has them."""
    if isinstance(value, dict):
        return {str(key): plain_data(item) for key, item in value.items()}
    return [plain_data(item) for item in value] if isinstance(value, list | tuple) else value
