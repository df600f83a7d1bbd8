"""Under which licences the checkpoints of a run stand: looked up while it runs, and kept in its ``summary.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipelines.models import EMBEDDED, HUB_ID, local_folder
from recon.errors import ReconError
from recon.questions.profile import PROFILE_FILE, PUBLIC_PROFILES, load_profile

NOT_STATED = "not stated"
_MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class Licence:
    """A checkpoint, the tasks it answered, its licence and where that is written."""

    source: str
    tasks: tuple[str, ...]
    licence: str
    stated_in: str


def checkpoint_licences(asked: Mapping[str, str]) -> tuple[Licence, ...]:
    """The checkpoints that answered (``asked``: task to source), each once with its tasks."""
    tasks: dict[str, list[str]] = {}
    for task, source in asked.items():
        tasks.setdefault(source, []).append(task)
    return tuple(Licence(source, tuple(mine), *licence_of(source)) for source, mine in tasks.items())


def licence_of(source: str) -> tuple[str, str]:
    """A checkpoint's licence and where that is written.

    The public checkpoints' and the embedded one's are known. A folder states it in its README's metadata (as on the
    Hugging Face hub), in its profile, or in a LICENSE file, whose first line then stands for it.
    """
    if source in PUBLIC_PROFILES:
        return PUBLIC_PROFILES[source].license, "the publisher"
    folder = local_folder(source) or _fetched(source)
    if folder is None:
        return NOT_STATED, ""
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


def _fetched(source: str) -> Path | None:
    """The folder into which a hub checkpoint was fetched; None when it was not."""
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(source, "config.json") if HUB_ID.fullmatch(source) else None
    except ValueError:  # a path that is no hub id
        return None
    return Path(config).parent if isinstance(config, str) else None


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
        stated = load_profile(file).license[:120]
    except (ReconError, OSError, json.JSONDecodeError):
        return ""
    return "" if stated == "unknown" else stated


def _text(file: Path) -> str:
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            return opened.read(_MAX_BYTES)
    except OSError:
        return ""
