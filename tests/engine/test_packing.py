"""Packing, shared beginnings and common prefixes."""

from __future__ import annotations

import pytest

from recon.engine.packing import branch_depth, pack
from recon.engine.prompts import common_prefix_length


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("first", [0, 2])
def test_every_token_is_packed_once_and_in_order(split: bool, first: int) -> None:
    lengths = [3, 7, 7, 20, 4, 9]
    chunks = pack(lengths, 8, split, first)
    places = [(p.index, place) for chunk in chunks for p in chunk for place in range(p.begin, p.end)]
    assert places == [(i, place) for i, length in enumerate(lengths) for place in range(first, length)]
    sizes = [sum(p.end - p.begin for p in chunk) for chunk in chunks]
    assert max(sizes) <= 8
    if split:
        assert set(sizes[:-1]) == {8}
    ends = [p.index for chunk in chunks for p in chunk if p.is_last]
    assert ends == list(range(len(lengths)))


def test_suffixes_stay_whole_when_they_fit() -> None:
    chunks = pack([5, 5, 5], 8)
    assert [len(chunk) for chunk in chunks] == [1, 1, 1]


def test_branch_depth_shares_the_columns_of_a_grid() -> None:
    grid = [[1000 + x, 7, 2000 + y, 8, 9] for x in range(4) for y in range(5)]
    assert branch_depth(grid) == 2  # the column and what follows it; deeper all differ
    assert branch_depth([[i, 1, 2] for i in range(9)]) == 0
    assert branch_depth([[1, 2, 3]]) == 0


def test_common_prefix_leaves_every_question_a_token() -> None:
    assert common_prefix_length([[1, 2, 3, 4], [1, 2, 5]]) == 2
    assert common_prefix_length([[1, 2, 3]]) == 2
    assert common_prefix_length([[1, 2], [1, 2, 3]]) == 1
    assert common_prefix_length([[4], [5, 6]]) == 0
