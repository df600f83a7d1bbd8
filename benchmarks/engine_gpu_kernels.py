"""The kernels' part of :mod:`benchmarks.engine_gpu`: right, fast, and with which tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from vlm3_kernels import speed
from vlm3_kernels.lm_head import dispatch as head
from vlm3_kernels.lm_head import reference as head_reference
from vlm3_kernels.prefix_attention import dispatch as attention
from vlm3_kernels.prefix_attention import reference
from vlm3_kernels.prefix_attention.spans import Keys, Spans

from benchmarks.engine_gpu_model import Bench, Results
from recon.engine.fp8 import Fp8Linear, check_device, quantise_rows
from recon.errors import BadInputError


def check_kernels(bench: Bench) -> Results:
    """Largest absolute differences of the kernels (on a GPU) from the references in float64, in odd shapes.

    Raises:
        AssertionError: a difference is larger than rounding explains.
    """
    device = bench.device
    worst: dict[str, float] = {}
    # Of the result's own rounding, and the weights'.
    tolerance = {torch.bfloat16: 4e-2, torch.float16: 5e-3, torch.float32: 5e-6}
    generator = torch.Generator().manual_seed(0)
    for dtype, allowed in tolerance.items():
        for lengths, seen, num_prefix in (
            ([1, 1, 1], [0, 4, 70], 65),
            ([3, 1, 8], [2, 0, 63], 131),
            ([63, 1, 20], [0, 0, 5], 77),
            ([131], [0], 0),
        ):
            query, keys, spans = _attention_case(lengths, seen, num_prefix, dtype, generator, device)
            got = attention.prefix_attention(query, keys, spans, 0.2)
            exact_keys = Keys(*(torch.nan_to_num(t).double() for t in keys))
            exact = reference.prefix_attention(query.double(), exact_keys, spans, 0.2)
            error = float((got.double() - exact).abs().max())
            key = f"prefix_attention {str(dtype)[6:]}"
            worst[key] = max(worst.get(key, 0.0), error)
            assert error < allowed, f"{key}, spans {lengths}: {error}"
        yield key, worst[key]
    for tokens, vocabulary, hidden in ((1, 300, 64), (131, 2049, 96), (63, 5000, 256)):
        x = torch.randn(tokens, hidden, generator=generator).to(device)
        w = torch.randn(vocabulary, hidden, generator=generator).to(device)
        ours, exact_head = head.lm_head(x, w), head_reference.lm_head(x.double(), w.double())
        assert torch.equal(ours.token, exact_head.token)
        error = max(float((a.double() - b).abs().max()) for a, b in zip(ours[1:], exact_head[1:], strict=True))
        worst["lm_head float32"] = max(worst.get("lm_head float32", 0.0), error)
        assert error < 1e-4, f"lm_head: {error}"
    yield "lm_head float32", worst["lm_head float32"]


def _attention_case(
    lengths: Sequence[int],
    seen: Sequence[int],
    num_prefix: int,
    dtype: torch.dtype,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[torch.Tensor, Keys, Spans]:
    """Random tensors; on a GPU the slab holds NaN wherever no query may read."""
    num_kv, group, dim = 2, 4, 64
    rows = list(range(len(lengths), 0, -1))
    room = max(a + b for a, b in zip(lengths, seen, strict=True)) + 3

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    own = random(len(lengths) + 1, num_kv, room, dim), random(len(lengths) + 1, num_kv, room, dim)
    if device.type == "cuda":
        for row, length, held in zip(rows, lengths, seen, strict=True):
            for tensor in own:
                tensor[0], tensor[row, :, held + length :] = torch.nan, torch.nan
    prefix = random(num_kv, num_prefix, dim), random(num_kv, num_prefix, dim)
    query = random(sum(lengths), num_kv * group, dim)
    return query, Keys(*prefix, *own), Spans.pack(rows, lengths, seen, device)


@torch.inference_mode()
def kernel_speed(bench: Bench) -> Results:
    """Per kernel: time, TFLOP/s, GB/s, beside the peaks of this run and other libraries' attention."""
    cases = speed.cases(bench.device, bench.checkpoint.dtype, speed.TINY if bench.tiny else None)
    for name, case in cases.items():
        yield name, speed.measure_case(name, case, bench.device)


@torch.inference_mode()
def tiles(bench: Bench) -> Results:
    """The kernels with other tile sizes (on a GPU: elsewhere there is nothing to choose)."""
    if bench.device.type == "cuda":
        from vlm3_kernels import tile_sweep  # Triton is not there on every platform

        for name, measure in tile_sweep.choices(bench.device, bench.checkpoint.dtype):
            yield name, measure()


@torch.inference_mode()
def elementwise(bench: Bench) -> Results:
    """One layer's norm, MLP and 8-bit rounding as they are, beside their products alone and ``torch.compile``."""
    text = bench.checkpoint.model.model.language_model
    layer, tokens = text.layers[0], 60 if bench.tiny else 8192
    x = torch.randn(1, tokens, text.config.hidden_size, device=bench.device, dtype=bench.checkpoint.dtype)
    mlp = layer.mlp
    inner = mlp.gate_proj(x)
    works: dict[str, tuple[Callable[[torch.Tensor], object], torch.Tensor]] = {
        "norm": (layer.input_layernorm, x),
        "mlp": (mlp, x),
        "mlp products": (lambda x: (mlp.gate_proj(x), mlp.up_proj(x), mlp.down_proj(inner)), x),
        "layer's products of the attention": (lambda x: [getattr(layer.self_attn, f"{n}_proj")(x) for n in "qkv"], x),
        "8-bit rounding": (quantise_rows, x[0]),
    }
    for name, (work, given) in works.items():
        yield f"{name}, ms", speed.median_ms(partial(work, given), bench.device)
    try:
        check_device(bench.device)
    except BadInputError as error:
        yield "8-bit product", str(error)
    else:
        product = Fp8Linear(mlp.gate_proj)
        yield "8-bit product with rounding, ms", speed.median_ms(lambda: product(x), bench.device)
    if bench.device.type == "cuda":
        for name in ("norm", "mlp", "8-bit rounding"):
            work, given = works[name]
            compiled = torch.compile(work)
            yield f"{name} compiled, ms", speed.median_ms(partial(compiled, given), bench.device)
