"""Steps of the texturing, each on cases small enough to be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.errors import SurfaceError
from recon.surface.edges import is_closed
from recon.surface.options import TextureOptions
from recon.surface.texture.bake import finish_page, sample
from recon.surface.texture.candidates import Candidates, drop_outliers, estimate_gains
from recon.surface.texture.charts import cell_weights, cut_charts, place_charts, texel_corners
from recon.surface.texture.level import level, piece_corners, seam_pairs
from recon.surface.texture.select import pieces, select_photos
from recon.surface.texture.topology import face_neighbours, face_normals, split_long_edges
from recon.surface.texture.views import Seen
from recon.surface.types import Mesh
from tests.surface.texture.box import box_mesh


def strip(cells: int) -> np.ndarray:
    """Triangles of a strip of ``cells`` squares, two each; vertices k and k + 1 + cells are its long sides."""
    low = np.arange(cells)
    high = low + cells + 1
    return np.stack([np.stack([low, low + 1, high], 1), np.stack([low + 1, high + 1, high], 1)], 1).reshape(-1, 3)


def candidates_of(photo: list[list[int]], quality: list[list[float]], color: list[list[float]]) -> Candidates:
    grey = np.repeat(np.array(color, np.float32)[..., None], 3, axis=2)
    values = np.array(quality, np.float32)
    return Candidates(np.array(photo, np.int32), values, np.ones_like(values), grey)


@pytest.mark.parametrize("longest", [2.0, 0.5, 0.11])
def test_cut_edges_leave_no_gap_and_the_same_surface(longest: float) -> None:
    box = box_mesh()
    cut = split_long_edges(box, longest)
    vertices = np.asarray(cut.vertices_world_m)
    edges = vertices[cut.faces] - vertices[np.roll(cut.faces, -1, axis=1)]
    assert np.linalg.norm(edges, axis=2).max() <= longest
    assert is_closed(cut.faces)
    normals, areas = face_normals(vertices, cut.faces)
    assert areas.sum() == pytest.approx(3.76)
    assert (np.einsum("fd,fd->f", normals, vertices[cut.faces].mean(axis=1)) > 0).all()  # still from outside
    assert (face_neighbours(cut.faces) >= 0).all()
    if longest == 2.0:
        assert cut is box


def test_colours_of_cut_edges_are_the_means_of_their_ends() -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 0.1, 0]])
    mesh = Mesh(vertices, np.array([[0, 1, 2]], np.int32), np.array([[0, 0, 0], [100, 50, 10], [0, 0, 0]], np.uint8))
    cut = split_long_edges(mesh, 0.6)
    assert cut.colors is not None
    middle = np.flatnonzero(np.linalg.norm(np.asarray(cut.vertices_world_m) - [0.5, 0, 0], axis=1) < 1e-9)
    np.testing.assert_array_equal(cut.colors[middle], [[50, 25, 5]])


def test_neighbours_of_a_strip() -> None:
    np.testing.assert_array_equal(face_neighbours(strip(2).astype(np.int32)),
                                  [[-1, 1, -1], [2, -1, 0], [-1, 3, 1], [-1, -1, 2]])  # fmt: skip


def test_the_best_photos_of_a_triangle_are_kept() -> None:
    kept = Candidates.none(1, 2)
    for photo, size in enumerate([5.0, 9.0, 1.0, 7.0]):
        one = np.array([size], np.float32)
        kept.add(photo, Seen(np.array([0]), one, one, np.zeros((1, 3), np.float32)))
    assert sorted(kept.photo[0]) == [1, 3]


def test_detail_counts_up_to_what_most_photos_have() -> None:
    kept = candidates_of([[0, 1, 2]], [[10, 10, 10]], [[0, 0, 0]])
    kept.detail[:] = [[6, 40, 1]]  # usual, leaves in front, blurred
    kept.weigh_detail()
    np.testing.assert_allclose(kept.quality, [[100, 100, 50]])


def test_exposures_are_found_from_shared_triangles() -> None:
    rng = np.random.default_rng(0)
    surface, gains = rng.uniform(60, 120, (300, 3)), np.array([[0.8, 0.9, 1.0], [1.0, 1.0, 1.0], [1.6, 1.2, 1.0]])
    photo = np.stack([rng.permutation(3)[:2] for _ in range(300)]).astype(np.int32)
    color = (surface[:, None] * gains[photo]).astype(np.float32)
    color[:30, 0] = [20, 200, 20]  # another thing
    found = estimate_gains(Candidates(photo, np.ones((300, 2), np.float32), np.ones((300, 2), np.float32), color), 3)
    np.testing.assert_allclose(found / found[1], gains, rtol=0.01)
    np.testing.assert_allclose(np.log(found).mean(axis=0), 0, atol=1e-3)


def test_one_photo_against_many_is_an_outlier_where_neighbours_agree() -> None:
    faces = strip(6).astype(np.int32)
    photo, quality = [[0, 1, 2, 3]] * 12, [[1.0] * 4] * 12
    color = [[100.0, 104.0, 98.0, 200.0 if 2 <= face <= 5 else 101.0] for face in range(12)]
    color[9][0] = 160  # one triangle alone: a matter of its borders
    kept = candidates_of(photo, quality, color)
    assert drop_outliers(kept, np.ones((4, 3)), face_neighbours(faces)) == 4
    np.testing.assert_array_equal(np.flatnonzero(kept.photo[:, 3] < 0), [2, 3, 4, 5])
    assert (kept.photo[:, :3] >= 0).all()


def test_a_slightly_better_photo_makes_no_island_but_a_much_better_one_does() -> None:
    faces = strip(20).astype(np.int32)
    neighbours = face_neighbours(faces)
    inside = np.isin(np.arange(40), range(18, 22))
    for other, outside, expected in ((0.9, 0.8, 0), (0.1, 0.1, 4)):
        quality = [[other, 1.0] if here else [1.0, outside] for here in inside]
        kept = candidates_of([[0, 1]] * 40, quality, [[0, 0]] * 40)
        labels = select_photos(kept, neighbours, TextureOptions(min_chart_faces=2))
        assert (labels == 1).sum() == expected


def test_small_pieces_join_neighbours_whose_photo_shows_them() -> None:
    faces = strip(20).astype(np.int32)
    neighbours = face_neighbours(faces)
    quality = [[0.01, 1.0] if 15 <= face < 25 else [1.0, 0.0] for face in range(40)]
    photo = [[0, 1] if 15 <= face < 25 else [0, -1] for face in range(40)]
    kept = candidates_of(photo, quality, [[0, 0]] * 40)
    assert (select_photos(kept, neighbours, TextureOptions(min_chart_faces=2)) == 1).sum() == 10
    assert (select_photos(kept, neighbours, TextureOptions(min_chart_faces=11)) == 0).all()
    kept.photo[20, 0] = -1  # photo 0 does not show all of the piece
    kept.quality[20, 0] = 0
    assert (select_photos(kept, neighbours, TextureOptions(min_chart_faces=11)) == 1).sum() == 10
    kept.photo[20] = -1
    kept.quality[20] = 0
    labels = select_photos(kept, neighbours, TextureOptions(min_chart_faces=2))
    assert labels[20] == -1
    assert pieces(labels, neighbours)[0] == 5


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), max_size=60), st.integers(0, 300), st.integers(1, 3))
def test_charts_lie_in_their_pages_and_apart(sizes: list[tuple[int, int]], unseen: int, pages: int) -> None:
    count = len(sizes)
    of_face = np.concatenate([np.arange(count), np.full(unseen, -1)]).astype(np.int64)
    size = np.array(sizes, np.int64).reshape(-1, 2)
    charts = place_charts(np.zeros(count, np.int64), np.zeros((count, 2), np.int64), size, of_face, 256, pages)
    assert len(charts.pages) <= pages
    taken = [np.zeros(shape, dtype=int) for shape in charts.pages]
    for page, (x, y), (width, height) in zip(charts.page, charts.place, charts.extent):
        taken[page][y : y + height, x : x + width] += 1
        assert y + height <= charts.pages[page][0] <= 256
        assert x + width <= charts.pages[page][1] <= 256
    assert all(page.max() <= 1 for page in taken)
    corners = np.tile(np.float32([[0, 0], [1, 0], [0, 1]]), (len(of_face), 1, 1))
    corners[:count] *= size[:, None]
    placed = texel_corners(charts, corners)
    assert (placed >= charts.place[charts.of_face][:, None]).all()
    assert (placed <= (charts.place + charts.extent)[charts.of_face][:, None]).all()


def test_what_does_not_fit_is_said() -> None:
    nothing = np.zeros((0, 2), np.int64)
    with pytest.raises(
        SurfaceError, match="--texture-size 256: 0 charts and 9999 triangles that no photo shows do not"
    ):
        place_charts(np.zeros(0, np.int64), nothing, nothing, np.full(9999, -1), 256, 1)


def test_long_charts_are_cut() -> None:
    corners = np.float32([[[x, 10], [x + 4, 10], [x, 14]] for x in range(0, 1500, 5)])
    photo, low, size, of_face = cut_charts(np.zeros(300, np.int32), np.zeros(300, np.int64), corners, 4)
    assert len(photo) == 3
    assert size[:, 0].max() < 530
    assert (low[of_face] <= corners.min(axis=1)).all()
    assert (low[of_face] + size[of_face] >= corners.max(axis=1)).all()


def test_a_step_between_pieces_is_levelled_away() -> None:
    faces = strip(30).astype(np.int32)
    piece = (np.arange(60) >= 30).astype(np.int64)
    corners = piece_corners(faces, piece, np.arange(60))
    pairs = seam_pairs(corners)
    assert len(pairs) == 2
    color = np.where(corners.piece[:, None] == 0, 100.0, 120.0) + np.zeros((1, 3))
    after = color + level(corners, color)
    assert np.abs(after[pairs[:, 0]] - after[pairs[:, 1]]).max() < 1
    assert 100 < after.min() < after.max() < 120
    assert after[pairs].mean() == pytest.approx(110, abs=0.5)


def test_cells_hold_linear_colours_exactly() -> None:
    corners = np.array([[10.0, 20, 30], [110, 60, 30], [50, 220, 90]])
    cell = np.einsum("yxk,kc->yxc", cell_weights(), corners)
    places = np.array([[0.5, 0.5], [3.5, 0.5], [0.5, 3.5], [1.5, 1.5]])
    expected = np.concatenate([corners, [corners[0] + (corners[1] - corners[0] + corners[2] - corners[0]) / 3]])
    np.testing.assert_allclose(sample(cell, places), expected)


def test_pages_are_continued_beyond_their_triangles() -> None:
    page = np.zeros((20, 40, 3), dtype=np.uint8)
    page[2:12, 2:12] = 100
    page[2:12, 12:20] = 50  # what the photo shows beside the chart
    corners = np.array([[[2.0, 2], [12, 2], [2, 12]], [[12.0, 2], [12, 12], [2, 12]]])
    offset = np.full((2, 3, 3), 7, dtype=np.float32)
    out = finish_page(page, corners, offset, np.zeros((0, 2), np.int64), 2.0)
    assert (out[2:12, 2:12] == 107).all()
    assert (out[5, 12:14] == 57).all()  # the photo goes on, levelled alike
    assert (out[5, 15:] == 107).all()
    assert (out[15:, 5] == 107).all()
