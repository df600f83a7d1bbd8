from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon.questions.sampling import finer, grid


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


def on_a_grid(columns: int, rows: int, step: float = 10.0) -> np.ndarray:
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    return (np.stack([x.ravel(), y.ravel()], axis=-1) + 0.5) * step


def test_questions_go_to_a_step_in_depth() -> None:
    """A wall with a jump at x = 50: all questions that the budget allows lie between the columns beside it."""
    asked = on_a_grid(10, 8)
    noise = np.random.default_rng(0).normal(0, 0.01, len(asked))
    log_depth = np.where(asked[:, 0] < 50, 0.0, 0.7) + noise
    points = finer(100, 80, asked, log_depth, np.full(len(asked), 0.1), 8)
    assert len(points) == 8
    assert (np.abs(points[:, 0] - 50) <= 5.01).all()


def test_a_stray_answer_is_asked_again_beside_it() -> None:
    asked = on_a_grid(10, 8)
    log_depth = np.random.default_rng(1).normal(0, 0.01, len(asked))
    log_depth[33] = 1.0
    points = finer(100, 80, asked, log_depth, np.full(len(asked), 0.1), 1)
    assert np.linalg.norm(points[0] - asked[33]) <= 5.0


def test_an_unsure_answer_draws_questions() -> None:
    asked = on_a_grid(10, 8)
    log_depth = np.random.default_rng(2).normal(0, 0.01, len(asked)).clip(-0.01, 0.01)
    log_sigma = np.full(len(asked), 0.1)
    log_sigma[45] = 1.0
    points = finer(100, 80, asked, log_depth, log_sigma, 4)
    assert (np.linalg.norm(points - asked[45], axis=1) < 10.0).all()


def test_where_nothing_is_in_doubt_the_gaps_are_filled() -> None:
    asked = np.concatenate([on_a_grid(10, 4), [[5.0, 195.0], [95.0, 195.0]]])  # the lower part is nearly empty
    points = finer(100, 200, asked, np.zeros(len(asked)), np.full(len(asked), 0.1), 3)
    assert len(points) == 3
    assert (points[:, 1] > 60).all()


@given(
    count=st.integers(0, 40),
    budget=st.integers(0, 60),
    seed=st.integers(0, 99),
    masked=st.booleans(),
)
def test_finer_stays_within_image_mask_and_budget(count: int, budget: int, seed: int, masked: bool) -> None:
    generator = np.random.default_rng(seed)
    asked = generator.random((count, 2)) * [60, 40]
    mask = generator.random((40, 60)) < 0.5 if masked else None
    log_depth = generator.normal(0, 0.5, count)
    log_sigma = generator.uniform(0.05, 0.5, count)
    points = finer(60, 40, asked, log_depth, log_sigma, budget, mask)
    assert points.shape == (len(points), 2)
    assert len(points) <= budget
    assert (points >= 0).all()
    assert (points < [60, 40]).all()
    if masked and len(points):
        assert mask is not None
        assert mask[points[:, 1].astype(int), points[:, 0].astype(int)].all()
    np.testing.assert_array_equal(points, finer(60, 40, asked, log_depth, log_sigma, budget, mask))


def test_answers_on_one_line_tell_nothing_about_neighbours() -> None:
    asked = np.stack([np.arange(10) * 5.0, np.full(10, 20.0)], axis=-1)
    assert len(finer(60, 40, asked, np.zeros(10), np.ones(10), 5)) == 0


def test_finer_refuses_other_lengths() -> None:
    with pytest.raises(ValueError, match="got 2 pixels, 3 depths"):
        finer(10, 10, np.zeros((2, 2)), np.zeros(3), np.zeros(2), 5)
    with pytest.raises(ValueError, match="mask must have shape"):
        finer(10, 10, np.zeros((4, 2)), np.zeros(4), np.zeros(4), 5, np.ones((5, 5), dtype=bool))
