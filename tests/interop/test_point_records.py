"""Places of variable-length records: the same as reading record after record, whatever the file holds."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.interop import point_records
from recon.interop.point_records import RECORD_BYTES, read_chosen, record_starts
from recon.interop.sparse import read_points
from tests.interop.toy import colmap_model, toy


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of a few dozen records, so that small files take every path."""
    monkeypatch.setattr(point_records, "_WINDOW_BYTES", 4096)
    monkeypatch.setattr(point_records, "_STRETCH_BYTES", 300)
    monkeypatch.setattr(point_records, "_HOPS", 2)


def one_by_one(window: bytes) -> tuple[list[int], int]:
    starts, at = [], 0
    while at + RECORD_BYTES <= len(window):
        starts.append(at)
        at += RECORD_BYTES + 8 * struct.unpack_from("<Q", window, at + 43)[0]
    return starts, at


def records(lengths: list[int], seed: int, zeros: bool = False) -> tuple[bytes, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    parts, places = [], rng.normal(size=(len(lengths), 3)) * 10.0 ** rng.integers(-3, 6)
    colours = rng.integers(0, 256, (len(lengths), 3))
    for i, length in enumerate(lengths):
        track = bytes(8 * length) if zeros else rng.integers(0, 3000, 2 * length).astype("<u4").tobytes()
        error = 0.0 if zeros else rng.random()
        parts.append(struct.pack("<Q3d3BdQ", i + 1, *places[i], *map(int, colours[i]), error, length) + track)
    return b"".join(parts), places, colours


LENGTHS = st.lists(st.one_of(st.integers(0, 6), st.integers(0, 700)), min_size=1, max_size=250)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(lengths=LENGTHS, seed=st.integers(0, 99), zeros=st.booleans(), cut=st.integers(0, 60))
def test_starts_are_those_of_reading_one_after_the_other(lengths: list[int], seed: int, zeros: bool, cut: int) -> None:
    content, _, _ = records(lengths, seed, zeros)
    window = content[: max(0, len(content) - cut)]
    starts, after = record_starts(np.frombuffer(window, np.uint8))
    assert (starts.tolist(), after) == one_by_one(window)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(noise=st.binary(min_size=0, max_size=4000))
def test_nonsense_gives_what_reading_one_after_the_other_gives(noise: bytes) -> None:
    starts, after = record_starts(np.frombuffer(noise, np.uint8))
    expected, end = one_by_one(noise)
    assert starts.tolist() == expected
    assert after == end or min(after, end) > 1 << 40  # both far beyond any file


@settings(deadline=None, max_examples=30, derandomize=True)
@given(lengths=LENGTHS, seed=st.integers(0, 99), share=st.floats(0, 1))
def test_chosen_points_have_their_own_place_and_colour(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], seed: int, share: float
) -> None:
    content, places, colours = records(lengths, seed)
    path = tmp_path_factory.mktemp("model") / "points3D.bin"
    path.write_bytes(struct.pack("<Q", len(lengths)) + content)
    chosen = np.flatnonzero(np.random.default_rng(seed).random(len(lengths)) < share)
    rows = read_chosen(path, len(lengths), chosen)
    np.testing.assert_array_equal(rows, np.column_stack([places, colours])[chosen])
    path.write_bytes(struct.pack("<Q", len(lengths)) + content[:-1])
    with pytest.raises(ValueError, match=r"points3D\.bin is truncated"):
        read_chosen(path, len(lengths), chosen)


def test_many_points_that_pycolmap_wrote(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(700, 3))
    model = colmap_model(toy(3), points)
    for k in range(0, 700, 3):  # tracks of two and of three observations
        model.add_observation(k + 1, pycolmap.TrackElement(3, k))
    model.write_binary(tmp_path)
    cloud = read_points(tmp_path, 10_000)
    np.testing.assert_allclose(cloud.points_world_m, points)
    some = np.asarray(read_points(tmp_path, 50, seed=1).points_world_m)
    assert len(some) == 50
    assert {tuple(p) for p in some} <= {tuple(p) for p in points}
