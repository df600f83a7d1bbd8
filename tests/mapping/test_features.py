"""Real keypoints on small textured photos: masks, blanks in names, resuming, and a checkpoint's matches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image, ImageFilter
from scipy.spatial import cKDTree

from recon.evidence.added import add_matches
from recon.evidence.features import (
    FeatureOptions,
    extract_features,
    image_ids,
    match_features,
    verified_counts,
)
from recon.evidence.pairs import choose_pairs
from recon.types import Camera, Capture, Matches, View

SIZE = (320, 240)
SHIFT = 24  # pixels between two photos


@pytest.fixture
def capture(tmp_path: Path) -> Capture:
    """Three windows of one texture, each ``SHIFT`` pixels further right."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (240, 420, 3)).astype(np.uint8)).filter(ImageFilter.GaussianBlur(2))
    texture = Image.fromarray(np.clip((np.asarray(noise, dtype=float) - 128) * 4 + 128, 0, 255).astype(np.uint8))
    (tmp_path / "images").mkdir()
    views = []
    for i, name in enumerate(("a photo.png", "b.png", "#c.png")):
        path = tmp_path / "images" / name
        texture.crop((SHIFT * i, 0, SHIFT * i + SIZE[0], SIZE[1])).save(path)
        views.append(View(name, path, str(i), *SIZE, "camera"))
    return Capture(tuple(views))


def _cameras(capture: Capture) -> dict[str, Camera]:
    return {v.name: Camera("SIMPLE_RADIAL", *SIZE, (384.0, 160.0, 120.0, 0.0)) for v in capture.views}


def test_extraction_matching_and_resuming(capture: Capture, tmp_path: Path) -> None:
    database, options = tmp_path / "database.db", FeatureOptions(max_features=800, min_features=0)
    seen: list[tuple[int, int]] = []
    counts = extract_features(
        database, capture, _cameras(capture), options, lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert min(counts.values()) > 200
    pairs = choose_pairs(capture)
    verified = match_features(database, pairs, options)  # names with blanks and a leading '#'
    assert all(verified[pair] > 50 for pair in pairs)

    ids = image_ids(database)
    with pycolmap.Database.open(database) as opened:
        links = opened.read_matches(ids["a photo.png"], ids["b.png"])
        first = opened.read_keypoints(ids["a photo.png"])[links[:, 0], :2]
        second = opened.read_keypoints(ids["b.png"])[links[:, 1], :2]
        before = opened.read_keypoints(1).copy()
    assert np.median(np.abs(first - second - [SHIFT, 0])) < 0.2
    assert extract_features(database, capture, _cameras(capture), options) == counts
    assert match_features(database, pairs, options) == verified
    with pycolmap.Database.open(database) as opened:
        np.testing.assert_array_equal(opened.read_keypoints(1), before)


def test_masked_pixels_have_no_keypoints(capture: Capture, tmp_path: Path) -> None:
    mask = np.zeros((SIZE[1], SIZE[0]), dtype=np.uint8)
    mask[:, 160:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    first = capture.views[0]
    masked = View(first.name, first.path, "m", *SIZE, "camera", mask_path=tmp_path / "mask.png")
    extract_features(tmp_path / "database.db", Capture((masked,)), _cameras(capture), FeatureOptions(min_features=0))
    with pycolmap.Database.open(tmp_path / "database.db") as opened:
        keypoints = opened.read_keypoints(1)
    assert len(keypoints) > 50
    assert keypoints[:, 0].min() >= 160


def test_matches_of_a_checkpoint_join_the_database_once(capture: Capture, tmp_path: Path) -> None:
    database, options = tmp_path / "database.db", FeatureOptions(max_features=300, min_features=0)
    extract_features(database, capture, _cameras(capture), options)
    grid = np.stack(np.meshgrid(np.arange(60, 300, 20.0), np.arange(20, 220, 20.0)), axis=-1).reshape(-1, 2)
    shared = [(0, 1), (1, 2)]
    matches = [
        Matches(
            capture.views[i].name, capture.views[j].name,
            grid - [SHIFT * i, 0], grid - [SHIFT * j, 0], np.ones(len(grid)), "vlm:test",
        )
        for i, j in shared
    ]  # fmt: skip
    before = image_ids(database)
    with pycolmap.Database.open(database) as opened:
        sift = {i: len(opened.read_keypoints(i)) for i in before.values()}

    assert add_matches(database, matches, options) == 2 * len(grid)
    assert add_matches(database, matches, options) == 0

    with pycolmap.Database.open(database) as opened:
        middle, first = opened.read_keypoints(2)[:, :2], opened.read_keypoints(1)[:, :2]
        links = opened.read_matches(1, 2)
    # shared by both pairs, some with SIFT: one keypoint each
    assert sift[2] + 0.9 * len(grid) < len(middle) <= sift[2] + len(grid)
    gap, _ = cKDTree(first).query(grid)
    assert gap.max() <= 0.5
    assert len(links) == len(grid)
    np.testing.assert_allclose(first[links[:, 0]] - middle[links[:, 1]], np.tile([SHIFT, 0], (len(links), 1)), atol=1.0)
    assert verified_counts(database)[capture.views[0].name, capture.views[1].name] == len(grid)
