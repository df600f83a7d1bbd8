"""Views of the ablations: photos of mixed focal lengths with their focal length unified or not, mixtures of views, and
what a schooled tower sees in views that it has never seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recon.cameras.unify import ImageProfile, to_source_pixels, unify
from recon.evaluation.depth import score_depth
from recon.synth.dataset import Scenery, Split
from recon.training.dense import DenseBatch, DenseViews, view_patches
from recon.training.mixture import Mixture
from recon.training.pool import PooledView, pool_path, pooled_view, read_view, write_view
from recon.training.vision import DenseModel, dense_depth
from recon.types import Camera, UnifiedImage

POOL_IMAGE = ImageProfile("focal", 224)  # what the pool's views were unified to
LONGEST_ZOOM = 1.25  # the longest lens; pooled photos alone have long edges of 1.0 to 1.65 focal lengths
TOKEN_PX = 32
FARTHEST_M = 15.0  # the tower's bins end at 16 m


def zoomed(view: PooledView, zoom: float, profile: ImageProfile) -> PooledView:
    """The middle of a view, as a lens ``zoom`` times as long shows it, resized to the profile and then cropped to whole
    image tokens: what a checkpoint's image processor would otherwise resize by up to a tenth, in both arms alike."""
    camera = view.image.camera
    fx, fy, cx, cy = camera.fx_fy_cx_cy
    width, height = round(camera.width_px / zoom), round(camera.height_px / zoom)
    left, top = (camera.width_px - width) // 2, (camera.height_px - height) // 2
    pixels = view.image.pixels[top : top + height, left : left + width]
    depth_m = view.depth_m[top : top + height, left : left + width]
    seen = unify(pixels, Camera.pinhole(width, height, fx, fy, cx - left, cy - top), profile)
    rows, columns = (side // TOKEN_PX * TOKEN_PX for side in seen.pixels.shape[:2])
    down, right = (seen.pixels.shape[0] - rows) // 2, (seen.pixels.shape[1] - columns) // 2
    ys, xs = (np.arange(count) + 0.5 + first for count, first in ((rows, down), (columns, right)))
    places = to_source_pixels(seen, np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)).reshape(rows, columns, 2)
    row = np.clip(places[..., 1].astype(np.int64), 0, height - 1)
    column = np.clip(places[..., 0].astype(np.int64), 0, width - 1)
    tfx, tfy, tcx, tcy = seen.camera.fx_fy_cx_cy
    cropped = Camera.pinhole(columns, rows, tfx, tfy, tcx - right, tcy - down)
    shown = np.ascontiguousarray(seen.pixels[down : down + rows, right : right + columns])
    return PooledView(UnifiedImage(shown, cropped, cropped), depth_m[row, column], view.cam_from_world, (), view.seed)


def make_views(
    pool: Path, folder: Path, split: Split, count: int, scenery: Scenery, profile: ImageProfile, longest_zoom: float
) -> Path:
    """The first ``count`` views of a split, zoomed at random (the same for every profile), as a pool in ``folder``;
    what ``pool`` lacks is rendered there."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = pool_path(folder, split, index, scenery=scenery)
        if not path.exists():
            view = pooled_view(pool, split, index, POOL_IMAGE, scenery)
            zoom = float(np.exp(np.random.default_rng([view.seed, 21]).uniform(0, np.log(longest_zoom))))
            write_view(path, zoomed(view, zoom, profile))
    return folder


class MixedViews:
    """Batches of views from several pools, one pool per batch, dealt out by a mixture as samples are."""

    def __init__(self, mixture: Mixture, views: tuple[DenseViews, ...]) -> None:
        self._mixture, self._views, self._drawn = mixture, views, 0

    def draw(self, tokens: int, rng: np.random.Generator) -> DenseBatch:
        """The next batch, as :meth:`recon.training.dense.DenseViews.draw`."""
        chosen, _ = self._mixture.place_of(self._drawn)
        self._drawn += 1
        return self._views[chosen].draw(tokens, rng)


@torch.no_grad()
def scores_of_views(dense: DenseModel, image_processor: Any, paths: list[Path]) -> dict[str, list[float]]:
    """How well a tower's dense depth fits every view: ``delta1`` and ``abs_rel`` over its cells nearer than
    ``FARTHEST_M``, ``log_ratio`` (the mean of ln(estimate / truth)) and ``long_edge`` in focal lengths, one number per
    view. Views whose cells are all farther have no entry in any of them."""
    scores: dict[str, list[float]] = {name: [] for name in ("delta1", "abs_rel", "log_ratio", "long_edge")}
    for path in paths:
        view = read_view(path)
        patches, rows, columns = view_patches(view, image_processor)
        estimate = dense_depth(dense, patches[None], rows, columns)[0].numpy()  # [4 R, 4 C]
        truth = view.depth_m[_centres(estimate.shape[0], view.depth_m.shape[0])]
        truth = truth[:, _centres(estimate.shape[1], view.depth_m.shape[1])]
        near = truth < FARTHEST_M  # False for the sky's NaN
        if not near.any():
            continue
        found = score_depth(estimate[near], truth[near])
        scores["delta1"].append(found.delta1)
        scores["abs_rel"].append(found.abs_rel)
        scores["log_ratio"].append(float(np.log(estimate[near] / truth[near]).mean()))
        camera = view.image.camera
        scores["long_edge"].append(max(camera.width_px, camera.height_px) / camera.focal_px)
    return scores


def _centres(cells: int, pixels: int) -> NDArray[np.int64]:
    return ((np.arange(cells) + 0.5) / cells * pixels).astype(np.int64)
