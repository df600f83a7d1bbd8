"""Under which licences the checkpoints of a run stand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.models import EMBEDDED, local_folder
from recon.errors import ReconError
from recon.questions.profile import PROFILE_FILE, PUBLIC_PROFILES, load_profile

NOT_STATED = "not stated"
TASKS = ("depth", "match", "pose")
_MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class Licence:
    """A checkpoint, the tasks it answered, its licence and where that is written."""

    source: str
    tasks: tuple[str, ...]
    licence: str
    stated_in: str


def checkpoint_licences(summary: Mapping[str, Any]) -> tuple[Licence, ...]:
    """The checkpoints of a run by its settings, leaving out tasks that were skipped."""
    settings = summary.get("settings")
    models = settings.get("models") if isinstance(settings, Mapping) else None
    if not isinstance(models, Mapping):
        return ()
    skipped = {
        str(stage.get("name"))
        for stage in summary.get("stages", [])
        if isinstance(stage, Mapping) and stage.get("status") == "skipped"
    }
    tasks: dict[str, list[str]] = {}
    for task in TASKS:
        source = models.get(f"{task}_model") or models.get("model")
        if isinstance(source, str) and f"{task} answers" not in skipped:
            tasks.setdefault(source, []).append(task)
    return tuple(Licence(source, tuple(asked), *licence_of(source)) for source, asked in tasks.items())


def licence_of(source: str) -> tuple[str, str]:
    """A checkpoint's licence and where that is written.

    The public checkpoints' and the embedded one's are known. A folder states it in its README's metadata (as on the
    Hugging Face hub), in its profile, or in a LICENSE file, whose first line then stands for it.
    """
    if source in PUBLIC_PROFILES:
        return PUBLIC_PROFILES[source].license, "the publisher"
    folder = local_folder(source)
    if folder is None:
        return NOT_STATED, "the folder is not there any more" if "/" not in source.strip("/") else ""
    if source == EMBEDDED:
        return load_profile(folder / PROFILE_FILE).license, "this package"
    for name in ("README.md", "README"):
        stated = _readme_licence(folder / name)
        if stated:
            return stated, f"its {name}"
    stated = _profile_licence(folder / PROFILE_FILE)
    if stated:
        return stated, f"its {PROFILE_FILE}"
    for file in sorted(folder.glob("LICEN[SC]E*")):
        lines = [line.strip(" #*=\t") for line in _text(file).splitlines()]
        first = next((line for line in lines if line), "")
        if first:
            return first[:120], f"its {file.name}"
    return NOT_STATED, ""


def _readme_licence(file: Path) -> str:
    """``license`` of the YAML block at the top of a hub README; ``license_name`` where that says "other"."""
    parts = _text(file).split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return ""
    try:
        block = yaml.safe_load(parts[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return ""
    if not isinstance(block, dict):
        return ""
    stated = block.get("license_name") if block.get("license") in (None, "other") else block.get("license")
    return str(stated)[:120] if isinstance(stated, str) else ""


def _profile_licence(file: Path) -> str:
    if not file.is_file():
        return ""
    try:
        return load_profile(file).license[:120]
    except (ReconError, OSError, json.JSONDecodeError):
        return ""


def _text(file: Path) -> str:
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            return opened.read(_MAX_BYTES)
    except OSError:
        return ""
