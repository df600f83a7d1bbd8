"""Triton kernels of the greedy language-model head: the logits are never written to memory.

    logits = hidden weight^T;  token = argmax,  lse = log sum exp,  margin = top1 - top2

``_lm_head_blocks``: one program per tile of BLOCK_M tokens and a slice of the vocabulary; it multiplies tile by tile
and keeps, per token, the best two logits, the best's index, and the running sum of exponentials (the online log-sum-exp
of Milakov & Gimelshein 2018). ``_lm_head_merge`` joins the slices. Equal logits resolve to the lowest index, as argmax.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from vlm3_kernels.lm_head.reference import HeadOutput

SLICE_BLOCKS = 16  # vocabulary blocks per program: 152 k entries make 75 slices


@dataclass(frozen=True)
class Tiles:
    """Tile sizes in tokens, vocabulary entries and hidden units; warps and pipeline stages."""

    block_m: int = 128
    block_v: int = 128
    block_h: int = 64
    num_warps: int = 8
    num_stages: int = 3


TILES = Tiles()
FLOAT32_TILES = Tiles(32, 64, 32, num_warps=4, num_stages=1)  # no tensor cores: unrolled products spill in large tiles


def tiles_for(dtype: torch.dtype) -> Tiles:
    return FLOAT32_TILES if dtype.itemsize > 2 else TILES


@triton.jit
def _lm_head_blocks(
    hidden, weight, best, second, index, total,
    num_tokens, num_vocab, num_slices,
    HIDDEN: tl.constexpr, SLICE_BLOCKS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    i_tile, i_slice = tl.program_id(0), tl.program_id(1)
    o_m = i_tile * BLOCK_M + tl.arange(0, BLOCK_M)
    o_h = tl.arange(0, BLOCK_H)
    m_m = o_m < num_tokens
    b_best = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    b_second = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    b_index = tl.zeros([BLOCK_M], dtype=tl.int32)
    b_total = tl.zeros([BLOCK_M], dtype=tl.float32)
    for i_block in range(SLICE_BLOCKS):
        v = (i_slice * SLICE_BLOCKS + i_block) * BLOCK_V + tl.arange(0, BLOCK_V)
        m_v = v < num_vocab
        b_logit = tl.zeros([BLOCK_M, BLOCK_V], dtype=tl.float32)
        for begin in range(0, HIDDEN, BLOCK_H):
            h = begin + o_h
            m_h = h < HIDDEN
            p_x = hidden + o_m.to(tl.int64)[:, None] * HIDDEN + h[None, :]
            p_w = weight + v.to(tl.int64)[None, :] * HIDDEN + h[:, None]
            b_x = tl.load(p_x, mask=m_m[:, None] & m_h[None, :], other=0.0)
            b_w = tl.load(p_w, mask=m_v[None, :] & m_h[:, None], other=0.0)
            b_logit = tl.dot(b_x, b_w, b_logit, input_precision=PRECISION)
        b_logit = tl.where(m_v[None, :], b_logit, float("-inf"))
        b_top = tl.max(b_logit, 1)
        b_arg = tl.min(tl.where(b_logit == b_top[:, None], v[None, :], 2147483647), 1)
        b_next = tl.max(tl.where(v[None, :] == b_arg[:, None], float("-inf"), b_logit), 1)
        b_new = tl.maximum(b_best, b_top)
        b_shift = tl.where(b_new == float("-inf"), 0.0, b_new)
        b_total = b_total * tl.exp(b_best - b_shift) + tl.sum(tl.exp(b_logit - b_shift[:, None]), 1)
        b_second = tl.maximum(tl.maximum(b_second, b_next), tl.minimum(b_best, b_top))
        b_index = tl.where(b_top > b_best, b_arg, b_index)  # on a tie the earlier block stays
        b_best = b_new
    o_r = i_slice * num_tokens + o_m
    tl.store(best + o_r, b_best, mask=m_m)
    tl.store(second + o_r, b_second, mask=m_m)
    tl.store(index + o_r, b_index, mask=m_m)
    tl.store(total + o_r, b_total, mask=m_m)


@triton.jit
def _lm_head_merge(
    best, second, index, total, token, logit, log_sum_exp, margin,
    num_tokens, num_slices,
    BLOCK_M: tl.constexpr,
):  # fmt: skip
    o_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    m_m = o_m < num_tokens
    b_best = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    b_second = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    b_index = tl.zeros([BLOCK_M], dtype=tl.int32)
    b_total = tl.zeros([BLOCK_M], dtype=tl.float32)
    for i_slice in range(num_slices):
        o_r = i_slice * num_tokens + o_m
        s_best = tl.load(best + o_r, mask=m_m, other=float("-inf"))
        s_second = tl.load(second + o_r, mask=m_m, other=float("-inf"))
        s_index = tl.load(index + o_r, mask=m_m, other=0)
        s_total = tl.load(total + o_r, mask=m_m, other=0.0)
        b_new = tl.maximum(b_best, s_best)
        b_shift = tl.where(b_new == float("-inf"), 0.0, b_new)
        b_total = b_total * tl.exp(b_best - b_shift) + s_total * tl.exp(s_best - b_shift)
        b_second = tl.maximum(tl.maximum(b_second, s_second), tl.minimum(b_best, s_best))
        b_index = tl.where(s_best > b_best, s_index, b_index)
        b_best = b_new
    tl.store(token + o_m, b_index.to(tl.int64), mask=m_m)
    tl.store(logit + o_m, b_best, mask=m_m)
    tl.store(log_sum_exp + o_m, b_best + tl.log(b_total), mask=m_m)
    tl.store(margin + o_m, b_best - b_second, mask=m_m)


def lm_head(hidden: torch.Tensor, weight: torch.Tensor) -> HeadOutput:
    """As :func:`vlm3_kernels.lm_head.reference.lm_head`. ``hidden`` [T, H], ``weight`` [V, H], V at least 2."""
    num_tokens, num_hidden = hidden.shape
    num_vocab = weight.shape[0]
    hidden = hidden.contiguous()
    if not weight.is_contiguous():
        raise ValueError("weight must be contiguous")
    tiles = tiles_for(hidden.dtype)
    num_slices = triton.cdiv(num_vocab, tiles.block_v * SLICE_BLOCKS)

    def per_slice(dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(num_slices, num_tokens, dtype=dtype, device=hidden.device)

    best, second, index, total = per_slice(), per_slice(), per_slice(torch.int32), per_slice()
    out = HeadOutput(
        torch.empty(num_tokens, dtype=torch.int64, device=hidden.device),
        *(torch.empty(num_tokens, dtype=torch.float32, device=hidden.device) for _ in range(3)),
    )
    if num_tokens == 0:
        return out
    _lm_head_blocks[(triton.cdiv(num_tokens, tiles.block_m), num_slices)](
        hidden, weight, best, second, index, total, num_tokens, num_vocab, num_slices,
        HIDDEN=num_hidden, SLICE_BLOCKS=SLICE_BLOCKS,
        BLOCK_M=tiles.block_m, BLOCK_V=tiles.block_v, BLOCK_H=tiles.block_h,
        PRECISION="ieee", num_warps=tiles.num_warps, num_stages=tiles.num_stages,
    )  # fmt: skip
    _lm_head_merge[(triton.cdiv(num_tokens, 128),)](
        best, second, index, total, *out, num_tokens, num_slices, BLOCK_M=128, num_warps=4
    )
    return out
