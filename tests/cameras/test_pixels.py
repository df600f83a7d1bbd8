"""Pixel conventions against the published vectors, and their round trips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon.cameras import pixels

# Test vectors published with the public checkpoints: a 1215x920 image, array index -> text coordinate in [0, 2000].
DEPTH_VECTORS = [
    ((10, 488), (16, 1061)),
    ((191, 119), (314, 259)),
    ((710, 320), (1169, 696)),
    ((223, 406), (367, 883)),
    ((1182, 773), (1946, 1680)),
    ((481, 513), (792, 1115)),
    ((423, 359), (696, 780)),
    ((1166, 467), (1919, 1015)),
    ((0, 410), (0, 891)),
    ((293, 499), (482, 1085)),
]
# 600x400 photo resized to 1024x683: pixel of the photo -> coordinate in [0, 1000], three decimals.
MATCH_VECTORS = [
    ((264.0, 24.0), (440.0, 59.971)),
    ((176.0, 32.0), (293.333, 79.961)),
    ((472.0, 40.0), (786.667, 99.951)),
    ((88.0, 120.0), (146.667, 299.854)),
]
# 1134x851 image: box of array indices -> coordinates in [0, 1000]; published as agreeing within 1.
BOX_VECTORS = [((0, 33, 740, 850), (0, 39, 652, 999)), ((7, 324, 258, 479), (6, 380, 228, 562))]


def test_depth_text_coordinates_are_the_published_ones():
    indices = np.array([index for index, _ in DEPTH_VECTORS])
    text = pixels.to_integers(pixels.corner_from_index(indices), 1215, 920, 2000, convention="index")
    np.testing.assert_array_equal(text, [expected for _, expected in DEPTH_VECTORS])


def test_match_text_coordinates_are_the_published_ones():
    photo = np.array([index for index, _ in MATCH_VECTORS])
    resized = photo * (1024 / 600)  # the published labels scale both axes by the same factor
    text = pixels.to_normalised(pixels.corner_from_index(resized), 1024, 683, 1000, convention="index")
    np.testing.assert_allclose(text, [expected for _, expected in MATCH_VECTORS], atol=5e-4)


def test_boxes_agree_with_the_published_ones_within_one():
    for box, expected in BOX_VECTORS:
        corners = pixels.corner_from_index(np.array(box).reshape(2, 2))
        text = pixels.to_integers(corners, 1134, 851, 1000, convention="index").ravel()
        assert np.abs(text - np.array(expected)).max() <= 1


def test_conventions_differ_by_half_a_pixel():
    point = np.array([[10.5, 20.5]])
    assert pixels.to_normalised(point, 100, 100, 100, "corner").tolist() == [[10.5, 20.5]]
    assert pixels.to_normalised(point, 100, 100, 100, "index").tolist() == [[10.0, 20.0]]


def test_corner_convention_covers_the_image_edge_to_edge():
    assert pixels.to_integers([[0.0, 0.0], [640.0, 480.0]], 640, 480, 1000).tolist() == [[0, 0], [1000, 1000]]


def test_text_coordinates_stay_in_range():
    text = pixels.to_integers([[-3.0, 0.2], [700.0, 480.0]], 640, 480, 1000, "index")
    assert text.tolist() == [[0, 0], [1000, 999]]


def test_pixel_centres_are_row_major_and_half_shifted():
    assert pixels.pixel_centres(2, 2).tolist() == [[0.5, 0.5], [1.5, 0.5], [0.5, 1.5], [1.5, 1.5]]


def test_containing_pixels_of_edges():
    points = [[0.0, 0.0], [0.999, 1.0], [3.0, 2.0], [-1.0, 9.0]]
    assert pixels.containing_pixels(points, 3, 2).tolist() == [[0, 0], [0, 1], [2, 1], [0, 1]]


@pytest.mark.parametrize("bad", [[[1.0, 2.0, 3.0]], 5.0])
def test_wrong_shapes_are_refused(bad):
    with pytest.raises(ValueError, match="shape"):
        pixels.to_normalised(bad, 10, 10, 1000)


def test_pixels_that_are_not_finite_have_no_text():
    with pytest.raises(ValueError, match="not finite"):
        pixels.to_integers([[np.nan, 1.0]], 10, 10, 1000)


sizes = st.integers(1, 5000)
fractions = st.tuples(st.floats(0, 1), st.floats(0, 1))
conventions = st.sampled_from(["corner", "index"])


@given(width=sizes, height=sizes, fraction=fractions, range_=st.sampled_from([1, 1000, 2000]), convention=conventions)
def test_normalisation_round_trip(width, height, fraction, range_, convention):
    point = np.array([fraction]) * [width, height]
    there = pixels.to_normalised(point, width, height, range_, convention)
    back = pixels.from_normalised(there, width, height, range_, convention)
    np.testing.assert_allclose(back, point, atol=1e-9 * max(width, height))


@given(width=sizes, height=sizes, fraction=fractions, convention=conventions)
def test_rounding_costs_at_most_half_a_step(width, height, fraction, convention):
    point = np.array([fraction]) * [width - 1, height - 1] + 0.5  # a pixel's centre: neither convention clips it
    text = pixels.to_integers(point, width, height, 1000, convention)
    back = pixels.from_normalised(text, width, height, 1000, convention)
    assert (np.abs(back - point) <= 0.5 * np.array([width, height]) / 1000 + 1e-9).all()


@given(width=sizes, height=sizes, new_width=sizes, new_height=sizes, fraction=fractions)
def test_resizing_keeps_the_fraction_of_the_image(width, height, new_width, new_height, fraction):
    point = np.array([fraction]) * [width, height]
    resized = pixels.resize_pixels(point, (width, height), (new_width, new_height))
    np.testing.assert_allclose(resized, np.array([fraction]) * [new_width, new_height], rtol=1e-12, atol=1e-9)
    back = pixels.resize_pixels(resized, (new_width, new_height), (width, height))
    np.testing.assert_allclose(back, point, rtol=1e-12, atol=1e-9)


@given(index=st.integers(-10, 10_000))
def test_index_and_corner_are_inverse(index):
    assert pixels.index_from_corner(pixels.corner_from_index(index)) == index
