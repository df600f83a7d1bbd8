"""Pools of views and pairs: round trips, exactness at the unified pixels, damaged and foreign files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recon.cameras.unify import ImageProfile
from recon.errors import BadInputError
from recon.synth.dataset import MIN_OVERLAP, make_room, split_seed
from recon.synth.render import render_depth
from recon.training.pool import (
    list_pool,
    pool_path,
    pooled_pair,
    pooled_view,
    read_pair,
    render_pool,
    render_pooled_pair,
    render_pooled_view,
)
from recon.training.samples import named_objects

SMALL = ImageProfile("focal", 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small-pool")
    render_pool(folder, "train", 0, 2, SMALL)
    render_pool(folder, "train", 0, 2, SMALL, shape="pair")
    return folder


def test_what_is_read_is_what_was_rendered(folder: Path) -> None:
    seed = split_seed("train", 1)
    rendered, read = render_pooled_view(seed, SMALL), pooled_view(folder, "train", 1, SMALL)
    np.testing.assert_array_equal(read.image.pixels, rendered.image.pixels)
    np.testing.assert_allclose(read.depth_m, rendered.depth_m, rtol=2**-11)  # float16 on disk
    np.testing.assert_array_equal(read.cam_from_world, rendered.cam_from_world)
    assert [thing.name for thing in read.objects] == [thing.name for thing in rendered.objects]
    for one, other in zip(read.objects, rendered.objects, strict=True):
        np.testing.assert_allclose([*one.box_px, *one.low_m, *one.high_m], [*other.box_px, *other.low_m, *other.high_m],
                                   rtol=1e-6, atol=1e-6)  # fmt: skip
    pair, again = render_pooled_pair(seed, SMALL), pooled_pair(folder, "train", 1, SMALL)
    np.testing.assert_array_equal(again.second.image.pixels, pair.second.image.pixels)
    np.testing.assert_allclose(again.cam1_from_cam2, pair.cam1_from_cam2, atol=1e-12)
    assert again.first.normals_world is not None
    assert pair.first.normals_world is not None
    np.testing.assert_allclose(again.first.normals_world, pair.first.normals_world, atol=0.004 + 1e-6)  # 8 bits


def test_depth_is_exact_at_the_unified_pixel_centres(folder: Path) -> None:
    """Not that of the nearest pixel of the larger photo."""
    view = pooled_view(folder, "train", 0, SMALL)
    exact = render_depth(make_room(view.seed), view.image.camera, view.cam_from_world)
    np.testing.assert_allclose(view.depth_m, exact, rtol=2**-11)


def test_pairs_overlap_and_move(folder: Path) -> None:
    for index in range(2):
        pair = pooled_pair(folder, "train", index, SMALL)
        assert pair.overlap() > MIN_OVERLAP
        assert pair.overlap() == pytest.approx(pair.swapped().overlap())
        assert pair.flipped().overlap() == pytest.approx(pair.overlap(), abs=0.02)
        assert np.linalg.norm(pair.cam1_from_cam2[:, 3]) > 0.05


def test_a_pool_is_rendered_once_and_continued(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    calls: list[tuple[int, int]] = []
    assert render_pool(folder, "train", 0, 2, SMALL, lambda *step: calls.append(step), shape="pair") == 0
    assert calls == [(1, 2), (2, 2)]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert [path.name for path in list_pool(folder)] == ["00000000.npz", "00000001.npz"]  # views, not pairs


def test_views_of_things_show_more_than_others(tmp_path: Path) -> None:
    plain = [render_pooled_view(split_seed("train", index), SMALL) for index in range(4)]
    chosen = [pooled_view(tmp_path, "train", index, SMALL, shape="things") for index in range(4)]
    assert sum(len(named_objects(view)) for view in chosen) > 1.5 * sum(len(named_objects(view)) for view in plain)
    assert all(named_objects(view) for view in chosen)
    assert (tmp_path / "things-00000000.npz").exists()


def test_pools_of_another_profile_and_damaged_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"focal length of 64\.0 px, needed are 224 px; use another pool folder"):
        pooled_view(folder, "train", 0, ImageProfile("focal", 224))
    with pytest.raises(BadInputError, match=r"long edge of \d+\.0 px, needed are 300 px"):
        pooled_pair(folder, "train", 0, ImageProfile("long_edge", 300))
    whole = pool_path(folder, "train", 0, "pair").read_bytes()
    for number, content in enumerate((b"", b"not a zip", whole[: len(whole) // 2])):
        path = tmp_path / f"pair-{number:08d}.npz"
        path.write_bytes(content)
        with pytest.raises(BadInputError, match=path.name):
            read_pair(path)
    with pytest.raises(BadInputError, match="not of a rendered pool"):
        read_pair(pool_path(folder, "train", 0))  # a view is no pair
    with pytest.raises(BadInputError, match="no rendered views"):
        list_pool(tmp_path / "nowhere")
