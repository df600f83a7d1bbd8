"""The relative pose of two photos from their verified SIFT matches alone: the classical answer to a pose question."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from recon.evidence.features import (
    FeatureOptions,
    extract_features,
    image_ids,
    match_features,
    to_colmap_camera,
    verification_options,
)
from recon.types import Camera, Capture, View


@dataclass(frozen=True)
class TwoViewPose:
    """``rotation_cam1_from_cam2`` [3, 3], unit ``direction1`` [3] towards camera 2's centre in camera 1's frame, and
    the number of verified matches behind them. The distance is not known."""

    rotation_cam1_from_cam2: NDArray[np.float64]
    direction1: NDArray[np.float64]
    num_inliers: int


def two_view_pose(
    image1: Path, camera1: Camera, image2: Path, camera2: Camera, options: FeatureOptions | None = None
) -> TwoViewPose | None:
    """The essential matrix of SIFT matches (pycolmap), decomposed; None when the photos can't be verified.

    Raises:
        BadInputError: a photo can't be read.
    """
    options = options or FeatureOptions()
    views = tuple(
        View(name, path, "", camera.width_px, camera.height_px, name)
        for name, path, camera in (("1", image1, camera1), ("2", image2, camera2))
    )
    cameras = {"1": camera1, "2": camera2}
    with tempfile.TemporaryDirectory(prefix="vlm3-recon-") as folder:
        database_path = Path(folder) / "database.db"
        extract_features(database_path, Capture(views), cameras, options)
        match_features(database_path, [("1", "2")], options)
        ids = image_ids(database_path)
        with pycolmap.Database.open(database_path) as database:
            if not database.exists_matches(ids["1"], ids["2"]):
                return None
            links = np.array(database.read_matches(ids["1"], ids["2"]))
            pixels1, pixels2 = (np.array(database.read_keypoints(ids[k])[:, :2], np.float64) for k in ("1", "2"))
    settings = verification_options(options)
    settings.compute_relative_pose = True
    colmap1, colmap2 = (to_colmap_camera(cameras[name], k) for k, name in enumerate(("1", "2"), start=1))
    for colmap in (colmap1, colmap2):
        colmap.has_prior_focal_length = True  # these cameras are known
    if len(links) < options.min_inliers:
        return None
    geometry = pycolmap.estimate_two_view_geometry(colmap1, pixels1, colmap2, pixels2, links, settings)
    pose = geometry.cam2_from_cam1
    if pose is None or len(geometry.inlier_matches) < options.min_inliers:
        return None
    rotation = np.asarray(pose.rotation.matrix(), dtype=np.float64)
    centre = -rotation.T @ np.asarray(pose.translation, dtype=np.float64)
    length = float(np.linalg.norm(centre))
    if not np.isfinite(length) or length < 1e-12:
        return None
    return TwoViewPose(rotation.T, centre / length, len(geometry.inlier_matches))
