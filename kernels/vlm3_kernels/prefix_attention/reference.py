"""Plain PyTorch twin of the kernel, and the CPU path.

    out[t] = softmax(scale * q[t] [K_prefix; K_own[:e(t)]]^T) [V_prefix; V_own[:e(t)]]

where token ``t`` is the ``i``-th of its span and sees ``e(t) = num_seen + i + 1`` of its question's own keys.
"""

from __future__ import annotations

import torch

from vlm3_kernels.prefix_attention.spans import SpanGroup, Spans


def prefix_attention(
    query: torch.Tensor,  # [T, Hq, D]
    prefix_key: torch.Tensor,  # [Hkv, P, D]
    prefix_value: torch.Tensor,  # [Hkv, P, D]
    own_key: torch.Tensor,  # [W, Hkv, C, D]
    own_value: torch.Tensor,  # [W, Hkv, C, D]
    spans: Spans,
    scale: float,
) -> torch.Tensor:  # [T, Hq, D]
    """Attention of packed queries over a prefix shared by all and each span's own slab row.

    The own keys and values of the query tokens must already be in the slab, and places of the slab that
    no query sees must hold finite numbers (zeros). P may be 0.
    """
    out = torch.empty_like(query)
    for group in spans.groups:
        tokens = slice(group.first_token, group.first_token + len(group.rows) * group.num_tokens)
        out[tokens] = _group(query[tokens], prefix_key, prefix_value, own_key, own_value, group, scale)
    return out


def _group(
    query: torch.Tensor,
    prefix_key: torch.Tensor,
    prefix_value: torch.Tensor,
    own_key: torch.Tensor,
    own_value: torch.Tensor,
    group: SpanGroup,
    scale: float,
) -> torch.Tensor:
    n, s = len(group.rows), group.num_tokens
    num_kv, num_prefix, dim = prefix_key.shape
    g = query.shape[1] // num_kv
    out_dtype = query.dtype
    wide = torch.promote_types(out_dtype, torch.float32)
    num_own = max(group.num_seen) + s
    rows = group.row_slice
    if rows is None:
        index = torch.tensor(group.rows, device=query.device)
        keys, values = own_key[index, :, :num_own], own_value[index, :, :num_own]  # [n, Hkv, num_own, D]
    else:
        keys, values = own_key[rows, :, :num_own], own_value[rows, :, :num_own]

    q = (query * scale).view(n, s, num_kv, g, dim).permute(2, 0, 1, 3, 4).contiguous()  # [Hkv, n, s, g, D]
    prefix_scores = torch.bmm(q.view(num_kv, n * s * g, dim), prefix_key.transpose(1, 2)).to(wide)  # [Hkv, nsg, P]
    q_own = q.view(num_kv, n, s * g, dim).transpose(0, 1)  # [n, Hkv, s*g, D]
    own_scores = (q_own @ keys.transpose(2, 3)).to(wide)  # [n, Hkv, s*g, num_own]
    hidden = _hidden_keys(group, num_own, g)
    if hidden is not None:
        own_scores.masked_fill_(hidden.to(query.device), float("-inf"))

    # One softmax over both parts, in float32 (float64 for float64).
    peak = own_scores.amax(-1, keepdim=True).transpose(0, 1).reshape(num_kv, n * s * g, 1)
    if num_prefix:
        peak = torch.maximum(peak, prefix_scores.amax(-1, keepdim=True))
    prefix_weights = prefix_scores.sub_(peak).exp_()
    own_weights = own_scores.sub_(peak.view(num_kv, n, s * g, 1).transpose(0, 1)).exp_()
    total = prefix_weights.sum(-1, keepdim=True) + own_weights.sum(-1, keepdim=True).transpose(0, 1).reshape(
        num_kv, n * s * g, 1
    )
    out = torch.bmm(prefix_weights.to(out_dtype), prefix_value).view(num_kv, n, s * g, dim)
    out = out + (own_weights.to(out_dtype) @ values).transpose(0, 1)
    out = out / total.view(num_kv, n, s * g, 1).to(out_dtype)
    return out.view(num_kv, n, s, g, dim).permute(1, 2, 0, 3, 4).reshape(n * s, num_kv * g, dim)


def _hidden_keys(group: SpanGroup, num_own: int, g: int) -> torch.Tensor | None:
    """Mask of the own keys that a query must not see, [n or 1, 1, s * g, num_own]; None when it sees all of them."""
    s = group.num_tokens
    equal = group.equally_seen
    if s == 1 and equal:
        return None
    seen = torch.tensor(group.num_seen[:1] if equal else group.num_seen)
    last = seen[:, None] + torch.arange(s)  # [n, s] last own key visible to each query
    hidden = torch.arange(num_own) > last[..., None]  # [n, s, num_own]
    return hidden.repeat_interleave(g, dim=1)[:, None]
