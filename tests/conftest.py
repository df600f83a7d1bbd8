"""What all tests share: threads bounded (several test processes may share a small machine), runs repeatable."""

from __future__ import annotations

import os

# Before numpy, torch or OpenCV are imported: their thread pools read this once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not take the cores of working ones
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import recon  # noqa: F401  (before any test imports pycolmap: see there)
