"""Files of the workspace: written whole or not at all, with names that every tool downstream can read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath

import numpy as np

from recon.errors import OutputError
from recon.types import ImageArray

TEMPORARY_PREFIX = ".import-"  # leftovers of a killed run start with it; never read, removed by the next run
_MAX_PART_BYTES = 100


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder, which becomes ``path`` (fsynced) when the block succeeds.

    Raises:
        OutputError: the folder can't be written (read-only, disk full).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path.parent}: can't make this folder ({error.strerror}); choose a writable one") from error
    temporary = path.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{hashlib.sha1(path.name.encode()).hexdigest()[:12]}"
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"{path}: can't be written ({error.strerror or error}); needs a writable folder with free space"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Deletes the temporary files of a killed run below ``folder``."""
    for path in folder.rglob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):
            path.unlink()


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes. Raises OSError."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def content_hash(pixels: ImageArray) -> str:
    """Hex SHA-256 of shape and bytes of uint8 pixels ``[H, W, 3]``."""
    digest = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]}x{pixels.shape[2]}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def printable(path: str | PurePath) -> str:
    """A path as text that can be printed and stored as UTF-8: undecodable bytes become ``\\xNN``, no line breaks."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def safe_name(relative: PurePosixPath, suffix: str, taken: set[str]) -> str:
    """A unique name in the workspace for a source photo, ``/``-separated, ending in ``suffix``.

    Letters and digits of any script stay; other characters (COLMAP's text files split at spaces) become ``_``; parts
    are limited to 100 bytes. A name that had to change, or that is taken, gets eight digits of the
    original's hash.

    Args:
        relative: the photo's path below the source folder (may hold surrogates for undecodable bytes).
        suffix: the file name extension of the stored image, with the dot.
        taken: names in use, case-folded; the new name is added.
    """
    digest = hashlib.sha256(os.fsencode(relative)).hexdigest()[:8]
    parts = [_safe_part(part) for part in relative.parts[:-1]]
    stem = relative.stem
    safe_stem = _safe_part(stem)
    plain = "/".join([*(part for part, _ in parts), safe_stem[0] + suffix])
    changed = safe_stem[1] or any(flag for _, flag in parts)
    name = plain
    if changed or name.casefold() in taken:
        name = "/".join([*(part for part, _ in parts), f"{safe_stem[0]}-{digest}{suffix}"])
    taken.add(name.casefold())
    return name


def _safe_part(part: str) -> tuple[str, bool]:
    """A safe folder or file name, and whether it differs from the given one."""
    text = os.fsencode(part).decode("utf-8", "replace")
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"[^\w.\-+()=@,]", "_", text)
    if text.startswith("."):
        text = "_" + text[1:]
    while len(text.encode()) > _MAX_PART_BYTES:
        text = text[:-1]
    return text or "_", text != part
