"""The data sets of a mixture: questions of one task about procedural worlds, or from real data on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np

from recon.cameras.unify import ImageProfile
from recon.questions.dialects import Dialect
from recon.synth.dataset import Scenery, Split
from recon.training.encode import Layout, Sample
from recon.training.pool import pooled_pair, pooled_view
from recon.training.samples import HIDDEN_SHARE, depth_sample, match_sample, object_sample, pose_sample
from recon.training.sources import SampleSource
from recon.types import Task


@dataclass(frozen=True)
class RoomDataset:
    """Questions of one task about procedural worlds, rendered once and kept in ``pool``."""

    name: str
    task: Task
    rooms: int
    pool: Path
    questions: int = 32
    weight: float = 1.0
    round_m: float = 0.0
    split: Split = "train"
    scenery: Scenery = "room"
    layout: Layout = "packed"
    image: ImageProfile | None = None
    views: Literal["any", "things"] = "any"
    coarse: bool = False
    hidden: float = HIDDEN_SHARE
    regions: bool = False
    motion: bool = False

    def __len__(self) -> int:
        return self.rooms

    def sample(self, dialect: Dialect, turn: int, rng: np.random.Generator) -> Sample:
        """The ``turn``-th sample: worlds in turn, mirrored half of the time, other questions each time."""
        profile, index = self.image or image_profile(dialect, self.task), turn % self.rooms
        flip = rng.random() < 0.5
        if self.task in ("depth", "object"):
            shape: Literal["view", "things"] = "things" if self.views == "things" else "view"
            view = pooled_view(self.pool, self.split, index, profile, self.scenery, shape)
            view = view.flipped() if flip else view
            if self.task == "object":
                return object_sample(
                    view, dialect, self.questions, rng, self.name, self.layout, self.coarse, self.regions
                )
            return depth_sample(view, dialect, self.questions, rng, self.name, self.round_m, self.layout)
        pair = pooled_pair(self.pool, self.split, index, profile, self.scenery)
        pair = pair.flipped() if flip else pair
        pair = pair.swapped() if rng.random() < 0.5 else pair
        if self.task == "pose":
            return pose_sample(pair, dialect, self.name, self.layout, self.coarse, self.motion)
        return match_sample(pair, dialect, self.questions, rng, self.name, self.hidden, self.layout)


@dataclass(frozen=True)
class FileDataset:
    """Questions of one task from real data on disk (:mod:`recon.training.sources`)."""

    name: str
    task: Task
    source: SampleSource
    weight: float = 1.0
    layout: Layout = "packed"
    strict: bool = False

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, dialect: Dialect, turn: int, rng: np.random.Generator) -> Sample:
        """The ``turn``-th sample of the source."""
        return replace(self.source.sample(dialect, turn, rng), dataset=self.name, layout=self.layout)


def image_profile(dialect: Dialect, task: Task) -> ImageProfile:
    """How the dialect wants the images of a task; raises BadInputError when it does not define the task."""
    dialect.require(task)
    return cast(ImageProfile, getattr(dialect, task).image)
