"""Mixtures: which data set each training sample comes from, decided by weights, reproducible and resumable.

The sample of index ``i`` is a pure function of the mixture and ``i``: a resumed run sees exactly what the interrupted
one would have seen, whatever the number of loader processes or devices. Every block of 1024 groups of samples holds
each data set's share of them exactly (to 1/1024), in a random order of its own; a data set's samples are its *turns*
0, 1, 2 ... without gaps, so its items come round evenly.
Files that describe mixtures are read in :mod:`recon.training.mixture_file`.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from recon.errors import BadInputError
from recon.questions.dialects import Dialect
from recon.training.datasets import FileDataset, RoomDataset
from recon.training.encode import EncodedSample, Encoder, Sample
from recon.training.sources import BadSampleError

logger = logging.getLogger(__name__)

BLOCK = 1024  # groups of samples that hold each data set's share exactly
_MOST_SKIPPED = 100  # unusable items in a row before a data set is given up
_told: set[str] = set()  # faults that this process has warned about: items come round many times


@dataclass(frozen=True)
class Drawn:
    """A sample and how many unusable items were passed over to get it."""

    sample: Sample
    skipped: int


@dataclass(frozen=True)
class Mixture:
    """Data sets and their probabilities ``shares`` (sum 1); ``group`` as in the file."""

    datasets: tuple[RoomDataset | FileDataset, ...]
    shares: NDArray[np.float64]
    dialect: Dialect
    seed: int
    group: int = 1

    def place_of(self, index: int) -> tuple[int, int]:
        """Which data set sample ``index`` is drawn from, and which of its turns it is."""
        group, within = divmod(index, self.group)
        block, place = divmod(group, BLOCK)
        quotas = _quotas(tuple(self.shares.tolist()))
        order, ranks = _block_order(self.seed, block, quotas)
        chosen = int(order[place])
        return chosen, (block * quotas[chosen] + int(ranks[place])) * self.group + within

    def dataset_of(self, index: int) -> RoomDataset | FileDataset:
        """Which data set sample ``index`` is drawn from."""
        return self.datasets[self.place_of(index)[0]]

    def draw(self, index: int) -> Drawn:
        """Sample ``index`` (0, 1, 2 ...); unusable items are passed over.

        Raises:
            BadInputError: an unusable item of a strict data set, or too many in a row.
        """
        chosen, turn = self.place_of(index)
        dataset = self.datasets[chosen]
        for skipped in range(_MOST_SKIPPED):
            rng = np.random.default_rng([self.seed, index, 2, skipped] if skipped else [self.seed, index, 2])
            try:
                return Drawn(dataset.sample(self.dialect, turn + skipped, rng), skipped)
            except BadSampleError as error:
                if isinstance(dataset, FileDataset) and dataset.strict:
                    raise
                # a procedural view of bare walls is no fault in the data; one in a file is told once, and counted
                told = str(error) in _told or not isinstance(dataset, FileDataset)
                _told.add(str(error))
                logger.log(logging.DEBUG if told else logging.WARNING, "data set %s: passed over: %s", dataset.name,
                           error)  # fmt: skip
                last = error
        raise BadInputError(f"data set {dataset.name}: {_MOST_SKIPPED} unusable items in a row; the last: {last}")

    def sample(self, index: int) -> Sample:
        """Sample ``index`` alone; see :meth:`draw`."""
        return self.draw(index).sample


class MixtureDataset(Dataset[EncodedSample]):
    """The first ``length`` samples of a mixture, encoded, for a loader that reads them in order.

    With ``world_size`` readers each sees every ``world_size``-th sample from its ``rank`` on: together exactly what one
    reader sees. (Under accelerate leave them alone: it deals out the batches of one reader itself.)
    """

    def __init__(self, mixture: Mixture, encoder: Encoder, length: int, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to {world_size - 1}, got {rank}")
        self._mixture, self._encoder = mixture, encoder
        self._indices = range(rank, length, world_size)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> EncodedSample:
        drawn = self._mixture.draw(self._indices[index])
        return replace(self._encoder.encode(drawn.sample), skipped=drawn.skipped)


@functools.cache
def _quotas(shares: tuple[float, ...]) -> tuple[int, ...]:
    """Groups of each data set in a block, by largest remainder; at least one where the share is not 0."""
    exact = np.array(shares) * BLOCK
    counts = np.floor(exact).astype(int)
    counts[(counts == 0) & (exact > 0)] = 1
    while counts.sum() != BLOCK:
        short = counts.sum() < BLOCK
        gap = exact - counts
        counts[int(gap.argmax() if short else np.where(counts > 1, gap, np.inf).argmin())] += 1 if short else -1
    return tuple(counts.tolist())


@functools.lru_cache(maxsize=4)
def _block_order(seed: int, block: int, quotas: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Data set of each group of a block [BLOCK], and the group's rank among those of its data set [BLOCK]."""
    order = np.random.default_rng([seed, block, 1]).permutation(np.repeat(np.arange(len(quotas)), quotas))
    ranks = np.empty(BLOCK, np.int64)
    for number, quota in enumerate(quotas):
        ranks[order == number] = np.arange(quota)
    return order, ranks
