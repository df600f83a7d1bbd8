"""Keys and values in memory: those of prefixes, and the slab of the questions in flight."""

from __future__ import annotations

import torch
from vlm3_kernels.prefix_attention.spans import Spans


class KeyValues:
    """Keys and values of consecutive tokens: per layer [Hkv, L, D]."""

    def __init__(self, keys: list[torch.Tensor], values: list[torch.Tensor]) -> None:
        self.keys = keys
        self.values = values

    @staticmethod
    def empty(num_layers: int, num_kv_heads: int, head_dim: int, device: torch.device, dtype: torch.dtype) -> KeyValues:
        def nothing() -> list[torch.Tensor]:
            return [torch.empty(num_kv_heads, 0, head_dim, device=device, dtype=dtype) for _ in range(num_layers)]

        return KeyValues(nothing(), nothing())

    @staticmethod
    def concatenate(parts: list[KeyValues]) -> KeyValues:
        if len(parts) == 1:
            return parts[0]
        layers = range(len(parts[0].keys))
        return KeyValues(
            [torch.cat([part.keys[i] for part in parts], dim=1) for i in layers],
            [torch.cat([part.values[i] for part in parts], dim=1) for i in layers],
        )

    def with_room(self, num_tokens: int) -> KeyValues:
        """Zeros in the same form for ``num_tokens`` tokens."""

        def room(like: torch.Tensor) -> torch.Tensor:
            return like.new_zeros(like.shape[0], num_tokens, like.shape[2])

        return KeyValues([room(key) for key in self.keys], [room(value) for value in self.values])

    def fill(self, source: KeyValues) -> None:
        """Copies the tokens of ``source`` to the front."""
        for mine, theirs in ((self.keys, source.keys), (self.values, source.values)):
            for to, tensor in zip(mine, theirs, strict=True):
                to[:, : tensor.shape[1]] = tensor

    @property
    def num_tokens(self) -> int:
        return self.keys[0].shape[1]

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))


class SuffixSlab:
    """Keys and values of the questions in flight: per layer [W, Hkv, C, D], one row per question, C tokens of room.

    ``version`` changes whenever the tensors are other ones than before.
    """

    def __init__(self, like: KeyValues, num_rows: int, capacity: int) -> None:
        def room(tensor: torch.Tensor) -> torch.Tensor:
            # Zeros, not empty: a weight of zero times a left-over NaN would be NaN.
            return tensor.new_zeros(num_rows, tensor.shape[0], capacity, tensor.shape[2])

        self.keys = [room(key) for key in like.keys]
        self.values = [room(value) for value in like.values]
        self.version = 0

    @property
    def num_rows(self) -> int:
        return self.keys[0].shape[0]

    @property
    def capacity(self) -> int:
        return self.keys[0].shape[2]

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

    def grow(self, capacity: int) -> None:
        """Makes room for ``capacity`` tokens per row, layer by layer so that only one layer exists twice."""
        self.version += 1
        for tensors in (self.keys, self.values):
            for i, old in enumerate(tensors):
                new = old.new_zeros(old.shape[0], old.shape[1], capacity, old.shape[3])
                new[:, :, : old.shape[2]] = old
                tensors[i] = new

    def copy_beginnings(self, branches: SuffixSlab, branch_of_row: torch.Tensor, depth: int) -> None:
        """Fills the first tokens of the first rows from the branch [N] that each row begins with."""
        num_rows = len(branch_of_row)
        for mine, theirs in ((self.keys, branches.keys), (self.values, branches.values)):
            for to, source in zip(mine, theirs, strict=True):
                to[:num_rows, :, :depth] = source[branch_of_row, :, :depth]

    def keep(self, rows: torch.Tensor, num_tokens: int) -> None:
        """Moves the first tokens of the given rows, in ascending order, to the front."""
        for tensors in (self.keys, self.values):
            for tensor in tensors:
                tensor[: len(rows), :, :num_tokens] = tensor[rows, :, :num_tokens]


class SlabKeeper:
    """Hands out one slab and keeps it, so that one wave after the other finds its memory (and a GPU its graphs).

    A slab that fits is used again, with whatever its rows held; the kept one never has more than ``max_bytes``, unless
    a single wave asks for more.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._slab: SuffixSlab | None = None

    def get(self, like: KeyValues, num_rows: int, capacity: int) -> SuffixSlab:
        """A slab of at least that many rows and tokens per row; the one given before is no longer to be used."""
        old = self._slab
        if old is not None and old.num_rows >= num_rows and old.capacity >= capacity:
            return old
        if old is not None:
            wide = max(old.num_rows, num_rows), max(old.capacity, capacity)
            if wide[0] * wide[1] * old.num_bytes <= self._max_bytes * old.num_rows * old.capacity:
                num_rows, capacity = wide
        self._slab = old = None  # before the new one is made: both may not fit
        self._slab = SuffixSlab(like, num_rows, capacity)
        return self._slab

    def clear(self) -> None:
        """Gives the memory back."""
        self._slab = None


def write(slab: torch.Tensor, new: torch.Tensor, spans: Spans) -> None:
    """Puts ``new`` [Hkv, T, D] of the packed tokens into their places in ``slab`` [W, Hkv, C, D]."""
    if slab.device.type != "cpu" or spans.prefix_length is not None:
        write_scattered(slab, new, spans)
        return
    for group in spans.groups:
        n, s = len(group.rows), group.num_tokens
        part = new[:, group.first_token : group.first_token + n * s]
        block = part.reshape(part.shape[0], n, s, part.shape[2]).transpose(0, 1)  # [n, Hkv, s, D]
        rows = group.row_slice
        if rows is not None and group.equally_seen:
            first = int(group.num_seen[0])
            slab[rows, :, first : first + s] = block
        else:
            index = torch.from_numpy(group.rows)[:, None]
            places = torch.from_numpy(group.num_seen)[:, None] + torch.arange(s)
            slab[index, :, places] = block.transpose(1, 2)


def write_scattered(slab: torch.Tensor, new: torch.Tensor, spans: Spans) -> None:
    """The same in one indexed store, without the host's view of the spans."""
    slab[spans.token_row, :, spans.token_place] = new.transpose(0, 1)
