"""The small tokenizer: lossless, coordinates as single tokens, digits one by one, loadable as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from recon.questions.dialects import DIALECTS
from recon.training.texts import tokenizer_texts
from recon.training.tokenizer import (
    SPECIAL_TOKENS,
    build_image_processor,
    build_tokenizer,
    save_processor,
)

COORDINATES = [f"{axis}{value}" for axis in "xy" for value in range(1001)]


def test_every_coordinate_is_one_ordinary_token(tokenizer: PreTrainedTokenizerFast) -> None:
    names = COORDINATES
    ids = tokenizer(names, add_special_tokens=False)["input_ids"]
    assert all(len(found) == 1 for found in ids)
    assert len({found[0] for found in ids}) == 2002
    assert not set(names) & set(tokenizer.all_special_tokens)


def test_prompts_and_answers_of_all_dialects_are_lossless(tokenizer: PreTrainedTokenizerFast) -> None:
    for text in tokenizer_texts():
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    for dialect in DIALECTS.values():
        assert dialect.depth is not None
        text = dialect.depth.prompt.format(x=512, y=1000) + dialect.depth.answer.format(depth="12.35")
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_lossless(text: str) -> None:
    tokenizer = _cached_tokenizer()
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


_CACHE: list[PreTrainedTokenizerFast] = []


def _cached_tokenizer() -> PreTrainedTokenizerFast:
    if not _CACHE:
        _CACHE.append(build_tokenizer(tokenizer_texts()))
    return _CACHE[0]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("x512 y371", ["x512", "Ġ", "y371"]),
        ("x1000,y0", ["x1000", ",", "y0"]),
        ("12.35", ["1", "2", ".", "3", "5"]),
        ("(x5)", ["(", "x5", ")"]),
    ],
)
def test_splits(tokenizer: PreTrainedTokenizerFast, text: str, tokens: list[str]) -> None:
    assert tokenizer.tokenize(text) == tokens


@pytest.mark.parametrize("text", ["x1001", "max5", "x007", "x5a", "box12"])
def test_what_is_no_coordinate_is_not_one_token(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    found = set(tokenizer.tokenize(text)) & set(COORDINATES) - {"x0"}
    assert not found


def test_tokens_before_the_coordinates_do_not_depend_on_them(tokenizer: PreTrainedTokenizerFast) -> None:
    shared = tokenizer("Depth in metres at ")["input_ids"]
    whole = tokenizer("Depth in metres at x1 y999")["input_ids"]
    assert whole[: len(shared)] == shared


def test_saved_folder_gives_the_same_tokens_and_pixels(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    image_processor = build_image_processor()
    save_processor(tokenizer, image_processor, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "".join(SPECIAL_TOKENS) + "Depth in metres at x512 y371\n"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.eos_token == "<|im_end|>"
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Rotation angle"}]}]
    assert loaded.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Rotation angle<|im_end|>\n<|im_start|>assistant\n"
    )
    image = np.random.default_rng(0).integers(0, 256, (205, 273, 3), np.uint8)
    again = Qwen2VLImageProcessorPil.from_pretrained(tmp_path)
    first, second = image_processor([image], return_tensors="np"), again([image], return_tensors="np")
    assert first["image_grid_thw"].tolist() == [[1, 12, 18]]  # 205x273 becomes 192x288: multiples of 32
    np.testing.assert_array_equal(first["pixel_values"], second["pixel_values"])
