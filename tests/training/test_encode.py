"""Packed rows give every question the logits that it has alone, and only answers are learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from recon.errors import BadInputError
from recon.questions.dialects import get_dialect
from recon.training.attention import use_packed_attention
from recon.training.encode import IGNORED, Encoder, Lesson, Sample, collate
from recon.training.init import new_model
from recon.training.pool import PooledView
from recon.training.samples import depth_sample
from recon.training.shape import SIZES
from recon.training.tokenizer import build_image_processor


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:
    return new_model(SIZES["tiny"], tokenizer, seed=0).eval()


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast, model: Qwen3VLForConditionalGeneration) -> Encoder:
    return Encoder(tokenizer, build_image_processor(), model.config.image_token_id)


def _alone(
    model: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, sample: Sample, lesson: Lesson
) -> torch.Tensor:
    """Logits at the answer's positions, by Hugging Face's own positions and causal attention."""
    pictures = build_image_processor()([image.pixels for image in sample.images], return_tensors="pt")
    content = [{"type": "image"}] * len(sample.images) + [{"type": "text", "text": lesson.question}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    for grid in pictures["image_grid_thw"]:
        text = text.replace("<|image_pad|>", "<|placeholder|>" * (int(grid.prod()) // 4), 1)
    text = text.replace("<|placeholder|>", "<|image_pad|>")
    prompt, answer = tokenizer(text)["input_ids"], tokenizer(lesson.answer)["input_ids"]
    ids = torch.tensor([prompt + answer])
    is_image = (ids == model.config.image_token_id).int()
    return model(input_ids=ids, mm_token_type_ids=is_image, **pictures).logits[0, len(prompt) - 1 :]


def test_packed_logits_equal_those_of_each_question_alone(
    model: Qwen3VLForConditionalGeneration,
    encoder: Encoder,
    tokenizer: PreTrainedTokenizerFast,
    views: list[PooledView],
) -> None:
    dialect, rng = get_dialect("recon-1"), np.random.default_rng(0)
    first = depth_sample(views[0], dialect, 5, rng)
    second = depth_sample(views[1], dialect, 3, rng)  # another size and count: padding
    pair = Sample(
        (views[2].image, views[0].image),
        (Lesson("Second image position of x7 y900", "not visible"), Lesson("Rotation angle", "Rotation angle: 9.7")),
        "pair",
    )
    samples = [first, second, pair]
    with torch.no_grad():
        model.set_attn_implementation("sdpa")
        expected = [[_alone(model, tokenizer, sample, lesson) for lesson in sample.lessons] for sample in samples]
        use_packed_attention(model)
        batch = collate([encoder.encode(sample) for sample in samples], tokenizer.pad_token_id)
        labels = batch.pop("labels")
        assert batch.pop("datasets") == ["depth", "depth", "pair"]
        logits = model(**batch, use_cache=False).logits
    count, length = batch["packing"]["suffixes"].shape[1:]
    prefix = batch["packing"]["prefix"].shape[1]
    for row, answers in enumerate(expected):
        for number, alone in enumerate(answers):
            span = slice(prefix + number * length, prefix + (number + 1) * length)
            learned = labels[row, span] != IGNORED
            packed = logits[row, span][learned]
            assert packed.shape == alone.shape
            # measured: 4e-6 of logits up to 8 (float32)
            torch.testing.assert_close(packed, alone, atol=1e-4, rtol=1e-4)
    assert count == 5


def test_labels_are_the_answers_and_the_end(
    encoder: Encoder, tokenizer: PreTrainedTokenizerFast, views: list[PooledView]
) -> None:
    sample = depth_sample(views[0], get_dialect("recon-1"), 6, np.random.default_rng(0))
    encoded = encoder.encode(sample)
    for labels, lesson in zip(encoded.labels, sample.lessons, strict=True):
        assert tokenizer.decode(labels[labels != IGNORED]) == lesson.answer + "<|im_end|>"


def test_depth_labels_are_the_depth_at_the_written_coordinate(views: list[PooledView]) -> None:
    view = views[0]
    sample = depth_sample(view, get_dialect("recon-1"), 40, np.random.default_rng(0))
    for lesson in sample.lessons:
        x, y = (int(word[1:]) / 1000 for word in lesson.question.split()[-2:])
        row = min(int(y * view.depth_m.shape[0]), view.depth_m.shape[0] - 1)
        column = min(int(x * view.depth_m.shape[1]), view.depth_m.shape[1] - 1)
        assert lesson.answer == f"{view.depth_m[row, column]:.2f}"


def test_coarse_labels_are_multiples(views: list[PooledView]) -> None:
    rng = np.random.default_rng(0)
    sample = depth_sample(views[0], get_dialect("recon-1"), 40, rng, round_m=0.5)
    values = {lesson.answer for lesson in sample.lessons}
    assert all(float(value) % 0.5 == 0 and float(value) >= 0.5 for value in values)


def test_a_sample_without_lessons_is_refused(encoder: Encoder, views: list[PooledView]) -> None:
    with pytest.raises(BadInputError, match="at least one lesson"):
        encoder.encode(Sample((views[0].image,), (), "empty"))
