"""Figures that the authors of the public checkpoints published (arXiv 2605.30561), for reference beside ours.

They were measured by the paper's authors on other data than most that is evaluated here, and are none of our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from recon.types import Task


@dataclass(frozen=True)
class PublishedFigure:
    """``figure`` is the name of our figure that it may be held against; ``value`` in our unit; ``of`` who and where."""

    figure: str
    value: float
    of: str


PUBLISHED: Mapping[Task, tuple[PublishedFigure, ...]] = MappingProxyType(
    {
        "depth": (
            PublishedFigure("delta1", 0.904, "VLM3 4B, mean over 8 sets"),
            PublishedFigure("delta1", 0.960, "VLM3 4B, iBims-1"),
            PublishedFigure("delta1", 0.970, "VLM3 4B, NuScenes"),
            PublishedFigure("delta1", 0.84, "DepthLM-7B, mean over the sets"),
            PublishedFigure("delta1", 0.88, "UniDepthV2"),
            PublishedFigure("delta1", 0.86, "MoGe-2"),
        ),
        "match": (
            PublishedFigure("epe_mean", 15.4, "VLM3 4B"),
            PublishedFigure("epe_mean", 21.9, "RoMa"),
            PublishedFigure("epe_mean", 41.3, "DKM"),
            PublishedFigure("epe_mean", 7.9, "UFM"),
        ),
        "pose": (
            PublishedFigure("auc_histogram_30", 0.940, "VLM3 4B, ETH3D and ScanNet++"),
            PublishedFigure("auc_histogram_30", 0.880, "VGGT, the same"),
            PublishedFigure("auc_histogram_30", 0.947, "Depth-Anything-3 Giant, the same"),
        ),
        "object": (
            PublishedFigure("qualitative", 0.9135, "VLM3 4B, SpatialRGPT-Bench"),
            PublishedFigure("quantitative", 0.5851, "VLM3 4B, SpatialRGPT-Bench"),
            PublishedFigure("abs_rel", 0.35, "VLM3 4B, SpatialRGPT-Bench"),
        ),
    }
)
