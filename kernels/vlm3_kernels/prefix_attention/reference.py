"""Plain PyTorch twin of the kernel, and the CPU path.

    out[t] = softmax(scale * q[t] [K_prefix; K_own[:e(t)]]^T) [V_prefix; V_own[:e(t)]]

where token ``t`` is the ``i``-th of its span and sees ``e(t) = num_seen + i + 1`` of its question's own keys.
"""

from __future__ import annotations

import torch

from vlm3_kernels.linear import linear
from vlm3_kernels.prefix_attention.spans import Keys, SpanGroup, Spans

_SCORES_AT_ONCE = 1 << 20  # scores of one head held in memory (4 MiB in float32)


def prefix_attention(query: torch.Tensor, keys: Keys, spans: Spans, scale: float) -> torch.Tensor:
    """Attention of packed queries [T, Hq, D] over the prefix and each span's own slab row -> [T, Hq, D].

    The own keys and values of the query tokens must already be in the slab, and places of the slab that
    no query sees must hold finite numbers (zeros). Hq is a multiple of Hkv.
    """
    out = torch.empty_like(query)
    if spans.prefix_length is not None:
        length = int(spans.prefix_length)
        keys = keys._replace(prefix_key=keys.prefix_key[:, :length], prefix_value=keys.prefix_value[:, :length])
    num_kv, num_prefix, _ = keys.prefix_key.shape
    for group in spans.groups:
        length = group.num_tokens
        row_of_scores = length * (query.shape[1] // num_kv) * (num_prefix + int(group.num_seen.max()) + length)
        step = max(1, _SCORES_AT_ONCE // row_of_scores)
        for part in group.split(step):
            tokens = slice(part.first_token, part.first_token + len(part.rows) * length)
            _group(query[tokens], keys, part, scale, out[tokens])
    return out


def _group(query: torch.Tensor, keys: Keys, group: SpanGroup, scale: float, out: torch.Tensor) -> None:
    """Spans of equal length, written into ``out``; head by head, so that what is at work stays in the cache."""
    n, s = len(group.rows), group.num_tokens
    prefix_key, prefix_value, own_key, own_value = keys
    num_kv, num_prefix, dim = prefix_key.shape
    g = query.shape[1] // num_kv
    wide = torch.promote_types(query.dtype, torch.float32)  # of the softmax: float32, float64 for float64
    num_own = int(group.num_seen.max()) + s
    rows = group.row_slice
    index = torch.from_numpy(group.rows).to(query.device) if rows is None else rows
    own_keys, own_values = own_key[index, :, :num_own], own_value[index, :, :num_own]  # [n, Hkv, num_own, D]
    hidden = _hidden_keys(group, num_own, g, query.device)
    heads_in = (query * scale).view(n, s, num_kv, g, dim)
    heads_out = out.view(n, s, num_kv, g, dim)
    for i_head in range(num_kv):
        q = heads_in[:, :, i_head].reshape(n * s * g, dim)
        own = torch.bmm(q.view(n, s * g, dim), own_keys[:, i_head].transpose(1, 2)).to(wide)  # [n, s*g, num_own]
        if hidden is not None:
            own.masked_fill_(hidden, float("-inf"))
        shared = linear(q, prefix_key[i_head]).to(wide)  # [n*s*g, P]
        weights = torch.cat([shared, own.view(n * s * g, num_own)], dim=1).softmax(dim=-1).to(query.dtype)
        mixed = linear(weights[:, :num_prefix], prefix_value[i_head].t()).view(n, s * g, dim)
        mixed.baddbmm_(weights[:, num_prefix:].view(n, s * g, num_own), own_values[:, i_head])
        heads_out[:, :, i_head] = mixed.view(n, s, g, dim)


def _hidden_keys(group: SpanGroup, num_own: int, g: int, device: torch.device) -> torch.Tensor | None:
    """Mask of the own keys that a query must not see, [n or 1, s * g, num_own]; None when it sees all of them."""
    s = group.num_tokens
    equal = group.equally_seen
    if s == 1 and equal:
        return None
    seen = torch.from_numpy(group.num_seen[:1] if equal else group.num_seen).to(device)
    last = seen[:, None] + torch.arange(s, device=device)  # [n, s] last own key visible to each query
    hidden = torch.arange(num_own, device=device) > last[..., None]  # [n, s, num_own]
    return hidden.repeat_interleave(g, dim=1)
