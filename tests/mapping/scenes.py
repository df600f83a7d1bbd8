"""Exact synthetic scenes: random points seen by cameras on an arc, entered into a COLMAP database as keypoints."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from recon.cameras.pinhole import project
from recon.evidence.features import prepare_database
from recon.types import Camera, Capture, View

WIDTH, HEIGHT = 640, 480


@dataclass(frozen=True)
class Synthetic:
    """The truth behind ``capture``; ``pixels[i]`` [P, 2] are where photo i sees the points (NaN unseen)."""

    capture: Capture
    camera: Camera
    poses: NDArray[np.float64]  # [N, 3, 4]
    points: NDArray[np.float64]  # [P, 3]
    pixels: NDArray[np.float64]  # [N, P, 2]

    def truth(self) -> dict[str, NDArray[np.float64]]:
        return {view.name: pose for view, pose in zip(self.capture.views, self.poses, strict=True)}


def make_scene(
    num_views: int = 8,
    num_points: int = 300,
    noise_px: float = 0.3,
    seed: int = 0,
    focal_px: float = 560.0,
    centre: tuple[float, float] = (320.0, 240.0),
    arc_deg: float = 70.0,
) -> Synthetic:
    """Points in a cube of side 2 seen by cameras on an arc of radius 4 that rises and rolls a little."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (num_points, 3))
    camera = Camera("SIMPLE_RADIAL", WIDTH, HEIGHT, (focal_px, *centre, 0.02), "given")
    poses, pixels = [], []
    for i in range(num_views):
        turn = np.radians(arc_deg) * (i / max(num_views - 1, 1) - 0.5)
        rotation = (
            Rotation.from_euler("zx", [0.4 * np.sin(2.1 * i), 0.2 * np.cos(1.7 * i)]).as_matrix()
            @ Rotation.from_euler("y", turn).as_matrix()
        )
        pose = np.column_stack([rotation, [0.1 * np.sin(i), 0.1 * np.cos(i), 4.0]])
        seen = project(camera, points @ rotation.T + pose[:, 3])
        inside = (seen >= 0).all(axis=1) & (seen[:, 0] < WIDTH) & (seen[:, 1] < HEIGHT)
        poses.append(pose)
        pixels.append(np.where(inside[:, None], seen + rng.normal(0, noise_px, seen.shape), np.nan))
    views = tuple(
        View(f"photo {i:02d}.png", Path(f"photo {i:02d}.png"), f"{seed}-{i}", WIDTH, HEIGHT, "camera")
        for i in range(num_views)
    )
    return Synthetic(Capture(views), camera, np.array(poses), points, np.array(pixels))


def write_workspace(scene: Synthetic, workspace: Path, start: Camera, outliers: float = 0.0) -> dict[str, Camera]:
    """Writes images and a database whose keypoint k of every photo is point k; returns the starting cameras.

    A fraction ``outliers`` of the matches of each pair is permuted. Unseen points sit at their own corner pixels and
    match nothing.
    """
    rng = np.random.default_rng(1)
    (workspace / "images").mkdir(parents=True, exist_ok=True)
    for view in scene.capture.views:
        Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 150)).save(workspace / "images" / view.name)
    cameras = {view.name: start for view in scene.capture.views}
    ids = prepare_database(workspace / "database.db", scene.capture, cameras)
    seen = np.isfinite(scene.pixels).all(axis=2)
    num_points = len(scene.points)
    with pycolmap.Database.open(workspace / "database.db") as database:
        for i, view in enumerate(scene.capture.views):
            shape = np.tile(np.array([1, 0, 0, 1], dtype=np.float32), (num_points, 1))
            keypoints = np.column_stack([np.nan_to_num(scene.pixels[i]), shape]).astype(np.float32)
            database.write_keypoints(ids[view.name], keypoints)
            none = np.zeros((num_points, 128), dtype=np.uint8)
            sift = pycolmap.FeatureExtractorType.SIFT
            database.write_descriptors(ids[view.name], pycolmap.FeatureDescriptors(type=sift, data=none))
        for i, j in combinations(range(len(scene.capture.views)), 2):
            both = np.flatnonzero(seen[i] & seen[j])
            partner = both.copy()
            wrong = rng.random(len(both)) < outliers
            partner[wrong] = rng.permutation(partner[wrong])
            database.write_matches(i + 1, j + 1, np.column_stack([both, partner]).astype(np.uint32))
    pycolmap.geometric_verification(workspace / "database.db")
    return cameras
