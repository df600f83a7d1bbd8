"""Helpers shared by the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def shared_data(scene: str) -> Path:
    """Folder of a real capture with ground truth (``images/``, ``gt/``); skips the test where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data" / scene
    if not folder.is_dir():
        pytest.skip(f"real capture {scene!r} is not on this machine ({folder})")
    return folder
