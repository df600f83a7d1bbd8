"""How fast the kernels are, beside the peaks of the same device in the same run and beside others' attention.

Every figure is a median over launches timed with the device's own events. A case that fails says so in its row and
leaves the others alone.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from vlm3_kernels.lm_head import dispatch as head
from vlm3_kernels.prefix_attention import dispatch as attention
from vlm3_kernels.prefix_attention.spans import Keys, Spans


@dataclass(frozen=True)
class Shapes:
    """What is measured; the defaults are Qwen3-VL-4B's, one 1215x920 photo and 3072 questions."""

    num_heads: int = 32
    num_kv: int = 8
    dim: int = 128
    hidden: int = 2560
    vocabulary: int = 151_936
    num_prefix: int = 1102
    chunk_tokens: int = 8192
    suffix_tokens: int = 75
    num_questions: int = 3072
    own_tokens: int = 92  # a suffix and half an answer
    gemm: int = 8192
    copy_bytes: int = 1 << 31


TINY = Shapes(4, 2, 32, 64, 300, 37, 60, 12, 9, 14, 64, 1 << 16)


@dataclass(frozen=True)
class KernelRow:
    """One measurement; ``tflops`` counts the products that the task needs, ``gbytes`` the bytes it must move."""

    name: str
    ms: float
    tflops: float | None = None
    gbytes: float | None = None


Case = Callable[[], "list[KernelRow]"]


def measure(device: torch.device, dtype: torch.dtype, shapes: Shapes | None = None) -> list[dict[str, Any]]:
    """All cases one after the other; see :func:`measure_case`."""
    return [row for name, case in cases(device, dtype, shapes).items() for row in measure_case(name, case, device)]


def cases(device: torch.device, dtype: torch.dtype, shapes: Shapes | None = None) -> dict[str, Case]:
    """What there is to measure on a device, ours first."""
    s = shapes or Shapes()
    made: dict[str, Case] = {
        "peaks": lambda: peaks(device, dtype, s),
        "prefix_attention prefill": lambda: prefill(device, dtype, s),
        "prefix_attention decode": lambda: decode(device, dtype, s),
        "lm_head": lambda: lm_head(device, dtype, s),
        "SDPA": lambda: prefill_sdpa(device, dtype, s),
    }
    if device.type == "cuda":
        made["FlexAttention"] = lambda: prefill_flex(device, dtype, s)
        if importlib.util.find_spec("flashinfer") is not None:
            made["FlashInfer"] = lambda: prefill_flashinfer(device, dtype, s)
    return made


def measure_case(name: str, case: Case, device: torch.device) -> list[dict[str, Any]]:
    """The case's rows; ``{"name", "error"}`` when it failed."""
    try:
        return [vars(row) for row in case()]
    except Exception as error:  # whatever a driver or compiler raises: it is this case's result
        return [{"name": name, "error": f"{type(error).__name__}: {str(error)[:300]}"}]
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def median_ms(work: Callable[[], object], device: torch.device, repeats: int = 20) -> float:
    """Median time of a call, after three calls that are not counted."""
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize(device)
            times.append(begin.elapsed_time(end))
        else:
            start = time.perf_counter()
            work()
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def peaks(device: torch.device, dtype: torch.dtype, s: Shapes) -> list[KernelRow]:
    """A large square product and a large copy."""
    a = torch.randn(s.gemm, s.gemm, device=device).to(dtype)
    gemm = median_ms(lambda: a @ a, device)
    source = torch.empty(s.copy_bytes, dtype=torch.uint8, device=device).zero_()
    target = torch.empty_like(source)
    copy = median_ms(lambda: target.copy_(source), device)
    return [
        KernelRow("peak: product", gemm, tflops=2 * s.gemm**3 / gemm / 1e9),
        KernelRow("peak: copy", copy, gbytes=2 * s.copy_bytes / copy / 1e6),
    ]


def _keys(device: torch.device, dtype: torch.dtype, s: Shapes, rows: int, room: int, num_prefix: int) -> Keys:
    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device).to(dtype)

    own = (rows, s.num_kv, room, s.dim)
    prefix = (s.num_kv, num_prefix, s.dim)
    return Keys(random(*prefix), random(*prefix), random(*own), random(*own))


@dataclass(frozen=True)
class _Prefill:
    """A packed chunk of question suffixes over the photo; ``prefix_flops`` are the shared part of ``flops``."""

    query: torch.Tensor
    keys: Keys
    spans: Spans
    scale: float
    flops: float
    prefix_flops: float

    @staticmethod
    def make(device: torch.device, dtype: torch.dtype, s: Shapes) -> _Prefill:
        rows = s.chunk_tokens // s.suffix_tokens
        spans = Spans.pack(range(rows), [s.suffix_tokens] * rows, [0] * rows, device)
        keys = _keys(device, dtype, s, rows, s.suffix_tokens, s.num_prefix)
        query = torch.randn(spans.num_tokens, s.num_heads, s.dim, device=device).to(dtype)
        flops_per_key = 4.0 * spans.num_tokens * s.num_heads * s.dim
        own = (s.suffix_tokens + 1) / 2
        return _Prefill(
            query, keys, spans, s.dim**-0.5, flops_per_key * (s.num_prefix + own), flops_per_key * s.num_prefix
        )


def prefill(device: torch.device, dtype: torch.dtype, s: Shapes) -> list[KernelRow]:
    """Ours, all of the task."""
    p = _Prefill.make(device, dtype, s)
    ms = median_ms(lambda: attention.prefix_attention(p.query, p.keys, p.spans, p.scale), device)
    return [_row("prefill: ours", p.flops, ms)]


def prefill_sdpa(device: torch.device, dtype: torch.dtype, s: Shapes) -> list[KernelRow]:
    """PyTorch's, the prefix part alone (less work than ours)."""
    p = _Prefill.make(device, dtype, s)
    q, k, v = p.query.transpose(0, 1)[None], p.keys.prefix_key[None], p.keys.prefix_value[None]
    sdpa = torch.nn.functional.scaled_dot_product_attention
    ms = median_ms(lambda: sdpa(q, k, v, scale=p.scale, enable_gqa=True), device)
    return [_row("prefill: SDPA, prefix part alone", p.prefix_flops, ms)]


def prefill_flex(device: torch.device, dtype: torch.dtype, s: Shapes) -> list[KernelRow]:
    """All of the task in compiled FlexAttention with a block mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    p = _Prefill.make(device, dtype, s)
    num_prefix, length = s.num_prefix, s.suffix_tokens

    def packed(prefix: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        return torch.cat([prefix, own.transpose(0, 1).flatten(1, 2)], dim=1)[None]

    q = p.query.transpose(0, 1)[None].contiguous()
    k, v = packed(p.keys.prefix_key, p.keys.own_key), packed(p.keys.prefix_value, p.keys.own_value)

    def visible(b: Any, h: Any, q_index: Any, k_index: Any) -> Any:
        own = k_index - num_prefix
        return (own < 0) | ((own // length == q_index // length) & (own <= q_index))

    mask = create_block_mask(visible, None, None, q.shape[2], k.shape[2], device=str(device))
    compiled = torch.compile(flex_attention)
    ms = median_ms(lambda: compiled(q, k, v, block_mask=mask, scale=p.scale, enable_gqa=True), device)
    return [_row("prefill: FlexAttention", p.flops, ms)]


def prefill_flashinfer(device: torch.device, dtype: torch.dtype, s: Shapes) -> list[KernelRow]:
    """The shared level of FlashInfer's cascade: the prefix part alone."""
    import flashinfer  # type: ignore[import-not-found]

    p = _Prefill.make(device, dtype, s)
    k, v = (t.transpose(0, 1).contiguous() for t in (p.keys.prefix_key, p.keys.prefix_value))
    ms = median_ms(lambda: flashinfer.single_prefill_with_kv_cache(p.query, k, v, sm_scale=p.scale), device)
    return [_row("prefill: FlashInfer, prefix part alone", p.prefix_flops, ms)]


def decode(device: torch.device, dtype: torch.dtype, s: Shapes) -> list[KernelRow]:
    """One token per question: the whole pass, and without a prefix, which leaves the streaming of own keys."""
    made = []
    spans = Spans.pack(range(s.num_questions), [1] * s.num_questions, [s.own_tokens - 1] * s.num_questions, device)
    query = torch.randn(s.num_questions, s.num_heads, s.dim, device=device).to(dtype)
    own_bytes = 2 * s.num_questions * s.num_kv * s.own_tokens * s.dim * dtype.itemsize
    for name, num_prefix in (("decode: ours", s.num_prefix), ("decode: ours, own keys alone", 0)):
        keys = _keys(device, dtype, s, s.num_questions, s.own_tokens, num_prefix)
        ms = median_ms(partial(attention.prefix_attention, query, keys, spans, s.dim**-0.5), device)
        flops = 4 * s.num_questions * s.num_heads * s.dim * (num_prefix + s.own_tokens)
        made.append(KernelRow(name, ms, tflops=flops / ms / 1e9, gbytes=own_bytes / ms / 1e6))
    return made


def lm_head(device: torch.device, dtype: torch.dtype, s: Shapes) -> list[KernelRow]:
    """The head for one token per question, beside the plain product with the same matrices."""
    hidden = torch.randn(s.num_questions, s.hidden, device=device).to(dtype)
    weight = torch.randn(s.vocabulary, s.hidden, device=device).to(dtype)
    flops = 2 * s.num_questions * s.hidden * s.vocabulary
    return [
        _row("lm_head: ours", flops, median_ms(lambda: head.lm_head(hidden, weight), device)),
        _row("lm_head: plain product", flops, median_ms(lambda: hidden @ weight.T, device)),
    ]


def _row(name: str, flops: float, ms: float) -> KernelRow:
    return KernelRow(name, ms, tflops=flops / ms / 1e9)
