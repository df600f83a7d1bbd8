"""Planes of a scene, from confirmed depth and from answers, and the pixels that lie on them: exact rooms by formula."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from recon.surface.align import FrameSamples
from recon.surface.layout import find_planes, witness
from recon.surface.planes import Plane, depth_on
from recon.surface.regions import on_planes
from recon.surface.types import DepthMap
from tests.surface.scenes import camera, look_from, plane_depth, sphere_depth, sphere_maps
from tests.surface.test_borrow import answers_of

DOWN = np.array([0.0, 1.0, 0.0])
FLOOR, PLATFORM = 1.2, 1.05  # below the cameras, m
WALLS = ((np.array([0.0, 0.0, 1.0]), 3.0), (np.array([1.0, 0.0, 0.0]), 1.6))
BROWN, GREY, WHITE = (120, 80, 40), (90, 100, 110), (230, 230, 225)


def poses(number: int) -> list[np.ndarray]:
    return [
        look_from(np.array([0.25 * (i - number / 2), 0.08 * (i % 3), -0.1 * i]), np.array([0.2, 0.9, 2.4]))
        for i in range(number)
    ]


def nearest(depths: Sequence[np.ndarray], colours: Sequence[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Depth [H, W] of the nearest surface, and its colour [H, W, 3]."""
    every = np.stack([np.nan_to_num(depth, nan=np.inf) for depth in depths])
    front = every.argmin(axis=0)
    return every.min(axis=0).astype(np.float32), np.array(colours, dtype=np.uint8)[front]


def room(number: int, ball: bool = False) -> list[DepthMap]:
    """Photos of a floor, two walls and, in the farther half, a low platform; with a ball on the floor or without."""
    cam, maps = camera(), []
    for i, pose in enumerate(poses(number)):
        platform = plane_depth(cam, pose, DOWN, PLATFORM)
        centre = -pose[:, :3].T @ pose[:, 3]
        x, y = np.meshgrid(np.arange(cam.width_px) + 0.5, np.arange(cam.height_px) + 0.5)
        fx, fy, cx, cy = cam.fx_fy_cx_cy
        rays = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x)], axis=-1) @ pose[:, :3]
        place = centre + rays * platform[..., None]
        with np.errstate(invalid="ignore"):
            platform = np.where(place[..., 2] > 2.1, platform, np.nan)
        depths = [plane_depth(cam, pose, DOWN, FLOOR), platform, *(plane_depth(cam, pose, n, o) for n, o in WALLS)]
        colours = [BROWN, GREY, WHITE, WHITE]
        if ball:
            depths.append(sphere_depth(cam, pose, np.array([0.1, FLOOR - 0.3, 1.6]), 0.3))
            colours.append((60, 140, 70))
        depth, colour = nearest(depths, colours)
        maps.append(DepthMap(f"{i}.jpg", depth, np.ones_like(depth), cam, pose, colour, "exact"))
    return maps


@dataclasses.dataclass(frozen=True)
class Seen:
    """A photo's confirmed depth and its answers."""

    confirmed: DepthMap
    answers: FrameSamples


def planes_of(seen: list[Seen]) -> list[Plane]:
    return find_planes([witness(one.confirmed, one.answers, len(seen)) for one in seen])


def on_planes_of(seen: list[Seen], which: int, planes: list[Plane]) -> np.ndarray:
    here, others = seen[which], [other.confirmed for k, other in enumerate(seen) if k != which]
    return on_planes(here.confirmed, here.confirmed.depth_m, here.answers, planes, others)


def photos(maps: list[DepthMap], unknown: np.ndarray | None = None, log_sigma: float = 0.085) -> list[Seen]:
    """All of it confirmed but ``unknown`` [photos, H, W]; answers with errors of their own in each photo."""
    found = []
    for i, here in enumerate(maps):
        x, y = np.meshgrid(np.arange(5.5, 160, 10), np.arange(5.5, 120, 10))
        pixels = np.stack([x.ravel(), y.ravel()], axis=-1)
        asked = here.depth_m[pixels[:, 1].astype(int), pixels[:, 0].astype(int)].astype(np.float64)
        asked *= np.exp(np.random.default_rng(i).normal(0, log_sigma, len(asked)))
        known = here.depth_m if unknown is None else np.where(unknown[i], np.nan, here.depth_m).astype(np.float32)
        answers = FrameSamples(pixels, asked, np.full(len(asked), log_sigma))
        found.append(Seen(dataclasses.replace(here, depth_m=known), answers))
    return found


def the(planes: list[Plane], normal: np.ndarray, offset: float, within_m: float) -> Plane:
    """The one plane of this direction and offset."""
    signs = [np.sign(float(p.normal @ normal)) for p in planes]
    fits = [
        p for p, s in zip(planes, signs)
        if abs(float(p.normal @ normal)) > np.cos(np.radians(1.5)) and abs(s * p.offset - offset) < within_m
    ]  # fmt: skip
    assert len(fits) == 1, planes
    return fits[0]


def below(here: DepthMap, offset: float) -> np.ndarray:
    """Pixels [H, W] whose depth is that of the horizontal plane."""
    return np.abs(here.depth_m / plane_depth(here.camera, here.cam_from_world, DOWN, offset) - 1) < 1e-4


def test_every_plane_of_a_room_is_found_and_no_other() -> None:
    planes = planes_of(photos(room(6)))
    for normal, offset in (*WALLS, (DOWN, FLOOR), (DOWN, PLATFORM)):
        assert the(planes, normal, offset, 0.002).share > 0.02
    assert len(planes) == 4


def test_parallel_planes_are_not_mixed() -> None:
    maps = room(6)
    unknown = np.zeros((6, 120, 160), dtype=bool)
    unknown[0, 50:, 30:130] = True
    seen = photos(maps, unknown)
    planes = planes_of(seen)
    found = on_planes_of(seen, 0, planes)
    for offset in (FLOOR, PLATFORM):
        place = unknown[0] & below(maps[0], offset)
        assert place.sum() > 500
        given = place & np.isfinite(found)
        assert given.sum() > 0.8 * place.sum()
        # 0.15 m of height are 10 % of depth; cells of a colour lie on the right side of the border up to a few
        assert (np.abs(found / maps[0].depth_m - 1)[given] < 0.005).mean() > 0.98


def test_a_floor_that_nothing_confirms_is_found_in_the_answers() -> None:
    maps = room(8)
    unknown = np.stack([below(here, FLOOR) for here in maps])
    seen = photos(maps, unknown)
    planes = planes_of(seen)
    floor = the(planes, DOWN, FLOOR, 0.025)
    assert floor.share == 0
    found = on_planes_of(seen, 3, planes)
    given = unknown[3] & np.isfinite(found)
    assert given.sum() > 0.5 * unknown[3].sum()
    assert np.abs(np.median((found / maps[3].depth_m)[given]) - 1) < 0.02


def test_a_sphere_is_no_plane() -> None:
    maps = sphere_maps()
    seen = [Seen(here, answers_of(np.nan_to_num(here.depth_m, nan=3.0))) for here in maps]
    assert planes_of(seen) == []


def test_a_ball_on_the_floor_is_not_flattened() -> None:
    maps = room(6, ball=True)
    unknown = np.zeros((6, 120, 160), dtype=bool)
    unknown |= np.stack([(here.color == (60, 140, 70)).all(axis=-1) for here in maps])
    seen = photos(maps, unknown)
    planes = planes_of(seen)
    found = on_planes_of(seen, 2, planes)
    assert unknown[2].sum() > 300
    assert np.isfinite(found[unknown[2]]).mean() < 0.1


@pytest.mark.parametrize("factor", [0.75, 1.0])
def test_answers_that_bend_away_from_a_plane_are_believed(factor: float) -> None:
    """A wall that nothing confirms here stands a quarter nearer in its middle than the plane that others know."""
    here = room(1)[0]
    plane = Plane(WALLS[0][0], WALLS[0][1], 0.5)
    x, y = np.meshgrid(np.arange(160) + 0.5, np.arange(120) + 0.5)
    depth = depth_on(plane, here, x, y)
    bump = np.exp(-(((x - 80) / 30) ** 2) - ((y - 60) / 30) ** 2)
    asked = (depth * factor**bump).astype(np.float32)
    plain = dataclasses.replace(here, color=np.full((120, 160, 3), 200, dtype=np.uint8), depth_m=asked)
    found = on_planes_of(photos([plain], np.ones((1, 120, 160), dtype=bool), 0.04), 0, [plane])
    middle = found[50:70, 70:90]
    assert np.isfinite(middle).all() if factor == 1.0 else not np.isfinite(middle).any()


def test_a_plane_that_another_photo_looks_through_is_not_there() -> None:
    maps = room(2)
    unknown = np.zeros((2, 120, 160), dtype=bool)
    unknown[0] = True
    seen = photos(maps, unknown)
    false = Plane(WALLS[0][0], 2.2, 0.2)  # parallel to the back wall, in front of it
    depth = depth_on(false, maps[0], *np.meshgrid(np.arange(160) + 0.5, np.arange(120) + 0.5))
    pixels = seen[0].answers.pixels.astype(int)
    agreeing = dataclasses.replace(seen[0].answers, depth_m=depth[pixels[:, 1], pixels[:, 0]])
    here = seen[0].confirmed
    alone = on_planes(here, here.depth_m, agreeing, [false], [])
    checked = on_planes(here, here.depth_m, agreeing, [false], [maps[1]])
    wall = np.abs(maps[0].depth_m / plane_depth(here.camera, here.cam_from_world, *WALLS[0]) - 1) < 1e-4
    assert np.isfinite(alone[wall]).mean() > 0.9
    assert np.isfinite(checked[wall]).mean() < 0.3  # the second photo does not show all of it
