"""COLMAP's database read without pycolmap: as pycolmap wrote it, and refused where it is none."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from recon.errors import BadInputError
from recon.interop.database import verified_matches, verified_pairs


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Three photos; 1-2 have three verified matches, the last one between keypoints without descriptors."""
    path = tmp_path / "odd name?#.db"
    with pycolmap.Database.open(path) as db:
        camera = pycolmap.Camera(camera_id=1, model="PINHOLE", width=100, height=80, params=[50, 50, 50, 40])
        db.write_camera(camera, use_camera_id=True)
        for number in (1, 2, 3):
            image = pycolmap.Image(name=f"{number}.jpg", camera_id=1, image_id=number)
            db.write_image(image, use_image_id=True)
            points = (np.arange(24).reshape(4, 6) + 100 * number).astype(np.float32)
            db.write_keypoints(number, points)
            kind = pycolmap.FeatureExtractorType.SIFT
            data = np.zeros((3, 128), np.uint8)
            db.write_descriptors(number, pycolmap.FeatureDescriptors(type=kind, data=data))
        geometry = pycolmap.TwoViewGeometry()
        geometry.inlier_matches = np.array([[0, 1], [2, 0], [3, 3]], dtype=np.uint32)
        db.write_two_view_geometry(1, 2, geometry)
        db.write_two_view_geometry(2, 3, pycolmap.TwoViewGeometry())
    return path


def test_as_pycolmap_wrote_it(database: Path) -> None:
    assert verified_pairs(database) == {("1.jpg", "2.jpg"): 3}
    found = verified_matches(database, "1.jpg", "2.jpg")
    assert found.pixels1.tolist() == [[100, 101], [112, 113], [118, 119]]
    assert found.pixels2.tolist() == [[206, 207], [200, 201], [218, 219]]
    assert found.from_checkpoint.tolist() == [False, False, True]
    turned = verified_matches(database, "2.jpg", "1.jpg")
    assert np.array_equal(turned.pixels1, found.pixels2)
    assert len(verified_matches(database, "2.jpg", "3.jpg").pixels1) == 0


def test_refusals(database: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"has no photo '9\.jpg'"):
        verified_matches(database, "1.jpg", "9.jpg")
    with pytest.raises(BadInputError, match="no such file"):
        verified_pairs(tmp_path / "absent.db")
    other = tmp_path / "other.db"
    other.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(BadInputError, match="no readable COLMAP database"):
        verified_pairs(other)
    with sqlite3.connect(database) as db:
        db.execute("UPDATE two_view_geometries SET rows = 1000000000")
    with pytest.raises(BadInputError, match="a row says 1000000000 x 2 and holds 24 bytes"):
        verified_matches(database, "1.jpg", "2.jpg")
    with sqlite3.connect(database) as db:
        db.execute("UPDATE two_view_geometries SET rows = 3, data = ?", (np.full((3, 2), 9, np.uint32).tobytes(),))
    with pytest.raises(BadInputError, match="keypoints that are not there"):
        verified_matches(database, "1.jpg", "2.jpg")
