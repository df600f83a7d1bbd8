"""Whether answers are z-depths or distances is decided by a map, or left open."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recon.cameras.pinhole import ray_from_z, unproject
from recon.evidence.depth import ask_depth, z_depth_m
from recon.evidence.depth_kind import choose_depth_kind, map_z_depths, settle_depth_kind, with_depth_kind
from recon.questions.profile import PUBLIC_PROFILES, CheckpointProfile
from recon.types import DepthSamples, MetricScale, PosedView, Scene
from tests.evidence.oracle import DISTORTED, OracleEngine, pair, plane_z


def ask(profile: CheckpointProfile, budget: int = 200, depth_kind: str = "z") -> DepthSamples:
    first = pair()[0]
    return ask_depth(OracleEngine(profile, pair(), depth_kind), first.view, first.pixels, first.camera, budget)


@pytest.mark.parametrize("kind", ["z", "ray"])
def test_auto_is_decided_by_the_map(kind: str) -> None:
    rng = np.random.default_rng(1)
    samples = ask(PUBLIC_PROFILES["facebook/VLM3-depth"], depth_kind=kind)
    assert (samples.depth_kind, samples.depth_kind_is_assumed) == ("z", True)
    truth = plane_z(DISTORTED, samples.pixels, np.eye(3, 4))
    noisy = dataclasses.replace(samples, depth_m=samples.depth_m * np.exp(0.1 * rng.standard_normal(len(truth))))
    noisy.depth_m[::10] *= 3  # wrong answers
    map_z = np.where(rng.random(len(truth)) < 0.5, 0.37 * truth, np.nan)  # arbitrary unit, half unknown
    # each photo may be off by a factor of its own
    second = dataclasses.replace(noisy, depth_m=1.3 * noisy.depth_m)
    evidence = choose_depth_kind([noisy, second], [map_z, map_z], [DISTORTED, DISTORTED])
    assert evidence.kind == kind
    assert evidence.is_clear
    assert evidence.num_points == 2 * np.isfinite(map_z).sum()
    assert evidence.slope == pytest.approx(float(kind == "ray"), abs=3 * evidence.slope_sigma)
    decided = with_depth_kind(samples, evidence.kind)
    np.testing.assert_allclose(z_depth_m(decided, DISTORTED), truth, atol=0.0055)


def test_auto_stays_open_without_evidence() -> None:
    samples = ask(PUBLIC_PROFILES["facebook/VLM3-depth"])
    nothing = choose_depth_kind([samples], [np.full(len(samples.depth_m), np.nan)], [DISTORTED])
    assert (nothing.num_points, nothing.is_clear) == (0, False)
    rng = np.random.default_rng(0)
    noise = np.exp(rng.standard_normal(len(samples.depth_m)))
    truth = plane_z(DISTORTED, samples.pixels, np.eye(3, 4))
    halfway = np.sqrt(truth * ray_from_z(DISTORTED, samples.pixels, truth))
    unclear = choose_depth_kind([dataclasses.replace(samples, depth_m=halfway * noise)], [truth], [DISTORTED])
    assert not unclear.is_clear


def test_slope_errors_are_honest() -> None:
    """Over many noisy repetitions the slope scatters as its stated standard error says."""
    samples = ask(PUBLIC_PROFILES["facebook/VLM3-depth"], budget=100)
    truth = plane_z(DISTORTED, samples.pixels, np.eye(3, 4))
    rng = np.random.default_rng(2)
    found = [
        choose_depth_kind(
            [dataclasses.replace(samples, depth_m=truth * np.exp(0.2 * rng.standard_normal(len(truth))))],
            [truth],
            [DISTORTED],
        )
        for _ in range(200)
    ]
    standardised = np.array([evidence.slope / evidence.slope_sigma for evidence in found])
    assert 0.8 < standardised.std() < 1.25
    assert abs(standardised.mean()) < 0.25


def map_of_the_plane(unit: float, num_points: int = 3000) -> Scene:
    """A map of the plane seen by view 1, from elsewhere, in any unit, with one point in fifty wrong."""
    first = pair()[0]
    rng = np.random.default_rng(5)
    pixels = rng.random((num_points, 2)) * [DISTORTED.width_px, DISTORTED.height_px]
    points = unproject(DISTORTED, pixels, plane_z(DISTORTED, pixels, first.cam_from_cam1))
    points[::50] *= rng.random((len(points[::50]), 1)) * 4
    cam_from_world = np.concatenate([np.eye(3)[[2, 0, 1]], [[1.0], [2.0], [3.0]]], axis=1)
    points_world = (unit * points - cam_from_world[:, 3]) @ cam_from_world[:, :3]
    ids = rng.permutation(num_points)
    unknown = MetricScale(float("nan"), float("nan"), float("nan"), (), ())
    view = PosedView(first.view.name, DISTORTED, cam_from_world, ids, pixels[ids])
    colors = np.zeros((num_points, 3), dtype=np.uint8)
    return Scene((view,), points_world, colors, np.zeros(num_points), (), unknown)


@pytest.mark.parametrize("kind", ["z", "ray"])
def test_a_map_settles_the_kind(kind: str) -> None:
    samples = ask(PUBLIC_PROFILES["facebook/VLM3-depth"], depth_kind=kind)
    known = dataclasses.replace(samples, source="sensor", depth_kind_is_assumed=False)
    elsewhere = dataclasses.replace(samples, name="not in the map.jpg")
    settled, notes = settle_depth_kind([known, samples, elsewhere], map_of_the_plane(0.2))
    assert settled[0] is known
    for sample in settled[1:]:
        assert (sample.depth_kind, sample.depth_kind_is_assumed) == (kind, False)
    (note,) = notes
    assert note.startswith(f"vlm:facebook/VLM3-depth means {kind}: slope ")


def test_map_depths_are_those_of_the_nearest_points() -> None:
    samples = ask(PUBLIC_PROFILES["facebook/VLM3-depth"])
    scene = map_of_the_plane(0.2)
    z_depth = map_z_depths(scene.views[0], scene, samples)
    truth = 0.2 * plane_z(DISTORTED, samples.pixels, np.eye(3, 4))
    assert np.isfinite(z_depth).mean() > 0.95
    assert np.nanmedian(np.abs(np.log(z_depth / truth))) < 0.01
    nowhere = dataclasses.replace(samples, pixels=samples.pixels + 5000)
    assert np.isnan(map_z_depths(scene.views[0], scene, nowhere)).all()


def test_an_empty_map_leaves_the_kind_open() -> None:
    samples = ask(PUBLIC_PROFILES["facebook/VLM3-depth"])
    scene = dataclasses.replace(map_of_the_plane(1.0), views=())
    settled, notes = settle_depth_kind([samples], scene)
    assert settled == [samples]
    assert "not clear and z is assumed" in notes[0]
