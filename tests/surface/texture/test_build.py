"""A painted box: its texture shows what a camera that took no part sees, whatever stands before it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from recon.surface.options import TextureOptions
from recon.surface.picture import cast_camera, render_mesh
from recon.surface.texture.bake import sample
from recon.surface.texture.build import texture_mesh
from recon.surface.texture.picture import decode_page, render_textured
from recon.surface.texture.types import TexturedMesh
from recon.surface.types import DepthMap, Mesh
from recon.types import Camera
from tests.surface.scenes import look_from
from tests.surface.texture.box import BOX, CAMERA, Shoot, box_mesh, paint, photograph, poses, psnr, shoot

OPTIONS = TextureOptions(longest_edge=0.05, page_px=1024)
HELD_OUT = look_from(np.array([1.1, 0.2, 1.3]), np.zeros(3))
PLATE = (np.array([0.33, -0.55, 0.8]), np.array([0.53, -0.4, 0.85]))  # between the box and the second camera
AT = poses(8)
PHOTOS = [photograph(pose) for pose in AT]


def texture_of(mesh: Mesh, photos: Shoot, options: TextureOptions = OPTIONS) -> TexturedMesh:
    return texture_mesh(mesh, photos.views, photos.photos, options)


def is_red(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (image[..., 0].astype(int) - image[..., 1:].max(axis=-1)) > 100


@pytest.fixture(scope="module")
def plain() -> TexturedMesh:
    return texture_of(box_mesh(), shoot(PHOTOS, AT))


def test_the_texture_shows_what_another_camera_sees(plain: TexturedMesh) -> None:
    truth = photograph(HELD_OUT)
    on_box = cast_camera(plain.mesh, CAMERA, HELD_OUT, 1)[0] >= 0
    exact = dataclasses.replace(plain.mesh, colors=paint(np.asarray(plain.mesh.vertices_world_m)))
    with_colors = psnr(render_mesh(exact, CAMERA, HELD_OUT, "color"), truth, on_box)
    with_texture = psnr(render_textured(plain, CAMERA, HELD_OUT), truth, on_box)
    assert with_texture > 28  # 30.9
    assert with_texture > with_colors + 5  # 20.7 with the exact colour at every vertex


def test_every_triangle_lies_in_its_page(plain: TexturedMesh) -> None:
    faces = len(plain.mesh.faces)
    assert plain.uv.shape == (faces, 3, 2)
    assert plain.page.shape == (faces,)
    assert 0 <= plain.page.min() <= plain.page.max() < len(plain.pages)
    assert 0 <= plain.uv.min() <= plain.uv.max() <= 1
    assert plain.scale == 1
    assert plain.seen_share > 0.99
    assert all(max(decode_page(page).shape) <= OPTIONS.page_px for page in plain.pages)


def test_texels_are_about_the_pixels_of_the_best_photo(plain: TexturedMesh) -> None:
    height, width, _ = decode_page(plain.pages[0]).shape
    corners = plain.uv * [width, height]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    texels = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2
    # The box has 3.76 square metres; at 1.9 m a pixel of the photo is 9.5 mm wide.
    assert 0.7 < texels / (3.76 / 0.0095**2) < 1.3  # 1.05


def seam_differences(textured: TexturedMesh) -> NDArray[np.float64]:
    """For every vertex that lies at several places of the atlas: the largest difference of their colours there."""
    pages = [decode_page(page) for page in textured.pages]
    colors = np.zeros((*textured.uv.shape[:2], 3))
    for number, page in enumerate(pages):
        here = textured.page == number
        places = textured.uv[here].reshape(-1, 2) * [page.shape[1], page.shape[0]]
        colors[here] = sample(page, places).reshape(-1, 3, 3)
    low, high = (
        np.full((len(textured.mesh.vertices_world_m), 3), 999.0),
        np.zeros((len(textured.mesh.vertices_world_m), 3)),
    )
    np.minimum.at(low, textured.mesh.faces.ravel(), colors.reshape(-1, 3))
    np.maximum.at(high, textured.mesh.faces.ravel(), colors.reshape(-1, 3))
    places = np.zeros(len(low))
    key = textured.mesh.faces.ravel() + 1j * 0
    corner = np.unique(np.column_stack([key.real, textured.uv.reshape(-1, 2)]), axis=0)
    np.add.at(places, corner[:, 0].astype(int), 1)
    return (high - low).max(axis=1)[places > 1]


def test_photos_of_different_exposure_agree_across_seams(plain: TexturedMesh) -> None:
    gains = np.array([0.75, 1.15, 0.9, 1.1, 0.7, 1.0, 1.15, 0.85])[:, None] * np.array([1.0, 0.95, 1.05])
    images = [np.clip(photo * gain, 0, 255).astype(np.uint8) for photo, gain in zip(PHOTOS, gains)]
    textured = texture_of(box_mesh(), shoot(images, AT))
    assert textured.photos_used >= 4
    differences, usual = seam_differences(textured), seam_differences(plain)
    assert len(differences) > 50
    # Photos of one place are never sampled alike: 7.7 and 24 with equal exposures, 8.3 and 22 with different ones, 28
    # and 73 if nothing were done about these.
    assert np.median(differences) < np.median(usual) + 3
    assert np.percentile(differences, 90) < np.percentile(usual, 90) + 8
    # The whole is as bright as the mean photo, and its pattern is the paint's.
    truth, seen = photograph(HELD_OUT), render_textured(textured, CAMERA, HELD_OUT)
    on_box = cast_camera(textured.mesh, CAMERA, HELD_OUT, 1)[0] >= 0
    ratio = seen[on_box].astype(float).mean() / truth[on_box].mean()
    assert 0.8 < ratio < 1.1
    assert psnr(np.clip(seen / ratio, 0, 255).astype(np.uint8), truth, on_box) > 24


def test_a_photo_in_which_a_thing_of_the_mesh_hides_a_triangle_is_not_taken_for_it() -> None:
    images = [photograph(pose, [PLATE]) for pose in AT]
    assert is_red(images[1]).sum() > 300
    textured = texture_of(box_mesh([BOX, PLATE]), shoot(images, AT))
    assert is_red(render_textured(textured, CAMERA, AT[1])).sum() > 0.9 * is_red(images[1]).sum()  # the plate itself
    middle = np.asarray(textured.mesh.vertices_world_m)[textured.mesh.faces].mean(axis=1)
    on_box = (np.abs(middle) <= BOX[1] + 1e-9).all(axis=1)
    for pose in (AT[0], AT[2], HELD_OUT):
        face = cast_camera(textured.mesh, CAMERA, pose, 1)[0]
        # The rim of the plate in a photo lies in the last pixel of triangles beside it.
        assert is_red(render_textured(textured, CAMERA, pose))[(face >= 0) & on_box[face]].mean() < 0.003


def test_what_stands_in_one_photo_only_is_left_out() -> None:
    at = [look_from(np.array([0.8 + 0.1 * i, -0.9 + 0.08 * i, 1.5]), np.zeros(3)) for i in range(5)]
    images = [photograph(pose, [PLATE] if index == 0 else []) for index, pose in enumerate(at)]
    assert is_red(images[0]).sum() > 300
    # The photo with the plate is the largest, so that it would be the best.
    textured = texture_of(box_mesh(), shoot(images, at))
    for pose in at[:3]:
        assert is_red(render_textured(textured, CAMERA, pose)).mean() < 2e-4


def test_a_photo_whose_own_depth_is_nearer_shows_something_else() -> None:
    # Two photos only: no majority tells which one shows the box.
    at = [AT[1], look_from(np.array([0.2, -0.9, 1.7]), np.zeros(3))]
    images = [photograph(at[0], [PLATE]), photograph(at[1])]
    depth_m = depth_of(box_mesh([BOX, PLATE]), at[0])
    depth = DepthMap("0.jpg", depth_m, np.ones_like(depth_m), CAMERA, at[0], images[0])
    photos = shoot(images, at)
    without = texture_mesh(box_mesh(), photos.views, photos.photos, OPTIONS)
    textured = texture_mesh(box_mesh(), photos.views, photos.photos, OPTIONS, [depth])
    red, red_without = (is_red(render_textured(each, CAMERA, at[1])).sum() for each in (textured, without))
    assert red_without > 100
    assert red < 0.1 * red_without


def depth_of(mesh: Mesh, pose: NDArray[np.float64]) -> NDArray[np.float32]:
    """Depth [H, W] of a mesh, NaN beside it."""
    face, weights, _ = cast_camera(mesh, CAMERA, pose, 1)
    points = np.einsum("hwcd,hwc->hwd", np.asarray(mesh.vertices_world_m)[mesh.faces[face]], weights)
    return np.where(face >= 0, points @ pose[2, :3] + pose[2, 3], np.nan).astype(np.float32)


def test_masked_parts_of_photos_are_not_used() -> None:
    images = [photo.copy() for photo in PHOTOS]
    mask = np.ones((60, 80), dtype=bool)  # half the photo's size
    mask[:, :40] = False
    images[2][:, :79] = (255, 0, 0)
    textured = texture_of(box_mesh(), shoot(images, AT, {"2.jpg": mask}))
    assert is_red(render_textured(textured, CAMERA, AT[2])).sum() == 0


def test_unseen_and_broken_triangles_keep_their_vertices_colours() -> None:
    box = box_mesh()
    vertices = np.concatenate([box.vertices_world_m, [[0.0, 0.0, 0.0]]])
    colors = np.concatenate([box.colors, [[10, 200, 30]]])
    broken = [[0, 0, 1], [2, 8, 2], [8, 8, 8]]
    mesh = Mesh(vertices, np.concatenate([box.faces, np.array(broken, np.int32)]), colors.astype(np.uint8))
    front = look_from(np.array([0.0, 0.0, 1.8]), np.zeros(3))
    at = [front, look_from(np.array([0.2, 0.1, 1.8]), np.zeros(3))]
    textured = texture_of(mesh, shoot([photograph(pose) for pose in at], at))
    assert np.isfinite(textured.uv).all()
    assert 0.15 < textured.seen_share < 0.25  # one side of 0.8 of 3.76 square metres
    assert any("20%" in note or "21%" in note for note in textured.doubts())
    behind = look_from(np.array([0.3, 0.2, -1.8]), np.zeros(3))
    shown, wanted = render_textured(textured, CAMERA, behind), render_mesh(textured.mesh, CAMERA, behind, "color")
    assert np.abs(shown.astype(int) - wanted).mean() < 3  # JPEG


def test_made_up_surface_shows_no_photo() -> None:
    box = dataclasses.replace(box_mesh(), colors=np.full((8, 3), 128, np.uint8))
    photos = shoot(PHOTOS, AT)
    textured = texture_mesh(box, photos.views, photos.photos, OPTIONS, invented=np.ones(8, dtype=bool))
    assert textured.photos_used == 0
    seen = render_textured(textured, CAMERA, HELD_OUT)
    on_box = cast_camera(textured.mesh, CAMERA, HELD_OUT, 1)[0] >= 0
    assert np.median(np.abs(seen[on_box].astype(int) - 128)) <= 2


def test_too_small_pages_shrink_the_photos_and_this_is_said() -> None:
    options = dataclasses.replace(OPTIONS, page_px=256, max_pages=1)
    textured = texture_of(box_mesh(), shoot(PHOTOS, AT), options)
    assert len(textured.pages) == 1
    assert max(decode_page(textured.pages[0]).shape) <= 256
    assert textured.scale < 0.9
    assert any("resolution" in note and "--texture-size" in note for note in textured.doubts())
    on_box = cast_camera(textured.mesh, CAMERA, HELD_OUT, 1)[0] >= 0
    assert psnr(render_textured(textured, CAMERA, HELD_OUT), photograph(HELD_OUT), on_box) > 17


def test_a_lens_with_distortion_is_undone() -> None:
    from recon.cameras.remap import warp

    lens = Camera("SIMPLE_RADIAL", 160, 120, (200.0, 81.5, 58.0, -0.12), "given")
    wide = Camera.pinhole(240, 180, 200.0, 200.0, 121.5, 88.0)
    images = [warp(photograph(pose, camera=wide), wide, lens)[0] for pose in AT]
    textured = texture_of(box_mesh(), shoot(images, AT, camera=lens))
    on_box = cast_camera(textured.mesh, CAMERA, HELD_OUT, 1)[0] >= 0
    assert psnr(render_textured(textured, CAMERA, HELD_OUT), photograph(HELD_OUT), on_box) > 24
