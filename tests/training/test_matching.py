"""Matching built into a small model: nothing else changes, and it finds what looks alike before any training."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from recon.questions.dialects import get_dialect
from recon.training.descriptors import place_codes
from recon.training.encode import EncodedSample, Encoder
from recon.training.init import new_model
from recon.training.match_structure import MatchLayout, can_match
from recon.training.matching import has_matching, refit_matching
from recon.training.samples import depth_sample
from recon.training.shape import SIZES, ModelSize
from recon.training.structure import CodeLayout, has_codes, trainable_masks
from recon.training.tokenizer import build_image_processor
from recon.training.widen import measure, widened
from tests.training.conftest import PooledView


@pytest.fixture(scope="module")
def narrow(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:
    return new_model(SIZES["small"], tokenizer, seed=0).eval()


@pytest.fixture(scope="module")
def samples(
    tokenizer: PreTrainedTokenizerFast, views: list[PooledView], narrow: Qwen3VLForConditionalGeneration
) -> list[EncodedSample]:
    encoder = Encoder(tokenizer, build_image_processor(), narrow.config.image_token_id)
    rng = np.random.default_rng(0)
    return [encoder.encode(depth_sample(view, get_dialect("recon-1"), 8, rng)) for view in views]


@pytest.fixture(scope="module")
def wide(
    narrow: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, samples: list[EncodedSample]
) -> Qwen3VLForConditionalGeneration:
    return widened(narrow, tokenizer, samples).eval()


def _inputs(
    tokenizer: PreTrainedTokenizerFast, images: list[np.ndarray[Any, Any]], texts: list[str], image_token: int
) -> dict[str, Any]:
    pictures = build_image_processor()(images, return_tensors="pt")
    marks = ["<|image_pad|>" * (int(grid[1]) * int(grid[2]) // 4) for grid in pictures["image_grid_thw"]]
    head = "<|im_start|>user\n" + "".join(f"<|vision_start|>{mark}<|vision_end|>" for mark in marks)
    ids = torch.tensor([tokenizer(head + text)["input_ids"] for text in texts])
    count = len(texts)
    return {
        "input_ids": ids,
        "mm_token_type_ids": (ids == image_token).int(),
        "pixel_values": pictures["pixel_values"].repeat(count, 1),
        "image_grid_thw": pictures["image_grid_thw"].repeat(count, 1),
    }


def _picture(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray[Any, Any]:
    """Random coloured fields of 16 pixels."""
    return np.kron(rng.integers(0, 256, (rows * 2, columns * 2, 3)), np.ones((16, 16, 1))).astype(np.uint8)


def test_a_widened_model_answers_what_it_answered(
    narrow: Qwen3VLForConditionalGeneration,
    wide: Qwen3VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert can_match(wide.config)
    assert not can_match(narrow.config)
    for model in (narrow, wide):
        model.set_attn_implementation("sdpa")
    text = "Depth in metres at x312 y745<|im_end|>\n<|im_start|>assistant\n"
    inputs = _inputs(tokenizer, [_picture(np.random.default_rng(0), 5, 7)], [text], narrow.config.image_token_id)
    with torch.no_grad():
        before, after = (model(**inputs, logits_to_keep=1).logits[0, 0] for model in (narrow, wide))
    digits = torch.tensor(tokenizer.convert_tokens_to_ids([str(digit) for digit in range(10)]))
    # the new channels' length is part of the last norm, so that all logits shrink alike. Seen: 0.995
    assert torch.cosine_similarity(after[digits], before[digits], dim=0) > 0.98


def test_image_tokens_know_their_exact_place(
    wide: Qwen3VLForConditionalGeneration, samples: list[EncodedSample]
) -> None:
    layout = MatchLayout(wide.config.text_config.hidden_size)
    for sample in samples:
        rows, columns = (int(n) // 2 for n in sample.grids[0, 1:])
        with torch.no_grad():
            tokens = wide.model.visual(sample.pixel_values, grid_thw=sample.grids).pooler_output
        # mean errors seen: 0.06 to 0.15 of codes between -1 and 1; 0.64 is that of a place elsewhere
        assert (tokens[:, layout.place] - place_codes(rows, columns)).abs().mean() < 0.2


@pytest.mark.parametrize("moved", [(0, 0), (2, 1), (-1, 2)])
def test_it_finds_what_looks_alike_before_any_training(
    wide: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, moved: tuple[int, int]
) -> None:
    """Image tokens with given descriptors: the second image shows the first one's, moved by some tokens."""
    right, down = moved
    rows, columns = 7, 9
    rng = np.random.default_rng(3)
    world = torch.from_numpy(rng.normal(0, math.sqrt(12 / 30), (rows + 4, columns + 4, 30))).float()
    views = [world[2 : rows + 2, 2 : columns + 2], world[2 - down : rows + 2 - down, 2 - right : columns + 2 - right]]
    asked = np.stack([rng.integers(230, 770, 12), rng.integers(320, 680, 12)], axis=1)
    expected = asked + np.array([1000 * right / columns, 1000 * down / rows])
    tail = "<|im_end|>\n<|im_start|>assistant\n"
    found = np.zeros((12, 2))
    for axis, name in enumerate("xy"):
        texts = [
            f"Second image position of x{x} y{y}{tail}" + (f"x{round(expected[k, 0])} " if axis else "")
            for k, (x, y) in enumerate(asked)
        ]
        logits = _logits_of_shown(wide, tokenizer, views, texts)
        ids = torch.tensor(tokenizer.convert_tokens_to_ids([f"{name}{v}" for v in range(1001)]))
        found[:, axis] = logits[:, ids].argmax(dim=1).numpy()
    errors = np.abs(found - expected)
    # a token is 111 wide and 143 high. Largest medians seen: 17 and 28; at random they would be about 330
    assert np.median(errors[:, 0]) < 40
    assert np.median(errors[:, 1]) < 50


def _logits_of_shown(
    model: Qwen3VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    descriptors: list[torch.Tensor],
    texts: list[str],
) -> torch.Tensor:
    """Logits [N, V] behind texts about images of which only descriptors [R, C, 30] and places are known."""
    rows, columns = descriptors[0].shape[:2]
    layout = MatchLayout(model.config.text_config.hidden_size)
    image = f"<|vision_start|>{'<|image_pad|>' * rows * columns}<|vision_end|>"
    ids = torch.tensor([tokenizer("<|im_start|>user\n" + 2 * image + text)["input_ids"] for text in texts])
    tokens = torch.zeros(2, rows * columns, layout.hidden)
    tokens[:, :, :16] = tokens[:, :, layout.place] = place_codes(rows, columns)
    tokens[:, :, CodeLayout().image_flag] = 1.0
    tokens[:, :, layout.descriptor] = torch.stack([part.flatten(0, 1) for part in descriptors])
    embedded = model.get_input_embeddings()(ids).detach()
    is_image = ids == model.config.image_token_id
    embedded[is_image] = tokens.flatten(0, 1).repeat(len(texts), 1)
    grids = torch.tensor([[1, 2 * rows, 2 * columns]] * 2).repeat(len(texts), 1)
    positions, _ = model.model.get_rope_index(ids, is_image.int(), image_grid_thw=grids)
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        return model(inputs_embeds=embedded, position_ids=positions, logits_to_keep=1).logits[:, 0]


def test_the_construction_is_held_and_the_rest_is_free(wide: Qwen3VLForConditionalGeneration) -> None:
    masks, layout = trainable_masks(wide), MatchLayout(wide.config.text_config.hidden_size)
    layer = "model.language_model.layers.{}.self_attn.{}_proj.weight"
    assert not masks[layer.format(2, "k")][-64:].any()
    assert masks[layer.format(2, "k")][64:128].all()
    assert not masks[layer.format(1, "q")][-128:].any()
    assert masks[layer.format(2, "q")][-64:].all()
    assert masks[layer.format(3, "v")][-48:].all()
    assert not masks["model.language_model.embed_tokens.weight"][:, layout.start :].any()
    merger = masks["model.visual.merger.linear_fc2.weight"]
    assert merger[layout.descriptor].all()
    assert not merger[layout.descriptor.stop :].any()


@torch.no_grad()
def test_a_new_tower_is_fitted_to_a_text_side_that_matches(
    wide: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, samples: list[EncodedSample]
) -> None:
    """Louder patches divide the codes that the merger's norm hands on; what the text side has learned stays."""
    model = copy.deepcopy(wide)
    layout = MatchLayout(model.config.text_config.hidden_size)
    learned = model.model.language_model.layers[3].mlp.gate_proj.weight
    learned[:, layout.start :] = 0.1  # reads the new channels: building matching anew would clear it
    before = measure(model, int(tokenizer.pad_token_id), samples)
    last = model.model.visual.blocks[-1].mlp
    last.linear_fc2.weight[2 * CodeLayout().pointing :] *= 6.0
    schooled = {name: parameter.clone() for name, parameter in model.named_parameters()}
    assert has_matching(model)
    assert _place_error(model, samples) > 0.25  # seen: 0.40
    refit_matching(model, before, measure(model, int(tokenizer.pad_token_id), samples))
    assert _place_error(model, samples) < 0.2
    merger, heads = "model.visual.merger.linear_fc2.", "model.language_model.layers.{}.self_attn.o_proj.weight"
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, schooled[name])}
    assert changed == {merger + "weight", merger + "bias", heads.format(1), heads.format(2)}
    for name in changed:
        rows = (model.get_parameter(name) != schooled[name]).reshape(len(schooled[name]), -1).any(dim=1).nonzero()
        known = {merger: layout.place, heads.format(1): layout.descriptor, heads.format(2): layout.answer}
        place = next(value for key, value in known.items() if name.startswith(key))
        assert set(rows.flatten().tolist()) <= set(range(place.start, place.stop))

    kept = {name: parameter.clone() for name, parameter in model.named_parameters()}
    same = measure(model, int(tokenizer.pad_token_id), samples)
    refit_matching(model, same, measure(model, int(tokenizer.pad_token_id), samples))
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, kept[name], atol=1e-4, rtol=1e-4, msg=name)


def _place_error(model: Qwen3VLForConditionalGeneration, samples: list[EncodedSample]) -> float:
    """Mean error of the place codes in image tokens: 0.64 is that of a place elsewhere."""
    layout, errors = MatchLayout(model.config.text_config.hidden_size), []
    for sample in samples:
        rows, columns = (int(n) // 2 for n in sample.grids[0, 1:])
        tokens = model.model.visual(sample.pixel_values, grid_thw=sample.grids).pooler_output
        errors.append(float((tokens[:, layout.place] - place_codes(rows, columns)).abs().mean()))
    return float(np.mean(errors))


@torch.no_grad()
def test_structure_is_known_from_models_that_have_none(
    narrow: Qwen3VLForConditionalGeneration, wide: Qwen3VLForConditionalGeneration
) -> None:
    assert [has_matching(model) for model in (narrow, wide)] == [False, True]
    assert [has_codes(model) for model in (narrow, wide)] == [True, True]
    blurred = copy.deepcopy(wide)
    blurred.model.language_model.layers[2].self_attn.k_proj.weight.add_(0.01)
    assert has_matching(blurred)
    blurred.model.language_model.layers[2].self_attn.k_proj.weight.add_(0.3)
    assert not has_matching(blurred)
    blurred.model.visual.merger.linear_fc2.weight.add_(0.3)
    assert not has_codes(blurred)


def test_only_fitting_shapes_are_widened(
    tokenizer: PreTrainedTokenizerFast, wide: Qwen3VLForConditionalGeneration, samples: list[EncodedSample]
) -> None:
    with pytest.raises(ValueError, match="matching is built into"):
        widened(wide, tokenizer, samples)
    with pytest.raises(ValueError, match="matching is built into"):
        widened(new_model(ModelSize(text_layers=3), tokenizer, seed=0), tokenizer, samples)
