"""Comparing regions, built into a small model: the units alone say yes or no, and they learn their jobs."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from recon.questions.dialects import get_dialect
from recon.training.encode import Encoder, collate
from recon.training.init import new_model
from recon.training.mixture_file import parse_mixture
from recon.training.pool import PooledView
from recon.training.region_targets import (
    COMPARISONS,
    FORM_NAMES,
    LENGTHS,
    UNITS,
    PlacedTarget,
    RegionTarget,
    region_batch,
    region_target,
)
from recon.training.regions import RegionLessons, has_regions, region_loss, region_mlp, with_regions
from recon.training.samples import object_sample
from recon.training.sft import train
from recon.training.sft_settings import SftSettings
from recon.training.shape import ModelSize
from recon.training.sources import BadSampleError
from recon.training.structure import trainable_masks
from recon.training.tokenizer import build_image_processor
from recon.types import Camera, UnifiedImage

_SIZE = ModelSize(
    text_hidden=192, text_heads=6, text_kv_heads=3, text_mlp=64, vision_layers=1, vision_hidden=96, vision_heads=3,
    vision_mlp=96, deepstack=(),
)  # fmt: skip


@pytest.fixture(scope="module")
def plain(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:
    return new_model(_SIZE, tokenizer, seed=0).eval()


@pytest.fixture(scope="module")
def able(plain: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:
    return with_regions(plain, tokenizer).eval()


def _view(views: list[PooledView], depth_m: np.ndarray) -> PooledView:
    """A made view of 200 x 100 pixels with a focal length of 100 and the given depths."""
    from dataclasses import replace

    camera = Camera("PINHOLE", 200, 100, (100.0, 100.0, 100.0, 50.0))
    image = replace(views[0].image, pixels=np.zeros((100, 200, 3), np.uint8), camera=camera)
    assert isinstance(image, UnifiedImage)
    return replace(views[0], image=image, depth_m=depth_m)


def test_targets_by_hand(views: list[PooledView]) -> None:
    depth = np.full((100, 200), 2.0)
    depth[:, 100:] = 4.0
    view = _view(views, depth)
    a, b = (20.0, 20.0, 60.0, 80.0), (120.0, 40.0, 140.0, 60.0)  # 0.8 x 1.2 m at 2 m, 0.8 x 0.8 m at 4 m
    target = region_target(view, "taller", [a, b])
    assert FORM_NAMES[target.form] == "taller"
    value = dict(zip(FORM_NAMES, target.values, strict=True))
    assert value["wider"] == pytest.approx(0.0, abs=1e-9)
    assert value["taller"] == pytest.approx(1.5 * math.log(1.2 / 0.8))
    assert value["shorter"] == -value["taller"]
    assert value["bigger"] == pytest.approx(1.05 * math.log(1.5))
    # middles: (-1.2, 0, 2) and (1.2, 0, 4)
    assert value["left"] == 1.5  # 2.25 times 2.4 m, cut off
    assert value["right"] == -1.5
    assert value["behind"] == -1.5
    assert value["front"] == 1.5
    assert value["distance"] == pytest.approx(math.log(math.hypot(2.4, 2.0)))
    assert value["vertical"] == pytest.approx(math.log(0.1))  # not below the shortest
    assert math.isnan(value["width"])
    assert math.isnan(value["direction"])
    assert target.regions[1] == pytest.approx((math.log(0.8), math.log(0.8), 2.4, 0.0, 2 * math.log(4.0)))
    alone = dict(zip(FORM_NAMES, region_target(view, "width", [a]).values, strict=True))
    assert alone["width"] == pytest.approx(math.log(0.8))
    assert alone["height"] == pytest.approx(math.log(1.2))
    assert math.isnan(alone["wider"])


def test_the_units_alone_answer(able: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
    """Given exact readings of the form and of every difference, the MLP's product decides the word."""
    hidden = able.config.text_config.hidden_size
    mlp = region_mlp(able)
    rng = torch.Generator().manual_seed(1)
    ups = torch.randn(6, len(COMPARISONS), generator=rng)
    read = torch.linalg.qr(torch.randn(hidden, hidden, generator=rng))[0]
    kept = mlp.gate_proj.weight.detach().clone(), mlp.up_proj.weight.detach().clone()
    yes, no = (tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("Correct.", "Incorrect."))
    try:
        with torch.no_grad():
            mlp.gate_proj.weight[:-UNITS] = 0.0
            mlp.gate_proj.weight[-UNITS:] = read[:UNITS]
            mlp.up_proj.weight[-UNITS:] = read[UNITS : 2 * UNITS]
            for values in ups:
                for place, form in enumerate(COMPARISONS):
                    gates = torch.full((UNITS,), -4.0)
                    gates[form] = 4.0
                    every = torch.zeros(UNITS)
                    every[list(COMPARISONS)] = values
                    stream = gates @ read[:UNITS] + every @ read[UNITS : 2 * UNITS]
                    said = able.lm_head(able.model.language_model.norm(mlp(stream)))
                    # closed gates leak silu(-4) = -0.07 of theirs: only clear differences are asked about here
                    if abs(float(values[place])) > 0.5:
                        assert (said[yes] > said[no]) == (values[place] > 0)
            stream = 4.0 * read[LENGTHS[1]] - 4.0 * sum(read[k] for k in range(UNITS) if k != LENGTHS[1])
            lengths = torch.stack([mlp(stream + size * read[UNITS + LENGTHS[1]]) for size in (-1.0, 0.5)])
        channel = hidden - 64
        assert lengths[1, channel] - lengths[0, channel] == pytest.approx(1.5 * 1.5 * 3.93, rel=0.01)
    finally:
        with torch.no_grad():
            mlp.gate_proj.weight.copy_(kept[0])
            mlp.up_proj.weight.copy_(kept[1])


def test_new_units_change_no_answer_and_are_held(
    plain: Qwen3VLForConditionalGeneration,
    able: Qwen3VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert has_regions(able)
    assert not has_regions(plain)
    assert with_regions(able, tokenizer) is able
    ids = torch.tensor([tokenizer("Is region x1 y2 x3 y4 wider than region x5 y6 x7 y8?")["input_ids"]])
    with torch.no_grad():
        before, after = (model(input_ids=ids).logits[0, -1] for model in (plain, able))
    assert torch.cosine_similarity(before, after, dim=0) > 0.98
    mask = trainable_masks(able)["model.language_model.layers.2.mlp.down_proj.weight"]
    assert not mask[-64:, -UNITS:].any()
    with pytest.raises(ValueError, match="that have matching"):
        with_regions(new_model(ModelSize(vision_layers=1, deepstack=()), tokenizer, seed=0), tokenizer)


def test_every_new_unit_can_learn(able: Qwen3VLForConditionalGeneration) -> None:
    """A unit of zeros in gate, up and down has no gradient at all: 54 of a shipped checkpoint's units were so."""
    for layer in able.model.language_model.layers:
        stream = torch.randn(8, able.config.text_config.hidden_size, generator=torch.Generator().manual_seed(0))
        (steps,) = torch.autograd.grad(layer.mlp(stream).sum(), layer.mlp.down_proj.weight)
        assert bool((steps[:, -UNITS:].abs().amax(dim=0) > 0).all())


def test_the_loss_is_small_only_for_units_that_do_their_jobs() -> None:
    forms = torch.tensor([2, 12])
    values = torch.full((2, UNITS), math.nan)
    values[0, 2], values[0, 3], values[1, 12] = 0.7, -0.7, -0.2
    gates = torch.full((2, UNITS), -12.0)
    gates[0, 2] = gates[1, 12] = 12.0
    ups = torch.nan_to_num(values)
    assert float(region_loss(gates, ups, forms, values)) < 1e-3
    assert float(region_loss(gates, -ups, forms, values)) > 0.5
    assert float(region_loss(-gates, ups, forms, values)) > 10
    unknown = torch.full((2, UNITS), math.nan)
    assert float(region_loss(gates, ups, forms, unknown)) < 1e-3


def test_batches_say_where_answers_begin(
    able: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, views: list[PooledView]
) -> None:
    encoder = Encoder(tokenizer, build_image_processor(), able.config.image_token_id)
    rng = np.random.default_rng(0)
    samples = []
    for view in views:
        try:
            samples.append(object_sample(view, get_dialect("recon-1"), 6, rng, coarse=True, with_targets=True))
        except BadSampleError:
            continue
    assert samples
    batch = collate([encoder.encode(sample) for sample in samples], int(tokenizer.pad_token_id))
    regions = batch["regions"]
    assert len(regions["forms"]) == sum(len(sample.lessons) for sample in samples)
    first = batch["labels"][regions["rows"], regions["columns"]]
    before = batch["labels"][regions["rows"], regions["columns"] - 1]
    assert (first != -100).all()
    assert (before == -100).all()
    words = {tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("Correct.", "Incorrect.")}
    for label, form in zip(first.tolist(), regions["forms"].tolist(), strict=True):
        assert (label in words) == (form in COMPARISONS)
    ends = batch["input_ids"][regions["corner_rows"], regions["corner_columns"]]
    written = [str(word) for word in tokenizer.convert_ids_to_tokens(ends.tolist())]
    assert len(written) == len(regions["known"]) >= len(regions["forms"])
    lessons = [lesson for sample in samples for lesson in sample.lessons]
    expected = [part for lesson in lessons for part in re.findall(r"x\d+ y\d+ x\d+ (y\d+)", lesson.question)]
    assert written == expected
    plain_batch = collate([encoder.encode(object_sample(views[0], get_dialect("recon-1"), 6, rng))], 0)
    assert "regions" not in plain_batch


def test_training_teaches_the_units(
    able: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, pool: Path, tmp_path: Path
) -> None:
    data = {
        "datasets": {"things": {"task": "object", "rooms": 4, "pool": str(pool), "questions": 6, "regions": True}},
    }
    settings = SftSettings(
        steps=6, batch=2, learning_rate=2e-3, warmup=1, decay=1, log_every=3, teach_regions=True, hold_structure=True
    )
    log = train(
        copy.deepcopy(able).train(),
        tokenizer,
        build_image_processor(),
        parse_mixture(data, pool, "m"),
        tmp_path,
        settings,
    )
    assert log[-1]["loss/region units"] < log[0]["loss/region units"]
    assert log[0]["answer_tokens/region units"] > 0


def test_units_are_read_where_the_batch_says(able: Qwen3VLForConditionalGeneration) -> None:
    lessons = RegionLessons(able)
    with torch.no_grad():
        able.region_reading.weight.normal_(0.0, 0.1)
    ids = torch.randint(0, 500, (2, 9), generator=torch.Generator().manual_seed(0))
    layers = able.model.language_model.layers
    mlp = region_mlp(able)
    seen: dict[str, torch.Tensor] = {}
    handles = [
        mlp.register_forward_pre_hook(lambda module, arguments: seen.update(x=arguments[0])),
        layers[2].register_forward_pre_hook(lambda module, arguments: seen.update(low=arguments[0])),
    ]
    with torch.no_grad():
        able(input_ids=ids)
    for handle in handles:
        handle.remove()
    values, known = tuple(0.1 * k for k in range(UNITS)), (0.5, -0.5, 1.0, 0.0, 2.0)
    there = region_batch([PlacedTarget(1, 4, (2,), RegionTarget(3, values, (known,)))])
    x, low = seen["x"][1, 4], seen["low"][1, 2]
    units = region_loss(
        (mlp.gate_proj.weight @ x)[None, -UNITS:],
        (mlp.up_proj.weight @ x)[None, -UNITS:],
        torch.tensor([3]),
        torch.tensor([values]),
    )
    read = able.region_reading(low / low.pow(2).mean().sqrt())
    error = (read - torch.tensor(known)).abs()
    corner = torch.where(error < 0.2, error**2 / 0.4, error - 0.1).mean()
    assert float(lessons.loss(there).detach()) == pytest.approx(float((units + 3 * corner).detach()), rel=1e-4)
    lessons.close()
    assert not hasattr(able, "region_reading")
