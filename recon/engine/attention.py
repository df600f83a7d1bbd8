"""Our attention function inside Hugging Face's layers.

It is registered with ``transformers.AttentionInterface``; the engine hands a context through the forward kwargs, which
keeps the keys and values and decides what a token sees. Only the layers of the engine's twin of the model
(:mod:`recon.engine.modules`) are switched to it, so ``generate`` on the checkpoint's own model is untouched.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from transformers import AttentionInterface
from vlm3_kernels.prefix_attention import dispatch
from vlm3_kernels.prefix_attention.spans import Keys, Spans

from recon.engine.keyvalues import KeyValues, SuffixSlab, write

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
    recon_context: AttentionContext,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The registered attention function."""
    return recon_context.attend(module.layer_idx, query, key, value, kwargs["scaling"]), None


def register() -> None:
    """Registers the attention function under :data:`ATTENTION_NAME`; repeatable."""
    AttentionInterface.register(ATTENTION_NAME, attention_forward)


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
    group = query.shape[1] // key.shape[1]
    if num_queries == num_keys:
        return sdpa(query, key, value, is_causal=True, scale=scale, enable_gqa=group > 1)
    # With a mask CUDA's fused attention takes no grouped heads, and what it falls back on holds all scores in memory.
    key, value = (tensor.repeat_interleave(group, dim=1) for tensor in (key, value))
    out = torch.empty_like(query)
    columns = torch.arange(num_keys, device=query.device)
    for begin in range(0, num_queries, _QUERY_CHUNK):
        end = min(begin + _QUERY_CHUNK, num_queries)
        last = num_keys - num_queries + torch.arange(begin, end, device=query.device)
        visible = num_keys - num_queries + end  # keys after it are hidden from the whole chunk
        mask = columns[None, :visible] <= last[:, None]
        out[:, :, begin:end] = sdpa(
            query[:, :, begin:end], key[:, :, :visible], value[:, :, :visible], mask, scale=scale
        )
    return out


class SuffixContext:
    """Packed question tokens: each span sees the prefix and its own slab row, into which it writes."""

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
        keys = Keys(
            self._prefix.keys[layer], self._prefix.values[layer], self._slab.keys[layer], self._slab.values[layer]
        )
        return dispatch.prefix_attention(query[0].transpose(0, 1), keys, self._query_spans, scale)[None]

    def store(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Puts the tokens' keys and values [1, Hkv, T, D] into the slab."""
        write(self._slab.keys[layer], key[0], self._spans)
        write(self._slab.values[layer], value[0], self._spans)
