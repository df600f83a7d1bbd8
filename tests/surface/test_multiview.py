"""The photometric search finds exact depth on textured surfaces, and knows where it found nothing."""

import dataclasses

import numpy as np
import pytest
import torch

from recon.surface.consistency import contradicted, count_consistent, remove_speckles
from recon.surface.frames import choose_neighbours, make_frame
from recon.surface.multiview import Prior, depth_bounds, refine
from recon.surface.options import MultiviewOptions
from recon.surface.photometric import box_mean, mean_of_best
from recon.surface.sgm import aggregate
from tests.surface.scenes import plane_maps, scene_of, sphere_maps

OPTIONS = MultiviewOptions()


def frames_of(maps):
    scene = scene_of(maps)
    return scene, [make_frame(scene, view, m.color, 640) for view, m in zip(scene.views, maps)]


@pytest.mark.parametrize("slant", [0.0, 0.6])
def test_a_textured_plane_is_recovered_within_one_percent(slant):
    maps = plane_maps(slant=slant)
    _, frames = frames_of(maps)
    found = refine(frames[1], [frames[0], *frames[2:]], OPTIONS, device="cpu")
    error = np.abs(found.depth_m / maps[1].depth_m - 1)[8:-8, 8:-8]
    # measured medians: 0.0008 (slant 0) and 0.0013 (slant 0.6)
    assert np.median(error) < 0.003
    assert (error < 0.01).mean() > 0.95
    assert np.median(found.confidence[8:-8, 8:-8]) > 0.9


def test_a_prior_guides_the_search_and_a_wrong_one_gives_way_to_the_photos():
    maps = plane_maps()
    _, frames = frames_of(maps)
    others = [frames[0], *frames[2:]]
    noise = np.random.default_rng(0).normal(0, 0.03, maps[1].depth_m.shape)
    prior = Prior((maps[1].depth_m * np.exp(noise)).astype(np.float32), 0.05)
    found = refine(frames[1], others, OPTIONS, prior, "cpu")
    error = np.abs(found.depth_m / maps[1].depth_m - 1)[8:-8, 8:-8]
    assert (error < 0.01).mean() > 0.95
    # A confident prior 40 % too far, as on an object without points in the map: the photos find the true depth.
    wrong = refine(frames[1], others, OPTIONS, Prior((1.4 * maps[1].depth_m).astype(np.float32), 0.02), "cpu")
    error = np.abs(wrong.depth_m / maps[1].depth_m - 1)[8:-8, 8:-8]
    assert (error < 0.01).mean() > 0.9


def test_without_texture_the_prior_decides():
    maps = [dataclasses.replace(m, color=np.full_like(m.color, 120)) for m in plane_maps(slant=0.0)]
    _, frames = frames_of(maps)
    prior = Prior((1.1 * maps[1].depth_m).astype(np.float32), 0.02)
    found = refine(frames[1], [frames[0], *frames[2:]], OPTIONS, prior, "cpu")
    assert np.abs(found.depth_m / prior.depth_m - 1)[8:-8, 8:-8].max() < 0.06


def test_the_range_reaches_to_near_things_that_only_neighbours_have_points_on():
    maps = plane_maps()
    _, frames = frames_of(maps)
    pixels = np.stack([np.full(20, 80.0), np.linspace(40, 80, 20)], axis=-1)
    near = dataclasses.replace(frames[0], point_ids=np.arange(20), point_pixels=pixels, point_depth_m=np.full(20, 0.9))
    alone = depth_bounds(frames[1], None)
    together = depth_bounds(frames[1], None, [near])
    assert alone[1] < 1 / 0.9
    assert together[1] == pytest.approx(1 / 0.9, rel=0.15)  # the other camera is 0.2 m beside
    assert together[0] == alone[0]


def test_without_texture_there_is_no_confidence():
    maps = [dataclasses.replace(m, color=np.full_like(m.color, 120)) for m in plane_maps()]
    _, frames = frames_of(maps)
    found = refine(frames[1], [frames[0], *frames[2:]], OPTIONS, device="cpu")
    assert found.confidence.max() < 0.1


def test_without_neighbours_or_range_there_is_no_result():
    maps = plane_maps(2)
    _, frames = frames_of(maps)
    assert refine(frames[0], [], OPTIONS, device="cpu") is None
    blind = dataclasses.replace(frames[0], point_depth_m=np.empty(0), point_pixels=np.empty((0, 2)))
    assert depth_bounds(blind, None) is None
    assert refine(blind, [frames[1]], OPTIONS, device="cpu") is None


def test_bounds_enclose_the_points_and_the_prior():
    maps = plane_maps(2)
    _, frames = frames_of(maps)
    low, high = depth_bounds(frames[0], None)
    assert low < 1 / frames[0].point_depth_m.max()
    assert high > 1 / frames[0].point_depth_m.min()
    far = Prior(np.full((4, 4), 50.0, dtype=np.float32), 0.1)
    assert depth_bounds(frames[0], far)[0] < 1 / 50.0


def test_true_depth_is_confirmed_and_false_depth_is_not():
    maps = plane_maps()
    count, mean = count_consistent(maps[1], [maps[0], *maps[2:]], OPTIONS)
    assert (count[20:-20, 40:-40] == 3).mean() > 0.95
    assert np.abs(mean / maps[1].depth_m - 1)[count == 3].max() < 1e-3
    wrong = dataclasses.replace(maps[1], depth_m=(1.05 * maps[1].depth_m).astype(np.float32))
    assert count_consistent(wrong, [maps[0], *maps[2:]], OPTIONS)[0].max() == 0


def test_a_point_that_a_neighbour_sees_through_is_contradicted():
    maps = plane_maps()
    near = dataclasses.replace(maps[1], depth_m=(0.7 * maps[1].depth_m).astype(np.float32))
    assert contradicted(near, [maps[0], maps[2]], 0.5)[30:-30, 50:-50].all()
    assert not contradicted(maps[1], [maps[0], maps[2]], 0.5).any()
    vague = dataclasses.replace(maps[0], confidence=0.1 * maps[0].confidence)
    assert not contradicted(near, [vague], 0.5).any()


def test_unknown_depth_is_never_confirmed():
    maps = plane_maps(3)
    unknown = dataclasses.replace(maps[0], depth_m=np.full_like(maps[0].depth_m, np.nan))
    assert count_consistent(maps[1], [unknown, unknown], OPTIONS)[0].max() == 0
    assert count_consistent(unknown, maps[1:], OPTIONS)[0].max() == 0


def test_speckles_go_and_surfaces_stay():
    depth = np.full((40, 60), 2.0, dtype=np.float32)
    depth[5:9, 5:9] = 1.0
    depth[20, :] = np.nan
    kept = remove_speckles(depth, 30)
    assert not kept[5:9, 5:9].any()
    assert not kept[20].any()
    assert kept[0:4].all()
    assert kept[21:].all()


def test_neighbours_see_common_points_at_a_useful_angle():
    maps = sphere_maps(12)
    scene = scene_of(plane_maps(5))
    chosen = choose_neighbours(scene, 3, 2.0, 35.0)
    assert set(chosen) == {view.name for view in scene.views}
    assert all(len(names) == 3 and name not in names for name, names in chosen.items())
    # Views on opposite sides of a sphere share no point of it.
    around = choose_neighbours(scene_of(maps), 6, 2.0, 35.0)
    assert "view6.jpg" not in around["view0.jpg"]
    assert choose_neighbours(scene, 3, 60.0, 90.0)["view0.jpg"] == ()


def test_box_mean_equals_a_plain_mean():
    image = torch.rand(2, 9, 11)
    for side in (1, 3, 5, 7):
        padded = torch.nn.functional.pad(image[:, None], [side // 2] * 4, mode="replicate")
        expected = torch.nn.functional.avg_pool2d(padded, side, 1)[:, 0]
        torch.testing.assert_close(box_mean(image, side), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("number", [1, 2, 3, 5, 6])
def test_mean_of_best_equals_sorting(number):
    scores = torch.rand(number, 6, 7)
    kept = min(number, max(2, (number + 1) // 2))
    expected = scores.sort(dim=0, descending=True).values[:kept].mean(dim=0)
    torch.testing.assert_close(mean_of_best(scores), expected, atol=1e-5, rtol=1e-5)


def test_path_costs_follow_the_recurrence():
    """One row, forward and backward, against the textbook loop."""
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(5, 1, 8, generator=generator)
    guide = torch.zeros(1, 8)
    small, large = 0.1, 0.4

    def one_way(row):
        out = [row[:, 0]]
        for x in range(1, row.shape[1]):
            previous, low = out[-1], out[-1].min()
            best = [
                min(
                    previous[d],
                    *(previous[e] + small for e in (d - 1, d + 1) if 0 <= e < 5),
                    low + large,
                )
                for d in range(5)
            ]
            out.append(row[:, x] + torch.stack(best) - low)
        return torch.stack(out, dim=1)

    row = cost[:, 0]
    horizontal = one_way(row) + one_way(row.flip(1)).flip(1)
    expected = horizontal + 2 * row  # a column of one pixel has no neighbours: its path cost is its own, twice
    torch.testing.assert_close(aggregate(cost, guide, small, large)[:, 0], expected, atol=1e-5, rtol=1e-5)
