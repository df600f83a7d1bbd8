"""A map that rests on little, or contradicts EXIF, says so."""

from __future__ import annotations

import dataclasses

import numpy as np

from recon.mapping.contradictions import Explained
from recon.mapping.doubts import doubts
from recon.types import Camera, MetricScale, PosedView, Scene

UNKNOWN = MetricScale(float("nan"), float("nan"), float("nan"), (), (), ())


def scene(num_points: int, focal_px: float) -> Scene:
    camera = Camera("SIMPLE_RADIAL", 640, 480, (focal_px, 320.0, 240.0, 0.0), "refined")
    ids = np.append(np.arange(num_points), -1)
    views = tuple(PosedView(name, camera, np.eye(3, 4), ids, np.zeros((len(ids), 2))) for name in ("a.jpg", "b.jpg"))
    points = np.zeros((num_points, 3))
    return Scene(views, points, np.zeros((num_points, 3), np.uint8), np.zeros(num_points), (), UNKNOWN)


def cameras(focal_px: float, source: str) -> dict[str, Camera]:
    camera = dataclasses.replace(scene(1, focal_px).views[0].camera, focal_source=source)
    return {"a.jpg": camera, "b.jpg": camera}


def test_a_map_of_many_points_near_its_exif_focal_length_raises_no_doubt() -> None:
    assert doubts(scene(100, 500.0), cameras(520.0, "exif")) == []
    assert doubts(scene(100, 500.0), cameras(700.0, "prior")) == []  # a guess may be wrong


def test_few_points_are_named() -> None:
    (note,) = doubts(scene(20, 500.0), cameras(500.0, "exif"))
    assert "few points (20 in the median photo)" in note


def test_a_focal_length_far_from_exif_is_named() -> None:
    (note,) = doubts(scene(100, 342.0), cameras(404.0, "exif"))
    assert "of a.jpg (and 1 more) came out as 342 px, EXIF says 404 px (-15%)" in note


def test_matches_that_contradict_the_map_are_named() -> None:
    few, many = (Explained(share, ("a.jpg", "b.jpg"), 281) for share in (0.95, 0.74))
    assert doubts(scene(100, 500.0), cameras(500.0, "exif"), few) == []
    (note,) = doubts(scene(100, 500.0), cameras(500.0, "exif"), many)
    assert "26% of the matches of its photos do not fit the map (most: the 281 of a.jpg and b.jpg)" in note


def test_a_focal_length_that_no_lens_has_is_named() -> None:
    (note,) = doubts(scene(100, 11262.0), cameras(700.0, "prior"))
    assert "of a.jpg (and 1 more) came out as 11262 px" in note
