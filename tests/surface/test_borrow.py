"""Depth that other photos confirm: it arrives where it is seen, and nowhere else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recon.surface.align import FrameSamples
from recon.surface.borrow import borrow
from recon.surface.densify import complete
from recon.surface.frames import make_frame
from recon.surface.options import DensifyOptions
from recon.surface.types import DepthMap
from recon.types import DepthSamples
from tests.surface.scenes import plane_maps, scene_of

HOLE = np.s_[30:90, 40:120]


@pytest.fixture(scope="module")
def maps() -> list[DepthMap]:
    """Four photos of a plane; the first has a hole."""
    first, *others = plane_maps(4)
    holed = first.depth_m.copy()
    holed[HOLE] = np.nan
    return [first, dataclasses.replace(first, depth_m=holed), *others]


def answers_of(depth_m: np.ndarray, log_sigma: float = 0.08) -> FrameSamples:
    x, y = np.meshgrid(np.arange(5.5, depth_m.shape[1], 10), np.arange(5.5, depth_m.shape[0], 10))
    pixels = np.stack([x.ravel(), y.ravel()], axis=-1)
    asked = depth_m[pixels[:, 1].astype(int), pixels[:, 0].astype(int)].astype(np.float64)
    noise = np.random.default_rng(0).normal(0, log_sigma, len(asked))
    return FrameSamples(pixels, asked * np.exp(noise), np.full(len(asked), log_sigma))


def test_a_hole_gets_the_depth_that_others_confirm(maps: list[DepthMap]) -> None:
    truth, here, *lenders = maps
    lent = borrow(here, lenders, answers_of(truth.depth_m))
    known = np.isfinite(lent)
    assert known[HOLE].mean() > 0.4  # a quarter of each of three photos' pixels, and all see it
    assert not known[np.isfinite(here.depth_m)].any()
    # depth is that of the lender's pixel, which lies up to half a pixel beside this one: 0.3 % on this slant
    assert np.abs(lent / truth.depth_m - 1)[known].max() < 0.01
    assert np.abs(np.median((lent / truth.depth_m)[known]) - 1) < 0.001


def test_what_is_hidden_here_is_not_borrowed(maps: list[DepthMap]) -> None:
    truth, here, *lenders = maps
    box = np.s_[45:75, 60:100]
    asked = truth.depth_m.copy()
    asked[box] *= 0.6
    by_answers = borrow(here, lenders, answers_of(asked))
    assert not np.isfinite(by_answers[55:65, 70:90]).any()  # an object that only the answers know
    assert np.isfinite(by_answers[32:40, 45:115]).mean() > 0.3
    painted = here.color.copy()
    painted[box] = [250, 20, 20]
    by_colour = borrow(dataclasses.replace(here, color=painted), lenders, answers_of(truth.depth_m))
    assert not np.isfinite(by_colour[48:72, 63:97]).any()
    in_front = here.depth_m.copy()
    in_front[45:75:3, 60:100:3] = 0.9 * truth.depth_m[45:75:3, 60:100:3]  # scattered confirmed pixels of it
    by_depth = borrow(dataclasses.replace(here, depth_m=in_front), lenders, answers_of(truth.depth_m, 0.2))
    assert not np.isfinite(by_depth[box]).any()


def test_nobody_to_borrow_from(maps: list[DepthMap]) -> None:
    truth, here, *lenders = maps
    assert np.isnan(borrow(here, [], answers_of(truth.depth_m))).all()
    blind = dataclasses.replace(lenders[0], depth_m=np.full_like(truth.depth_m, np.nan))
    assert np.isnan(borrow(here, [blind], answers_of(truth.depth_m))).all()


def test_a_hole_is_filled_from_other_photos_where_the_answers_are_biased(maps: list[DepthMap]) -> None:
    """Answers in the hole are 10 % too near; the image is grey, so nothing in it tells where the hole is."""
    truth, here, *lenders = maps
    grey = [dataclasses.replace(m, color=np.full_like(m.color, 128)) for m in (here, *lenders)]
    scene = scene_of([truth, *lenders])
    frame = dataclasses.replace(
        make_frame(scene, scene.views[0], grey[0].color, 160),
        point_pixels=np.empty((0, 2)), point_depth_m=np.empty(0), point_log_sigma=None,
    )  # fmt: skip
    asked = truth.depth_m.copy()
    asked[HOLE] *= 0.9
    answers = answers_of(asked)
    samples = DepthSamples(
        truth.name, answers.pixels, answers.depth_m, answers.log_sigma, "z", truth.camera.focal_px, "vlm:x"
    )
    alone = complete(frame, grey[0], [samples], True, DensifyOptions())
    helped = complete(frame, grey[0], [samples], True, DensifyOptions(), lenders=grey[1:])
    assert alone is not None
    assert helped is not None
    middle = np.s_[45:75, 55:105]
    assert np.abs(alone / truth.depth_m - 1)[middle].mean() > 0.03
    assert np.abs(helped / truth.depth_m - 1)[middle].mean() < 0.005
