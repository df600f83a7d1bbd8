"""COLMAP's mappers, tried from strict to lenient until all photos are in, and the merging of separate models."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from recon.evidence.features import verified_counts
from recon.mapping.contradictions import explained_matches
from recon.mapping.model import MapModel, from_reconstruction

_log = logging.getLogger(__name__)

Float64Array = NDArray[np.float64]

_ROUGH = 1e-4  # relative decrease of the cost at which the mapper's adjustments end
_GROWTH = 1.4  # of the model, after which all of it is adjusted again
_CLEARLY = 1.01  # times as many matches as the best model so far explains a better one
_TELLING = 8  # photos of a model that tell a guessed focal length better than any other guess


@dataclass(frozen=True)
class MapperOptions:
    """How COLMAP's mappers are run.

    Attributes:
        min_registration_inliers: verified matches to map points that a photo needs to be registered (lenient tries).
        focal_factors: other focal lengths tried, as multiples of a focal length that is only a guess, when photos stay
            out.
        try_global: also run the global mapper when photos stay out.
        num_threads: threads of the mappers; 1 makes every run the same to the last bit.
        seed: of all random choices.
    """

    min_registration_inliers: int = 15
    focal_factors: tuple[float, ...] = (0.6, 2.0, 4.0)
    try_global: bool = True
    num_threads: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Attempt:
    """One run of a mapper: its name, and the models it found, largest first."""

    name: str
    models: tuple[pycolmap.Reconstruction, ...]

    @property
    def num_registered(self) -> int:
        return self.models[0].num_reg_images() if self.models else 0

    def merit(self, database_path: Path) -> float:
        """How many of the verified matches its largest model explains."""
        return explained_matches(from_reconstruction(self.models[0]), database_path) if self.models else 0.0


def run_mappers(
    database_path: Path,
    images_dir: Path,
    options: MapperOptions | None = None,
    given: frozenset[str] = frozenset(),
    attempts: int | None = None,
) -> tuple[MapModel | None, list[str]]:
    """The best model that COLMAP's mappers find, and a line about each attempt; None when they find none.

    ``given`` names the photos whose intrinsics are known: they stay as they are in the database.
    Attempts stop at the first that registers every photo that has verified matches, or after ``attempts``.
    """
    options = options or MapperOptions()
    with pycolmap.Database.open(database_path) as database:
        num_photos = database.num_images()
        num_pairs = database.num_verified_image_pairs()
        guessed = all(not camera.has_prior_focal_length for camera in database.read_all_cameras())
        constant = {image.camera_id for image in database.read_all_images() if image.name in given}
    log: list[str] = []
    if num_pairs == 0:
        return None, ["no pair of photos has verified matches"]
    best = Attempt("none", ())
    for step in islice(_plan(options, guessed), attempts):
        if best.num_registered == num_photos:
            break
        if step.with_best_cameras and best.num_registered < 3:
            continue
        if step.guessing and best.num_registered >= _TELLING:
            continue
        cameras = {}
        if step.with_best_cameras:
            cameras = {i: np.array(camera.params) for i, camera in best.models[0].cameras.items()}
        attempt = _attempt(database_path, images_dir, options, step, cameras, constant)
        sizes = ", ".join(str(model.num_reg_images()) for model in attempt.models) or "none"
        log.append(f"{step.name}: models of {sizes} of {num_photos} photos")
        _log.info("%s", log[-1])
        if not best.models or attempt.merit(database_path) > _CLEARLY * best.merit(database_path):
            best = attempt
    if not best.models:
        return None, log
    merged = best.models[0]
    joined = [other.num_reg_images() for other in best.models[1:] if _merge(merged, other, database_path)]
    if joined:
        log.append(f"{best.name}: joined models of {', '.join(map(str, joined))} photos")
        merged = _bundle(merged, options)
    merged.extract_colors_for_all_images(images_dir, num_threads=options.num_threads)
    return from_reconstruction(merged), log


@dataclass(frozen=True)
class _Step:
    name: str
    factor: float = 1.0  # of guessed focal lengths
    lenient: bool = False
    use_global: bool = False
    with_best_cameras: bool = False  # start with the cameras that the best model so far has found
    guessing: bool = False  # of no use where a model tells the focal length


def _plan(options: MapperOptions, guessed: bool) -> Iterator[_Step]:
    yield _Step("incremental")
    if guessed:
        # A telephoto lens and a wide lens are both far from the guess, and a wrong focal length starts wrong models;
        # a small model that starts well tells the focal length for all, so no other is guessed then.
        for factor in options.focal_factors:
            yield _Step(f"incremental, focal x{factor:g}", factor, guessing=True)
        yield _Step("incremental, cameras of the best model", with_best_cameras=True)
    yield _Step("incremental, lenient", lenient=True, guessing=guessed)
    if guessed:
        yield _Step("incremental, lenient, cameras of the best model", lenient=True, with_best_cameras=True)
    if options.try_global:
        yield _Step("global", use_global=True, with_best_cameras=guessed)


def _attempt(
    database_path: Path,
    images_dir: Path,
    options: MapperOptions,
    step: _Step,
    cameras: Mapping[int, Float64Array],
    constant: set[int],
) -> Attempt:
    with _refocused(database_path, step.factor, cameras) as database, tempfile.TemporaryDirectory() as output:
        if step.use_global:
            wide = pycolmap.GlobalPipelineOptions()
            wide.num_threads = options.num_threads
            wide.random_seed = options.seed
            wide.mapper.random_seed = options.seed
            wide.mapper.num_threads = options.num_threads
            wide.mapper.global_positioning.use_gpu = False
            wide.mapper.bundle_adjustment.ceres.use_gpu = False
            models = pycolmap.global_mapping(database, images_dir, output, wide)
        else:
            settings = _incremental(options, step.lenient, constant)
            # Points that only two photos see hold nothing together, unless no third photo matches any two.
            partners = Counter(name for pair in verified_counts(database) for name in pair)
            settings.triangulation.ignore_two_view_tracks = max(partners.values(), default=0) > 1
            models = pycolmap.incremental_mapping(database, images_dir, output, settings)
    ordered = sorted(models.values(), key=lambda m: (m.num_reg_images(), m.num_points3D()), reverse=True)
    return Attempt(step.name, tuple(m for m in ordered if _sensible(m)))


def _sensible(model: pycolmap.Reconstruction) -> bool:
    """Whether a model has two photos, points, and lenses that can be (the global mapper's may end below zero)."""
    if model.num_reg_images() < 2 or model.num_points3D() == 0:
        return False
    cameras = [model.camera(model.image(i).camera_id) for i in model.reg_image_ids()]
    return all(np.isfinite(c.params).all() and c.mean_focal_length() > 0 for c in cameras)


def _incremental(options: MapperOptions, lenient: bool, constant: set[int]) -> pycolmap.IncrementalPipelineOptions:
    settings = pycolmap.IncrementalPipelineOptions()
    settings.constant_cameras = settings.mapper.constant_cameras = constant
    settings.num_threads = options.num_threads
    settings.random_seed = options.seed
    settings.mapper.random_seed = options.seed
    settings.triangulation.random_seed = options.seed
    settings.min_model_size = 2
    settings.extract_colors = False
    # Its 6-point RANSAC takes minutes on a photo with wrong matches, and seldom places one that the others do not.
    settings.structure_less_registration_fallback = False
    settings.max_num_models = 10
    settings.init_num_trials = 50
    # What the mapper adjusts to the last digit, the last adjustment of the map adjusts again.
    settings.ba_global_function_tolerance = settings.ba_local_function_tolerance = _ROUGH
    settings.ba_global_frames_ratio = settings.ba_global_points_ratio = _GROWTH
    settings.ba_global_max_num_iterations, settings.ba_local_max_num_iterations = 15, 8
    if lenient:
        settings.mapper.init_min_num_inliers = 30
        settings.mapper.init_min_tri_angle = 4.0
        settings.mapper.abs_pose_min_num_inliers = options.min_registration_inliers
        settings.mapper.abs_pose_min_inlier_ratio = 0.15
        settings.mapper.max_reg_trials = 6
    return settings


@contextmanager
def _refocused(database_path: Path, factor: float, cameras: Mapping[int, Float64Array]) -> Iterator[Path]:
    """The database, or a copy with the given parameters, or with every guessed focal length times ``factor``."""
    if factor == 1.0 and not cameras:
        yield database_path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(database_path, Path(folder) / "database.db"))
        with pycolmap.Database.open(copy) as database:
            for camera in database.read_all_cameras():
                if camera.has_prior_focal_length:
                    continue
                params = np.array(camera.params)
                params[camera.focal_length_idxs()] *= factor
                if camera.camera_id in cameras:
                    params = cameras[camera.camera_id]
                camera.params = params
                database.update_camera(camera)
        yield copy


def _bundle(reconstruction: pycolmap.Reconstruction, options: MapperOptions) -> pycolmap.Reconstruction:
    settings = pycolmap.BundleAdjustmentOptions()
    settings.print_summary = False
    settings.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    settings.ceres.solver_options.num_threads = options.num_threads
    bundle_with_colmap(reconstruction, settings)
    return reconstruction


def bundle_with_colmap(reconstruction: pycolmap.Reconstruction, settings: pycolmap.BundleAdjustmentOptions) -> None:
    """pycolmap's adjustment of all images (its ``bundle_adjustment`` does the same, but turns its logging back on)."""
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in reconstruction.reg_image_ids():
        config.add_image(image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(settings, config, reconstruction).solve()
    reconstruction.update_point_3d_errors()


def _merge(target: pycolmap.Reconstruction, other: pycolmap.Reconstruction, database_path: Path) -> bool:
    """Joins ``other`` into ``target`` by 3D points whose keypoints are verified matches of one another.

    The similarity between the models needs 12 points that agree (RANSAC, a tenth of their spread), and half of all:
    look-alikes match, too. Only photos that ``target`` lacks are added. Returns whether it was done.
    """
    mine, theirs = set(target.reg_image_ids()), set(other.reg_image_ids())
    source, goal = [], []
    with pycolmap.Database.open(database_path) as database:
        pair_ids, geometries = database.read_two_view_geometries()
    for pair_id, geometry in zip(pair_ids, geometries, strict=True):
        a, b = pycolmap.pair_id_to_image_pair(pair_id)
        for i, j, links in ((a, b, geometry.inlier_matches), (b, a, geometry.inlier_matches[:, ::-1])):
            if i not in mine or j not in theirs:
                continue
            first, second = target.image(i).points2D, other.image(j).points2D
            for k, l in links:
                if first[k].has_point3D() and second[l].has_point3D():
                    goal.append(target.point3D(first[k].point3D_id).xyz)
                    source.append(other.point3D(second[l].point3D_id).xyz)
    if len(source) < 12:
        return False
    points = np.array(goal)
    options = pycolmap.RANSACOptions()
    options.random_seed = 0
    options.max_error = 0.1 * float(np.median(np.linalg.norm(points - points.mean(axis=0), axis=1)) + 1e-9)
    fit = pycolmap.estimate_sim3d_robust(np.array(source), points, options)
    if fit is None or int(np.sum(fit["inlier_mask"])) < max(12, 0.5 * len(source)):
        return False
    other.transform(fit["tgt_from_src"])
    for image_id in sorted(theirs - mine):  # the mapper leaves images out of a model that it did not register
        image = other.image(image_id)
        if not target.exists_camera(image.camera_id):
            target.add_camera_with_trivial_rig(other.camera(image.camera_id))
        keypoints = np.array([keypoint.xy for keypoint in image.points2D]).reshape(-1, 2)
        copy = pycolmap.Image(name=image.name, keypoints=keypoints, camera_id=image.camera_id, image_id=image_id)
        target.add_image_with_trivial_frame(copy, image.cam_from_world())
    added = theirs - mine
    for point in other.points3D.values():
        elements = [e for e in point.track.elements if e.image_id in added]
        if len(elements) >= 2:
            target.add_point3D(point.xyz, pycolmap.Track(elements), point.color)
    return bool(added)
