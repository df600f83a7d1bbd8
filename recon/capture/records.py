"""What the import of one source file gave, kept beside ``images/`` so that the next run need not do it again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from recon.capture.files import atomic_path
from recon.types import GpsFix

_FORMAT = 1
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportRecord:
    """One imported photo.

    ``key`` identifies the source file's content and the options; ``size_bytes`` and ``content_hash`` are those of the
    stored image. The rest is what :class:`recon.types.View` needs; ``orientation`` is the one that was applied.
    """

    key: str
    source: str
    name: str
    size_bytes: int
    content_hash: str
    width_px: int
    height_px: int
    orientation: int
    camera: str
    exif_focal_px: float | None
    gps: GpsFix | None
    notes: tuple[str, ...]


def record_path(workspace: Path, relative: PurePosixPath) -> Path:
    """Where the record of a source file lies."""
    return workspace / "imports" / f"{hashlib.sha256(os.fsencode(relative)).hexdigest()[:24]}.json"


def read_record(path: Path) -> ImportRecord | None:
    """The record, or None when it is absent or unreadable (then the photo is imported again)."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != _FORMAT:
            return None
        data["gps"] = GpsFix(**data["gps"]) if data["gps"] is not None else None
        data["notes"] = tuple(data["notes"])
        record = ImportRecord(**data)
        parts = PurePosixPath(record.name).parts
        if not parts or ".." in parts or parts[0] == "/":
            raise ValueError(f"{record.name!r} leads out of the workspace")
        return record
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s is unreadable (%s); its photo is imported again", path, error)
        return None


def write_record(path: Path, record: ImportRecord) -> None:
    """Writes a record whole or not at all. Raises OutputError."""
    text = json.dumps({"format": _FORMAT, **dataclasses.asdict(record)}, indent=1)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
