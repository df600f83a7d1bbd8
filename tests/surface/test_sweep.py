"""A plane that only answers know, placed by the photos of all of it, or left out."""

from __future__ import annotations

import numpy as np
import torch

from recon.surface.frames import Frame
from recon.surface.planes import Plane, depth_on
from recon.surface.sweep import Shown, clear_offset, placed_by_photos
from tests.surface.scenes import camera, exact_map, look_from, plane_depth

NORMAL = np.array([0.0, 1.0, 0.3]) / np.linalg.norm([0.0, 1.0, 0.3])
TRUE = 1.5
CPU = torch.device("cpu")


def frames(contrast: float) -> list[Frame]:
    """Photos of a plane with so much of the test texture's contrast, and noise of one grey level."""
    cam, made = camera(320, 240, 300.0), []
    for i in range(4):
        pose = look_from(np.array([0.6 * (i - 1.5), 0.1 * (i % 2), 0.0]), np.array([0.0, 1.2, 1.8]))
        colour = exact_map("", cam, pose, plane_depth(cam, pose, NORMAL, TRUE)).color
        noise = np.random.default_rng(i).normal(0, 1, colour.shape)
        colour = np.clip(np.rint(128 + contrast * (colour.astype(float) - 128) + noise), 0, 255).astype(np.uint8)
        nothing = np.empty(0)
        made.append(Frame(f"{i}", colour, cam, cam, pose, nothing.astype(int), nothing.reshape(0, 2), nothing))
    return made


def shown(views: list[Frame], plane: Plane) -> list[Shown]:
    photos = []
    for i, frame in enumerate(views):
        x, y = np.meshgrid(np.arange(320) + 0.5, np.arange(240) + 0.5)
        here = exact_map("", frame.camera, frame.cam_from_world, np.ones((240, 320), dtype=np.float32))
        depth = depth_on(plane, here, x, y).astype(np.float32)
        photos.append(Shown(frame, [other for k, other in enumerate(views) if k != i], depth))
    return photos


def placed(contrast: float, plane: Plane) -> list[Plane]:
    views = frames(contrast)
    centres = np.array([-f.cam_from_world[:, :3].T @ f.cam_from_world[:, 3] for f in views])
    return placed_by_photos([plane], centres, shown(views, plane), CPU)


def test_faint_texture_places_a_plane() -> None:
    (found,) = placed(0.05, Plane(NORMAL, TRUE * 1.05, 0.0))  # two grey levels
    assert abs(found.offset / TRUE - 1) < 0.003


def test_without_texture_it_is_left_out() -> None:
    assert placed(0.0, Plane(NORMAL, TRUE * 1.05, 0.0)) == []


def test_what_photos_confirm_stays() -> None:
    confirmed = Plane(NORMAL, TRUE * 1.05, 0.3)
    assert placed_by_photos([confirmed], np.zeros((1, 3)), [], CPU) == [confirmed]


def test_two_offsets_that_are_equally_good_are_not_clear() -> None:
    offsets = np.linspace(1.0, 1.28, 29)
    peak = np.exp(-0.5 * ((np.arange(29) - 14) / 1.5) ** 2)
    noise = 0.01 * np.random.default_rng(0).standard_normal((4, 29))
    best = clear_offset(offsets, list(peak + noise))
    assert best is not None
    assert abs(best - 1.14) < 0.005
    assert clear_offset(offsets, list(peak + np.roll(peak, 8) + noise)) is None
    assert clear_offset(offsets, list(noise)) is None
    assert clear_offset(offsets, list(np.roll(peak, 14) + noise)) is None  # at the end of what was tried
    assert clear_offset(offsets, [peak]) is None  # one photo


def test_a_wide_peak_is_no_rival_of_itself() -> None:
    """Faint texture tells offsets apart slowly: the photos of one test room's floor agree within six steps of it."""
    offsets, steps = np.linspace(1.0, 1.28, 29), np.arange(29) - 14
    noise = 0.01 * np.random.default_rng(0).standard_normal((4, 29))
    best = clear_offset(offsets, list(np.exp(-0.5 * (steps / 5.0) ** 2) + noise))
    assert best is not None
    assert abs(best - 1.14) < 0.01
    assert clear_offset(offsets, list(np.exp(-0.5 * (steps / 12.0) ** 2) + noise)) is None  # hardly a peak
