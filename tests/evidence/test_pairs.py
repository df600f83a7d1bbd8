"""Which photos of many are compared: near in order, by GPS, or by their looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from recon.evidence.features import FeatureOptions, extract_features
from recon.evidence.looks import photo_looks
from recon.evidence.pairs import PairOptions, choose_pairs, most_pairs
from recon.types import Camera, Capture, GpsFix, View

FEW = PairOptions(exhaustive_up_to=20, sequence_neighbours=2, gps_neighbours=3, look_neighbours=4, loop_neighbours=1)


def photos(count: int, metres: float | None = None) -> tuple[View, ...]:
    """Photos on a line of fifty places, ``metres`` apart, that is walked again and again; None: without GPS."""

    def fix(i: int) -> GpsFix | None:
        return None if metres is None else GpsFix(46.0, 7.0 + metres / 77_000 * (i % 50), 0.0)

    return tuple(View(f"{i:03d}", Path("x"), str(i), 10, 10, "c", gps=fix(i)) for i in range(count))


def test_neighbours_by_gps() -> None:
    capture = Capture(photos(100, metres=8.0))
    pairs = choose_pairs(capture, FEW)
    assert len(pairs) == len(set(pairs)) < 100 * 6
    assert all(a < b for a, b in pairs)
    assert ("000", "050") in pairs  # the same place, 50 photos later
    assert ("000", "001") in pairs
    assert ("000", "030") not in pairs


def test_few_photos_and_photos_of_which_nothing_is_known_are_all_compared() -> None:
    assert len(choose_pairs(Capture(photos(20)), FEW)) == 190
    assert len(choose_pairs(Capture(photos(30)), FEW)) == 30 * 29 // 2


def test_a_sequence_compares_at_powers_of_two() -> None:
    pairs = choose_pairs(Capture(photos(30), is_sequence=True), FEW)
    assert ("000", "016") in pairs
    assert ("000", "015") not in pairs


@pytest.mark.parametrize(
    ("capture", "wanted"),
    [
        (Capture(photos(30)), 4),
        (Capture(photos(30), is_sequence=True), 1),
        (Capture(photos(30, metres=8.0)), 1),
        (Capture(photos(30, metres=0.02)), 4),  # all fixes within their errors: GPS tells nothing
    ],
)
def test_looks_add_what_neither_order_nor_gps_knows(capture: Capture, wanted: int) -> None:
    angle = np.random.default_rng(0).uniform(0, 3, 30)
    looks = np.column_stack([np.cos(angle), np.sin(angle)])
    without = set(choose_pairs(capture, FEW, lambda: np.zeros((30, 2))))
    pairs = choose_pairs(capture, FEW, lambda: looks)
    added = {pair for pair in pairs if pair not in without}
    assert without < set(pairs)
    assert len(pairs) <= most_pairs(capture, FEW) == len(without) + 30 * wanted
    for i in range(30):  # the nearest of the others are among them
        names = {f"{i:03d}"}
        others = [j for j in range(30) if j != i and tuple(sorted((f"{i:03d}", f"{j:03d}"))) not in without]
        nearest = sorted(others, key=lambda j: abs(angle[i] - angle[j]))[:wanted]
        assert all(tuple(sorted(names | {f"{j:03d}"})) in added for j in nearest)


def test_photos_of_one_wall_look_alike(tmp_path: Path) -> None:
    """Three walls, photographed in turns, beside a photo of nothing: the most similar ones show the same wall."""
    rng = np.random.default_rng(0)
    walls = []
    for _ in range(3):
        noise = Image.fromarray(rng.integers(0, 255, (200, 420, 3)).astype(np.uint8)).filter(
            ImageFilter.GaussianBlur(2)
        )
        walls.append(Image.fromarray(np.clip((np.asarray(noise, float) - 128) * 4 + 128, 0, 255).astype(np.uint8)))
    size, views = (240, 180), []
    for i in range(16):
        path = tmp_path / f"{i:02d}.png"
        left = 30 * (i // 3)
        picture = walls[i % 3].crop((left, 10, left + size[0], 10 + size[1])) if i < 15 else Image.new("RGB", size)
        picture.save(path)
        views.append(View(path.name, path, str(i), *size, "camera"))
    capture = Capture(tuple(views))
    cameras = {view.name: Camera("SIMPLE_RADIAL", *size, (288.0, 120.0, 90.0, 0.0)) for view in views}
    database = tmp_path / "database.db"
    extract_features(database, capture, cameras, FeatureOptions(max_features=500, min_features=0))
    names = [view.name for view in views]
    looks = photo_looks(database, names)
    assert not looks[15].any()
    np.testing.assert_allclose(np.linalg.norm(looks[:15], axis=1), 1.0, rtol=1e-5)
    alike = looks[:15] @ looks[:15].T - 2 * np.eye(15)
    assert ((alike.argmax(axis=1) - np.arange(15)) % 3 == 0).all()
    np.testing.assert_array_equal(looks, photo_looks(database, names))
    none = PairOptions(exhaustive_up_to=5, sequence_neighbours=0, look_neighbours=2)
    pairs = choose_pairs(capture, none, lambda: looks)
    assert all((int(a[:2]) - int(b[:2])) % 3 == 0 for a, b in pairs)
    assert "15.png" not in {name for pair in pairs for name in pair}
