"""A map that lies off its photos is brought back to them for matching, and its depth to the map's poses."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from recon.surface.build import build_depth_maps
from recon.surface.options import MultiviewOptions, SurfaceOptions
from recon.surface.precise import at_view, precise_scene
from recon.surface.store import MemoryDepthStore
from recon.surface.types import Photos
from tests.surface.scenes import plane_maps, scene_of

OPTIONS = SurfaceOptions(multiview=MultiviewOptions(min_speckle_px=20), device="cpu")


def moved(scene, degrees, metres, seed=0):
    """The scene with every photo turned and moved at random; pixels and points stay."""
    generator, views = np.random.default_rng(seed), []
    for view in scene.views:
        turn = Rotation.from_rotvec(np.radians(degrees) * generator.standard_normal(3)).as_matrix()
        pose = turn @ view.cam_from_world
        pose[:, 3] += metres * generator.standard_normal(3)
        views.append(dataclasses.replace(view, cam_from_world=pose))
    return dataclasses.replace(scene, views=tuple(views))


def errors_px(scene):
    parts = []
    for view in scene.views:
        here = scene.points_world[view.point_ids] @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
        image = here @ view.camera.matrix.T
        parts.append(np.linalg.norm(image[:, :2] / image[:, 2:] - view.pixels, axis=1))
    return np.concatenate(parts)


def depths(scene, name):
    view = scene.view(name)
    return scene.points_world[view.point_ids] @ view.cam_from_world[2, :3] + view.cam_from_world[2, 3]


@pytest.fixture(scope="module")
def plane():
    maps = plane_maps(5)
    return maps, scene_of(maps)


def test_pixels_place_the_photos_and_the_map_keeps_its_scale_and_place(plane):
    maps, truth = plane
    given = moved(truth, 0.6, 0.01)
    assert np.median(errors_px(given)) > 1
    precise = precise_scene(given)
    assert np.median(errors_px(precise)) < 0.01
    seen = (
        np.bincount(np.concatenate([view.point_ids for view in truth.views]), minlength=300) > 1
    )  # others may be anywhere
    ratio = [depths(precise, v.name)[seen[v.point_ids]] / depths(truth, v.name)[seen[v.point_ids]] for v in truth.views]
    assert np.ptp(np.log(np.concatenate(ratio))) < 1e-6  # the shape is the true one
    change = np.concatenate([depths(precise, m.name) / depths(given, m.name) for m in maps])
    assert abs(np.median(np.log(change))) < 1e-6  # the scale is that of the map as given
    centres = np.array([view.centre_world for view in precise.views])
    assert np.linalg.norm(centres - [view.centre_world for view in given.views], axis=1).max() < 0.1
    assert [view.camera for view in precise.views] == [view.camera for view in given.views]


def test_a_map_that_fits_its_photos_stays(plane):
    generator, (_, truth) = np.random.default_rng(0), plane
    assert precise_scene(truth) is None
    given = moved(truth, 0.6, 0.01)
    noisy = [dataclasses.replace(v, pixels=v.pixels + generator.normal(0, 0.4, v.pixels.shape)) for v in given.views]
    best = precise_scene(dataclasses.replace(given, views=tuple(noisy)))
    assert np.median(errors_px(best)) > 0.2
    assert precise_scene(best) is None  # what is left is noise that no pose explains


def test_a_photo_of_few_points_is_not_placed_by_them(plane):
    given = moved(plane[1], 0.6, 0.01)
    last = given.views[-1]
    few = dataclasses.replace(last, point_ids=last.point_ids[:49], pixels=last.pixels[:49])
    assert precise_scene(dataclasses.replace(given, views=(*given.views[:-1], few))) is None


def test_pixels_that_make_another_map_are_not_followed(plane):
    given = moved(plane[1], 0.6, 0.01)
    far = given.views[-1]  # as if its photo had been taken from much farther away
    middle = far.pixels.mean(axis=0)
    small = dataclasses.replace(far, pixels=middle + 0.7 * (far.pixels - middle))
    assert precise_scene(dataclasses.replace(given, views=(*given.views[:-1], small))) is None


def test_depth_goes_back_to_the_pose_and_to_the_depth_of_the_points_there(plane):
    maps, truth = plane
    view = truth.views[1]
    pose = view.cam_from_world.copy()
    pose[2, 3] += 0.1  # the scene's photo stands 0.1 farther from everything
    scene = dataclasses.replace(truth, views=(truth.views[0], dataclasses.replace(view, cam_from_world=pose)))
    result = at_view(maps[1], scene, truth)
    z = depths(truth, view.name)
    assert result.stats["depth_factor"] == pytest.approx(np.median((z + 0.1) / z))
    np.testing.assert_array_equal(result.cam_from_world, pose)
    np.testing.assert_allclose(result.depth_m, result.stats["depth_factor"] * maps[1].depth_m, rtol=1e-6)


def test_photos_a_pixel_off_their_map_are_matched_all_the_same_and_come_out_at_its_poses():
    maps = plane_maps(5)
    exact = scene_of(maps)
    given = moved(exact, 0.5, 0.005)
    by_name = {m.name: m for m in maps}
    shares = {}
    for label, scene in (("exact", exact), ("given", given)):
        result = build_depth_maps(scene, Photos(lambda name: by_name[name].color), [], OPTIONS, MemoryDepthStore())
        shares[label] = np.mean([np.isfinite(m.depth_m).mean() for m in result.depth_maps])
        for depth_map in result.depth_maps:
            np.testing.assert_allclose(depth_map.cam_from_world, scene.view(depth_map.name).cam_from_world)
    assert shares["given"] > 0.95 * shares["exact"]
