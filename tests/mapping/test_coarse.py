"""Matches that nothing on the photos makes precise: they stay while their error means something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from recon.cameras import pinhole
from recon.mapping.coarse import sharpen
from recon.types import Camera, Capture, Matches, View

CAMERA = Camera("SIMPLE_RADIAL", 640, 480, (560.0, 320.0, 240.0, 0.0), "exif")


@pytest.mark.parametrize(("sigma_px", "stay"), [(4.0, True), (16.0, True), (18.0, False)])
def test_coarse_matches_stay_up_to_three_percent_of_the_focal_length(
    tmp_path: Path, sigma_px: float, stay: bool
) -> None:
    """Beyond, photos of different walls fit a geometry, and such matches bent a map that keypoints had right."""
    views = []
    for name in ("a.png", "b.png"):
        Image.new("RGB", (640, 480), (128, 128, 128)).save(tmp_path / name)
        views.append(View(name, tmp_path / name, name, 640, 480, "camera"))
    rng = np.random.default_rng(0)
    points = rng.uniform([-2, -1.5, 4], [2, 1.5, 9], (60, 3))
    turned = points @ Rotation.from_euler("y", 8, degrees=True).as_matrix().T + [0.8, 0.0, 0.1]
    first, second = pinhole.project(CAMERA, points), pinhole.project(CAMERA, turned)
    inside = ((second > 0) & (second < [640, 480]) & (first > 0) & (first < [640, 480])).all(axis=1)
    pair = Matches(
        "a.png", "b.png", first[inside], second[inside], np.ones(inside.sum()), "vlm:test", sigma_px=sigma_px
    )
    (kept,) = sharpen(Capture(tuple(views)), {"a.png": CAMERA, "b.png": CAMERA}, [pair])
    assert (len(kept.pixels1) >= 0.9 * inside.sum()) if stay else len(kept.pixels1) == 0
