"""VGGT's results: ``predictions.npz`` of its demo_gradio.py and the COLMAP model of its demo_colmap.py.

Layouts as its repository writes them (facebookresearch/vggt). ``predictions.npz``: ``extrinsic`` [S, 3, 4] camera from
world, OpenCV axes; ``intrinsic`` [S, 3, 3] for the processed image; ``depth`` [S, H, W, 1] and ``depth_conf`` [S, H, W]
in an arbitrary unit, over ``images/*`` in sorted order. Its other entries, some of them pickled, are not touched.
"""

from __future__ import annotations

from pathlib import Path

from recon.interop.archive import NamedArrays
from recon.interop.feedforward import Layout, read_archive
from recon.interop.result import Reconstructed

LAYOUT = Layout(
    "VGGT predictions", "VGGT", ("extrinsic",), ("intrinsic",), "depth_conf",
    0.5,  # the demo's own default drops the lower half
)  # fmt: skip


def is_predictions(arrays: NamedArrays) -> bool:
    """Whether an archive has VGGT's spelling of its keys."""
    return {"extrinsic", "intrinsic", "depth"} <= set(arrays.names)


def read_predictions(path: Path) -> Reconstructed:
    """Poses, cameras, depth maps and their cloud of a ``predictions.npz``.

    Raises:
        BadInputError: an array is missing, pickled, truncated, or does not fit the others.
    """
    return read_archive(path, LAYOUT)
