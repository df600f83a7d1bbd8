"""Dense depth from samples: planes stay planes, edges stay edges, outliers and false scales are put right."""

import dataclasses

import numpy as np
import pytest

from recon.surface.align import align, samples_in_frame
from recon.surface.densify import complete, dense_depth, photo_to_frame, prior_confidence, sensor_depth
from recon.surface.frames import Frame
from recon.surface.options import DensifyOptions
from recon.surface.types import DepthMap
from recon.types import Camera, DepthSamples

OPTIONS = DensifyOptions(solve_px=80)
WIDTH, HEIGHT = 160, 120
CAMERA = Camera.pinhole(WIDTH, HEIGHT, 150.0, 150.0, 80.0, 60.0)
POSE = np.eye(3, 4)


def plane(slant: float = 0.3) -> np.ndarray:
    """Depth of a slanted plane: inverse depth is linear in the image."""
    x = np.arange(WIDTH) + 0.5
    return np.broadcast_to(1.0 / (0.5 + slant * (x - 80) / 160), (HEIGHT, WIDTH)).astype(np.float32)


def frame_of(depth: np.ndarray, image: np.ndarray, num_points: int = 150, seed: int = 0) -> Frame:
    generator = np.random.default_rng(seed)
    pixels = generator.uniform([0, 0], [WIDTH, HEIGHT], (num_points, 2))
    at_points = depth[pixels[:, 1].astype(int), pixels[:, 0].astype(int)].astype(np.float64)
    return Frame("a.jpg", image, CAMERA, CAMERA, POSE, np.arange(num_points), pixels, at_points)


def samples_of(depth: np.ndarray, log_sigma: float = 0.1, factor: float = 1.0, step: int = 8, seed: int = 1):
    generator = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(step / 2, WIDTH, step), np.arange(step / 2, HEIGHT, step))
    pixels = np.stack([x.ravel(), y.ravel()], axis=-1)
    truth = depth[pixels[:, 1].astype(int), pixels[:, 0].astype(int)].astype(np.float64)
    noisy = factor * truth * np.exp(generator.normal(0, log_sigma, len(truth)))
    return DepthSamples("a.jpg", pixels, noisy, np.full(len(truth), 0.2), "z", 150.0, "vlm:test")


GREY = np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8)


def test_noise_on_a_slanted_plane_is_averaged_out():
    depth = plane()
    found = dense_depth(frame_of(depth, GREY), [samples_of(depth)], True, OPTIONS)
    error = np.abs(found.depth_m / depth - 1)
    assert error.mean() < 0.015  # the samples' own mean error is 0.08
    assert error.max() < 0.08


def test_a_wrong_factor_is_aligned_to_the_points():
    depth = plane()
    found = dense_depth(frame_of(depth, GREY), [samples_of(depth, factor=1.3)], True, OPTIONS)
    assert found.stats["factor"] == pytest.approx(1 / 1.3, rel=0.03)
    assert np.abs(found.depth_m / depth - 1).mean() < 0.02
    assert found.stats["log_sigma"] < 0.15


def test_a_factor_that_varies_over_the_image_is_aligned():
    depth = plane()
    samples = samples_of(depth, log_sigma=0.03)
    tilted = dataclasses.replace(samples, depth_m=samples.depth_m * np.exp(0.1 * (samples.pixels[:, 0] / 80 - 1)))
    frame = frame_of(depth, GREY)
    alignment = align(frame, samples_in_frame(frame, tilted), 12)
    aligned = alignment.apply(frame, samples_in_frame(frame, tilted))
    truth = depth[aligned.pixels[:, 1].astype(int), aligned.pixels[:, 0].astype(int)]
    assert np.abs(np.log(aligned.depth_m / truth)).mean() < 0.04
    assert alignment.inlier_share > 0.9


def test_points_count_by_how_well_their_depth_is_known():
    """A third of the points is 30 % too far, which their spread says."""
    depth = plane()
    frame = frame_of(depth, GREY)
    bad = np.arange(150) % 3 == 0
    wrong = dataclasses.replace(frame, point_depth_m=np.where(bad, 1.3, 1.0) * frame.point_depth_m)
    told = dataclasses.replace(wrong, point_log_sigma=np.where(bad, 0.3, 0.005))
    errors = [
        np.abs(dense_depth(f, [samples_of(depth)], True, OPTIONS).depth_m / depth - 1).mean() for f in (wrong, told)
    ]
    assert errors[1] < 0.015 < 0.05 < errors[0]


def test_many_points_in_a_corner_do_not_tilt_the_whole():
    """A thousand points beside the same few answers know no more than those answers do."""
    depth = plane(0.0)
    found = []
    for seed in range(8):
        frame = frame_of(depth, GREY, num_points=1000, seed=seed)
        corner = dataclasses.replace(frame, point_pixels=frame.point_pixels * [0.3, 0.3])
        samples = samples_in_frame(corner, samples_of(depth, 0.1, seed=seed))
        found.append(align(corner, samples, 12).coefficients)
    tilt = np.array(found)[:, 1:]
    assert np.sqrt((tilt**2).mean()) < 0.03  # 0.06 and more where each point counts by itself


def test_depth_does_not_bleed_over_an_image_edge():
    depth = np.full((HEIGHT, WIDTH), 2.0, dtype=np.float32)
    depth[:, 77:] = 4.0
    image = np.where(depth[..., None] < 3, [200, 60, 40], [40, 90, 180]).astype(np.uint8)
    found = dense_depth(frame_of(depth, image, num_points=0), [samples_of(depth, 0.05)], True, OPTIONS)
    error = np.abs(found.depth_m / depth - 1)
    # Everything up to two pixels from the edge is on its own side.
    assert error[:, :75].max() < 0.1
    assert error[:, 79:].max() < 0.1
    # Without the image's edge the same samples can't tell where the jump is.
    blurred = dense_depth(frame_of(depth, GREY, num_points=0), [samples_of(depth, 0.05)], True, OPTIONS)
    assert np.abs(blurred.depth_m / depth - 1)[:, 73:81].max() > 0.2


def test_a_border_blurred_over_three_pixels_still_separates():
    """As a photo reduced to the solver's grid has it; the wall beside the object follows its own few, noisy answers."""
    depth = np.full((HEIGHT, WIDTH), 1.5, dtype=np.float32)
    depth[:, 78:] = 2.1
    share = np.clip((np.arange(WIDTH) - 75) / 6, 0, 1)[None, :, None]
    image = (share * [120, 90, 130] + (1 - share) * [190, 180, 140]) * np.ones((HEIGHT, 1, 1))
    known = np.where(np.arange(WIDTH) < 70, depth, np.nan).astype(np.float32)  # the object is confirmed
    confirmed = DepthMap("a.jpg", known, np.isfinite(known).astype(np.float32), CAMERA, POSE, image.astype(np.uint8))
    frame = frame_of(depth, image.astype(np.uint8), num_points=0)
    filled = complete(frame, confirmed, [samples_of(depth, 0.01)], True, DensifyOptions(solve_px=160))
    assert np.abs(filled / depth - 1)[:, 84:110].mean() < 0.006  # 0.014 where only single steps separate


def test_gross_outliers_among_the_samples_lose_their_weight():
    depth = plane()
    samples = samples_of(depth, 0.05)
    bad = samples.depth_m.copy()
    bad[::20] *= 6.0
    found = dense_depth(frame_of(depth, GREY), [dataclasses.replace(samples, depth_m=bad)], True, OPTIONS)
    assert np.abs(found.depth_m / depth - 1).mean() < 0.03


def test_without_points_metric_samples_stand_and_unscaled_scenes_get_none():
    depth = plane()
    blind = frame_of(depth, GREY, num_points=0)
    found = dense_depth(blind, [samples_of(depth)], True, OPTIONS)
    assert np.abs(found.depth_m / depth - 1).mean() < 0.03
    assert dense_depth(blind, [samples_of(depth)], False, OPTIONS) is None
    assert dense_depth(blind, [], True, OPTIONS) is None


def test_ray_distances_and_focal_lengths_are_converted():
    depth = plane()
    frame = frame_of(depth, GREY)
    samples = samples_of(depth, 0.0)
    length = np.linalg.norm((samples.pixels - [80, 60]) / 150, axis=1)
    as_ray = dataclasses.replace(
        samples, depth_m=samples.depth_m * np.sqrt(1 + length**2), depth_kind="ray", focal_px=150.0
    )
    np.testing.assert_allclose(samples_in_frame(frame, as_ray).depth_m, samples.depth_m, rtol=1e-9)
    other_focal = dataclasses.replace(samples, depth_m=samples.depth_m * 2, focal_px=300.0)
    np.testing.assert_allclose(samples_in_frame(frame, other_focal).depth_m, samples.depth_m, rtol=1e-9)


def test_nonsense_samples_are_ignored():
    depth = plane()
    samples = samples_of(depth)
    values = samples.depth_m.copy()
    values[:4] = [np.nan, np.inf, -1.0, 0.0]
    placed = samples_in_frame(frame_of(depth, GREY), dataclasses.replace(samples, depth_m=values))
    assert len(placed.depth_m) == len(values) - 4


def test_samples_of_a_distorted_photo_land_where_the_undistorted_image_shows_them():
    lens = Camera("SIMPLE_RADIAL", WIDTH, HEIGHT, (150.0, 80.0, 60.0, -0.1))
    frame = dataclasses.replace(frame_of(plane(), GREY), photo_camera=lens)
    samples = DepthSamples(
        "a.jpg", np.array([[80.0, 60.0], [140.0, 60.0]]), np.ones(2), np.ones(2), "z", 150.0, "vlm:test"
    )
    placed = samples_in_frame(frame, samples)
    np.testing.assert_allclose(placed.pixels[0], [80, 60], atol=1e-9)
    radius = (placed.pixels[1, 0] - 80) / 150
    assert 80 + 150 * radius * (1 - 0.1 * radius**2) == pytest.approx(140.0)


def test_holes_are_filled_without_a_step_at_their_border():
    depth = plane()
    hole = np.zeros((HEIGHT, WIDTH), dtype=bool)
    hole[40:80, 50:110] = True
    confirmed = DepthMap(
        "a.jpg", np.where(hole, np.nan, depth).astype(np.float32), (~hole).astype(np.float32), CAMERA, POSE, GREY
    )
    biased = samples_of(depth, 0.03, factor=1.2)
    filled = complete(frame_of(depth, GREY, num_points=0), confirmed, [biased], True, OPTIONS)
    error = np.abs(filled / depth - 1)
    assert error[hole].max() < 0.05
    assert complete(frame_of(depth, GREY), confirmed, [], True, OPTIONS) is None


def test_sensor_depth_keeps_its_holes_and_its_edges():
    depth = plane().copy()
    depth[10:20, 10:20] = np.nan
    depth[50:60, 100:] = 0.0
    found = sensor_depth(frame_of(np.nan_to_num(plane()), GREY), depth, True, OPTIONS)
    assert np.isnan(found.depth_m[10:20, 10:20]).all()
    assert np.isnan(found.depth_m[50:60, 100:]).all()
    known = np.isfinite(found.depth_m)
    np.testing.assert_array_equal(found.depth_m[known], depth[known])
    np.testing.assert_array_equal(found.confidence, known.astype(np.float32))


def test_sensor_depth_of_another_resolution_is_brought_to_the_map_unit():
    depth = plane()
    frame = frame_of(depth * 3, GREY)  # the map's unit is a third of a metre
    found = sensor_depth(frame, depth[::2, ::2], False, OPTIONS)
    assert found.stats["factor"] == pytest.approx(3.0, rel=0.02)
    assert np.nanmedian(np.abs(found.depth_m / (3 * depth) - 1)) < 0.02


def test_masks_and_depth_follow_the_lens():
    lens = Camera("SIMPLE_RADIAL", WIDTH, HEIGHT, (150.0, 80.0, 60.0, -0.1))
    frame = dataclasses.replace(frame_of(plane(), GREY), photo_camera=lens)
    x = np.broadcast_to(np.arange(WIDTH) + 0.5, (HEIGHT, WIDTH))
    placed = photo_to_frame(frame, x.astype(np.float32), np.float32(np.nan))
    radius = (140.5 - 80) / 150
    assert placed[60, 140] == pytest.approx(80 + 150 * radius * (1 - 0.1 * radius**2), abs=0.51)


def test_confidence_falls_with_the_error():
    assert prior_confidence(0.05) == pytest.approx(0.5)
    assert prior_confidence(0.01) > 0.9 > 0.1 > prior_confidence(0.25)


def test_an_unconfirmed_object_keeps_its_samples_and_the_wall_beside_it_the_confirmed_depth():
    generator = np.random.default_rng(3)
    inside = np.zeros((HEIGHT, WIDTH), dtype=bool)
    inside[40:90, 50:110] = True
    depth = np.where(inside, 2.0, 3.0).astype(np.float32)
    image = np.where(inside[..., None], 150, 110) + generator.normal(0, 8, (HEIGHT, WIDTH, 3))  # a weak, noisy border
    hole = np.zeros_like(inside)
    hole[30:100, 40:120] = True  # the object and the wall around it
    confirmed = DepthMap(
        "a.jpg", np.where(hole, np.nan, depth).astype(np.float32), (~hole).astype(np.float32), CAMERA, POSE, GREY
    )
    frame = frame_of(depth, image.clip(0, 255).astype(np.uint8), num_points=0)
    filled = complete(frame, confirmed, [samples_of(depth, 0.08, step=16)], True, OPTIONS)
    error = np.abs(filled / depth - 1)
    core = np.zeros_like(inside)
    core[50:80, 60:100] = True
    assert np.median(error[core]) < 0.04
    assert np.median(error[hole & ~inside]) < 0.01
