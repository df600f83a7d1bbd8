"""A checkpoint's matches on their way into the map: wrong ones out by geometry, the others made precise by the photos.

Their errors are tens of pixels, so the two-view fit takes them at that width; what it keeps is refined photometrically,
and only then do the matches face the same verification as SIFT's.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pycolmap
from numpy.typing import NDArray

from recon.capture.folder import load_pixels
from recon.evidence.features import to_colmap_camera
from recon.evidence.subpixel import Pyramid, SubpixelOptions, refine_matches
from recon.questions.profile import COARSE_MATCH
from recon.types import Camera, Capture, Matches

_log = logging.getLogger(__name__)

_WIDTH_SIGMAS = 2.5  # inlier threshold of the coarse two-view fit
_FEWEST = 8  # matches that a coarse two-view fit needs to mean anything
_PRECISE_PX = 0.5  # matches this good need no refinement
_CACHE_BYTES = 400_000_000  # of decoded photos: every photo is needed again in each of its pairs


def sharpen(
    capture: Capture, cameras: Mapping[str, Camera], matches: Sequence[Matches], options: SubpixelOptions | None = None
) -> list[Matches]:
    """Refined matches of every pair: those that geometry and the photos' windows agree to.

    Where they are few (photos far apart, walls without texture), the coarse ones that fit the pair's geometry stay
    beside them: the map's robust weights take what they are worth. At errors beyond ``COARSE_MATCH`` of the focal
    length everything fits some geometry, photos of different walls, too, and none stays. Matches whose error is
    unknown, or already below half a pixel, stay as they are.
    """
    options = options or SubpixelOptions()

    largest = max((view.width_px * view.height_px for view in capture.views), default=1)

    @lru_cache(maxsize=max(12, _CACHE_BYTES // (10 * largest)))  # 4 bytes of grey and its coarser levels, 4 of corners
    def pyramid(name: str) -> Pyramid:
        return Pyramid.of(load_pixels(capture.view(name)))

    known = {view.name for view in capture.views}
    result = []
    for pair in matches:
        if not {pair.name1, pair.name2} <= known or len(pair.pixels1) == 0:
            continue
        if not pair.sigma_px > _PRECISE_PX:
            result.append(pair)
            continue
        inliers = coarse_inliers(cameras[pair.name1], cameras[pair.name2], pair)
        keep = inliers if inliers is not None else np.ones(len(pair.pixels1), dtype=bool)
        refined = refine_matches(
            pyramid(pair.name1), pyramid(pair.name2), pair.pixels1[keep], pair.pixels2[keep], pair.sigma_px, options
        )
        row = np.flatnonzero(keep)[refined.row]
        rest = row[:0]
        fits_anything = pair.sigma_px > COARSE_MATCH * cameras[pair.name2].focal_px
        if inliers is not None and len(row) < options.keep_coarse_below and not fits_anything:
            rest = np.setdiff1d(np.flatnonzero(inliers), row)
        result.append(
            dataclasses.replace(
                pair,
                pixels1=np.concatenate([refined.pixels1, pair.pixels1[rest]]),
                pixels2=np.concatenate([refined.pixels2, pair.pixels2[rest]]),
                score=np.concatenate([pair.score[row], pair.score[rest]]),
                sigma_px=_PRECISE_PX if len(rest) == 0 else pair.sigma_px,
            )
        )
        _log.info(
            "%s - %s: %d matches, %d fit one geometry, %d refined",
            pair.name1, pair.name2, len(keep), keep.sum(), len(row),
        )  # fmt: skip
    return result


def coarse_inliers(camera1: Camera, camera2: Camera, pair: Matches) -> NDArray[np.bool_] | None:
    """Which matches ``[N]`` fit the pair's two-view geometry at their own error; None where too few fit any."""
    settings = pycolmap.TwoViewGeometryOptions()
    settings.min_num_inliers = _FEWEST
    settings.ransac.max_error = _WIDTH_SIGMAS * pair.sigma_px
    settings.ransac.random_seed = 0
    settings.detect_watermark = False
    first, second = to_colmap_camera(camera1, 1), to_colmap_camera(camera2, 2)
    first.has_prior_focal_length = second.has_prior_focal_length = True
    links = np.tile(np.arange(len(pair.pixels1), dtype=np.uint32)[:, None], (1, 2))
    geometry = pycolmap.estimate_two_view_geometry(
        first, np.asarray(pair.pixels1, float), second, np.asarray(pair.pixels2, float), links, settings
    )
    inliers = np.zeros(len(pair.pixels1), dtype=bool)
    inliers[geometry.inlier_matches[:, 0].astype(int) if len(geometry.inlier_matches) else []] = True
    return inliers if inliers.sum() >= _FEWEST else None
