"""Our attention function inside Hugging Face's layers.

It is registered with ``transformers.AttentionInterface``; the engine hands a context through the forward kwargs, which
keeps the keys and values and decides what a token sees. Without a context it is plain SDPA, so ``generate`` on the same
model is untouched.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from vlm3_kernels.prefix_attention import dispatch
from vlm3_kernels.prefix_attention.spans import Spans

ATTENTION_NAME = "vlm3_recon"
_QUERY_CHUNK = 1024  # rows of the score matrix held at once when a segment attends to earlier segments


class AttentionContext(Protocol):
    """What the tokens of one forward pass see, and where their keys and values go."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """``query`` [1, Hq, Tq, D], ``key`` and ``value`` [1, Hkv, T, D] after rotation -> [1, Tq, Hq, D]."""
        ...


def attention_forward(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    recon_context: AttentionContext | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The registered attention function."""
    if recon_context is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return recon_context.attend(module.layer_idx, query, key, value, kwargs["scaling"]), None


def register() -> None:
    """Registers the attention function and its mask function (SDPA's) under :data:`ATTENTION_NAME`; repeatable."""
    AttentionInterface.register(ATTENTION_NAME, attention_forward)
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)


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

    @property
    def num_tokens(self) -> int:
        return self.keys[0].shape[1]

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))


class SegmentContext:
    """A run of prefix tokens: causal among themselves, after all tokens of ``past``. Collects its own KV."""

    def __init__(self, past: KeyValues) -> None:
        self._past = past
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        self.keys.append(key[0].contiguous())
        self.values.append(value[0].contiguous())
        num_past = self._past.num_tokens
        if num_past:
            key = torch.cat([self._past.keys[layer][None], key], dim=2)
            value = torch.cat([self._past.values[layer][None], value], dim=2)
        return _causal(query, key, value, scale).transpose(1, 2)

    def collected(self) -> KeyValues:
        return KeyValues(self.keys, self.values)


def _causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """Causal attention of the last Tq of Tk tokens, [1, Hq, Tq, D]; linear memory in Tk."""
    num_queries, num_keys = query.shape[2], key.shape[2]
    sdpa = torch.nn.functional.scaled_dot_product_attention
    gqa = query.shape[1] != key.shape[1]
    if num_queries == num_keys:
        return sdpa(query, key, value, is_causal=True, scale=scale, enable_gqa=gqa)
    out = torch.empty_like(query)
    columns = torch.arange(num_keys, device=query.device)
    for begin in range(0, num_queries, _QUERY_CHUNK):
        end = min(begin + _QUERY_CHUNK, num_queries)
        last = num_keys - num_queries + torch.arange(begin, end, device=query.device)
        visible = num_keys - num_queries + end  # keys after it are hidden from the whole chunk
        mask = columns[None, :visible] <= last[:, None]
        out[:, :, begin:end] = sdpa(
            query[:, :, begin:end], key[:, :, :visible], value[:, :, :visible], mask, scale=scale, enable_gqa=gqa
        )
    return out


class SuffixSlab:
    """Keys and values of the questions in flight: per layer [W, Hkv, C, D], one row per question, C tokens of room."""

    def __init__(self, prefix: KeyValues, num_rows: int, capacity: int) -> None:
        def room(like: torch.Tensor) -> torch.Tensor:
            # Zeros, not empty: a weight of zero times a left-over NaN would be NaN.
            return like.new_zeros(num_rows, like.shape[0], capacity, like.shape[2])

        self.keys = [room(key) for key in prefix.keys]
        self.values = [room(value) for value in prefix.values]

    @property
    def num_rows(self) -> int:
        return self.keys[0].shape[0]

    @property
    def capacity(self) -> int:
        return self.keys[0].shape[2]

    def grow(self, capacity: int) -> None:
        """Makes room for ``capacity`` tokens per row, layer by layer so that only one layer exists twice."""
        for tensors in (self.keys, self.values):
            for i, old in enumerate(tensors):
                new = old.new_zeros(old.shape[0], old.shape[1], capacity, old.shape[3])
                new[:, :, : old.shape[2]] = old
                tensors[i] = new

    def copy_beginnings(self, branches: SuffixSlab, branch_of_row: torch.Tensor) -> None:
        """Fills the first tokens of every row from the branch [W] that the row begins with."""
        depth = branches.capacity
        for mine, theirs in ((self.keys, branches.keys), (self.values, branches.values)):
            for to, source in zip(mine, theirs, strict=True):
                to[:, :, :depth] = source[branch_of_row]

    def keep(self, rows: torch.Tensor) -> None:
        """Keeps only the given rows, in the given order."""
        for tensors in (self.keys, self.values):
            for i, old in enumerate(tensors):
                tensors[i] = old[rows]


class SuffixContext:
    """Packed question tokens: each span sees the prefix and its own slab row, into which it writes.

    ``query_tokens``: indices of the packed tokens whose queries the last layer computes (None: all); the spans then
    describe those queries (one per span, the last token).
    """

    def __init__(self, prefix: KeyValues, slab: SuffixSlab, spans: Spans) -> None:
        self._prefix = prefix
        self._slab = slab
        self._spans = spans
        self._query_spans = spans

    def set_query_spans(self, spans: Spans) -> None:
        """From now on the queries are fewer than the keys written: ``spans`` describes the queries."""
        self._query_spans = spans

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        self.store(layer, key, value)
        out = dispatch.prefix_attention(
            query[0].transpose(0, 1),
            self._prefix.keys[layer],
            self._prefix.values[layer],
            self._slab.keys[layer],
            self._slab.values[layer],
            self._query_spans,
            scale,
        )
        return out[None]

    def store(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Puts the tokens' keys and values [1, Hkv, T, D] into the slab."""
        write(self._slab.keys[layer], key[0], self._spans)
        write(self._slab.values[layer], value[0], self._spans)


def write(slab: torch.Tensor, new: torch.Tensor, spans: Spans) -> None:
    """Puts ``new`` [Hkv, T, D] of the packed tokens into their places in ``slab`` [W, Hkv, C, D]."""
    if slab.device.type != "cpu":
        write_scattered(slab, new, spans)
        return
    for group in spans.groups:
        n, s = len(group.rows), group.num_tokens
        part = new[:, group.first_token : group.first_token + n * s]
        block = part.reshape(part.shape[0], n, s, part.shape[2]).transpose(0, 1)  # [n, Hkv, s, D]
        rows = group.row_slice
        if rows is not None and group.equally_seen:
            slab[rows, :, group.num_seen[0] : group.num_seen[0] + s] = block
        else:
            index = torch.tensor(group.rows)[:, None]
            places = torch.tensor(group.num_seen)[:, None] + torch.arange(s)
            slab[index, :, places] = block.transpose(1, 2)


def write_scattered(slab: torch.Tensor, new: torch.Tensor, spans: Spans) -> None:
    """The same in one indexed store, without the host's view of the spans."""
    token_rows, places = spans.token_places()
    slab[token_rows, :, places] = new.transpose(0, 1)
