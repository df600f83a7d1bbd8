"""Everything about the engine that needs a GPU, in one call: checks, peaks, kernels, end to end, bf16 agreement.

    python -m benchmarks.engine_gpu --out benchmarks/results
    python -m benchmarks.engine_gpu --tiny --device cpu --out DIR     # the same code on a small model, without a GPU

Random weights in Qwen3-VL-4B's architecture (no download). Sections run one after the other, each by itself: one that
fails is written down as failed. Sections that would begin after ``--budget`` seconds are left out and named.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from vlm3_kernels import speed
from vlm3_kernels.lm_head import dispatch as head
from vlm3_kernels.lm_head import reference as head_reference
from vlm3_kernels.prefix_attention import dispatch as attention
from vlm3_kernels.prefix_attention import reference
from vlm3_kernels.prefix_attention.spans import Keys, Spans

from pipelines.bench import report
from recon.engine.baselines import Baselines
from recon.engine.checkpoint import Checkpoint, from_parts
from recon.engine.engine import Engine, EngineOptions
from recon.questions import depth
from recon.questions.dialects import get_dialect
from recon.questions.profile import default_profile
from recon.training.tokenizer import build_image_processor, build_tokenizer
from recon.types import Camera, Question, UnifiedImage

DIALECT = "vlm3-released"
# Qwen3-VL-4B's architecture as the public checkpoints have it.
TEXT_4B: dict[str, Any] = {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 262_144,
}
VISION_4B: dict[str, Any] = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_heads": 16,
    "out_hidden_size": 2560,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [5, 11, 17],
}
PIXELS_4B = 16_777_216  # largest photo that the public checkpoints' processor leaves at its size
VOCABULARY_4B, SECTION_4B, THETA_4B = 151_936, [24, 20, 20], 5_000_000.0
TEXT_TINY = TEXT_4B | {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
VISION_TINY = VISION_4B | {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": 64,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1],
}


@dataclass(frozen=True)
class Size:
    """How much is asked: the photo, many and few questions, answer tokens, questions for the slow ways."""

    width_px: int = 1215
    height_px: int = 920
    many: int = 3072
    few: int = 100
    answer_tokens: int = 35
    number_tokens: int = 6
    one_by_one: int = 6
    batched: int = 64
    agreement: int = 64
    repeats: int = 3


TINY = Size(97, 70, many=24, few=5, answer_tokens=5, number_tokens=2, one_by_one=2, batched=4, agreement=6, repeats=1)


@dataclass
class Bench:
    """What the sections share. Answers are forced to full length: no token ends one."""

    checkpoint: Checkpoint
    image: UnifiedImage
    size: Size
    tiny: bool

    @property
    def device(self) -> torch.device:
        return self.checkpoint.device

    def questions(self, count: int) -> list[Question]:
        """Random pixels, the same for every way of asking."""
        rng = np.random.default_rng(0)
        pixels = rng.uniform(0, 1, (count, 2)) * [self.image.camera.width_px, self.image.camera.height_px]
        return depth.ask(get_dialect(DIALECT), self.image, pixels)

    def seconds(self, work: Callable[[], object], repeats: int | None = None) -> dict[str, float]:
        """Wall-clock time of a call, after one that is not counted."""
        work()
        times = []
        for _ in range(repeats or self.size.repeats):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - start)
        return report.percentiles(times)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def make_bench(device: torch.device, dtype: torch.dtype, tiny: bool) -> Bench:
    """The model with random weights, on the device from the start."""
    form = get_dialect(DIALECT).depth
    assert form is not None
    texts = [form.prompt.format(x=1215, y=920), "user assistant"] * 2  # so that its words are one token each
    tokenizer = build_tokenizer(texts, num_merges=40 if tiny else 600)
    token = tokenizer.convert_tokens_to_ids
    text, vision = (TEXT_TINY, VISION_TINY) if tiny else (TEXT_4B, VISION_4B)
    section = [6, 5, 5] if tiny else SECTION_4B
    config = Qwen3VLConfig(
        text_config={
            **text,
            "vocab_size": len(tokenizer) if tiny else VOCABULARY_4B,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": THETA_4B,
                "mrope_section": section,
                "mrope_interleaved": True,
            },
            "eos_token_id": token("<|im_end|>"),
            "bos_token_id": token("<|endoftext|>"),
            "pad_token_id": token("<|endoftext|>"),
            "tie_word_embeddings": True,
        },
        vision_config={**vision, "patch_size": 16, "spatial_merge_size": 2},
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = Qwen3VLForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(before)
    # Answers are forced to their full length: the end token is one that the head is never going to choose.
    unreachable = config.text_config.vocab_size + 1
    model.generation_config.eos_token_id = unreachable
    model.generation_config.pad_token_id = token("<|endoftext|>")
    profile = default_profile(DIALECT, "random weights")
    checkpoint = from_parts(model, tokenizer, build_image_processor(PIXELS_4B), profile, "random weights")
    size = TINY if tiny else Size()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (size.height_px, size.width_px, 3)).astype(np.uint8)
    camera = Camera.pinhole(size.width_px, size.height_px, 1000.0, 1000.0, size.width_px / 2, size.height_px / 2)
    return Bench(checkpoint, UnifiedImage(pixels, camera, camera), size, tiny)


def check_kernels(bench: Bench) -> dict[str, Any]:
    """Worst differences of the kernels (on a GPU) from the references in float64, odd shapes, NaN where none may read.

    Raises:
        AssertionError: a difference is larger than rounding explains.
    """
    device, worst = bench.device, {}
    tolerance = {
        torch.float32: 5e-6,
        torch.float16: 5e-3,
        torch.bfloat16: 4e-2,
    }  # the result's own rounding, and the weights'
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
    for tokens, vocabulary, hidden in ((1, 300, 64), (131, 2049, 96), (63, 5000, 256)):
        x = torch.randn(tokens, hidden, generator=generator).to(device)
        w = torch.randn(vocabulary, hidden, generator=generator).to(device)
        ours, exact_head = head.lm_head(x, w), head_reference.lm_head(x.double(), w.double())
        assert torch.equal(ours.token, exact_head.token)
        error = max(float((a.double() - b).abs().max()) for a, b in zip(ours[1:], exact_head[1:], strict=True))
        worst["lm_head float32"] = max(worst.get("lm_head float32", 0.0), error)
        assert error < 1e-4, f"lm_head: {error}"
    return {"worst_absolute_error": worst}


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


def kernel_speed(bench: Bench) -> dict[str, Any]:
    """Per kernel: time, TFLOP/s, GB/s, beside the peaks of this run and other libraries' attention."""
    with torch.inference_mode():
        return {"rows": speed.measure(bench.device, bench.checkpoint.dtype, speed.TINY if bench.tiny else None)}


def end_to_end(bench: Bench) -> dict[str, Any]:
    """Many and few questions from the decoded image, whole answers and the number alone, graphs on and off."""
    made: dict[str, Any] = {}
    ways = {
        "many": (bench.size.many, bench.size.answer_tokens, {}),
        "many, number alone": (bench.size.many, bench.size.number_tokens, {}),
        "few": (bench.size.few, bench.size.answer_tokens, {}),
        "few, without CUDA graphs": (bench.size.few, bench.size.answer_tokens, {"cuda_graphs": False}),
        "many, without shared coordinates": (bench.size.many, bench.size.answer_tokens, {"share_beginnings": False}),
        "many, without last-layer pruning": (bench.size.many, bench.size.answer_tokens, {"prune_last_layer": False}),
    }
    for name, (count, tokens, changes) in ways.items():
        engine = Engine(bench.checkpoint, EngineOptions(max_new_tokens=tokens, **changes))
        questions = bench.questions(count)

        def ask(engine: Engine = engine, questions: list[Question] = questions) -> None:
            engine.prefixes.clear()
            engine.ask([bench.image], questions)

        made[name] = {"questions": count, "answer_tokens": tokens, "seconds": bench.seconds(ask)}
        made[name]["prefill_tokens_per_question"] = engine.decoder.stats.num_prefill_tokens / (
            count * (1 + bench.size.repeats)
        )
        made[name]["fixed_passes"] = engine.decoder.stats.num_fixed_steps
        engine.decoder.release()
        del engine
    return made


def ratios(bench: Bench) -> dict[str, Any]:
    """Questions per second of (a) ``generate`` per question, (b) batched ``generate`` and ours, in turns."""
    size = bench.size
    baselines = Baselines(bench.checkpoint, size.answer_tokens)
    questions = bench.questions(size.many)
    engine = Engine(bench.checkpoint, EngineOptions(max_new_tokens=size.answer_tokens))
    a = bench.seconds(lambda: baselines.one_by_one(bench.image.pixels, questions[: size.one_by_one]), 1)["median"]
    b = bench.seconds(lambda: baselines.batched(bench.image.pixels, questions[: size.batched], 32), 1)["median"]

    def ask() -> None:
        engine.prefixes.clear()
        engine.ask([bench.image], questions)

    ours = bench.seconds(ask, 1)["median"]
    per_s = {"a": size.one_by_one / a, "b": size.batched / b, "ours": size.many / ours}
    return {"questions_per_s": per_s, "times_a": per_s["ours"] / per_s["a"], "times_b": per_s["ours"] / per_s["b"]}


def agreement(bench: Bench) -> dict[str, Any]:
    """Token agreement with ``generate`` one by one, beside Hugging Face's own (batches of 8 against one by one).

    For every answer of ours that differs: where it first differs and the top-2 margin of our choice there. Where
    margins are within rounding, neither answer is the wrong one.
    """
    size = bench.size
    questions = bench.questions(size.agreement)
    baselines = Baselines(bench.checkpoint, size.answer_tokens)
    alone = baselines.one_by_one(bench.image.pixels, questions)
    in_eights = baselines.batched(bench.image.pixels, questions, 8)
    engine = Engine(bench.checkpoint, EngineOptions(max_new_tokens=size.answer_tokens))
    generated: list[Any] = []
    decode = engine.decoder.decode

    def keep(*args: Any, **kwargs: Any) -> Any:
        generated.extend(made := decode(*args, **kwargs))
        return made

    engine.decoder.decode = keep  # type: ignore[method-assign]
    engine._scouts = lambda limits, kinds: []  # type: ignore[method-assign]  # one wave: in the questions' order
    engine.ask([bench.image], questions)
    mismatches = []
    for ours, theirs in zip(generated, alone, strict=True):
        if ours.ids != theirs:
            pairs = zip(ours.ids, theirs, strict=False)
            place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours.ids), len(theirs)) - 1)
            mismatches.append({"place": place, "margin": float(ours.margins[place])})
    margins = np.concatenate([g.margins for g in generated])
    return {
        "questions": len(questions),
        "ours_equal_to_generate": statistics.mean(g.ids == a for g, a in zip(generated, alone, strict=True)),
        "batches_of_8_equal_to_generate": statistics.mean(b == a for b, a in zip(in_eights, alone, strict=True)),
        "mismatches": mismatches,
        "median_margin_of_all_tokens": float(np.median(margins)),
    }


def elementwise(bench: Bench) -> dict[str, Any]:
    """Share of a layer's time outside products and attention, and what ``torch.compile`` makes of its MLP and norm."""
    text = bench.checkpoint.model.model.language_model
    layer, tokens = text.layers[0], 60 if bench.tiny else 8192
    x = torch.randn(1, tokens, text.config.hidden_size, device=bench.device, dtype=bench.checkpoint.dtype)
    made = {}
    with torch.inference_mode():
        for name, module in (("mlp", layer.mlp), ("norm", layer.input_layernorm)):
            made[f"{name}_ms"] = speed.median_ms(lambda module=module: module(x), bench.device)
            if bench.device.type == "cuda":
                compiled = torch.compile(module)
                made[f"{name}_compiled_ms"] = speed.median_ms(lambda c=compiled: c(x), bench.device)
        products = [layer.mlp.gate_proj, layer.mlp.up_proj]
        made["mlp_products_ms"] = sum(speed.median_ms(lambda p=p: p(x), bench.device) for p in products)
        inner = products[0](x)
        made["mlp_products_ms"] += speed.median_ms(lambda: layer.mlp.down_proj(inner), bench.device)
    return made


def fp8(bench: Bench) -> dict[str, Any]:
    """Many questions in FP8: time, and how many answers keep their tokens (none are promised to)."""
    questions = bench.questions(bench.size.many)
    exact = Engine(bench.checkpoint, EngineOptions(max_new_tokens=bench.size.answer_tokens))
    told = [answer.token_ids for answer in exact.ask([bench.image], questions)]
    exact.decoder.release()
    engine = Engine(bench.checkpoint, EngineOptions(max_new_tokens=bench.size.answer_tokens, fp8=True))

    def ask() -> list[tuple[int, ...]]:
        engine.prefixes.clear()
        return [answer.token_ids for answer in engine.ask([bench.image], questions)]

    seconds = bench.seconds(ask)
    same = statistics.mean(a == b for a, b in zip(ask(), told, strict=True))
    return {"seconds": seconds, "same_tokens_as_bf16": same}


SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "check_kernels": check_kernels,
    "kernel_speed": kernel_speed,
    "end_to_end": end_to_end,
    "agreement": agreement,
    "ratios": ratios,
    "elementwise": elementwise,
    "fp8": fp8,
}


def run(device: torch.device, tiny: bool, out: Path, budget_s: float) -> dict[str, Any]:
    """All sections within the budget; the results so far are written after each of them."""
    begin = time.perf_counter()
    on_gpu = device.type == "cuda"
    data: dict[str, Any] = {
        "benchmark": "engine on a GPU, Qwen3-VL-4B architecture, random weights" + (" (tiny)" if tiny else ""),
        **report.surroundings(on_gpu),
        "sections": {},
    }
    bench = make_bench(device, torch.bfloat16 if on_gpu else torch.float32, tiny)
    for name, section in SECTIONS.items():
        start = time.perf_counter()
        if start - begin > budget_s:
            data["sections"][name] = {"left_out": f"the budget of {budget_s:.0f} s was used up"}
            continue
        try:
            result = section(bench)
        except Exception as error:  # a section's failure is its result; the others still count
            frames = traceback.format_exc().splitlines()[-6:]
            result = {"error": f"{type(error).__name__}: {str(error)[:500]}", "trace": frames}
        result["took_s"] = time.perf_counter() - start
        data["sections"][name] = result
        if on_gpu:
            torch.cuda.empty_cache()
        report.write(out / ("engine_gpu.json" if on_gpu else "engine_gpu_rehearsal.json"), data)
        print(f"{name}: {json.dumps(result)}", flush=True)
    return data


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small model, for a rehearsal without a GPU")
    parser.add_argument("--budget", type=float, default=420.0, help="no section begins after this many seconds")
    chosen = parser.parse_args(arguments)
    if chosen.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {chosen.device}: no CUDA device was found; --tiny --device cpu rehearses without one")
    run(torch.device(chosen.device), chosen.tiny, chosen.out, chosen.budget)


if __name__ == "__main__":
    main()
