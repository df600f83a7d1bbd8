"""Rims of confirmed depth: what a window carries past an object's border is found, the rest is left alone."""

import numpy as np

from recon.surface.rims import rims

NAN = np.nan


def test_what_hangs_on_an_object_before_a_hole_or_a_farther_wall_is_a_rim() -> None:
    depth = np.full((60, 80), 3.0)
    depth[20:50, 30:60] = 2.0  # an object of 30 x 30 pixels before a wall
    found = rims(depth, 4.5)
    expected = np.zeros_like(found)
    expected[20:50, 30:60] = True
    expected[24:46, 34:56] = False
    assert (found == expected).mean() > 0.99  # all but the rounded corners
    assert not found[depth == 3.0].any()  # the wall ends at nothing: the object hides it

    depth[depth == 3.0] = NAN
    np.testing.assert_array_equal(rims(depth, 4.5), found)


def test_thin_things_and_single_unknown_pixels_have_no_rim() -> None:
    depth = np.full((60, 80), NAN)
    depth[:, 40:46] = 2.0  # a leg six pixels wide: nothing tells what of it is window
    assert not rims(depth, 4.5).any()
    depth[:] = 2.0
    depth[30, 40] = NAN
    assert not rims(depth, 4.5).any()
    assert not rims(np.full((5, 5), NAN), 4.5).any()
    assert not rims(np.full((5, 5), 1.0), 4.5).any()


def test_a_slanted_floor_has_no_rim() -> None:
    row = np.arange(60)[:, None]
    depth = np.broadcast_to(300.0 / (100 + row), (60, 80))
    assert not rims(depth, 4.5).any()
