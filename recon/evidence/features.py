"""Classical evidence: SIFT keypoints and matches through pycolmap, in the workspace's COLMAP ``database.db``.

Every photo and every pair is one SQLite transaction, so an interrupted run loses at most the one in work and the next
run continues. COLMAP's pixels have our corner convention; keypoints are float32. Matches of a checkpoint join them in
``recon.evidence.added``.
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from recon.capture.folder import load_pixels
from recon.capture.masks import load_mask
from recon.errors import BadInputError
from recon.types import Camera, Capture, View

_log = logging.getLogger(__name__)

# COLMAP narrates every step on stderr, and calls an attempt that finds nothing an error. What it returns says it all.
pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)

Progress = Callable[[int, int], None]
_PAIRS_PER_CALL = 64  # between two reports of progress


@dataclass(frozen=True)
class FeatureOptions:
    """How keypoints are found and matched.

    Attributes:
        max_features: keypoints kept per photo (the largest scales first).
        min_features: a photo with fewer is searched again at a lower contrast threshold (dark or matt objects).
        max_image_px: longer photos are searched at this size; keypoints are given in the photo's own pixels.
        affine: estimate affine shapes and pool descriptors over domain sizes: slower, finds wider baselines.
        max_ratio: Lowe's ratio test.
        min_inliers: a pair with fewer verified matches counts as not matched.
        max_error_px: inlier threshold of the two-view geometry.
        num_threads: threads of matching and verification.
        seed: of RANSAC.
    """

    max_features: int = 6000
    min_features: int = 1500
    max_image_px: int = 2000
    affine: bool = False
    max_ratio: float = 0.8
    min_inliers: int = 15
    max_error_px: float = 4.0
    num_threads: int = 2
    seed: int = 0


def to_colmap_camera(camera: Camera, camera_id: int) -> pycolmap.Camera:
    """The pycolmap camera with the same model, size and parameters."""
    return pycolmap.Camera(
        camera_id=camera_id,
        model=camera.model,
        width=camera.width_px,
        height=camera.height_px,
        params=list(camera.params),
        has_prior_focal_length=camera.focal_source in {"given", "exif", "refined"},
    )


def image_ids(database_path: Path) -> dict[str, int]:
    """COLMAP's image id by photo name."""
    with pycolmap.Database.open(database_path) as database:
        return {image.name: image.image_id for image in database.read_all_images()}


def prepare_database(database_path: Path, capture: Capture, cameras: Mapping[str, Camera]) -> dict[str, int]:
    """Enters cameras (one per ``camera_key`` and size) and photos into the database; what is already there stays.

    Returns the image id by photo name: 1, 2, ... in the capture's order. Cameras that changed since the last run are
    updated. Raises BadInputError when the database belongs to another set of photos.
    """
    database_path.parent.mkdir(parents=True, exist_ok=True)
    keys = list(dict.fromkeys(_camera_group(view) for view in capture.views))
    first_of_key = {_camera_group(view): view.name for view in reversed(capture.views)}
    with pycolmap.Database.open(database_path) as database, pycolmap.DatabaseTransaction(database):
        known = {image.name: image.image_id for image in database.read_all_images()}
        expected = {view.name: i for i, view in enumerate(capture.views, start=1)}
        if known and known != expected:
            raise BadInputError(f"{database_path}: made from other photos than this capture; remove it (--overwrite)")
        for camera_id, key in enumerate(keys, start=1):
            camera = to_colmap_camera(cameras[first_of_key[key]], camera_id)
            if database.exists_camera(camera_id):
                database.update_camera(camera)
                continue
            database.write_camera(camera, use_camera_id=True)
            rig = pycolmap.Rig(rig_id=camera_id)
            rig.add_ref_sensor(camera.sensor_id)
            database.write_rig(rig, use_rig_id=True)
        for view in capture.views if not known else ():
            image = pycolmap.Image(
                name=view.name, camera_id=keys.index(_camera_group(view)) + 1, image_id=expected[view.name]
            )
            frame = pycolmap.Frame(frame_id=image.image_id, rig_id=image.camera_id)
            frame.add_data_id(image.data_id)
            database.write_image(image, use_image_id=True)
            database.write_frame(frame, use_frame_id=True)
    return expected


def _camera_group(view: View) -> str:
    return f"{view.camera_key}|{view.width_px}x{view.height_px}"


def extract_features(
    database_path: Path,
    capture: Capture,
    cameras: Mapping[str, Camera],
    options: FeatureOptions | None = None,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Finds SIFT keypoints of every photo that has none yet; returns their number by photo name.

    Masked pixels (0 in the mask) give no keypoints. ``cameras`` are the initial intrinsics by photo name.
    """
    options = options or FeatureOptions()
    ids = prepare_database(database_path, capture, cameras)
    counts: dict[str, int] = {}
    for done, view in enumerate(capture.views):
        image_id = ids[view.name]
        with pycolmap.Database.open(database_path) as database:
            if not (database.exists_keypoints(image_id) and database.exists_descriptors(image_id)):
                keypoints, descriptors = _sift(load_pixels(view), load_mask(view), options)
                with pycolmap.DatabaseTransaction(database):
                    database.write_keypoints(image_id, keypoints)
                    database.write_descriptors(image_id, descriptors)
            counts[view.name] = database.num_descriptors_for_image(image_id)
        if progress is not None:
            progress(done + 1, len(capture.views))
    return counts


def _sift(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None, options: FeatureOptions
) -> tuple[NDArray[np.float32], pycolmap.FeatureDescriptors]:
    """Keypoints [N, 6] (x, y, affine shape) and descriptors, outside masked pixels."""
    best = _sift_once(pixels, mask, options, lowered=1.0)
    if len(best[0]) < options.min_features:
        # Matt or dark surfaces have little contrast; false keypoints are cheap, verification removes them.
        best = _sift_once(pixels, mask, options, lowered=0.25)
    return best


def _sift_once(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None, options: FeatureOptions, lowered: float
) -> tuple[NDArray[np.float32], pycolmap.FeatureDescriptors]:
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.num_threads = options.num_threads
    extraction.max_image_size = options.max_image_px
    extraction.sift.max_num_features = options.max_features
    extraction.sift.peak_threshold *= lowered
    extraction.sift.estimate_affine_shape = options.affine
    extraction.sift.domain_size_pooling = options.affine
    extractor = pycolmap.FeatureExtractor.create(extraction, device=pycolmap.Device.cpu)
    found, descriptors = extractor.extract(pycolmap.Bitmap.from_array(np.ascontiguousarray(pixels)).clone_as_grey())
    keypoints = np.array([(k.x, k.y, k.a11, k.a12, k.a21, k.a22) for k in found], dtype=np.float32).reshape(
        -1, 6
    )  # [N, 6]
    if mask is not None and len(keypoints):
        height, width = mask.shape
        column = np.clip(keypoints[:, 0].astype(int), 0, width - 1)
        row = np.clip(keypoints[:, 1].astype(int), 0, height - 1)
        use = mask[row, column]
        keypoints = keypoints[use]
        descriptors = pycolmap.FeatureDescriptors(type=descriptors.type, data=descriptors.data[use])
    return keypoints, descriptors


def read_descriptors(database_path: Path, names: Sequence[str], most: int) -> Iterator[NDArray[np.uint8]]:
    """SIFT descriptors [N, 128] of each photo, at most ``most`` of them, of large and small keypoints alike."""
    ids = image_ids(database_path)
    with pycolmap.Database.open(database_path) as database:
        for name in names:
            found = database.read_descriptors(ids[name]).data if database.exists_descriptors(ids[name]) else []
            if len(found) == 0:
                yield np.zeros((0, 128), np.uint8)
            else:  # they are in order of scale
                yield found[np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)]


def match_features(
    database_path: Path,
    pairs: Sequence[tuple[str, str]],
    options: FeatureOptions | None = None,
    progress: Progress | None = None,
) -> dict[tuple[str, str], int]:
    """Matches and verifies the pairs that are not in the database yet; returns verified matches by pair."""
    options = options or FeatureOptions()
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = options.num_threads
    matching.sift.max_ratio = options.max_ratio
    new = _unmatched(database_path, pairs)
    for start in range(0, len(new), _PAIRS_PER_CALL):
        batch = new[start : start + _PAIRS_PER_CALL]
        with _with_focals(database_path), _nameable(database_path, batch) as (path, listing):
            pycolmap.match_image_pairs(
                path,
                matching_options=matching,
                pairing_options=pycolmap.ImportedPairingOptions(match_list_path=str(listing)),
                verification_options=verification_options(options),
                device=pycolmap.Device.cpu,
            )
        if progress is not None:
            progress(len(pairs) - len(new) + min(start + _PAIRS_PER_CALL, len(new)), len(pairs))
    if progress is not None and not new:
        progress(len(pairs), len(pairs))
    counts = verified_counts(database_path)
    return {pair: counts.get(pair, counts.get((pair[1], pair[0]), 0)) for pair in pairs}


def _unmatched(database_path: Path, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs whose matches or two-view geometry the database lacks."""
    ids = image_ids(database_path)
    with pycolmap.Database.open(database_path) as database:
        return [
            (a, b)
            for a, b in pairs
            if not (database.exists_matches(ids[a], ids[b]) and database.exists_two_view_geometry(ids[a], ids[b]))
        ]


def verification_options(options: FeatureOptions) -> pycolmap.TwoViewGeometryOptions:
    """COLMAP's two-view verification with our thresholds and seed."""
    verification = pycolmap.TwoViewGeometryOptions()
    verification.min_num_inliers = options.min_inliers
    verification.ransac.max_error = options.max_error_px
    verification.ransac.random_seed = options.seed
    return verification


def verified_counts(database_path: Path) -> dict[tuple[str, str], int]:
    """Number of verified matches of every pair that has any, keyed by names in image-id order."""
    with pycolmap.Database.open(database_path) as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        pair_ids, counts = database.read_two_view_geometry_num_inliers()
    result = {}
    for pair_id, count in zip(pair_ids, counts, strict=True):
        id1, id2 = pycolmap.pair_id_to_image_pair(pair_id)
        if count > 0:
            result[names[id1], names[id2]] = int(count)
    return result


def turning_pairs(database_path: Path) -> set[tuple[str, str]]:
    """Verified pairs that one homography explains and no baseline needs (or a plane seen by any camera), by names."""
    without = {
        pycolmap.TwoViewGeometryConfiguration.PANORAMIC,
        pycolmap.TwoViewGeometryConfiguration.PLANAR_OR_PANORAMIC,
    }
    with pycolmap.Database.open(database_path) as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        pair_ids, geometries = database.read_two_view_geometries()
    pairs = (
        pycolmap.pair_id_to_image_pair(p) for p, g in zip(pair_ids, geometries, strict=True) if g.config in without
    )
    return {(names[a], names[b]) for a, b in pairs}


@contextmanager
def _with_focals(database_path: Path) -> Iterator[None]:
    """Lets verification take every focal length for known, guesses too; puts the cameras back at the end.

    It then compares an essential with a fundamental matrix, and a wrong focal length loses. For a shared unknown one
    COLMAP 4.2.1 calls PoseLib's ``relpose_6pt_shared_focal``, which crashes the process on pairs that are an exact
    shift of one another.
    """
    with pycolmap.Database.open(database_path) as database:
        before = database.read_all_cameras()
        for camera in database.read_all_cameras():
            camera.has_prior_focal_length = True
            database.update_camera(camera)
    try:
        yield
    finally:
        with pycolmap.Database.open(database_path) as database:
            for camera in before:
                database.update_camera(camera)


@contextmanager
def _nameable(database_path: Path, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[Path, Path]]:
    """The database to work on and a file that lists the pairs by name, as pycolmap wants them.

    pycolmap splits the lines of that file at blanks. Where names have blanks, it works on a copy in which photos are
    named by their ids, and what it found is brought back at the end.
    """
    with tempfile.TemporaryDirectory(dir=database_path.parent) as folder:
        listing = Path(folder) / "pairs.txt"
        if not any(re.search(r"\s|^#", name) for pair in pairs for name in pair):
            listing.write_text("".join(f"{a} {b}\n" for a, b in pairs), encoding="utf-8")
            yield database_path, listing
            return
        ids = image_ids(database_path)
        copy = Path(shutil.copy(database_path, Path(folder) / "copy.db"))
        with pycolmap.Database.open(copy) as database, pycolmap.DatabaseTransaction(database):
            for image in database.read_all_images():
                image.name = str(image.image_id)
                database.update_image(image)
        listing.write_text("".join(f"{ids[a]} {ids[b]}\n" for a, b in pairs), encoding="utf-8")
        yield copy, listing
        with (
            pycolmap.Database.open(copy) as found,
            pycolmap.Database.open(database_path) as database,
            pycolmap.DatabaseTransaction(database),
        ):
            for id1, id2 in ((ids[a], ids[b]) for a, b in pairs):
                if found.exists_matches(id1, id2) and not database.exists_matches(id1, id2):
                    database.write_matches(id1, id2, found.read_matches(id1, id2))
                if found.exists_two_view_geometry(id1, id2) and not database.exists_two_view_geometry(id1, id2):
                    database.write_two_view_geometry(id1, id2, found.read_two_view_geometry(id1, id2))
