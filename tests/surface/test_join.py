from __future__ import annotations

import numpy as np

from recon.surface.join import join


def test_an_offset_is_carried_along_its_surface_and_not_over_a_jump() -> None:
    """A wall 4 % too near with a confirmed middle, and before it a box of which nothing is confirmed."""
    truth = np.full((120, 160), 3.0)
    box = np.s_[40:80, 100:140]
    depth = truth * 0.96
    truth[box] = depth[box] = 1.0
    confirmed = np.full_like(truth, np.nan)
    confirmed[20:100, 20:90] = truth[20:100, 20:90]
    joined = join(depth, confirmed)
    error = np.abs(joined / truth - 1)
    assert error[20:100, 20:90].max() < 0.003  # measured 0.0023
    assert error[45:75, 92:97].max() < 0.01  # the hole beside the confirmed part
    assert np.median(error[~np.isfinite(confirmed) & (truth > 2)]) < 0.02  # was 0.04
    assert error[50:70, 110:130].max() < 0.003  # the box stays


def test_nothing_confirmed_changes_nothing() -> None:
    depth = np.linspace(1, 5, 60).reshape(6, 10)
    np.testing.assert_allclose(join(depth, np.full_like(depth, np.nan)), depth, rtol=1e-6)


def test_a_wrong_depth_among_the_confirmed_is_not_carried_on() -> None:
    """A strip of wall confirmed at the depth of the box before it, as a matching window leaves it."""
    truth = np.full((120, 160), 3.0)
    confirmed = np.full_like(truth, np.nan)
    confirmed[:, :40] = 3.0
    confirmed[40:80, 70:75] = 2.4
    error = np.abs(join(truth, confirmed) / truth - 1)
    assert error.max() < 0.001  # 0.13 where such steps count, shortened
