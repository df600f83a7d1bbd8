"""What a schooled tower thinks of every view, as a pool of its own: labels without noise for the text side.

Exact depths teach a small text model slowly: what the tower can't see is noise in every digit, and the most likely
first digit is not the first digit of the best estimate (the numbers from 1.00 to 1.99 are a wider band than those from
2.00 to 2.99). The tower's own estimate, the mean of its ln(depth) over both mirror images, is a function of the image
alone, so that the text side only has to learn to read it out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from recon.training.dense import view_patches
from recon.training.dense_pairs import MIRROR, pose_of_motion
from recon.training.descriptors import alikeness
from recon.training.match_structure import MatchLayout
from recon.training.pool import read_pair, read_view, write_pair, write_view
from recon.training.pooled import PooledPair, PooledView
from recon.training.vision import DenseModel, dense_depth


def teach_pool(
    dense: DenseModel,
    image_processor: Any,
    paths: Sequence[Path],
    taught: Path,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Copies views of a pool to the pool ``taught`` with the estimates of a tower in place of the true depths.

    Views that are there already are left out. Returns how many were written.

    Raises:
        BadInputError: a damaged file.
    """
    taught.mkdir(parents=True, exist_ok=True)
    written = 0
    for number, path in enumerate(paths, start=1):
        if not (taught / path.name).exists():
            write_view(taught / path.name, estimated(dense, image_processor, read_view(path)))
            written += 1
        if progress is not None:
            progress(number, len(paths))
    return written


@torch.no_grad()
def estimated(dense: DenseModel, image_processor: Any, view: PooledView) -> PooledView:
    """The view with the tower's estimate for its depth, smooth between the centres of its cells."""
    mirrored = _log_depth(dense, image_processor, view.flipped()).flip(-1)
    log_depth = (_log_depth(dense, image_processor, view) + mirrored) / 2  # [4 R, 4 C]
    smooth = interpolate(log_depth[None, None], view.depth_m.shape, mode="bilinear", align_corners=False)[0, 0]
    return replace(view, depth_m=smooth.exp().numpy())


def teach_pairs(
    dense: DenseModel,
    image_processor: Any,
    paths: Sequence[Path],
    taught: Path,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Copies pairs of a pool to the pool ``taught`` with the estimated pose of the second view (its depth stays: such
    pairs are for pose questions only). A pair whose views' grids differ keeps its true pose. As :func:`teach_pool`.
    """
    taught.mkdir(parents=True, exist_ok=True)
    written = 0
    for number, path in enumerate(paths, start=1):
        if not (taught / path.name).exists():
            pair = read_pair(path)
            write_pair(taught / path.name, estimated_motion(dense, image_processor, pair) or pair)
            written += 1
        if progress is not None:
            progress(number, len(paths))
    return written


@torch.no_grad()
def estimated_motion(dense: DenseModel, image_processor: Any, pair: PooledPair) -> PooledPair | None:
    """The pair with the tower's estimate of how the camera moved, the mean over both mirror images; None where the
    grids of its views differ.

    Raises:
        ValueError: a model without descriptors.
    """
    if dense.motion is None:
        raise ValueError("this tower has learned no motion")
    first, rows, columns = view_patches(pair.first, image_processor)
    second, *other = view_patches(pair.second, image_processor)
    if [rows, columns] != other:
        return None
    mirrored = [view_patches(view.flipped(), image_processor)[0] for view in (pair.first, pair.second)]
    tokens, _, _ = dense(torch.stack([first, mirrored[0], second, mirrored[1]]), rows, columns)
    descriptors = tokens[..., MatchLayout(tokens.shape[-1]).descriptor]
    alike = alikeness(descriptors[2:], descriptors[:2]).softmax(dim=-1)
    straight, mirror = dense.motion(tokens[:2], tokens[2:], alike, rows, columns).double().cpu().numpy()
    moved = pose_of_motion((straight + MIRROR * mirror) / 2)
    rotation = moved[:, :3].T @ pair.first.cam_from_world[:, :3]  # cam2_from_cam1 after cam1_from_world
    shift = moved[:, :3].T @ (pair.first.cam_from_world[:, 3] - moved[:, 3])
    return PooledPair(pair.first, replace(pair.second, cam_from_world=np.column_stack([rotation, shift])))


def _log_depth(dense: DenseModel, image_processor: Any, view: PooledView) -> Tensor:
    patches, rows, columns = view_patches(view, image_processor)
    device = dense.heads.depth.weight.device
    return dense_depth(dense, patches[None].to(device), rows, columns)[0].log().cpu()
