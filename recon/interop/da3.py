"""Depth-Anything-3's results: ``exports/npz/results.npz`` and ``exports/mini_npz/results.npz``.

Layout as its repository writes it (ByteDance-Seed/Depth-Anything-3): ``depth`` [N, H, W], ``conf`` [N, H, W],
``extrinsics`` [N, 3, 4] camera from world (OpenCV axes), ``intrinsics`` [N, 3, 3] for the processed image; ``image``
in the full file. Older files say ``exts`` and ``ixts``. Only its metric checkpoints give metres; the file does not say
which one wrote it.
"""

from __future__ import annotations

from pathlib import Path

from recon.interop.archive import NamedArrays
from recon.interop.feedforward import Layout, read_archive
from recon.interop.result import Reconstructed

LAYOUT = Layout(
    "Depth-Anything-3", "Depth-Anything-3", ("extrinsics", "exts"), ("intrinsics", "ixts"), "conf",
    0.4,  # its exporters' default
    ("whether its lengths are metres depends on the checkpoint; treated as not metric",),
)  # fmt: skip
RESULT_FILES = ("exports/npz/results.npz", "exports/mini_npz/results.npz", "npz/results.npz", "mini_npz/results.npz")


def is_results(arrays: NamedArrays) -> bool:
    """Whether an archive has Depth-Anything-3's spelling of its keys."""
    return "depth" in arrays.names and any(key in arrays.names for key in LAYOUT.poses)


def find_results(folder: Path) -> Path | None:
    """The results file of an export folder: the full one before the small one."""
    return next((folder / name for name in (*RESULT_FILES, "results.npz") if (folder / name).is_file()), None)


def read_results(path: Path, export_folder: Path | None = None) -> Reconstructed:
    """Poses, cameras, depth maps and their cloud. Photo names come from ``images/`` in ``export_folder``.

    Raises:
        BadInputError: an array is missing, pickled, truncated, or does not fit the others.
    """
    return read_archive(path, LAYOUT, export_folder)
