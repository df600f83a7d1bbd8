from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon.questions.sampling import grid


@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    budget=st.integers(1, 2000),
    seed=st.none() | st.integers(0, 9),
)
def test_stays_within_image_and_budget(width: int, height: int, budget: int, seed: int | None) -> None:
    points = grid(width, height, budget, jitter_seed=seed)
    assert points.shape == (len(points), 2)
    assert 1 <= len(points) <= budget
    assert (points >= 0).all()
    assert (points < [width, height]).all()
    assert len(np.unique(points, axis=0)) == len(points)


@pytest.mark.parametrize(("width", "height"), [(288, 224), (224, 288), (1215, 920), (1000, 100)])
@pytest.mark.parametrize("budget", [64, 1000, 3072])
def test_spends_the_budget_on_nearly_square_cells(width: int, height: int, budget: int) -> None:
    points = grid(width, height, budget)
    columns, rows = len(np.unique(points[:, 0])), len(np.unique(points[:, 1]))
    assert len(points) == columns * rows
    assert len(points) > 0.75 * budget
    assert 0.75 < (width / columns) / (height / rows) < 1.34


def test_points_are_cell_centres() -> None:
    np.testing.assert_allclose(grid(4, 2, 2), [[1, 1], [3, 1]])


def test_jitter_is_stratified_and_repeatable() -> None:
    points = grid(100, 100, 100, jitter_seed=3)
    assert len(np.unique(np.floor(points / 10), axis=0)) == 100
    np.testing.assert_array_equal(points, grid(100, 100, 100, jitter_seed=3))
    assert np.abs(points - grid(100, 100, 100, jitter_seed=4)).max() > 1
    assert np.abs(points - grid(100, 100, 100)).max() > 1


def test_spends_the_budget_inside_the_mask() -> None:
    mask = np.zeros((200, 300), dtype=bool)
    mask[20:120, 150:260] = True
    points = grid(300, 200, 500, mask)
    column, row = points.astype(int).T
    assert mask[row, column].all()
    assert 400 < len(points) <= 500
    assert len(grid(300, 200, 500, np.zeros_like(mask))) == 0


@given(st.integers(0, 2**16 - 1), st.integers(1, 30))
def test_any_mask(bits: int, budget: int) -> None:
    mask = np.array([bits >> i & 1 for i in range(16)], dtype=bool).reshape(4, 4)
    points = grid(4, 4, budget, mask)
    column, row = points.astype(int).T
    assert mask[row, column].all()
    assert len(points) <= budget
    assert (len(points) == mask.sum()) or budget < 16


def test_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="positive"):
        grid(10, 10, 0)
    with pytest.raises(ValueError, match="mask must have shape"):
        grid(10, 10, 5, np.ones((5, 5), dtype=bool))
