"""Spreads of the intrinsics: independent errors, and errors that a photo's pixels share."""

from __future__ import annotations

import dataclasses

import numpy as np

from recon.mapping.bundle import BundleOptions, BundleResult, BundleState, Observations, adjust
from tests.mapping.scenes import make_scene


def adjusted(noise_px: float, shared_px: float, seed: int) -> tuple[BundleResult, float]:
    """An adjustment of 12 photos with errors of single pixels and shears that a photo's pixels share, as a rolling
    shutter makes them; and the true focal length."""
    scene = make_scene(num_views=12, num_points=400, noise_px=noise_px, seed=seed)
    rng = np.random.default_rng(seed)
    pixels = scene.pixels.copy()
    height = (pixels[:, :, 1:] - 240) / 240
    pixels += rng.normal(0, shared_px, (12, 1, 2)) * height
    view, point = np.nonzero(np.isfinite(pixels).all(axis=2))
    nothing = np.full(len(view), np.nan)
    observations = Observations(view, point, pixels[view, point], nothing, nothing.copy())
    camera = dataclasses.replace(scene.camera, focal_source="refined")
    state = BundleState(scene.poses, (camera,), np.zeros(12, dtype=np.int64), scene.points)
    options = BundleOptions(pixel_sigma=float(np.hypot(noise_px, 0.05)), loss_scale=10.0)
    return adjust(state, observations, options), scene.camera.focal_px


def test_independent_errors_give_the_plain_spread() -> None:
    for seed in range(3):
        result, _ = adjusted(0.3, 0.0, seed)
        sigma, spread = result.intrinsics_sigma[0], result.intrinsics_spread[0]
        assert (spread[[0, 3]] < 2.0 * sigma[[0, 3]]).all()
        assert (spread >= sigma).all()
        assert sigma[1] == sigma[2] == 0  # the principal point is fixed


def test_errors_that_a_photo_shares_widen_it_and_cover_the_truth() -> None:
    """Over draws: errors are far larger than the plain spread says, and as large as the wider one says."""
    errors, plain, wide = [], [], []
    for seed in range(8):
        result, truth = adjusted(0.2, 1.0, seed)
        errors.append(result.state.cameras[0].focal_px - truth)
        plain.append(result.intrinsics_sigma[0][0])
        wide.append(result.intrinsics_spread[0][0])
    size = np.sqrt(np.mean(np.square(errors)))
    assert size > 2.0 * np.median(plain)
    assert 0.4 < size / np.median(wide) < 2.0
