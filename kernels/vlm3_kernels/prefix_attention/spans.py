"""Which question each packed query token belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch


@dataclass(frozen=True)
class SpanGroup:
    """Consecutive spans of equal length: the unit that the reference computes without padding.

    ``first_token`` of the packed tokens; ``rows`` the slab rows; ``num_tokens`` per span; ``num_seen`` own tokens that
    each row already holds.
    """

    first_token: int
    rows: tuple[int, ...]
    num_tokens: int
    num_seen: tuple[int, ...]

    @cached_property
    def row_slice(self) -> slice | None:
        """The rows as a slice when they are consecutive and ascending, so that the slab is read in place."""
        first = self.rows[0]
        consecutive = self.rows == tuple(range(first, first + len(self.rows)))
        return slice(first, first + len(self.rows)) if consecutive else None

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
    def equally_seen(self) -> bool:
        """Whether all rows hold equally many own tokens."""
        return min(self.num_seen) == max(self.num_seen)


@dataclass(frozen=True)
class Spans:
    """The packed query tokens of one forward pass, one span of consecutive tokens per question.

    Span ``i`` holds tokens ``first_token[i] : first_token[i + 1]``, belongs to slab row ``row[i]`` and continues it at
    own position ``num_seen[i]``. Tensors are int32 on the device of the queries; ``groups`` is the host's view.
    """

    row: torch.Tensor  # [N]
    first_token: torch.Tensor  # [N + 1]
    num_seen: torch.Tensor  # [N]
    groups: tuple[SpanGroup, ...]
    num_tokens: int
    longest: int

    def token_places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """For each packed token its slab row and its place in the row, int64 [T] each."""
        lengths = (self.first_token[1:] - self.first_token[:-1]).long()
        span = torch.repeat_interleave(lengths, output_size=self.num_tokens)  # span index of each token
        inside = torch.arange(self.num_tokens, device=span.device) - self.first_token[span].long()
        return self.row[span].long(), self.num_seen[span].long() + inside

    @staticmethod
    def pack(
        rows: Sequence[int], lengths: Sequence[int], num_seen: Sequence[int], device: torch.device | str = "cpu"
    ) -> Spans:
        """Spans of the given positive lengths in the given order; every list has one entry per span."""
        if not len(rows) == len(lengths) == len(num_seen):
            raise ValueError(f"spans need lists of equal length, got {len(rows)}, {len(lengths)}, {len(num_seen)}")
        if min(lengths, default=1) < 1:
            raise ValueError("every span needs at least one token")
        groups: list[SpanGroup] = []
        first_tokens = [0]
        begin = 0
        for i, length in enumerate(lengths):
            first_tokens.append(first_tokens[-1] + length)
            if i + 1 == len(lengths) or lengths[i + 1] != length:
                groups.append(
                    SpanGroup(first_tokens[begin], tuple(rows[begin : i + 1]), length, tuple(num_seen[begin : i + 1]))
                )
                begin = i + 1

        def on_device(values: Sequence[int]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.int32, device=device)

        return Spans(
            row=on_device(rows),
            first_token=on_device(first_tokens),
            num_seen=on_device(num_seen),
            groups=tuple(groups),
            num_tokens=first_tokens[-1],
            longest=max(lengths, default=0),
        )
