"""Where samples come from: the small interface that procedural worlds and readers of real data sets share.

A source is opened once, checks what it can cheaply, and then gives a sample per *turn*. ``sample`` must be a pure
function of its arguments and the files (any process may ask for any turn, in any order, again after a resume).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np

from recon.errors import BadInputError
from recon.questions.dialects import Dialect
from recon.training.encode import Sample
from recon.types import Task


class BadSampleError(BadInputError):
    """One item of a data set can't be used. The message names the file and the line (or key) and what is wrong."""


class SampleSource(Protocol):
    """Samples of one task.

    ``len`` is the number of different items (images or pairs; the size for ``weights: by-size``). ``sample`` gives item
    ``turn % len`` (or the item that a fixed shuffle puts there) in the dialect, with questions and augmentation drawn
    from ``rng`` alone; ``Sample.dataset`` is overwritten by the mixture. It raises :class:`BadSampleError` for an item
    that turns out to be unusable; the mixture counts it and takes the next turn, or stops when it is strict.
    """

    def __len__(self) -> int: ...

    def sample(self, dialect: Dialect, turn: int, rng: np.random.Generator) -> Sample: ...


@dataclass(frozen=True)
class SourceSpec:
    """What a mixture file says about a data set of real data.

    Attributes:
        name: the data set's name in the mixture, for messages.
        format: key of :data:`OPENERS`.
        task: what to ask.
        path: file or folder, absolute or relative to the working folder.
        questions: the most questions per sample.
        strict: stop at the first bad line instead of leaving it out with a count.
    """

    name: str
    format: str
    task: Task
    path: Path
    questions: int
    strict: bool


Opener = Callable[[SourceSpec], SampleSource]


def _reader(name: str) -> Opener:
    """An opener of :mod:`recon.training.readers`, which imports this module."""

    def open_(spec: SourceSpec) -> SampleSource:
        opener: Opener = getattr(import_module("recon.training.readers"), name)
        return opener(spec)

    return open_


OPENERS: Mapping[str, Opener] = MappingProxyType(
    {
        "depthlm-jsonl": _reader("open_depthlm"),
        "pairs": _reader("open_pairs"),
        "spatialrgpt": _reader("open_spatialrgpt"),
    }
)
"""Formats of real data sets. An opener raises BadInputError when nothing usable is left (or for a task that the format
has no labels for), and logs how many lines it left out, with their numbers."""
