"""The ablations' own arithmetic: longer lenses of a view, and figures of runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.ablations import NOT_UNIFIED, RESULTS, UNIFIED, mixture_of
from benchmarks.ablations_figure import mean_of, scale_error_per_zoom, seeds_summary, summary
from benchmarks.ablations_views import zoomed
from recon.cameras.unify import ImageProfile
from recon.training.pool import PooledView
from recon.types import Camera, UnifiedImage

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "ablations.md"


@pytest.mark.parametrize("profile", [UNIFIED, NOT_UNIFIED])
@pytest.mark.parametrize("zoom", [1.0, 1.25])
def test_a_longer_lens_sees_the_middle_along_the_same_rays(profile: ImageProfile, zoom: float) -> None:
    camera = Camera.pinhole(300, 240, 224.0, 224.0, 151.0, 119.0)
    x = (np.arange(300) + 0.5 - 151.0) / 224.0
    y = (np.arange(240) + 0.5 - 119.0) / 224.0
    depth_m = (5 + x[None] + 3 * y[:, None]).astype(np.float32)  # depth says along which ray it was taken
    image = UnifiedImage(np.zeros((240, 300, 3), np.uint8), camera, camera)
    seen = zoomed(PooledView(image, depth_m, np.eye(3, 4), (), 7), zoom, profile)
    made = seen.image.camera
    assert seen.depth_m.shape == seen.image.pixels.shape[:2] == (made.height_px, made.width_px)
    assert made.width_px % 32 == made.height_px % 32 == 0
    expected_px = 171 if profile is UNIFIED else 192 / (round(300 / zoom) / 224)
    assert made.focal_px == pytest.approx(expected_px, rel=1e-6)
    fx, fy, cx, cy = made.fx_fy_cx_cy
    u = (np.arange(made.width_px) + 0.5 - cx) / fx
    v = (np.arange(made.height_px) + 0.5 - cy) / fy
    # the nearest pixel's depth: at most half a pixel off in each direction
    np.testing.assert_allclose(seen.depth_m, 5 + u[None] + 3 * v[:, None], atol=0.5 / 224 * 4 + 1e-5)


def test_shares_of_the_blocks() -> None:
    assert [round(float(mixture_of(arm).shares[1]), 4) for arm in ("by-size", "0.2", "uniform")] == [0.0698, 0.2, 0.5]


def _run(comparison: str, arm: str, seed: int, **sets: dict[str, list[float]]) -> dict[str, Any]:
    return {"comparison": comparison, "arm": arm, "seed": seed, "sets": sets}


def test_sets_count_the_same_and_seeds_are_averaged() -> None:
    both = mean_of(np.array([1.0, 0.0, 0.5, 0.5]), np.array([0.1]))
    assert both.value == pytest.approx((0.5 + 0.1) / 2)
    assert both.low < both.value < both.high
    wide = [1.0, 1.2, 1.4, 1.6]
    runs = {
        str(seed): _run("focal", "x", seed, rooms={"long_edge": wide, "log_ratio": (sign * np.log(wide)).tolist()})
        for seed, sign in ((0, 1.0), (1, 0.0))
    }
    slope = scale_error_per_zoom(runs, "x")
    assert slope.value == pytest.approx(0.5)
    assert (slope.low, slope.high) == (pytest.approx(0.5), pytest.approx(0.5))


def test_the_page_says_what_the_results_say() -> None:
    runs = json.loads(RESULTS.read_text(encoding="utf-8"))["runs"]
    figures = summary(runs)
    known = {f"{part:.3f}" for figure in figures.values() for part in (figure.value, figure.low, figure.high)}
    known |= {f"{mean:.3f}" for means in seeds_summary(runs).values() for mean in means}
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    numbers = [number for row in rows for number in re.findall(r"-?\d\.\d{3}", row)]
    assert len(numbers) >= 30
    assert set(numbers) <= known
