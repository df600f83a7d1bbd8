"""How much of what the photos have matched a map explains: matches that it leaves out are look-alikes, or it is wrong.

A map is made of the matches that fit it, so its reprojection errors are small whatever it is. The verified matches of
all pairs are more than that: in a map that is right nearly all of them lie on their epipolar lines. Where things look
alike (a wallpaper on two walls), pairs contradict one another, and the map can only please some of them. Of two maps of
one capture, that which explains more of its matches is the better one.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from recon.evidence.features import FeatureOptions, verified_counts
from recon.mapping.answers import answered_scale, cycle_closing
from recon.mapping.model import MapModel, from_scene
from recon.mapping.pose_graph import compose, inverse
from recon.mapping.veto import epipolar_px
from recon.types import RelativePose, Scene

_LEAST = 30  # verified matches of a pair that is judged
_ENOUGH = 100  # matches that count as much as more of them
_AGREED = 0.9  # share of a checkpoint's answers that confirm a map whatever the matches say
_FITS = 2.0  # thresholds of the verification up to which a match lies on its epipolar line, in a map that is judged
_FITS_WELL = 0.5  # the same where models are compared: a bent one has its matches near the lines, not on them


@dataclass(frozen=True)
class Explained:
    """``share`` of the verified matches of a map's photos that fit it (1 where no pair has enough), and the pair of
    which it leaves out most, with its number of verified matches.
    """

    share: float
    worst: tuple[str, str] | None
    worst_matches: int


def explained(
    scene: Scene, features_path: Path, database_path: Path, relative_poses: Sequence[RelativePose] = ()
) -> Explained:
    """Of a scene, by the verified keypoint matches in the database ``features_path``.

    Matches with photos that are not in the map do not fit it: why else are they left out? Pairs that ``database_path``
    (of the map) has no longer have been recognised as look-alikes and don't count. A map that a checkpoint's answers
    about poses confirm needs no matches to do so.
    """
    answers = cycle_closing(relative_poses)
    if answers and answered_scale(from_scene(scene), answers)[1] >= _AGREED:
        return Explained(1.0, None, 0)
    alive, inside = verified_counts(database_path), {view.name for view in scene.views}
    found = fitting(from_scene(scene), features_path, alive)
    for pair, matches in verified_counts(features_path).items():
        if pair in alive and matches >= _LEAST and len(inside & set(pair)) == 1:
            found.append(FittingPair(pair, matches, 0.0))
    if not found:
        return Explained(1.0, None, 0)
    weight = np.array([min(pair.matches, _ENOUGH) for pair in found])
    share = np.array([pair.share for pair in found])
    worst = found[int(np.argmax(weight * (1 - share)))]
    return Explained(float((weight * share).sum() / weight.sum()), worst.names, worst.matches)


def explained_matches(model: MapModel, database_path: Path) -> float:
    """How many verified matches a model explains, a hundred of a pair at most: of two models that with more is better.

    More photos alone make no better model. Of a photo in the wrong place a quarter of the matches may lie on their
    epipolar lines by chance, so a pair counts from one half on.
    """
    found = fitting(model, database_path, least=1, fits=_FITS_WELL)
    return sum(min(pair.matches, _ENOUGH) * max(2 * pair.share - 1, 0.0) for pair in found)


@dataclass(frozen=True)
class FittingPair:
    """A pair of photos: ``share`` of its verified ``matches`` lies on a model's epipolar lines."""

    names: tuple[str, str]
    matches: int
    share: float


def fitting(
    model: MapModel,
    database_path: Path,
    only: Container[tuple[str, str]] | None = None,
    least: int = _LEAST,
    fits: float = _FITS,
) -> list[FittingPair]:
    """The verified pairs (of ``only``, if given, with ``least`` matches) whose photos are both in a model.

    A match fits up to ``fits`` thresholds of the verification from its epipolar line.
    """
    near = fits * FeatureOptions().max_error_px
    row = {name: i for i, name in enumerate(model.names)}
    state, found = model.state, []
    with pycolmap.Database.open(database_path) as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        keypoints: dict[int, NDArray[np.float64]] = {}
        for pair_id, geometry in zip(*database.read_two_view_geometries(), strict=True):
            ids = pycolmap.pair_id_to_image_pair(pair_id)
            pair = names[ids[0]], names[ids[1]]
            links = np.asarray(geometry.inlier_matches, dtype=np.int64).reshape(-1, 2)
            if len(links) < least or pair[0] not in row or pair[1] not in row:
                continue
            if only is not None and pair not in only:
                continue
            for i in ids:
                if i not in keypoints:
                    keypoints[i] = np.array(database.read_keypoints(i), dtype=np.float64)[:, :2]
            pixels = [keypoints[i][links[:, k]] for k, i in enumerate(ids)]
            poses = [state.poses[row[name]] for name in pair]
            cameras = [state.cameras[state.camera_of_view[row[name]]] for name in pair]
            error = epipolar_px(compose(poses[0], inverse(poses[1])), *cameras, *pixels)
            found.append(FittingPair(pair, len(links), float((error <= near).mean())))
    return found
