"""Finds the photos of a scene: a folder, a COLMAP-style workspace with ``images/``, a list of files, or a video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from recon.capture.decode import ACCEPTED, SUFFIXES, UNSUPPORTED_SUFFIXES
from recon.capture.files import printable
from recon.errors import BadInputError
from recon.types import Rejected

VIDEO_SUFFIXES = {
    *(".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".wmv"),
}
WORKSPACE_MARKER = ".vlm3-recon"  # a file that says that a folder is the workspace of a run
# folders that hold something else than photos of the scene
_OTHER_FOLDERS = {"masks", "depth", "sparse", "dense", "gt", "normals", "stereo", "__macosx"}


@dataclass(frozen=True)
class SourcePhoto:
    """A photo to import: the file, and its path below the photo folder."""

    path: Path
    relative: PurePosixPath


@dataclass(frozen=True)
class Source:
    """What a scene consists of.

    Attributes:
        photos: in name order; empty when ``video`` is given.
        video: a video file.
        beside: folder in which ``masks/`` and ``depth/`` lie, None for a list of files or a video.
        intrinsics_roots: folders in which known intrinsics are looked for.
        rejected: image files of kinds that are not read.
    """

    photos: tuple[SourcePhoto, ...]
    video: Path | None
    beside: Path | None
    intrinsics_roots: tuple[Path, ...]
    rejected: tuple[Rejected, ...]


def find_source(source: Path | Sequence[Path], workspace: Path) -> Source:
    """Looks what ``source`` is; files below ``workspace`` (earlier results) are never taken for photos.

    Raises:
        BadInputError: nothing there, nothing readable, or the workspace's ``images/`` is the source itself.
    """
    if not isinstance(source, Path):
        return _from_files([Path(path) for path in source])
    if not source.exists():
        raise BadInputError(f"{printable(source)}: does not exist; accepted: a folder of photos or a video file")
    if source.is_file():
        if source.suffix.lower() in VIDEO_SUFFIXES:
            return Source((), source, None, (), ())
        return _from_files([source])
    folder = source / "images" if (source / "images").is_dir() else source
    beside = folder.parent if folder.name == "images" else folder
    if workspace.resolve() in (folder.resolve(), beside.resolve()):
        raise BadInputError(
            f"{printable(source)}: is also the workspace, whose images/ and masks/ would overwrite the scene's own; "
            f"choose another workspace folder"
        )
    roots = tuple(dict.fromkeys([beside, folder]))
    photos, rejected, videos = _walk(folder, workspace)
    if not photos and len(videos) == 1:
        return Source((), videos[0], None, (), tuple(rejected))
    for video in videos:
        name = printable(video.relative_to(folder))
        rejected.append(Rejected(name, "a video among photos is not read; give the video file itself as the scene"))
    if not photos and not rejected:
        raise BadInputError(f"{printable(folder)}: holds no photo; accepted: {ACCEPTED} files, or a single video file")
    return Source(tuple(photos), None, beside, roots, tuple(rejected))


def _walk(folder: Path, workspace: Path) -> tuple[list[SourcePhoto], list[Rejected], list[Path]]:
    photos: list[SourcePhoto] = []
    rejected: list[Rejected] = []
    videos: list[Path] = []
    own = workspace.resolve()

    def unreadable(error: OSError) -> None:
        name = printable(Path(str(error.filename)).relative_to(folder)) or "."
        rejected.append(Rejected(name, f"the folder can't be read ({error.strerror}); needs a readable folder"))

    for current, folders, files in os.walk(folder, onerror=unreadable):
        here = Path(current)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name.lower() not in _OTHER_FOLDERS
            and (here / name).resolve() != own
            and not (here / name / WORKSPACE_MARKER).exists()  # what another run has made of these photos
        )
        for name in files:
            path = here / name
            suffix = path.suffix.lower()
            relative = PurePosixPath(path.relative_to(folder).as_posix())
            if name.startswith("."):
                continue  # also the "._name.jpg" companions that macOS leaves on foreign disks
            if suffix in SUFFIXES:
                photos.append(SourcePhoto(path, relative))
            elif suffix in UNSUPPORTED_SUFFIXES:
                rejected.append(Rejected(printable(relative), f"{suffix} files are not read; accepted: {ACCEPTED}"))
            elif suffix in VIDEO_SUFFIXES:
                videos.append(path)
    photos.sort(key=lambda photo: photo.relative.parts)
    rejected.sort(key=lambda item: item.name)
    return photos, rejected, sorted(videos)


def _from_files(paths: list[Path]) -> Source:
    if not paths:
        raise BadInputError(f"no photo was given; accepted: a folder, a video or a list of {ACCEPTED} files")
    if len({path.resolve().parent for path in paths}) == 1:
        photos = [SourcePhoto(path, PurePosixPath(path.name)) for path in paths]
    else:  # the folder's name keeps equal file names of different folders apart
        photos = [SourcePhoto(path, PurePosixPath(path.resolve().parent.name, path.name)) for path in paths]
    return Source(tuple(photos), None, None, (), ())
