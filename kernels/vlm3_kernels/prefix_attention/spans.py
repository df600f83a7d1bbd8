"""What packed query tokens see: keys and values, and which question each token belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Ints = NDArray[np.int64]

SHORT_SPAN_TOKENS = 8  # spans up to this length take the kernels' way for decoding


class Keys(NamedTuple):
    """Keys and values of one layer: a prefix that all queries see, and a slab with a row per question."""

    prefix_key: torch.Tensor  # [Hkv, P, D], P may be 0
    prefix_value: torch.Tensor  # [Hkv, P, D]
    own_key: torch.Tensor  # [W, Hkv, C, D]
    own_value: torch.Tensor  # [W, Hkv, C, D]


@dataclass(frozen=True, eq=False)
class SpanGroup:
    """Consecutive spans of equal length: the unit that the reference computes without padding.

    ``first_token`` of the packed tokens; ``rows`` the slab rows; ``num_tokens`` per span; ``num_seen`` own tokens that
    each row already holds.
    """

    first_token: int
    rows: Ints
    num_tokens: int
    num_seen: Ints

    def split(self, num_spans: int) -> list[SpanGroup]:
        """The same spans in groups of at most ``num_spans``."""
        if num_spans >= len(self.rows):
            return [self]
        return [
            SpanGroup(
                self.first_token + begin * self.num_tokens,
                self.rows[begin : begin + num_spans],
                self.num_tokens,
                self.num_seen[begin : begin + num_spans],
            )
            for begin in range(0, len(self.rows), num_spans)
        ]

    @cached_property
    def row_slice(self) -> slice | None:
        """The rows as a slice when they are consecutive and ascending, so that the slab is read in place."""
        consecutive = bool((np.diff(self.rows) == 1).all())
        return slice(int(self.rows[0]), int(self.rows[0]) + len(self.rows)) if consecutive else None

    @cached_property
    def equally_seen(self) -> bool:
        """Whether all rows hold equally many own tokens."""
        return bool(self.num_seen.min() == self.num_seen.max())


@dataclass(frozen=True, eq=False)
class Spans:
    """The packed query tokens of one forward pass, one span of consecutive tokens per question.

    Span ``i`` holds tokens ``first_token[i] : first_token[i + 1]``, belongs to slab row ``row[i]`` and continues it at
    own position ``num_seen[i]``. ``token_row`` and ``token_place`` say the same per token. All are on the device of the
    queries, int32 [N] and int64 [T]; ``groups`` is the host's view.

    In buffers of fixed size there may be more: spans without tokens, and tokens behind the last span, which belong to
    none (what is computed for them is arbitrary). ``prefix_length`` [1] int32 then says how many of the prefix's places
    are filled (None: all).
    """

    row: torch.Tensor  # [N]
    first_token: torch.Tensor  # [N + 1]
    num_seen: torch.Tensor  # [N]
    token_row: torch.Tensor  # [T]
    token_place: torch.Tensor  # [T]
    groups: tuple[SpanGroup, ...]
    num_tokens: int
    longest: int
    prefix_length: torch.Tensor | None = None

    @staticmethod
    def pack(
        rows: Sequence[int] | Ints,
        lengths: Sequence[int] | Ints,
        num_seen: Sequence[int] | Ints,
        device: torch.device | str = "cpu",
    ) -> Spans:
        """Spans of the given positive lengths in the given order; every list has one entry per span."""
        if not len(rows) == len(lengths) == len(num_seen):
            raise ValueError(f"spans need lists of equal length, got {len(rows)}, {len(lengths)}, {len(num_seen)}")
        row, length, seen = (np.asarray(values, dtype=np.int64) for values in (rows, lengths, num_seen))
        if len(length) and length.min() < 1:
            raise ValueError("every span needs at least one token")
        first_token = first_tokens(length)

        def on_device(values: Ints, dtype: torch.dtype = torch.int32) -> torch.Tensor:
            return torch.from_numpy(values).to(device=device, dtype=dtype)

        return Spans(
            row=on_device(row),
            first_token=on_device(first_token),
            num_seen=on_device(seen),
            token_row=on_device(np.repeat(row, length), torch.int64),
            token_place=on_device(token_places(length, seen), torch.int64),
            groups=span_groups(row, length, seen),
            num_tokens=int(first_token[-1]),
            longest=int(length.max(initial=0)),
        )


def first_tokens(lengths: Ints) -> Ints:
    """Where each span begins, and where the last one ends, [N + 1]."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])


def token_places(lengths: Ints, num_seen: Ints) -> Ints:
    """The place of each token in its slab row, [T]."""
    begin = first_tokens(lengths)
    return np.arange(begin[-1]) + np.repeat(num_seen - begin[:-1], lengths)


def span_groups(rows: Ints, lengths: Ints, num_seen: Ints) -> tuple[SpanGroup, ...]:
    """Runs of spans of equal length."""
    if len(lengths) == 0:
        return ()
    begin = first_tokens(lengths)
    edges = [0, *(np.flatnonzero(np.diff(lengths)) + 1).tolist(), len(lengths)]
    return tuple(SpanGroup(int(begin[a]), rows[a:b], int(lengths[a]), num_seen[a:b]) for a, b in pairwise(edges))
