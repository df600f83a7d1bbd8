"""Sky is what is smooth, blue or white, without depth, and hangs on the top border."""

import dataclasses

import numpy as np

from recon.surface.sky import WithoutSky, sky_mask, without_sky
from tests.surface.scenes import plane_maps

HEIGHT, WIDTH = 120, 160


def street() -> np.ndarray:
    """A blue gradient above textured houses, with a white cloud in it and a white wall below."""
    image = np.random.default_rng(0).integers(40, 200, (HEIGHT, WIDTH, 3)).astype(np.float64)
    image[:50] = np.linspace([70.0, 110, 190], [150, 180, 225], 50)[:, None]
    image[10:22, 40:80] = 235
    image[80:115, 20:60] = 235  # a white wall that does not reach the sky
    return image.astype(np.uint8)


def test_sky_and_clouds_are_found_and_a_white_wall_is_not():
    sky = sky_mask(street(), np.zeros((HEIGHT, WIDTH), np.float32))
    assert sky[:48].mean() > 0.97
    assert not sky[60:].any()


def test_what_other_photos_confirm_is_no_sky():
    confident = np.full((HEIGHT, WIDTH), 0.8, np.float32)
    assert not sky_mask(street(), confident).any()
    filled = np.full((HEIGHT, WIDTH), 0.2, np.float32)  # the prior's answer about the sky
    assert sky_mask(street(), filled)[:48].mean() > 0.97


def test_indoors_without_blue_or_white_nothing_is_found():
    image = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    assert not sky_mask(image, np.zeros((HEIGHT, WIDTH), np.float32)).any()
    brown = np.full((HEIGHT, WIDTH, 3), (150, 120, 90), np.uint8)
    assert not sky_mask(brown, np.zeros((HEIGHT, WIDTH), np.float32)).any()


def test_depth_maps_lose_the_sky_when_they_are_read():
    depth_map = plane_maps(1)[0]
    prior_only = np.full_like(depth_map.confidence, 0.2)
    depth_map = dataclasses.replace(depth_map, color=street(), confidence=prior_only)
    assert np.isfinite(depth_map.depth_m).all()
    (seen,) = WithoutSky([depth_map])
    assert np.isfinite(seen.depth_m[:48]).mean() < 0.03
    np.testing.assert_array_equal(seen.depth_m[65:], depth_map.depth_m[65:])
    assert 0.38 < seen.stats["sky"] < 0.47
    assert (seen.confidence[~np.isfinite(seen.depth_m)] == 0).all()
    np.testing.assert_array_equal(without_sky(depth_map).depth_m, seen.depth_m)
    assert len(WithoutSky([depth_map, depth_map])[:1]) == 1
