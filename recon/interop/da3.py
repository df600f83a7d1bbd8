"""Depth-Anything-3's results: ``exports/npz/results.npz`` and ``exports/mini_npz/results.npz``.

Layout as its repository writes it (ByteDance-Seed/Depth-Anything-3): ``depth`` [N, H, W], ``conf`` [N, H, W],
``extrinsics`` [N, 3, 4] camera from world (OpenCV axes), ``intrinsics`` [N, 3, 3] for the processed image; ``image``
in the full file. Older files say ``exts`` and ``ixts``. Only its metric checkpoints give metres; the file does not say
which one wrote it.
"""

from __future__ import annotations

from pathlib import Path

from recon.errors import BadInputError
from recon.interop.archive import NamedArrays
from recon.interop.feedforward import DepthFrames, cloud_of_depth, image_size, photo_names, pinhole_cameras
from recon.interop.result import Reconstructed, Surface, check_poses

POSE_KEYS = ("extrinsics", "exts")
CAMERA_KEYS = ("intrinsics", "ixts")
RESULT_FILES = ("exports/npz/results.npz", "exports/mini_npz/results.npz", "npz/results.npz", "mini_npz/results.npz")
CONFIDENCE_QUANTILE = 0.4  # its exporters' default


def is_results(arrays: NamedArrays) -> bool:
    """Whether an archive has Depth-Anything-3's spelling of its keys."""
    return "depth" in arrays.names and any(key in arrays.names for key in POSE_KEYS)


def find_results(folder: Path) -> Path | None:
    """The results file of an export folder: the full one before the small one."""
    return next((folder / name for name in (*RESULT_FILES, "results.npz") if (folder / name).is_file()), None)


def read_results(path: Path, export_folder: Path | None = None) -> Reconstructed:
    """Poses, cameras, depth maps and their cloud. Photo names come from ``images/`` in ``export_folder``.

    Raises:
        BadInputError: an array is missing, pickled, truncated, or does not fit the others.
    """
    arrays = NamedArrays(path)
    poses = check_poses(arrays.read(arrays.first_of(*POSE_KEYS)), path)
    count = len(poses)
    if count == 0:
        raise BadInputError(f"{path}: holds no photo")
    size = image_size(arrays.shape(arrays.first_of("depth")), path, "depth", count)
    cameras = pinhole_cameras(arrays.read(arrays.first_of(*CAMERA_KEYS)), size, path, count)
    confidence = "conf" if "conf" in arrays.names else None
    if confidence is not None and image_size(arrays.shape(confidence), path, confidence, count) != size:
        raise BadInputError(f"{path}: {confidence!r} and 'depth' have different sizes")
    names, has_names, note = photo_names(export_folder or path.parent, count)
    depth = DepthFrames(arrays, "depth", confidence, names, cameras, poses, "Depth-Anything-3")
    quantile = CONFIDENCE_QUANTILE if confidence else 0.0
    surface = Surface(
        f"cloud of {count} depth maps without their {quantile:.0%} least confident pixels",
        cloud_of_depth(names, depth, quantile),
        count * size[0] * size[1],
    )
    return Reconstructed(
        export_folder or path, "Depth-Anything-3", dict(zip(names, poses)), dict(zip(names, cameras)), names, depth,
        surface, metric=False, has_names=has_names,
        notes=(
            note,
            f"intrinsics belong to its {size[0]}x{size[1]} px images",
            "whether its lengths are metres depends on the checkpoint; treated as not metric",
        ),
    )  # fmt: skip
