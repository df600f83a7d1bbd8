"""The surface step as a whole, on exact scenes: sources, checks, filling, masks, resuming."""

import dataclasses
import shutil

import numpy as np
import pytest

from recon.errors import ReconError, SurfaceError
from recon.surface import backend
from recon.surface.build import build_cloud, build_depth_maps
from recon.surface.edges import is_closed
from recon.surface.meshing import build_mesh
from recon.surface.options import FuseOptions, MultiviewOptions, SurfaceOptions
from recon.surface.store import FolderDepthStore, MemoryDepthStore, StoredDepthMaps, read_depth_map
from recon.surface.types import Photos
from recon.types import DepthSamples
from tests.surface.scenes import plane_maps, scene_of, sphere_maps

OPTIONS = SurfaceOptions(
    multiview=MultiviewOptions(min_speckle_px=20), fuse=FuseOptions(voxel_m=0.03, min_component_faces=20), device="cpu"
)


@pytest.fixture(scope="module")
def plane():
    maps = plane_maps(4)
    return {m.name: m for m in maps}, scene_of(maps)


def photos_of(maps, **others):
    return Photos(lambda name: maps[name].color, **others)


def samples_of(depth_map, factor=1.0, trusted=True):
    height, width = depth_map.depth_m.shape
    x, y = np.meshgrid(np.arange(4.5, width, 8), np.arange(4.5, height, 8))
    pixels = np.stack([x.ravel(), y.ravel()], axis=-1)
    depth = factor * depth_map.depth_m[pixels[:, 1].astype(int), pixels[:, 0].astype(int)].astype(float)
    return DepthSamples(
        depth_map.name, pixels, depth, np.full(len(depth), 0.1), "z", depth_map.camera.focal_px, "vlm:x", trusted
    )


def test_photos_alone_give_depth_and_a_mesh_on_the_plane(plane):
    maps, scene = plane
    calls = []
    store = MemoryDepthStore()
    result = build_depth_maps(scene, photos_of(maps), [], OPTIONS, store, lambda *done: calls.append(done))
    assert calls[-1] == (8, 8)
    assert [m.name for m in result.depth_maps] == list(maps)
    for depth_map in result.depth_maps:
        known = np.isfinite(depth_map.depth_m)
        assert known.mean() > 0.5
        error = np.abs(depth_map.depth_m / maps[depth_map.name].depth_m - 1)[known]
        assert np.median(error) < 0.003
        assert (depth_map.confidence[~known] == 0).all()
    mesh = build_mesh(result.depth_maps, OPTIONS.fuse).mesh
    normal = np.array([0.5, 0.2, -1.0]) / np.linalg.norm([0.5, 0.2, -1.0])
    distance = np.abs(mesh.vertices_world_m @ normal - normal @ np.array([0.0, 0.0, 2.0]))
    assert np.percentile(distance, 95) < 0.01
    assert (mesh.normals @ normal > 0).mean() > 0.99
    assert mesh.colors is not None
    cloud = build_cloud(result.depth_maps, OPTIONS.fuse)
    assert np.percentile(np.abs(cloud.points_world_m @ normal - normal @ np.array([0.0, 0.0, 2.0])), 95) < 0.01


def test_sensor_depth_is_taken_as_it_is(plane):
    maps, scene = plane

    def sensor(name):
        depth = maps[name].depth_m.copy()
        depth[:20] = np.nan
        return depth

    result = build_depth_maps(scene, photos_of(maps, sensor_depth=sensor), [], OPTIONS, MemoryDepthStore())
    for depth_map in result.depth_maps:
        assert depth_map.source == "sensor"
        assert np.isnan(depth_map.depth_m[:20]).all()
        np.testing.assert_allclose(depth_map.depth_m[20:], maps[depth_map.name].depth_m[20:])


def blank(maps):
    """The same views with a grey patch in the middle of the plane: nothing to match there."""
    result = {}
    for name, depth_map in maps.items():
        color = depth_map.color.copy()
        color[40:80, 50:110] = 128
        result[name] = dataclasses.replace(depth_map, color=color)
    return result


def test_trusted_prior_fills_what_photos_cannot_tell_and_is_marked(plane):
    maps, scene = plane
    samples = [samples_of(m, factor=1.1) for m in maps.values()]
    result = build_depth_maps(scene, photos_of(blank(maps)), samples, OPTIONS, MemoryDepthStore())
    inner = (slice(52, 68), slice(65, 95))
    for depth_map in result.depth_maps:
        assert np.isfinite(depth_map.depth_m[inner]).mean() > 0.95
        assert np.median(np.abs(depth_map.depth_m / maps[depth_map.name].depth_m - 1)[inner]) < 0.02
        filled = depth_map.confidence[inner] == np.float32(OPTIONS.fill_confidence)
        assert filled.mean() > 0.8
        assert depth_map.stats["filled"] > 0.02


def test_planes_of_the_scene_fill_holes_unless_told_not_to(plane):
    """Answers that err by a tenth: with the plane around the hole known, the hole lies on it."""
    maps, scene = plane
    samples = []
    for seed, depth_map in enumerate(maps.values()):
        exact = samples_of(depth_map)
        noise = np.exp(np.random.default_rng(seed).normal(0.0, 0.1, len(exact.depth_m)))
        samples.append(dataclasses.replace(exact, depth_m=exact.depth_m * noise))
    inner, errors = (slice(52, 68), slice(65, 95)), {}
    for planes in (True, False):
        options = dataclasses.replace(OPTIONS, planes=planes)
        result = build_depth_maps(scene, photos_of(blank(maps)), samples, options, MemoryDepthStore())
        away = [np.abs(m.depth_m / maps[m.name].depth_m - 1)[inner] for m in result.depth_maps]
        errors[planes] = float(np.nanmean(away))
    assert errors[True] < 0.002
    assert errors[False] > 2 * errors[True]


@pytest.mark.parametrize("untrusted", [True, False])
def test_what_is_not_known_stays_unknown(plane, untrusted):
    """Neither an untrusted prior nor no prior at all invents depth where the photos say nothing."""
    maps, scene = plane
    samples = [samples_of(m, trusted=False) for m in maps.values()] if untrusted else []
    result = build_depth_maps(scene, photos_of(blank(maps)), samples, OPTIONS, MemoryDepthStore())
    for depth_map in result.depth_maps:
        assert np.isnan(depth_map.depth_m[52:68, 65:95]).mean() > 0.95


def test_one_photo_with_a_trusted_prior_gives_a_surface(plane):
    maps, scene = plane
    alone = dataclasses.replace(scene, views=scene.views[:1])
    samples = [samples_of(maps["view0.jpg"], factor=1.2)]
    result = build_depth_maps(alone, photos_of(maps), samples, OPTIONS, MemoryDepthStore())
    error = np.abs(result.depth_maps[0].depth_m / maps["view0.jpg"].depth_m - 1)
    assert error.mean() < 0.02  # the points in view correct the factor
    mesh = build_mesh(result.depth_maps, OPTIONS.fuse).mesh
    normal = np.array([0.5, 0.2, -1.0]) / np.linalg.norm([0.5, 0.2, -1.0])
    distance = np.abs(mesh.vertices_world_m @ normal - normal @ np.array([0.0, 0.0, 2.0]))
    assert np.percentile(distance, 95) < 0.06


def test_masked_pixels_have_no_depth(plane):
    maps, scene = plane

    def mask(name):
        use = np.ones((120, 160), dtype=bool)
        use[:, :50] = False
        return use

    photos = photos_of(maps, mask=mask, sensor_depth=lambda name: maps[name].depth_m)
    for depth_map in build_depth_maps(scene, photos, [], OPTIONS, MemoryDepthStore()).depth_maps:
        assert np.isnan(depth_map.depth_m[:, :50]).all()
        assert (depth_map.confidence[:, :50] == 0).all()
        assert np.isfinite(depth_map.depth_m[:, 50:]).all()


def test_a_second_run_computes_nothing_again(plane, tmp_path):
    maps, scene = plane
    photos = photos_of(maps, sensor_depth=lambda name: maps[name].depth_m)
    first = build_depth_maps(scene, photos, [], OPTIONS, FolderDepthStore(tmp_path))

    def forbidden(name):
        raise AssertionError(f"{name} was read again")

    again = build_depth_maps(scene, Photos(forbidden), [], OPTIONS, FolderDepthStore(tmp_path))
    for a, b in zip(first.depth_maps, again.depth_maps):
        np.testing.assert_array_equal(a.depth_m, b.depth_m)
        assert a.camera == b.camera
        assert a.stats == b.stats


def test_a_run_that_goes_on_gives_the_same_maps_to_the_last_bit(plane, tmp_path):
    maps, scene = plane
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    first = build_depth_maps(scene, photos_of(maps), [], OPTIONS, FolderDepthStore(whole))
    (resumed / "photometric").mkdir(parents=True)
    for file in sorted((whole / "photometric").iterdir())[:2]:
        shutil.copy(file, resumed / "photometric")
    second = build_depth_maps(scene, photos_of(maps), [], OPTIONS, FolderDepthStore(resumed))
    for a, b in zip(first.depth_maps, second.depth_maps, strict=True):
        np.testing.assert_array_equal(a.depth_m, b.depth_m)
        np.testing.assert_array_equal(a.confidence, b.confidence)


def test_a_damaged_stored_map_is_computed_again(plane, tmp_path):
    maps, scene = plane
    photos = photos_of(maps, sensor_depth=lambda name: maps[name].depth_m)
    store = FolderDepthStore(tmp_path)
    build_depth_maps(scene, photos, [], OPTIONS, store)
    files = sorted(tmp_path.rglob("*.npz"))
    assert len(files) == 16  # four steps of four photos
    for file in files:
        file.write_bytes(file.read_bytes()[:1000])
    result = build_depth_maps(scene, photos, [], OPTIONS, store)
    assert len(result.depth_maps) == 4
    assert all(np.isfinite(read_depth_map(file).depth_m).any() for file in files)
    assert not list(tmp_path.rglob("*.tmp"))


def test_photos_without_depth_are_named_with_the_reason(plane):
    maps, scene = plane
    alone = dataclasses.replace(scene, views=scene.views[:1])
    with pytest.raises(SurfaceError, match=r"none of 1 registered photos.*view0\.jpg: shares too few points"):
        build_depth_maps(alone, photos_of(maps), [], OPTIONS, MemoryDepthStore())
    one_sensor = photos_of(maps, sensor_depth=lambda name: maps[name].depth_m if name == "view1.jpg" else None)
    blind = dataclasses.replace(scene.views[0], point_ids=np.empty(0, np.int64), pixels=np.empty((0, 2)))
    lonely = dataclasses.replace(scene, views=(blind, scene.views[1]))
    result = build_depth_maps(lonely, one_sensor, [], OPTIONS, MemoryDepthStore())
    assert [m.name for m in result.depth_maps] == ["view1.jpg"]
    assert [r.name for r in result.rejected] == ["view0.jpg"]


def test_stored_maps_are_a_sequence():
    store = MemoryDepthStore()
    maps = plane_maps(3)
    for depth_map in maps:
        store.save("final", depth_map)
    stored = StoredDepthMaps(store, "final", [m.name for m in maps])
    assert [m.name for m in stored[1:]] == ["view1.jpg", "view2.jpg"]
    assert stored[-1].name == "view2.jpg"
    assert [m.name for m in stored] == [m.name for m in maps]


def test_missing_system_libraries_are_named(monkeypatch):
    import builtins

    real = builtins.__import__

    def broken(name, *args, **kwargs):
        if name == "open3d":
            raise OSError("libusb-1.0.so.0: cannot open shared object file: No such file or directory")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(ReconError, match=r"libusb-1\.0\.so\.0.*apt-get install -y libusb-1\.0-0 libgl1"):
        backend.open3d()


def test_what_is_asked_of_the_mesh_is_done_and_said():
    maps = sphere_maps()
    options = FuseOptions(voxel_m=0.04, min_component_faces=20, watertight=True, remove_sky=True)
    built = build_mesh(maps, options)
    assert is_closed(built.mesh.faces)
    assert [note.split(":")[0] for note in built.notes] == ["sky was left out", "the mesh is watertight"]
    assert "follows 100% of the area that photos show" in built.notes[1]
    assert len(built.mesh.colors) == len(built.mesh.vertices_world_m)
    assert build_mesh(maps, FuseOptions(voxel_m=0.04, min_component_faces=20)).notes == ()
