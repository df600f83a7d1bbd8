"""The whole pipeline: photos in, metric mesh out. Read it from the top: it is the method, step by step."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.asking import ask_depths, ask_pairs_for_matches, ask_pairs_for_poses, read_sensors
from pipelines.licences import checkpoint_licences
from pipelines.models import TaskModel
from pipelines.options import Options
from pipelines.progress import Progress, progress_bar
from pipelines.records import encode
from pipelines.report.write import NAME as REPORT_NAME
from pipelines.report.write import write_report
from pipelines.stages import Stages, photo_keys
from pipelines.summary import Summary
from pipelines.surfacing import make_depth_maps, make_surface
from pipelines.workspace import (
    Workspace,
    check_free_space,
    logging_to,
    native_output_to,
    open_workspace,
    readable_os_errors,
)
from recon.cameras.intrinsics import initial_cameras
from recon.capture.folder import read_capture
from recon.errors import MappingError, ReconError
from recon.evidence.depth_kind import settle_depth_kind
from recon.evidence.features import extract_features, image_ids, match_features
from recon.evidence.looks import photo_looks
from recon.evidence.pairs import choose_pairs, most_pairs
from recon.mapping.contradictions import explained
from recon.mapping.doubts import doubts
from recon.mapping.georeference import georeference, write_georeference
from recon.mapping.map import build_map
from recon.mapping.model import write_model
from recon.mapping.scale import apply_scale, estimate_scale
from recon.mapping.single import NOTICE as SINGLE_PHOTO
from recon.mapping.single import single_photo_scene
from recon.types import Camera, Capture, DepthSamples, Matches, RelativePose, Scene, Task

logger = logging.getLogger(__name__)

__all__ = ["Evidence", "Options", "reconstruct", "run"]


TASKS: tuple[Task, ...] = ("depth", "match", "pose")
BYTES_PER_KEYPOINT = 152  # position, affine shape, descriptor
BYTES_PER_MATCH = 4  # two indices, twice (matched and verified), for a quarter of the keypoints at most
SPARE_BYTES = 16 << 20


@dataclass(frozen=True)
class FoundFeatures:
    """Keypoints by photo, and the pairs of photos that were compared (and are asked about)."""

    keypoints: dict[str, int]
    pairs: list[tuple[str, str]]


@dataclass(frozen=True)
class Evidence:
    """What the checkpoints and sensors say about the photos, not yet verified against the map."""

    depths: Sequence[DepthSamples]
    matches: Sequence[Matches]
    poses: Sequence[RelativePose]


def run(options: Options) -> None:
    """The command: reconstructs and prints what came out. Raises ReconError with one line about what is wrong."""
    summary = reconstruct(options)
    if not options.quiet:
        print(summary.text())


def reconstruct(options: Options, models: Mapping[Task, TaskModel] | None = None) -> Summary:
    """Makes the mesh; what was computed by an earlier, interrupted or different run is used where it still holds.

    ``models`` answer instead of the checkpoints that the options name.

    Raises:
        ReconError: nothing could be made; ``summary.json`` in the workspace says how far it came.
    """
    options.check()
    if models is None:
        models = {task: TaskModel(options.models, task) for task in TASKS}
    with (
        readable_os_errors(),
        open_workspace(options.workspace_folder, options.overwrite) as workspace,
        logging_to(workspace.log, options.verbose),
        native_output_to(workspace.log, options.verbose),
    ):
        summary = Summary(str(options.scene), str(options.out), encode(options, []))
        stages = Stages(workspace, options.quiet)
        summary.stages = stages.reports
        try:
            _reconstruct(options, models, workspace, stages, summary)
            summary.status = "done"
            if not options.no_report:
                make_report(stages, options, summary)
        except BaseException as error:
            summary.status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            summary.reason = str(error)
            raise
        finally:
            with contextlib.suppress(OSError):  # a full disk has been reported already
                summary.write(workspace.summary)
    return summary


def _reconstruct(
    options: Options, models: Mapping[Task, TaskModel], workspace: Workspace, stages: Stages, summary: Summary
) -> None:
    capture = import_photos(stages, options)
    summary.capture = capture
    options.check_photos(capture)
    cameras = initial_cameras(capture, options.cameras)
    summary.cameras = cameras
    if len(capture.views) < 2 and not _has_trusted_depth(models, capture):
        raise MappingError(
            f"{options.scene}: found one usable photo; a map takes at least 2 photos that overlap (one alone needs "
            "sensor depth or a depth checkpoint that was trained on photos)"
        )

    features = find_features(stages, options, capture, cameras)
    evidence = gather_evidence(stages, options, models, capture, cameras, features.pairs, summary)
    if len(capture.views) < 2:
        scene = place_one_photo(stages, options, capture, cameras, evidence)
        _notify(summary, SINGLE_PHOTO, options.quiet)
    else:
        scene = make_map(stages, options, capture, cameras, evidence)
        summary.scene = scene
        depths, notes = settle_depth_kind(evidence.depths, scene)  # z or along the ray, if the checkpoint doesn't say
        evidence = dataclasses.replace(evidence, depths=depths)
        summary.notices += notes
        databases = _feature_database(stages.workspace), stages.workspace.database
        for note in doubts(scene, cameras, explained(scene, *databases, evidence.poses)):
            _notify(summary, note, options.quiet)
        scene = find_scale(stages, options, capture, scene, evidence)
    summary.scene = scene

    depth = make_depth_maps(stages, options, capture, scene, evidence.depths)
    outdoors = any(view.gps is not None for view in capture.views)
    size = make_surface(stages, options, depth, capture, scene, outdoors)
    summary.vertices, summary.faces = size.vertices, size.faces
    for note in size.notes:
        _notify(summary, note, options.quiet)


# ---------------------------------------------------------------------------------------------------------------------
# the stages


def import_photos(stages: Stages, options: Options) -> Capture:
    """Upright 8-bit photos in the workspace; a photo that was imported before is not imported again."""
    with stages.report("photos") as report, progress_bar("photos", "photos", stages.quiet) as progress:
        capture = read_capture(options.scene, stages.workspace.images, options.capture, progress)
        report.counts = {"usable": len(capture.views), "left out": len(capture.rejected)}
        report.rejected = capture.rejected
    return capture


def gather_evidence(
    stages: Stages,
    options: Options,
    models: Mapping[Task, TaskModel],
    capture: Capture,
    cameras: Mapping[str, Camera],
    pairs: Sequence[tuple[str, str]],
    summary: Summary,
) -> Evidence:
    """Asks one checkpoint after the other about every photo and pair, and reads the depth sensors."""
    depths: list[DepthSamples] = []
    matches: list[Matches] = []
    poses: list[RelativePose] = []
    asked: dict[str, str] = {}
    for task, model in models.items():
        if not model.offers_task:
            stages.skip(f"{task} answers", f"checkpoint {model.source!r} answers no {task} questions")
            continue
        if model.too_coarse:
            stages.skip(
                f"{task} answers",
                f"checkpoint {model.source!r}: {model.too_coarse} (--{task}-model {model.source} asks it all the same)",
            )
            continue
        asked[task] = model.source
        _notify(summary, model.notice, options.quiet)
        if task == "depth":
            depths += ask_depths(stages, model, capture, cameras, options.asking)
        elif task == "match":
            matches += ask_pairs_for_matches(stages, model, capture, cameras, pairs, options.asking)
        else:
            poses += ask_pairs_for_poses(stages, model, capture, cameras, pairs)
    summary.checkpoints = checkpoint_licences(asked)
    if any(view.depth_path is not None for view in capture.views):
        depths += read_sensors(stages, capture, options.asking)
    return Evidence(depths, matches, poses)


def find_features(stages: Stages, options: Options, capture: Capture, cameras: Mapping[str, Camera]) -> FoundFeatures:
    """SIFT keypoints of every photo and verified matches of the pairs worth it, in a COLMAP database of their own."""
    database = _feature_database(stages.workspace)
    features, wanted = options.mapping.features, options.mapping.pairs
    num_photos, most = len(capture.views), most_pairs(capture, wanted)
    names = [view.name for view in capture.views]

    def compute(progress: Progress) -> FoundFeatures:
        photo_bytes, pair_bytes = features.max_features * BYTES_PER_KEYPOINT, features.max_features * BYTES_PER_MATCH
        check_free_space(stages.workspace.root, num_photos * photo_bytes + most * pair_bytes + SPARE_BYTES)
        found = extract_features(
            database, capture, cameras, features, lambda done, _: progress(done, num_photos + most)
        )
        pairs = choose_pairs(capture, wanted, lambda: photo_looks(database, names))
        match_features(database, pairs, features, lambda done, _: progress(num_photos + done, num_photos + len(pairs)))
        return FoundFeatures(found, pairs)

    near = [(view.name, view.gps) for view in capture.views], capture.is_sequence
    return stages.run(
        "features", FoundFeatures, [photo_keys(capture), dict(cameras), near, wanted, features], compute,
        room="evidence", unit="photos and pairs", outputs=[database], resumable=True,
        counts=lambda found: {"keypoints": sum(found.keypoints.values()), "pairs": len(found.pairs)},
    )  # fmt: skip


def make_map(
    stages: Stages, options: Options, capture: Capture, cameras: Mapping[str, Camera], evidence: Evidence
) -> Scene:
    """Poses and points of as many photos as the evidence allows, in a unit that the next stage makes metres."""
    workspace = stages.workspace

    def compute(progress: Progress) -> Scene:
        check_free_space(workspace.root, 2 * _feature_database(workspace).stat().st_size + SPARE_BYTES)
        # Checkpoints' matches join a copy, so that the features stay what their stage left.
        shutil.copyfile(_feature_database(workspace), workspace.database)
        scene = build_map(workspace.root, capture, cameras, evidence.matches, evidence.poses, options.mapping, progress)
        shutil.rmtree(workspace.sparse, ignore_errors=True)  # the next stage writes it, in metres
        return scene

    gps = {view.name: view.gps for view in capture.views}
    return stages.run(
        "map", Scene, [photo_keys(capture), dict(cameras), evidence.matches, evidence.poses, gps, options.mapping],
        compute, room="mapping", unit="steps", outputs=[workspace.database], counts=_map_counts,
    )  # fmt: skip


def find_scale(stages: Stages, options: Options, capture: Capture, scene: Scene, evidence: Evidence) -> Scene:
    """The map in metres, or in its own unit when nothing supports a scale; east-north-up where GPS tells."""
    workspace = stages.workspace

    def compute(progress: Progress) -> Scene:
        scale = estimate_scale(scene, evidence.depths, capture, options.known_distance, evidence.poses)
        scaled = georeference(apply_scale(scene, scale), capture)
        write_model(scaled, workspace.sparse, image_ids(workspace.database))
        write_georeference(scaled, workspace.sparse)
        return scaled

    gps = {view.name: view.gps for view in capture.views}
    return stages.run(
        "scale", Scene, [scene, evidence.depths, evidence.poses, gps, options.known_distance], compute,
        room="mapping", outputs=[workspace.sparse],
        counts=lambda scaled: {"sources": len(scaled.scale.used)},
    )  # fmt: skip


def place_one_photo(
    stages: Stages, options: Options, capture: Capture, cameras: Mapping[str, Camera], evidence: Evidence
) -> Scene:
    """A single photo at the origin, in the metres of its depth: what stands in for map and scale."""
    workspace, view = stages.workspace, capture.views[0]

    def compute(progress: Progress) -> Scene:
        shutil.copyfile(_feature_database(workspace), workspace.database)
        scene = single_photo_scene(view.name, cameras[view.name], evidence.depths)
        write_model(scene, workspace.sparse, image_ids(workspace.database))
        return scene

    return stages.run(
        "single photo", Scene, [photo_keys(capture), dict(cameras), evidence.depths], compute,
        room="mapping", outputs=[workspace.database, workspace.sparse],
    )  # fmt: skip


def make_report(stages: Stages, options: Options, summary: Summary) -> None:
    """``report.html`` in the workspace. Whatever goes wrong with it is said; the result is there all the same."""
    root = stages.workspace.root
    (root / REPORT_NAME).unlink(missing_ok=True)  # of an earlier run
    try:
        with stages.report("report") as report:
            summary.write(stages.workspace.summary)
            path = write_report(root)
            report.counts = {"MB": round(path.stat().st_size / 1e6, 1)}
            summary.report = str(path)
    except ReconError as error:
        logger.warning("report: %s", error)
    except Exception:  # a picture book must not cost the mesh
        logger.exception("report: unexpected error")
    if not summary.report:
        _notify(summary, f"no report was made: {stages.reports[-1].reason}", options.quiet)


# ---------------------------------------------------------------------------------------------------------------------
# small parts


def _notify(summary: Summary, notice: str, quiet: bool) -> None:
    """Tells the user once, and keeps it in the summary."""
    if notice and notice not in summary.notices:
        summary.notices.append(notice)
        if not quiet:
            print(f"note: {notice}", file=sys.stderr)


def _has_trusted_depth(models: Mapping[Task, TaskModel], capture: Capture) -> bool:
    """Whether depth in metres that may be believed is there (sensor) or can be asked for."""
    sensor = any(view.depth_path is not None for view in capture.views)
    return sensor or ("depth" in models and models["depth"].offers_task and models["depth"].trusted)


def _feature_database(workspace: Workspace) -> Path:
    return workspace.stages / "features.db"


def _map_counts(scene: Scene) -> dict[str, int | float]:
    return {"registered": len(scene.views), "points": len(scene.points_world)}
