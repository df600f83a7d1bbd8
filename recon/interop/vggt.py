"""VGGT's results: ``predictions.npz`` of its demo_gradio.py and the COLMAP model of its demo_colmap.py.

Layouts as its repository writes them (facebookresearch/vggt). ``predictions.npz``: ``extrinsic`` [S, 3, 4] camera from
world, OpenCV axes; ``intrinsic`` [S, 3, 3] for the processed image; ``depth`` [S, H, W, 1] and ``depth_conf`` [S, H, W]
in an arbitrary unit, over ``images/*`` in sorted order. Its other entries, some of them pickled, are not touched.
"""

from __future__ import annotations

from pathlib import Path

from recon.errors import BadInputError
from recon.interop.archive import NamedArrays
from recon.interop.feedforward import DepthFrames, cloud_of_depth, image_size, photo_names, pinhole_cameras
from recon.interop.result import Reconstructed, Surface, check_poses

CONFIDENCE_QUANTILE = 0.5  # the demo's own default drops the lower half


def is_predictions(arrays: NamedArrays) -> bool:
    """Whether an archive has VGGT's spelling of its keys."""
    return {"extrinsic", "intrinsic", "depth"} <= set(arrays.names)


def read_predictions(path: Path) -> Reconstructed:
    """Poses, cameras, depth maps and their cloud of a ``predictions.npz``.

    Raises:
        BadInputError: an array is missing, pickled, truncated, or does not fit the others.
    """
    arrays = NamedArrays(path)
    poses = check_poses(arrays.read(arrays.first_of("extrinsic")), path)
    count = len(poses)
    if count == 0:
        raise BadInputError(f"{path}: holds no photo")
    size = image_size(arrays.shape(arrays.first_of("depth")), path, "depth", count)
    cameras = pinhole_cameras(arrays.read(arrays.first_of("intrinsic")), size, path, count)
    confidence = "depth_conf" if "depth_conf" in arrays.names else None
    if confidence is not None and image_size(arrays.shape(confidence), path, confidence, count) != size:
        raise BadInputError(f"{path}: {confidence!r} and 'depth' have different sizes")
    names, has_names, note = photo_names(path.parent, count)
    depth = DepthFrames(arrays, "depth", confidence, names, cameras, poses, "VGGT")
    quantile = CONFIDENCE_QUANTILE if confidence else 0.0
    surface = Surface(
        f"cloud of {count} depth maps without their {quantile:.0%} least confident pixels",
        cloud_of_depth(names, depth, quantile),
        count * size[0] * size[1],
    )
    return Reconstructed(
        path, "VGGT predictions", dict(zip(names, poses)), dict(zip(names, cameras)), names, depth, surface,
        metric=False, has_names=has_names,
        notes=(note, f"intrinsics belong to its {size[0]}x{size[1]} px images"),
    )  # fmt: skip
