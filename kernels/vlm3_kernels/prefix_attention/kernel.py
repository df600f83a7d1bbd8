"""Triton kernels of prefix attention.

    out[t] = softmax(scale * q[t] [K_prefix; K_own[:e(t)]]^T) [V_prefix; V_own[:e(t)]],   e(t) = num_seen + i + 1

The prefix is the same for all queries, so queries of *all* questions are packed into the M dimension of one matrix
product with it, together with the query heads that share a key-value head (GQA): row ``m`` of a tile is token
``m // G`` and head ``m % G``. Own keys differ per question. One online softmax (Milakov & Gimelshein 2018; tiling as in
FlashAttention, Dao 2022) in float32 runs over both parts; sharing the prefix part follows Hydragen (Juravsky et al.
2024), without its second pass over results in memory.

``_prefix_attention_prefill``: one program per tile of BLOCK_M rows and key-value head. After the prefix it walks over
the few spans that the tile touches. For spans of many tokens.
``_prefix_attention_shared`` and ``_prefix_attention_own``: for short spans (decoding), where a tile touches one span
per token or two: the first leaves the online softmax's state (accumulator, maximum, sum) of the prefix part, the
second, one program per span and key-value head, resumes it over the span's own keys.

All offsets into keys and values are 64-bit: a slab of 3072 questions exceeds 2^31 elements.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
import triton.language as tl

from vlm3_kernels.prefix_attention.spans import SHORT_SPAN_TOKENS, Keys, Spans


@triton.jit
def _online_step(b_q, b_k, b_v, m_keys, b_acc, b_max, b_sum, scale_log2, PRECISION: tl.constexpr):
    """Takes one block of keys into the online softmax. ``b_k`` [D, N], ``b_v`` [N, D], ``m_keys`` [M or 1, N]."""
    b_s = tl.dot(b_q, b_k, input_precision=PRECISION) * scale_log2  # [M, N]
    b_s = tl.where(m_keys, b_s, float("-inf"))
    b_new = tl.maximum(b_max, tl.max(b_s, 1))
    b_shift = tl.where(b_new == float("-inf"), 0.0, b_new)  # a row that has seen no key yet stays empty
    b_p = tl.exp2(b_s - b_shift[:, None])
    b_decay = tl.exp2(b_max - b_shift)
    b_sum = b_sum * b_decay + tl.sum(b_p, 1)
    b_acc = b_acc * b_decay[:, None] + tl.dot(b_p.to(b_v.dtype), b_v, input_precision=PRECISION)
    return b_acc, b_new, b_sum


@triton.jit
def _over_prefix(
    b_q, b_acc, b_max, b_sum, prefix_key, prefix_value, i_head, num_prefix, prefix_room, scale_log2,
    DIM: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The online softmax over the first ``num_prefix`` of ``prefix_room`` keys [Hkv, P, D] of one key-value head."""
    o_d = tl.arange(0, DIM)
    o_n = tl.arange(0, BLOCK_N)
    base = i_head.to(tl.int64) * prefix_room * DIM
    for begin in range(0, num_prefix, BLOCK_N):
        n = begin + o_n
        m_n = n < num_prefix
        b_k = tl.load(prefix_key + base + n[None, :] * DIM + o_d[:, None], mask=m_n[None, :], other=0.0)
        b_v = tl.load(prefix_value + base + n[:, None] * DIM + o_d[None, :], mask=m_n[:, None], other=0.0)
        b_acc, b_max, b_sum = _online_step(b_q, b_k, b_v, m_n[None, :], b_acc, b_max, b_sum, scale_log2, PRECISION)
    return b_acc, b_max, b_sum


@triton.jit
def _prefix_attention_prefill(
    query, prefix_key, prefix_value, own_key, own_value, out,
    row, first_token, num_seen, span_of_token,
    num_tokens, num_prefix, capacity, num_spans, scale_log2,
    NUM_KV: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    i_tile, i_head = tl.program_id(0), tl.program_id(1)
    o_m = i_tile * BLOCK_M + tl.arange(0, BLOCK_M)
    o_d = tl.arange(0, DIM)
    token, head = o_m // GROUP, i_head * GROUP + o_m % GROUP
    m_m = token < num_tokens
    o_q = (token.to(tl.int64) * (NUM_KV * GROUP) + head)[:, None] * DIM + o_d[None, :]
    b_q = tl.load(query + o_q, mask=m_m[:, None], other=0.0)
    b_acc = tl.zeros([BLOCK_M, DIM], dtype=tl.float32)
    b_max = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    b_sum = tl.zeros([BLOCK_M], dtype=tl.float32)
    b_acc, b_max, b_sum = _over_prefix(
        b_q, b_acc, b_max, b_sum, prefix_key, prefix_value, i_head, num_prefix, num_prefix, scale_log2,
        DIM, BLOCK_N, PRECISION,
    )  # fmt: skip

    b_span = tl.load(span_of_token + token, mask=m_m, other=-1)
    first = tl.load(span_of_token + (i_tile * BLOCK_M) // GROUP)
    last_token = tl.minimum(((i_tile + 1) * BLOCK_M - 1) // GROUP, num_tokens - 1)
    last = tl.load(span_of_token + last_token)
    o_n = tl.arange(0, BLOCK_N)
    for i_span in range(first, last + 1):
        begin_token = tl.load(first_token + i_span)
        seen = tl.load(num_seen + i_span)
        mine = b_span == i_span
        b_last = seen + token - begin_token  # last own key that each row sees
        end = seen + tl.minimum(tl.load(first_token + i_span + 1) - 1, last_token) - begin_token + 1
        base = (tl.load(row + i_span).to(tl.int64) * NUM_KV + i_head) * capacity * DIM
        for begin in range(0, end, BLOCK_N):
            n = begin + o_n
            m_n = n < end
            b_k = tl.load(own_key + base + n[None, :] * DIM + o_d[:, None], mask=m_n[None, :], other=0.0)
            b_v = tl.load(own_value + base + n[:, None] * DIM + o_d[None, :], mask=m_n[:, None], other=0.0)
            m_keys = mine[:, None] & (n[None, :] <= b_last[:, None])
            b_acc, b_max, b_sum = _online_step(b_q, b_k, b_v, m_keys, b_acc, b_max, b_sum, scale_log2, PRECISION)
    tl.store(out + o_q, (b_acc / b_sum[:, None]).to(out.dtype.element_ty), mask=m_m[:, None])


@triton.jit
def _prefix_attention_shared(
    query, prefix_key, prefix_value, prefix_length, state_acc, state_max, state_sum,
    num_tokens, prefix_room, scale_log2,
    NUM_KV: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    i_tile, i_head = tl.program_id(0), tl.program_id(1)
    o_m = i_tile * BLOCK_M + tl.arange(0, BLOCK_M)
    o_d = tl.arange(0, DIM)
    token, head = o_m // GROUP, i_head * GROUP + o_m % GROUP
    m_m = token < num_tokens
    o_r = token.to(tl.int64) * (NUM_KV * GROUP) + head
    b_q = tl.load(query + o_r[:, None] * DIM + o_d[None, :], mask=m_m[:, None], other=0.0)
    b_acc = tl.zeros([BLOCK_M, DIM], dtype=tl.float32)
    b_max = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    b_sum = tl.zeros([BLOCK_M], dtype=tl.float32)
    b_acc, b_max, b_sum = _over_prefix(
        b_q, b_acc, b_max, b_sum, prefix_key, prefix_value, i_head, tl.load(prefix_length), prefix_room, scale_log2,
        DIM, BLOCK_N, PRECISION,
    )  # fmt: skip
    tl.store(state_acc + o_r[:, None] * DIM + o_d[None, :], b_acc, mask=m_m[:, None])
    tl.store(state_max + o_r, b_max, mask=m_m)
    tl.store(state_sum + o_r, b_sum, mask=m_m)


@triton.jit
def _prefix_attention_own(
    query, own_key, own_value, state_acc, state_max, state_sum, out,
    row, first_token, num_seen,
    capacity, scale_log2,
    NUM_KV: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    i_span, i_head = tl.program_id(0), tl.program_id(1)
    begin_token = tl.load(first_token + i_span)
    length = tl.load(first_token + i_span + 1) - begin_token
    seen = tl.load(num_seen + i_span)
    o_m = tl.arange(0, BLOCK_M)
    o_d = tl.arange(0, DIM)
    o_n = tl.arange(0, BLOCK_N)
    inside = o_m // GROUP
    m_m = inside < length
    o_r = (begin_token + inside).to(tl.int64) * (NUM_KV * GROUP) + i_head * GROUP + o_m % GROUP
    o_q = o_r[:, None] * DIM + o_d[None, :]
    b_q = tl.load(query + o_q, mask=m_m[:, None], other=0.0)
    b_acc = tl.load(state_acc + o_q, mask=m_m[:, None], other=0.0)
    b_max = tl.load(state_max + o_r, mask=m_m, other=float("-inf"))
    b_sum = tl.load(state_sum + o_r, mask=m_m, other=0.0)
    base = (tl.load(row + i_span).to(tl.int64) * NUM_KV + i_head) * capacity * DIM
    end = seen + length
    b_last = seen + inside
    for begin in range(0, end, BLOCK_N):
        n = begin + o_n
        m_n = n < end
        b_k = tl.load(own_key + base + n[None, :] * DIM + o_d[:, None], mask=m_n[None, :], other=0.0)
        b_v = tl.load(own_value + base + n[:, None] * DIM + o_d[None, :], mask=m_n[:, None], other=0.0)
        m_keys = n[None, :] <= b_last[:, None]
        b_acc, b_max, b_sum = _online_step(b_q, b_k, b_v, m_keys, b_acc, b_max, b_sum, scale_log2, PRECISION)
    tl.store(out + o_q, (b_acc / b_sum[:, None]).to(out.dtype.element_ty), mask=m_m[:, None])


@dataclass(frozen=True)
class Tiles:
    """Tile sizes: rows (tokens x heads of a group) and keys; warps and pipeline stages. Chosen for no spills."""

    block_m: int = 128
    block_n: int = 64
    num_warps: int = 8
    num_stages: int = 2


# By architecture: the largest tiles that do not spill.
PREFILL_TILES = {
    "sm_80": Tiles(block_n=32),
    "sm_90": Tiles(),
    "gfx942": Tiles(num_warps=4),
}
SHARED_TILES = Tiles(block_m=64, num_warps=4)
OWN_TILES = Tiles(block_m=16, block_n=64, num_warps=2)
# Exact float32 products use no tensor cores: they are unrolled, and large tiles would spill and compile for minutes.
FLOAT32_TILES = Tiles(block_m=16, block_n=16, num_warps=4, num_stages=1)


def tiles_for(part: str, architecture: str, dtype: torch.dtype) -> Tiles:
    """Tiles of a kernel, ``prefill``, ``shared`` or ``own``."""
    if dtype.itemsize > 2:
        return FLOAT32_TILES
    return {"prefill": PREFILL_TILES[architecture], "shared": SHARED_TILES, "own": OWN_TILES}[part]


def _architecture(device: torch.device) -> str:
    """The key of :data:`PREFILL_TILES` that fits a device best."""
    if torch.version.hip:
        return "gfx942"
    if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 9:
        return "sm_90"
    return "sm_80"


def prefix_attention(query: torch.Tensor, keys: Keys, spans: Spans, scale: float) -> torch.Tensor:
    """As :func:`vlm3_kernels.prefix_attention.reference.prefix_attention`; unseen slab places may hold anything.

    D must be a power of two of at least 16.
    """
    prefix_key, prefix_value, own_key, own_value = keys
    num_tokens, num_heads, dim = query.shape
    num_kv, num_prefix, _ = prefix_key.shape
    group = num_heads // num_kv
    if dim < 16 or dim & (dim - 1):
        raise ValueError(f"head dimension must be a power of two of at least 16, got {dim}")
    query = query.contiguous()
    for name, tensor in keys._asdict().items():
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous")
    out = torch.empty_like(query)
    if num_tokens == 0:
        return out
    scale_log2 = scale * 1.4426950408889634  # exp2 is the hardware's exponential
    capacity, num_spans = own_key.shape[2], len(spans.row)
    # Without it float32 products would run in TF32 and leave the contract of exact float32.
    fixed: dict[str, Any] = {"NUM_KV": num_kv, "GROUP": group, "DIM": dim, "PRECISION": "ieee"}

    architecture = _architecture(query.device)
    prefill, shared, own = (tiles_for(part, architecture, query.dtype) for part in ("prefill", "shared", "own"))

    def grid(tiles: Tiles) -> tuple[int, int]:
        return triton.cdiv(num_tokens * group, tiles.block_m), num_kv

    def launch(tiles: Tiles) -> dict[str, Any]:
        return {
            **fixed,
            "BLOCK_M": tiles.block_m,
            "BLOCK_N": tiles.block_n,
            "num_warps": tiles.num_warps,
            "num_stages": tiles.num_stages,
            "enable_fp_fusion": True,
        }

    if spans.longest > SHORT_SPAN_TOKENS:
        if spans.prefix_length is not None:
            raise ValueError(f"spans in buffers of fixed size have at most {SHORT_SPAN_TOKENS} tokens")
        lengths = (spans.first_token[1:] - spans.first_token[:-1]).long()
        span_of_token = torch.repeat_interleave(lengths, output_size=num_tokens).to(torch.int32)
        _prefix_attention_prefill[grid(prefill)](
            query, prefix_key, prefix_value, own_key, own_value, out,
            spans.row, spans.first_token, spans.num_seen, span_of_token,
            num_tokens, num_prefix, capacity, num_spans, scale_log2,
            **launch(prefill),
        )  # fmt: skip
        return out
    state_acc = torch.empty(num_tokens, num_heads, dim, dtype=torch.float32, device=query.device)
    state_max = torch.empty(num_tokens, num_heads, dtype=torch.float32, device=query.device)
    state_sum = torch.empty_like(state_max)
    prefix_length = spans.prefix_length
    if prefix_length is None:
        prefix_length = torch.full((1,), num_prefix, dtype=torch.int32, device=query.device)
    _prefix_attention_shared[grid(shared)](
        query, prefix_key, prefix_value, prefix_length, state_acc, state_max, state_sum,
        num_tokens, num_prefix, scale_log2,
        **launch(shared),
    )  # fmt: skip
    rows = max(own.block_m, triton.next_power_of_2(spans.longest * group))
    _prefix_attention_own[(num_spans, num_kv)](
        query, own_key, own_value, state_acc, state_max, state_sum, out,
        spans.row, spans.first_token, spans.num_seen,
        capacity, scale_log2,
        **launch(replace(own, block_m=rows)),
    )  # fmt: skip
    return out
