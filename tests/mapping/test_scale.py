"""Votes, fusion and intervals of the metric scale, on scenes whose scale is known."""

from __future__ import annotations

import dataclasses
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from recon.capture.gps import GpsPositions, enu_positions
from recon.errors import BadInputError
from recon.mapping.georeference import fit_similarity, georeference, write_georeference
from recon.mapping.model import UNKNOWN_SCALE, from_scene
from recon.mapping.pose_graph import inverse
from recon.mapping.positions import in_gps_metres
from recon.mapping.scale import ScaleOptions, apply_scale, estimate_scale, fuse, robust_mean
from recon.types import Capture, DepthSamples, GpsFix, PosedView, Rejected, RelativePose, ScaleVote, Scene
from tests.mapping.scenes import HEIGHT, WIDTH, Synthetic, make_scene

TRUE = 2.5  # metres per map unit
_SEEDS = 200  # of the coverage of intervals


def _scene(synthetic: Synthetic) -> Scene:
    """The exact map in units of 1 / TRUE metres (the synthetic scene counts in metres)."""
    views = []
    for i, view in enumerate(synthetic.capture.views):
        seen = np.flatnonzero(np.isfinite(synthetic.pixels[i]).all(axis=1))
        pose = synthetic.poses[i].copy()
        pose[:, 3] /= TRUE
        views.append(PosedView(view.name, synthetic.camera, pose, seen, synthetic.pixels[i][seen]))
    count = len(synthetic.points)
    colors = np.zeros((count, 3), dtype=np.uint8)
    left_out = (Rejected("left out.png", "no verified matches"),)
    return Scene(tuple(views), synthetic.points / TRUE, colors, np.zeros(count), left_out, UNKNOWN_SCALE)


def _samples(synthetic: Synthetic, factor: float = 1.0, kind: str = "z", **changes: object) -> list[DepthSamples]:
    result = []
    for i, view in enumerate(synthetic.capture.views):
        in_camera = synthetic.points @ synthetic.poses[i, :, :3].T + synthetic.poses[i, :, 3]
        seen = np.isfinite(synthetic.pixels[i]).all(axis=1)
        depth = in_camera[:, 2] if kind == "z" else np.linalg.norm(in_camera, axis=1)
        noise = np.exp(np.random.default_rng(i).normal(0, 0.2, len(depth)))
        sample = DepthSamples(
            view.name, synthetic.pixels[i][seen], (depth * noise * factor)[seen], np.full(seen.sum(), 0.2),
            kind, synthetic.camera.focal_px, "vlm:test",
        )  # fmt: skip
        result.append(dataclasses.replace(sample, **changes))  # type: ignore[arg-type]
    return result


@pytest.mark.parametrize("kind", ["z", "ray"])
def test_depth_samples_give_the_scale_inside_their_interval(kind: str) -> None:
    synthetic = make_scene(noise_px=0.0)
    scale = estimate_scale(_scene(synthetic), _samples(synthetic, kind=kind))

    assert scale.used == ("vlm:test depth",)
    assert scale.metres_per_unit == pytest.approx(TRUE, rel=0.03)
    assert scale.low < TRUE < scale.high
    assert np.log(scale.high / scale.low) > 2 * 1.96 * 0.1  # what all answers share is part of the interval


def test_depth_is_rescaled_by_the_refined_focal_length() -> None:
    synthetic = make_scene(noise_px=0.0)
    # asked as if the focal length were 1.2 times the true one: the checkpoint answers 1.2 times too far
    asked = _samples(synthetic, factor=1.2, focal_px=1.2 * synthetic.camera.focal_px)
    assert estimate_scale(_scene(synthetic), asked).metres_per_unit == pytest.approx(TRUE, rel=0.03)


def test_untrusted_sources_vote_but_never_decide() -> None:
    synthetic = make_scene(noise_px=0.0)
    scale = estimate_scale(_scene(synthetic), _samples(synthetic, trusted=False))

    assert not scale.is_known
    assert len(scale.votes) == 1
    assert scale.votes[0].metres_per_unit == pytest.approx(TRUE, rel=0.03)
    assert any("unknown" in note for note in scale.notes)
    scene = apply_scale(_scene(synthetic), scale)
    assert scene.scale is scale
    np.testing.assert_array_equal(scene.points_world, _scene(synthetic).points_world)


def test_known_distance_is_exact_and_applied() -> None:
    synthetic = make_scene(noise_px=0.0)
    scene = _scene(synthetic)
    centres = {v.name: v.centre_world * TRUE for v in scene.views}
    metres = float(np.linalg.norm(centres["photo 00.png"] - centres["photo 05.png"]))

    scale = estimate_scale(
        scene, _samples(synthetic, factor=3.0), known_distance=("photo 00.png", "photo 05.png", metres)
    )
    assert scale.used == ("known distance",)
    assert scale.metres_per_unit == pytest.approx(TRUE, rel=1e-9)
    assert any("warning: vlm:test depth disagrees" in note for note in scale.notes)
    metric = apply_scale(scene, scale)
    np.testing.assert_allclose(metric.points_world, synthetic.points, atol=1e-9)
    np.testing.assert_allclose(metric.views[2].cam_from_world, synthetic.poses[2], atol=1e-9)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (("photo 00.png", "nowhere.png", 1.0), "no such photo"),
        (("photo 00.png", "left out.png", 1.0), "no verified matches"),
        (("photo 00.png", "photo 00.png", 1.0), "same place"),
        (("photo 00.png", "photo 01.png", -1.0), "positive"),
        (("photo 00.png", "photo 01.png", float("nan")), "positive"),
    ],
)
def test_bad_known_distances(known: tuple[str, str, float], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        estimate_scale(_scene(make_scene()), known_distance=known)


def test_relative_distances_count_only_where_the_direction_agrees() -> None:
    synthetic = make_scene(noise_px=0.0)
    scene = _scene(synthetic)
    poses = []
    for i, j in ((0, 3), (1, 5), (2, 6)):
        first, second = synthetic.poses[i], synthetic.poses[j]
        offset = first[:, 3] - first[:, :3] @ second[:, :3].T @ second[:, 3]
        length = float(np.linalg.norm(offset))
        names = synthetic.capture.views[i].name, synthetic.capture.views[j].name
        rotation = first[:, :3] @ second[:, :3].T
        poses.append(RelativePose(*names, rotation, offset / length, length, 2.0, 5.0, 0.2, "vlm:test"))
        poses.append(RelativePose(*names, rotation, -offset / length, 10 * length, 2.0, 5.0, 0.2, "vlm:test"))
    scale = estimate_scale(scene, relative_poses=poses)
    assert scale.metres_per_unit == pytest.approx(TRUE, rel=1e-6)
    assert scale.votes[0].num_measurements == 3


def test_sensor_depth_votes_from_the_photos(tmp_path: Path) -> None:
    synthetic = make_scene(num_views=3, noise_px=0.0)
    views = []
    for i, view in enumerate(synthetic.capture.views):
        depth = np.zeros((HEIGHT, WIDTH), dtype=np.uint16)
        in_camera = synthetic.points @ synthetic.poses[i, :, :3].T + synthetic.poses[i, :, 3]
        for pixel, z in zip(synthetic.pixels[i], in_camera[:, 2], strict=True):
            if np.isfinite(pixel).all():
                depth[int(pixel[1]), int(pixel[0])] = round(1000 * z)
        path = tmp_path / f"{i}.png"
        Image.fromarray(depth).save(path)
        views.append(dataclasses.replace(view, depth_path=path))
    scale = estimate_scale(_scene(synthetic), capture=Capture(tuple(views)))
    assert scale.used == ("sensor depth",)
    assert scale.metres_per_unit == pytest.approx(TRUE, rel=1e-3)


def _with_gps(synthetic: Synthetic, noise_m: float, metres: float, seed: int = 3) -> Capture:
    rng = np.random.default_rng(seed)
    views = []
    for view, pose in zip(synthetic.capture.views, synthetic.poses, strict=True):
        east, north, up = metres * (-pose[:, :3].T @ pose[:, 3]) + rng.normal(0, noise_m, 3)
        fix = GpsFix(46.0 + north / 111_148.0, 7.0 + east / 77_470.0, 400.0 + up, 3.0)
        views.append(dataclasses.replace(view, gps=fix))
    return Capture(tuple(views))


def test_gps_gives_scale_and_east_north_up() -> None:
    synthetic = make_scene(num_views=10, noise_px=0.0)
    capture = _with_gps(synthetic, noise_m=0.2, metres=20.0)  # the arc becomes about 100 m long
    scene = _scene(synthetic)
    scale = estimate_scale(scene, capture=capture)

    assert scale.used == ("GPS",)
    assert scale.low < 20.0 * TRUE < scale.high
    world = georeference(apply_scale(scene, scale), capture)
    first = capture.views[0].gps
    assert first is not None
    assert world.georeference == pytest.approx((first.latitude_deg, first.longitude_deg, first.altitude_m))
    gps = enu_positions([v.gps for v in capture.views])
    assert gps is not None
    centres = np.array([v.centre_world for v in world.views])
    assert np.sqrt(((centres - gps.enu_m) ** 2).sum(axis=1).mean()) < 1.5


def test_gps_noise_as_large_as_the_scene_gives_no_frame() -> None:
    synthetic = make_scene(num_views=6, noise_px=0.0)
    capture = _with_gps(synthetic, noise_m=5.0, metres=1.0)
    scene = _scene(synthetic)
    scale = estimate_scale(scene, capture=capture)
    assert "GPS" not in scale.used or scale.high / scale.low > 1.5
    known = apply_scale(scene, fuse([ScaleVote("sensor depth", TRUE, 0.01, 5)]))
    assert georeference(known, capture) is known


def test_enu_is_metric() -> None:
    gps = enu_positions([GpsFix(46.0, 7.0, 400.0), GpsFix(46.001, 7.0, 400.0), None, GpsFix(46.0, 7.001, 410.0)])
    assert gps is not None
    # WGS 84 at 46 degrees: 111.15 m per 0.001 degree of latitude, 77.46 m per 0.001 degree of longitude
    assert gps.enu_m[1] == pytest.approx([0.0, 111.15, 0.0], abs=0.05)
    assert gps.enu_m[3] == pytest.approx([77.46, 0.0, 10.0], abs=0.05)
    assert np.isnan(gps.enu_m[2]).all()
    assert enu_positions([None, None]) is None


@settings(max_examples=50, deadline=None)
@given(
    logs=st.lists(st.floats(-0.05, 0.05), min_size=1, max_size=5),
    sigmas=st.lists(st.floats(0.02, 0.3), min_size=5, max_size=5),
    factor=st.floats(1e-3, 1e3),
)
def test_fusion_properties(logs: list[float], sigmas: list[float], factor: float) -> None:
    votes = [ScaleVote(f"s{i}", float(np.exp(x)), sigmas[i], 10) for i, x in enumerate(logs)]
    scale = fuse(votes)
    used = [v for v in votes if v.source in scale.used]
    assert scale.low < scale.metres_per_unit < scale.high
    assert min(v.metres_per_unit for v in used) <= scale.metres_per_unit * (1 + 1e-9)
    assert scale.metres_per_unit <= max(v.metres_per_unit for v in used) * (1 + 1e-9)
    moved = fuse([dataclasses.replace(v, metres_per_unit=v.metres_per_unit * factor) for v in votes])
    assert moved.metres_per_unit == pytest.approx(factor * scale.metres_per_unit, rel=1e-6)
    assert moved.used == scale.used


def test_votes_of_one_family_weigh_by_their_own_scatter_and_share_the_rest() -> None:
    """By hand: 0.1 is common; what is left is 0.03 and 0.01, so the second weighs nine times the first."""
    votes = [
        ScaleVote("vlm:a depth", 1.04, float(np.hypot(0.1, 0.03)), 12),
        ScaleVote("vlm:b distance", 1.0, float(np.hypot(0.1, 0.01)), 66),
    ]
    scale = fuse(votes)
    assert scale.metres_per_unit == pytest.approx(np.exp(np.log(1.04) / 10), rel=1e-9)
    birge = max(1.0, (0.9 * np.log(1.04) / 0.03) ** 2 + (0.1 * np.log(1.04) / 0.01) ** 2)
    half = 1.96 * np.sqrt(0.1**2 + birge / (0.03**-2 + 0.01**-2))
    assert np.log(scale.high / scale.metres_per_unit) == pytest.approx(half, rel=1e-9)
    # an independent source takes part by its whole spread
    both = fuse([*votes, ScaleVote("GPS", 1.1, 0.05, 9)])
    first, family = 1 / 0.05**2, 1 / (half / 1.96) ** 2
    expected = (first * np.log(1.1) + family * np.log(1.04) / 10) / (first + family)
    assert np.log(both.metres_per_unit) == pytest.approx(expected, rel=1e-9)


def test_useless_votes_are_named() -> None:
    scale = fuse([ScaleVote("a", 2.0, 0.9, 3), ScaleVote("b", float("nan"), 0.1, 3)])
    assert not scale.is_known
    assert any(note.startswith("a: not used") for note in scale.notes)
    assert any(note.startswith("b: not used") for note in scale.notes)


@pytest.mark.parametrize(("count", "wrong"), [(4, 0.0), (12, 0.0), (12, 0.02), (66, 0.02)])
def test_robust_means_are_as_precise_as_means_and_say_how_precise(count: int, wrong: float) -> None:
    """Normal errors of 0.1, a share of them ten times larger: no bias, the spread of the mean of the good ones (the
    median's is 1.25 times that), and 95 % intervals that hold the truth about as often."""
    rng = np.random.default_rng(count)
    found, covered = [], 0
    for _ in range(2000):
        values = rng.normal(0, 0.1, count) * np.where(rng.random(count) < wrong, 10.0, 1.0)
        centre, error = robust_mean(values)
        found.append(centre)
        covered += abs(centre) < 1.96 * error
    assert abs(np.mean(found)) < 4 * 0.1 / np.sqrt(2000 * count)
    assert np.std(found) < 1.1 * 0.1 / np.sqrt(count)
    assert covered / 2000 > (0.92 if count > 4 else 0.85)
    assert robust_mean(np.array([0.3])) == (0.3, 0.0)


def test_depth_and_distances_at_the_published_error_give_the_scale_within_their_scatter() -> None:
    """Twelve photos with 9 % each and their 66 distances with 10 % each, no error in common: an unbiased scale whose
    spread over seeds is 1.15 % (1.1 % is what the best weights give; medians, weighed as independent, gave 2.3 %)."""
    synthetic = make_scene(num_views=12, num_points=60, noise_px=0.0)
    scene, errors = _scene(synthetic), []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        depths = []
        for sample in _samples(synthetic):
            view = scene.view(sample.name)
            z = (scene.points_world[view.point_ids] @ view.cam_from_world[2, :3] + view.cam_from_world[2, 3]) * TRUE
            noise = rng.normal(0, 0.09) + rng.normal(0, np.where(rng.random(len(z)) < 0.04, 0.5, 0.085))
            depths.append(dataclasses.replace(sample, depth_m=z * np.exp(noise)))
        poses = []
        for i, j in combinations(range(12), 2):
            rotation = synthetic.poses[i, :, :3] @ synthetic.poses[j, :, :3].T
            offset = synthetic.poses[i, :, 3] - rotation @ synthetic.poses[j, :, 3]
            length = float(np.linalg.norm(offset))
            names = [synthetic.capture.views[k].name for k in (i, j)]
            metres = length * float(np.exp(rng.normal(0, 0.1 * (10 if rng.random() < 0.01 else 1))))
            poses.append(RelativePose(*names, rotation, offset / length, metres, 0.8, 1.6, 0.1, "vlm:test"))
        scale = estimate_scale(scene, depths, relative_poses=poses)
        errors.append(np.log(scale.metres_per_unit / TRUE))
        assert scale.low < TRUE < scale.high
    assert abs(np.mean(errors)) < 3 * 0.0115 / np.sqrt(60)
    assert np.std(errors) < 0.0135


@pytest.mark.parametrize("sources", [("depth",), ("distance",), ("depth", "distance", "GPS")])
def test_the_interval_covers_the_true_scale_as_often_as_it_says(sources: tuple[str, ...]) -> None:
    """Answers at the published error: what one photo's or pair's answers share, what a checkpoint's answers share
    (drawn anew for every seed, as wide as the options say), outliers, and the noise of single answers."""
    synthetic = make_scene(num_views=6, num_points=60, noise_px=0.0)
    scene, options = _scene(synthetic), ScaleOptions()
    truth = {"GPS": 20.0}.get(sources[-1], 1.0) * TRUE
    covered, width = 0, []
    for seed in range(_SEEDS):
        rng = np.random.default_rng(seed)
        depths: list[DepthSamples] = []
        poses: list[RelativePose] = []
        common = np.exp(rng.normal(0, options.depth_systematic)) * truth / TRUE
        for sample in _samples(synthetic) if "depth" in sources else []:
            z = scene.view(sample.name)
            true = (scene.points_world[z.point_ids] @ z.cam_from_world[2, :3] + z.cam_from_world[2, 3]) * TRUE
            odd = rng.random(len(true)) < 0.04
            noise = rng.normal(0, 0.09) + rng.normal(0, np.where(odd, 0.5, 0.085))
            depths.append(dataclasses.replace(sample, depth_m=true * common * np.exp(noise)))
        common = np.exp(rng.normal(0, options.distance_systematic)) * truth / TRUE
        for i, j in combinations(range(6), 2) if "distance" in sources else []:
            rotation = synthetic.poses[i, :, :3] @ synthetic.poses[j, :, :3].T
            offset = synthetic.poses[i, :, 3] - rotation @ synthetic.poses[j, :, 3]
            length = float(np.linalg.norm(offset))
            names = [synthetic.capture.views[k].name for k in (i, j)]
            metres = length * common * float(np.exp(rng.normal(0, 0.1)))
            poses.append(RelativePose(*names, rotation, offset / length, metres, 0.8, 1.6, 0.1, "vlm:test"))
        capture = _with_gps(synthetic, noise_m=2.0, metres=20.0, seed=seed) if "GPS" in sources else None
        scale = estimate_scale(scene, depths, capture, relative_poses=poses, options=options)
        covered += scale.low <= truth <= scale.high
        width.append(np.log(scale.high / scale.low) / 2)
    assert 0.89 <= covered / _SEEDS <= 0.99  # 95 % with a binomial spread of 1.5 %


@pytest.mark.parametrize("count", [12, 400])
def test_the_interval_covers_the_stretch_of_gps_errors_that_drift(count: int) -> None:
    """A walk of 60 m; errors that change evenly with time (they show in no residual) as large as the docstring says,
    and 10 cm from fix to fix. Residuals alone gave 400 fixes an interval that covered the truth in 8 % of cases."""
    walked = np.linspace(0, 1, count)
    true = np.column_stack([60 * walked, 8 * np.sin(3 * walked), np.zeros(count)])
    covered = 0
    for seed in range(_SEEDS):
        rng = np.random.default_rng(seed)
        drift = 0.1 * 3.0 * np.sqrt(12) * rng.normal(size=3)  # rms about its mean: a tenth of the accuracy of 3 m
        fixes = true + (walked - 0.5)[:, None] * drift + rng.normal(0, 0.1, (count, 3))
        fit = fit_similarity(true / TRUE, GpsPositions(fixes, np.full((count, 3), 3.0), (46.0, 7.0, 400.0)))
        assert fit is not None
        covered += abs(np.log(fit.scale / TRUE)) <= 1.96 * fit.log_scale_sigma
    assert 0.89 <= covered / _SEEDS <= 0.99


def test_maps_with_gps_are_adjusted_in_east_north_up_metres(tmp_path: Path) -> None:
    """The fixes turn the map into their frame and pull cameras by what they are worth; the origin is written down."""
    synthetic = make_scene(num_views=10, noise_px=0.2)
    capture = _with_gps(synthetic, noise_m=0.2, metres=20.0)
    wrong = dataclasses.replace(capture.views[4], gps=GpsFix(46.01, 7.0, 400.0, 3.0))  # a kilometre off
    capture = Capture((*capture.views[:4], wrong, *capture.views[5:]))
    model, factors = in_gps_metres(from_scene(_scene(synthetic)), capture)
    assert factors is not None
    assert factors.view.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert np.linalg.norm(factors.residuals(model.state.poses)[0], axis=1).max() < 4
    centres = inverse(model.state.poses)[:, :, 3]
    true = 20.0 * np.array([-p[:, :3].T @ p[:, 3] for p in synthetic.poses])
    assert np.linalg.norm(centres[8] - centres[1]) == pytest.approx(np.linalg.norm(true[8] - true[1]), rel=0.02)

    world = georeference(apply_scale(_scene(synthetic), fuse([ScaleVote("GPS", 20.0 * TRUE, 0.01, 5)])), capture)
    write_georeference(world, tmp_path)
    written = json.loads((tmp_path / "georeference.json").read_text())
    first = capture.views[0].gps
    assert first is not None
    assert written["origin"]["latitude_deg"] == first.latitude_deg
    ecef = np.array(written["ecef_from_world"])
    radius = np.linalg.norm(ecef[:, 3])
    assert 6.35e6 < radius < 6.39e6
    np.testing.assert_allclose(ecef[:, :3] @ ecef[:, :3].T, np.eye(3), atol=1e-12)
    write_georeference(_scene(synthetic), tmp_path)  # a map without a place on the earth leaves no old file
    assert not (tmp_path / "georeference.json").exists()


def test_positions_that_determine_no_frame_change_nothing() -> None:
    synthetic = make_scene(num_views=6, noise_px=0.0)
    model = from_scene(_scene(synthetic))
    for capture in (synthetic.capture, _with_gps(synthetic, noise_m=5.0, metres=1.0)):
        same, factors = in_gps_metres(model, capture)
        assert same is model
        assert factors is None
