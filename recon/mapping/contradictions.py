"""How much of what the photos have matched a map explains: matches that it leaves out are look-alikes, or it is wrong.

A map is made of the matches that fit it, so its reprojection errors are small whatever it is. The verified matches of
all pairs are more than that: in a map that is right nearly all of them lie on their epipolar lines. Where things look
alike (a wallpaper on two walls), pairs contradict one another, and the map can only please some of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from recon.evidence.features import FeatureOptions, verified_counts
from recon.mapping.answers import answered_scale, cycle_closing
from recon.mapping.model import from_scene
from recon.mapping.pose_graph import compose, inverse
from recon.mapping.veto import epipolar_px
from recon.types import RelativePose, Scene

_LEAST = 30  # verified matches of a pair that is judged
_ENOUGH = 100  # matches that count as much as more of them
_AGREED = 0.9  # share of a checkpoint's answers that confirm a map whatever the matches say
_FITS = 2.0  # thresholds of the verification up to which a match lies on its epipolar line


@dataclass(frozen=True)
class Explained:
    """``share`` of the verified matches between photos of a map that fit it (1 where no pair has enough), and the pair
    of which it leaves out most, with its number of verified matches.
    """

    share: float
    worst: tuple[str, str] | None
    worst_matches: int


def explained(
    scene: Scene, features_path: Path, database_path: Path, relative_poses: Sequence[RelativePose] = ()
) -> Explained:
    """Of a scene, by the verified keypoint matches in the database ``features_path``.

    Pairs that ``database_path`` (of the map) has no longer have been recognised as look-alikes and don't count. A map
    that a checkpoint's answers about poses confirm needs no matches to do so.
    """
    answers = cycle_closing(relative_poses)
    if answers and answered_scale(from_scene(scene), answers)[1] >= _AGREED:
        return Explained(1.0, None, 0)
    near = _FITS * FeatureOptions().max_error_px
    views = {view.name: view for view in scene.views}
    alive = verified_counts(database_path)
    found: list[tuple[int, float, tuple[str, str]]] = []
    with pycolmap.Database.open(features_path) as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        for pair_id, geometry in zip(*database.read_two_view_geometries(), strict=True):
            ids = pycolmap.pair_id_to_image_pair(pair_id)
            name1, name2 = (names[i] for i in ids)
            links = np.asarray(geometry.inlier_matches, dtype=np.int64).reshape(-1, 2)
            known = (name1, name2) in alive or (name2, name1) in alive
            if len(links) < _LEAST or name1 not in views or name2 not in views or not known:
                continue
            first, second = (np.array(database.read_keypoints(i), dtype=np.float64)[:, :2] for i in ids)
            motion = compose(views[name1].cam_from_world, inverse(views[name2].cam_from_world))
            cameras = views[name1].camera, views[name2].camera
            error = epipolar_px(motion, *cameras, first[links[:, 0]], second[links[:, 1]])
            found.append((len(links), float((error <= near).mean()), (name1, name2)))
    if not found:
        return Explained(1.0, None, 0)
    weight = np.array([min(number, _ENOUGH) for number, _, _ in found])
    share = np.array([fits for _, fits, _ in found])
    number, _, worst = found[int(np.argmax(weight * (1 - share)))]
    return Explained(float((weight * share).sum() / weight.sum()), worst, number)
