"""Plans stay within the budget and put questions where they say; the comparison is of the same photos and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import benchmarks.question_planning as planning
from benchmarks.oracle import public_profile
from recon.surface.types import DepthMap
from recon.synth.dataset import random_view
from recon.synth.oracle import Oracle, OracleView

WIDTH, HEIGHT = 160, 120


@pytest.fixture(scope="module")
def view() -> OracleView:
    return OracleView.of(random_view(18, WIDTH, HEIGHT, 130.0), "photo")


def left_half(view: OracleView) -> DepthMap:
    """The left half is confirmed, and textured; the right half is neither."""
    depth_m = view.depth_m.copy()
    depth_m[:, WIDTH // 2 :] = np.nan
    color = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    color[:, : WIDTH // 2] = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH // 2, 1))
    confidence = np.isfinite(depth_m).astype(np.float32)
    return DepthMap(view.name, depth_m, confidence, view.camera, view.cam_from_world, color, "multiview")


@pytest.mark.parametrize("plan", planning.PLANS)
def test_a_plan_spends_its_budget_where_it_says(view: OracleView, plan: str) -> None:
    oracle = Oracle([view], public_profile())
    samples = planning.ask_by_plan(view, oracle, 96, plan, left_half(view))
    assert 0.85 * 96 <= samples.num_asked <= 96
    assert len(samples.pixels) == len(samples.depth_m) == len(samples.log_sigma)
    right = float((samples.pixels[:, 0] >= WIDTH / 2).mean())
    if plan in ("unconfirmed", "low-texture"):
        assert right == pytest.approx(1 / 6 + 2 / 3, abs=0.08)
    elif plan != "coarse-to-fine":
        assert right == pytest.approx(0.5, abs=0.08)
    if plan == "exact":
        column, row = samples.pixels.astype(int).T
        relative = np.abs(samples.depth_m / view.depth_m[row, column] - 1)
        assert np.median(relative) < 0.01


def test_points_lie_on_the_surface_and_are_seen_where_they_are(view: OracleView) -> None:
    scene = planning.true_scene([view])
    (posed,) = scene.views
    assert len(posed.point_ids) >= 20
    column, row = posed.pixels.astype(int).T
    points_cam = scene.points_world[posed.point_ids] @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
    np.testing.assert_allclose(points_cam[:, 2], view.depth_m[row, column], rtol=0.01)


def test_differences_are_between_equal_draws() -> None:
    def row(photo: str, seed: int, plan: str, filled: float) -> dict[str, Any]:
        rest = {"asked": 63, "asked_in_holes": 0.5, "filled_median": 0.01, "all": 0.02}
        return {"room": 1, "photo": photo, "seed": seed, "budget": 64, "plan": plan, "filled": filled, **rest}

    rows = [row("a", 0, "uniform", 0.05), row("a", 1, "uniform", 0.03), row("b", 0, "uniform", 0.02)]
    rows += [row("b", 0, "x", 0.01), row("a", 0, "x", 0.04), row("a", 1, "x", 0.02), row("c", 0, "x", 9.0)]
    even, other = planning.compared(rows)
    assert (even["plan"], even["photos"], even["filled"]) == ("uniform", 3, pytest.approx(0.1 / 3, abs=1e-5))
    assert "against_uniform" not in even
    assert other["against_uniform"]["filled"] == pytest.approx([-0.01] * 3)  # photo c has nothing beside it
    assert other["against_uniform"]["all"] == [0.0, 0.0, 0.0]


def test_an_unknown_plan_is_named() -> None:
    with pytest.raises(SystemExit, match="no such plan spiral; accepted: uniform, coarse-to-fine"):
        planning.main(planning.Options(plans=("uniform", "spiral")))
