"""The questions' part of :mod:`benchmarks.engine_gpu`: end to end, against ``generate``, in bf16 and FP8."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.engine_gpu_model import Bench, Results
from recon.engine.baselines import Baselines
from recon.engine.engine import Engine, EngineOptions
from recon.engine.tape import Generated
from recon.types import Question


def end_to_end(bench: Bench) -> Results:
    """Many and few questions from the decoded image: whole answers, the number alone, each saver off."""
    size = bench.size
    yield "many", _asked(bench, size.many, size.answer_tokens)
    yield "many, number alone", _asked(bench, size.many, size.number_tokens)
    yield "few", _asked(bench, size.few, size.answer_tokens)
    yield "few, without CUDA graphs", _asked(bench, size.few, size.answer_tokens, cuda_graphs=False)
    yield "many, without shared coordinates", _asked(bench, size.many, size.answer_tokens, share_beginnings=False)
    yield "many, without last-layer pruning", _asked(bench, size.many, size.answer_tokens, prune_last_layer=False)


def _asked(bench: Bench, count: int, answer_tokens: int, **changes: bool) -> dict[str, Any]:
    """Time of asking, and what the decoder did. Random answers have no templates to learn: no speculation."""
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    engine = Engine(bench.checkpoint, EngineOptions(max_new_tokens=answer_tokens, speculation=False, **changes))
    ask = _asker(bench, engine, bench.questions(count))
    seconds = bench.seconds(ask)
    before = vars(engine.decoder.stats).copy()
    ask()
    work = {name: value - before[name] for name, value in vars(engine.decoder.stats).items() if name.startswith("num_")}
    made = {"questions": count, "answer_tokens": answer_tokens, "seconds": seconds, "work": work}
    if bench.device.type == "cuda":
        made["peak_memory_gb"] = torch.cuda.max_memory_allocated(bench.device) / 1e9
    engine.decoder.release()
    return made


def _asker(bench: Bench, engine: Engine, questions: list[Question]) -> Callable[[], list[tuple[int, ...]]]:
    """Asks from the decoded image on: nothing is kept from the time before."""

    def ask() -> list[tuple[int, ...]]:
        engine.prefixes.clear()
        return [answer.token_ids for answer in engine.ask([bench.image], questions)]

    return ask


def parts(bench: Bench) -> Results:
    """Where the time of few questions goes: the image processor, the prefix without it, all of it."""
    from recon.engine.prefix import content_hash, preprocess

    engine = Engine(bench.checkpoint, EngineOptions(max_new_tokens=1, speculation=False))
    ask = _asker(bench, engine, bench.questions(bench.size.few))
    yield "image processor", bench.seconds(lambda: preprocess(bench.checkpoint, bench.image.pixels))
    yield "content hash", bench.seconds(lambda: content_hash(bench.image.pixels))
    yield "first token", bench.seconds(ask)
    yield "first token, prefix kept", bench.seconds(lambda: engine.ask([bench.image], bench.questions(bench.size.few)))
    engine.decoder.release()


def ratios(bench: Bench) -> Results:
    """Questions per second of (a) ``generate`` per question, (b) batched ``generate`` and ours."""
    size = bench.size
    baselines = Baselines(bench.checkpoint, size.answer_tokens)
    questions = bench.questions(size.many)
    engine = Engine(bench.checkpoint, EngineOptions(max_new_tokens=size.answer_tokens, speculation=False))
    per_s = {}
    for name, count, work in (
        ("ours", size.many, _asker(bench, engine, questions)),
        ("a", size.one_by_one, lambda: baselines.one_by_one(bench.image.pixels, questions[: size.one_by_one])),
        ("b", size.batched, lambda: baselines.batched(bench.image.pixels, questions[: size.batched], 32)),
    ):
        per_s[name] = count / bench.seconds(work, 1)["median"]
        yield f"{name}: questions per second", per_s[name]
    engine.decoder.release()
    yield "times_a", per_s["ours"] / per_s["a"]
    yield "times_b", per_s["ours"] / per_s["b"]


def agreement(bench: Bench) -> Results:
    """Token agreement with ``generate`` one by one, beside Hugging Face's own (batches of 8 against one by one).

    For every answer of ours that differs: where it first differs and the top-2 margin of our choice there. Where
    margins are within rounding, neither answer is the wrong one.
    """
    size = bench.size
    questions = bench.questions(size.agreement)
    baselines = Baselines(bench.checkpoint, size.answer_tokens)
    generated = _generated(Engine(bench.checkpoint, EngineOptions(max_new_tokens=size.answer_tokens)), bench, questions)
    yield "median_margin_of_all_tokens", float(np.median(np.concatenate([g.margins for g in generated])))
    alone = baselines.one_by_one(bench.image.pixels, questions)
    mismatches = []
    for ours, theirs in zip(generated, alone, strict=True):
        if ours.ids != theirs:
            pairs = zip(ours.ids, theirs, strict=False)
            place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours.ids), len(theirs)) - 1)
            mismatches.append({"place": place, "margin": float(ours.margins[place])})
    yield "questions", len(questions)
    yield "ours_equal_to_generate", statistics.mean(g.ids == a for g, a in zip(generated, alone, strict=True))
    yield "mismatches", mismatches
    in_eights = baselines.batched(bench.image.pixels, questions, 8)
    yield "batches_of_8_equal_to_generate", statistics.mean(b == a for b, a in zip(in_eights, alone, strict=True))


def _generated(engine: Engine, bench: Bench, questions: list[Question]) -> list[Generated]:
    """The answers with their margins, in the questions' order."""
    generated: list[Generated] = []
    decode = engine.decoder.decode

    def keep(*args: Any, **kwargs: Any) -> list[Generated]:
        made = decode(*args, **kwargs)
        generated.extend(made)
        return made

    engine.decoder.decode = keep  # type: ignore[method-assign]
    engine._scouts = lambda limits, kinds: []  # type: ignore[method-assign]  # waves in the questions' order
    engine.ask([bench.image], questions)
    engine.decoder.release()
    return generated


def fp8(bench: Bench) -> Results:
    """Many questions in FP8: time, and how many answers keep their tokens (none are promised to)."""
    questions = bench.questions(bench.size.many)
    options = EngineOptions(max_new_tokens=bench.size.answer_tokens, speculation=False, fp8=True)
    engine = Engine(bench.checkpoint, options)
    ask = _asker(bench, engine, questions)
    yield "seconds", bench.seconds(ask)
    told = ask()
    engine.decoder.release()
    del engine, ask
    exact = Engine(bench.checkpoint, EngineOptions(max_new_tokens=bench.size.answer_tokens, speculation=False))
    same = statistics.mean(a == b for a, b in zip(told, _asker(bench, exact, questions)(), strict=True))
    exact.decoder.release()
    yield "same_tokens_as_bf16", same
