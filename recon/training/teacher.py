"""What a schooled tower thinks of every view, as a pool of its own: labels without noise for the text side.

Exact depths teach a small text model slowly: what the tower can't see is noise in every digit, and the most likely
first digit is not the first digit of the best estimate (the numbers from 1.00 to 1.99 are a wider band than those from
2.00 to 2.99). The tower's own estimate, the mean of its ln(depth) over both mirror images, is a function of the image
alone, so that the text side only has to learn to read it out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from recon.training.dense import view_patches
from recon.training.pool import PooledView, list_pool, read_view, write_view
from recon.training.vision import DenseModel, dense_depth


def teach_pool(
    dense: DenseModel,
    image_processor: Any,
    pool: Path,
    taught: Path,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Copies the views of ``pool`` to ``taught`` with the estimates of a tower in place of the true depths.

    Views that are there already are left out. Returns how many were written.

    Raises:
        BadInputError: the pool is empty or damaged.
    """
    taught.mkdir(parents=True, exist_ok=True)
    paths, written = list_pool(pool), 0
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


def _log_depth(dense: DenseModel, image_processor: Any, view: PooledView) -> Tensor:
    patches, rows, columns = view_patches(view, image_processor)
    device = dense.heads.depth.weight.device
    return dense_depth(dense, patches[None].to(device), rows, columns)[0].log().cpu()
