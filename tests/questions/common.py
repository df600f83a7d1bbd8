"""Shared by the tests of the questions: the published protocol and images of any size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from recon.types import Camera, UnifiedImage

PROTOCOL = json.loads(Path(__file__).with_name("vlm3_released.json").read_text(encoding="utf-8"))


def image(width_px: int, height_px: int, focal_px: float = 1000.0) -> UnifiedImage:
    """A black unified image; questions look at its size only."""
    camera = Camera.pinhole(width_px, height_px, focal_px, focal_px, width_px / 2, height_px / 2)
    return UnifiedImage(np.zeros((height_px, width_px, 3), dtype=np.uint8), camera, camera)
