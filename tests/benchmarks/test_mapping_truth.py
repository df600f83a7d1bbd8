"""Three sets of poses judged by one another."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.mapping_truth import differences, own_errors


def test_own_errors_are_those_that_the_differences_add_up_from() -> None:
    errors = {"a": 1.0, "b": 2.0, "c": 3.0}
    squares = {frozenset((x, y)): errors[x] ** 2 + errors[y] ** 2 for x, y in (("a", "b"), ("a", "c"), ("b", "c"))}
    assert own_errors(squares) == pytest.approx(errors)


def test_differences_of_relative_poses_do_not_depend_on_the_frame() -> None:
    poses = {name: np.column_stack([np.eye(3), [x, 0.0, 2.0]]) for name, x in (("a", 0.0), ("b", 1.0))}
    turn = Rotation.from_euler("xyz", [0.3, 0.2, -0.5]).as_matrix()
    elsewhere = {
        n: np.column_stack([p[:, :3] @ turn, p[:, 3] + p[:, :3] @ turn @ [5.0, 1.0, 2.0]]) for n, p in poses.items()
    }
    turns, shifts = differences(poses, elsewhere)
    assert turns == pytest.approx([0.0], abs=1e-5)
    assert shifts == pytest.approx([0.0], abs=1e-9)

    bent = dict(
        poses, b=np.column_stack([Rotation.from_euler("y", 2.0, degrees=True).as_matrix() @ np.eye(3), [1.0, 0.0, 2.1]])
    )
    turns, _ = differences(poses, bent)
    assert turns == pytest.approx([2.0])
