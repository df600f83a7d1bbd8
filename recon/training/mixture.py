"""Mixtures: which data set each training sample comes from, decided by weights, reproducible and resumable.

The sample of index ``i`` is a pure function of the mixture and ``i``: a resumed run sees exactly what the interrupted
one would have seen, whatever the number of loader processes. A mixture is a YAML file::

    seed: 1
    dialect: recon-1
    weights: explicit            # or: uniform, by-size (number of rooms)
    datasets:
      depth-rooms:
        task: depth
        rooms: 20000             # seeds of the training split, taken in turn
        pool: pools/train        # rendered views are kept here; relative to this file
        questions: 32
        weight: 1.0              # for explicit weights only
        round_m: 0.5             # optional: coarse labels for a beginner
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import yaml
from numpy.typing import NDArray
from torch.utils.data import Dataset

from recon.errors import BadInputError
from recon.questions.dialects import Dialect, get_dialect
from recon.synth.dataset import Split
from recon.training.encode import EncodedSample, Encoder, Sample
from recon.training.pool import pooled_view
from recon.training.samples import depth_sample

WEIGHTINGS = ("uniform", "by-size", "explicit")
TASKS = ("depth",)
_DATASET_KEYS = {
    "task": str,
    "rooms": int,
    "pool": str,
    "questions": int,
    "weight": (int, float),
    "split": str,
    "round_m": (int, float),
}


@dataclass(frozen=True)
class RoomDataset:
    """Questions of one task about procedural rooms, rendered once and kept in ``pool``."""

    name: str
    task: str
    rooms: int
    pool: Path
    questions: int = 32
    weight: float = 1.0
    round_m: float = 0.0
    split: Split = "train"

    def sample(self, dialect: Dialect, turn: int, rng: np.random.Generator) -> Sample:
        """The ``turn``-th sample: rooms in turn, mirrored half of the time, other questions each time."""
        assert dialect.depth is not None
        view = pooled_view(self.pool, self.split, turn % self.rooms, dialect.depth.image)
        if rng.random() < 0.5:
            view = view.flipped()
        return depth_sample(view, dialect, self.questions, rng, self.name, self.round_m)


@dataclass(frozen=True)
class Mixture:
    """Data sets and their probabilities ``shares`` (sum 1)."""

    datasets: tuple[RoomDataset, ...]
    shares: NDArray[np.float64]
    dialect: Dialect
    seed: int

    def dataset_of(self, index: int) -> RoomDataset:
        """Which data set sample ``index`` is drawn from."""
        draw = np.random.default_rng([self.seed, index, 1]).random()
        chosen = int(np.searchsorted(np.cumsum(self.shares), draw, side="right"))
        return self.datasets[min(chosen, len(self.datasets) - 1)]

    def sample(self, index: int) -> Sample:
        """Sample ``index`` (0, 1, 2 ...)."""
        rng = np.random.default_rng([self.seed, index, 2])
        return self.dataset_of(index).sample(self.dialect, index, rng)


class MixtureDataset(Dataset[EncodedSample]):
    """The first ``length`` samples of a mixture, encoded, for a loader that reads them in order."""

    def __init__(self, mixture: Mixture, encoder: Encoder, length: int) -> None:
        self._mixture, self._encoder, self._length = mixture, encoder, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> EncodedSample:
        return self._encoder.encode(self._mixture.sample(index))


def load_mixture(path: Path) -> Mixture:
    """Reads a mixture file.

    Raises:
        BadInputError: unreadable, or a key or value that is not accepted (the message names them).
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInputError(f"{path}: not a readable mixture ({' '.join(str(error).split())})") from error
    return parse_mixture(data, path.parent, str(path))


def parse_mixture(data: Any, base: Path, where: str) -> Mixture:
    """A mixture from parsed YAML; relative pools start at ``base``; ``where`` names the file in errors."""
    _check_keys(data, ("datasets",), ("seed", "dialect", "weights"), where)
    weighting = data.get("weights", "explicit")
    if weighting not in WEIGHTINGS:
        raise BadInputError(f"{where}: weights is {weighting!r}; accepted: {', '.join(WEIGHTINGS)}")
    seed = data.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise BadInputError(f"{where}: seed is {seed!r}; accepted: a whole number from 0")
    entries = data["datasets"]
    if not isinstance(entries, dict) or not entries:
        raise BadInputError(f"{where}: datasets must name at least one data set")
    datasets = tuple(_read_dataset(str(name), entry, base, where) for name, entry in entries.items())
    return Mixture(datasets, _shares(datasets, weighting, where), get_dialect(data.get("dialect", "recon-1")), seed)


def _shares(datasets: tuple[RoomDataset, ...], weighting: str, where: str) -> NDArray[np.float64]:
    if weighting == "uniform":
        weights = np.ones(len(datasets))
    elif weighting == "by-size":
        weights = np.array([float(dataset.rooms) for dataset in datasets])
    else:
        weights = np.array([dataset.weight for dataset in datasets])
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise BadInputError(f"{where}: weights must be finite, not negative and not all 0, found {weights.tolist()}")
    return weights / weights.sum()


def _read_dataset(name: str, entry: Any, base: Path, where: str) -> RoomDataset:
    place = f"{where}: datasets.{name}"
    optional = ("questions", "weight", "split", "round_m")
    _check_keys(entry, ("task", "rooms", "pool"), optional, place)
    for key, kind in _DATASET_KEYS.items():
        if key in entry and (isinstance(entry[key], bool) or not isinstance(entry[key], cast(Any, kind))):
            raise BadInputError(f"{place}.{key}: found {entry[key]!r}, a value of the wrong kind")
    if entry["task"] not in TASKS:
        raise BadInputError(f"{place}.task: found {entry['task']!r}; accepted: {', '.join(TASKS)}")
    if entry.get("split", "train") not in ("train", "validation"):
        raise BadInputError(f"{place}.split: found {entry['split']!r}; accepted: train, validation")
    if not 0 <= entry.get("round_m", 0.0) <= 10:
        raise BadInputError(f"{place}.round_m: found {entry['round_m']}; accepted: 0 (exact) to 10 metres")
    for key in ("rooms", "questions"):
        if entry.get(key, 1) < 1:
            raise BadInputError(f"{place}.{key}: found {entry[key]}; accepted: 1 or more")
    return RoomDataset(
        name=name,
        task=entry["task"],
        rooms=entry["rooms"],
        pool=base / entry["pool"],
        questions=entry.get("questions", 32),
        weight=float(entry.get("weight", 1.0)),
        round_m=float(entry.get("round_m", 0.0)),
        split=cast(Literal["train", "validation"], entry.get("split", "train")),
    )


def _check_keys(data: Any, required: tuple[str, ...], optional: tuple[str, ...], where: str) -> None:
    if not isinstance(data, Mapping):
        raise BadInputError(f"{where}: expected keys and values, found {type(data).__name__}")
    missing = [key for key in required if key not in data]
    unknown = [str(key) for key in data if key not in required + optional]
    if missing or unknown:
        faults = [f"missing {', '.join(missing)}"] if missing else []
        faults += [f"unknown {', '.join(unknown)}"] if unknown else []
        raise BadInputError(f"{where}: {' and '.join(faults)}; accepted keys: {', '.join(required + optional)}")
