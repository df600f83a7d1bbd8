"""Rows of all tasks: the tokens that the engine asks with, and the logits that each question has alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from recon.engine.prompts import PromptWriter
from recon.questions.dialects import DIALECTS, get_dialect
from recon.training.attention import use_packed_attention
from recon.training.encode import IGNORED, EncodedSample, Encoder, Lesson, Sample, _slots, collate
from recon.training.export import Parts, build_parts
from recon.training.mixture_file import parse_mixture
from recon.training.pool import PooledPair, PooledView, pooled_pair
from recon.training.samples import depth_sample, match_sample, object_sample, pose_sample
from recon.training.sft import train
from recon.training.sft_settings import SftSettings

RECON = get_dialect("recon-1")


@pytest.fixture(scope="module")
def parts() -> Parts:
    parts = build_parts("tiny", 0)
    parts.model.eval()
    return parts


@pytest.fixture(scope="module")
def encoder(parts: Parts) -> Encoder:
    return Encoder(parts.tokenizer, parts.image_processor, parts.model.config.image_token_id)


@pytest.fixture(scope="module")
def pair(pool: Path) -> PooledPair:
    assert RECON.match is not None
    return pooled_pair(pool, "train", 0, RECON.match.image)


def _samples(view: PooledView, pair: PooledPair, name: str) -> list[Sample]:
    """A sample of every task that the dialect has (its images stay those of the pool)."""
    dialect, rng = DIALECTS[name], np.random.default_rng(0)
    samples = [depth_sample(view, dialect, 5, rng), match_sample(pair, dialect, 6, rng)]
    if dialect.pose is not None:
        samples.append(pose_sample(pair, dialect))
    if dialect.object is not None:
        samples.append(object_sample(view, dialect, 4, rng))
    return samples


@pytest.mark.parametrize("name", list(DIALECTS))
def test_rows_hold_the_tokens_that_the_engine_asks_with(
    parts: Parts, encoder: Encoder, views: list[PooledView], pair: PooledPair, name: str
) -> None:
    tokenizer = parts.tokenizer
    writer = PromptWriter(tokenizer, parts.model.config.image_token_id)
    for sample in _samples(views[1], pair, name):
        encoded = encoder.encode(sample)
        tokens_per_image = [int(grid.prod()) // 4 for grid in encoded.grids]
        for lesson, suffix, labels in zip(sample.lessons, encoded.suffixes, encoded.labels, strict=True):
            asked = writer.full_prompt(lesson.question, tokens_per_image)
            answer = tokenizer(lesson.answer + "<|im_end|>")["input_ids"]
            assert [*encoded.prefix_ids.tolist(), *suffix.tolist()] == [*asked, *answer[:-1]]
            assert labels[labels != IGNORED].tolist() == answer
        for image, patches in zip(
            sample.images, encoded.pixel_values.split([4 * n for n in tokens_per_image]), strict=True
        ):
            alone = parts.image_processor([image.pixels], return_tensors="pt")["pixel_values"]
            torch.testing.assert_close(patches, alone, atol=0, rtol=0)


def _alone(parts: Parts, encoded: EncodedSample, text: str) -> torch.Tensor:
    """Logits of a whole text about the sample's images, by Hugging Face's own positions and causal attention."""
    for grid in encoded.grids:
        text = text.replace("<|image_pad|>", "<|placeholder|>" * (int(grid.prod()) // 4), 1)
    ids = torch.tensor([parts.tokenizer(text.replace("<|placeholder|>", "<|image_pad|>"))["input_ids"]])
    is_image = (ids == parts.model.config.image_token_id).int()
    return parts.model(
        input_ids=ids, mm_token_type_ids=is_image, pixel_values=encoded.pixel_values, image_grid_thw=encoded.grids
    ).logits[0]


def _chat(tokenizer: PreTrainedTokenizerBase, num_images: int, lessons: tuple[Lesson, ...]) -> str:
    """A conversation up to its last answer, its end token left out (it is predicted, never read)."""
    messages: list[dict[str, object]] = []
    for number, lesson in enumerate(lessons):
        images = [{"type": "image"}] * num_images if number == 0 else []
        messages.append({"role": "user", "content": [*images, {"type": "text", "text": lesson.question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": lesson.answer}]})
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert isinstance(text, str)
    return text.removesuffix("\n").removesuffix("<|im_end|>")


def test_packed_logits_of_all_tasks_equal_those_of_each_question_alone(
    parts: Parts, encoder: Encoder, views: list[PooledView], pair: PooledPair
) -> None:
    """Depth, match, pose and object in one batch: short suffixes share slots, pairs have two images' positions."""
    samples = _samples(views[1], pair, "recon-1")
    with torch.no_grad():
        encoded = [encoder.encode(sample) for sample in samples]
        batch = collate(encoded, int(parts.tokenizer.pad_token_id))
        owners = batch["packing"]["suffixes"]
        assert owners.max() >= 2  # several in a slot
        assert (owners > 0).float().mean() > 0.5  # 0.58 measured; 0.39 with a slot for each
        parts.model.set_attn_implementation("sdpa")
        expected = []
        for sample, own_row in zip(samples, encoded, strict=True):
            alone = [
                _alone(parts, own_row, _chat(parts.tokenizer, len(sample.images), (lesson,)))
                for lesson in sample.lessons
            ]
            expected.append(
                [
                    logits[-int((labels != IGNORED).sum()) :]
                    for logits, labels in zip(alone, own_row.labels, strict=True)
                ]
            )
        use_packed_attention(parts.model)
        labels = batch.pop("labels")
        assert batch.pop("datasets") == ["depth", "match", "pose", "object"]
        assert batch.pop("skipped") == [0, 0, 0, 0]
        logits = parts.model(**batch, use_cache=False).logits
    prefix, length = batch["packing"]["prefix"].shape[1], owners.shape[2]
    for row, answers in enumerate(expected):
        places = _slots([len(suffix) for suffix in encoded[row].suffixes], length)
        for answer, own, (slot, start, _) in zip(answers, encoded[row].labels, places, strict=True):
            first = prefix + slot * length + start
            span = slice(first, first + len(own))
            assert torch.equal(labels[row, span], own)
            packed = logits[row, span][own != IGNORED]
            torch.testing.assert_close(packed, answer, atol=1e-4, rtol=1e-4)  # measured: 7e-6 of logits up to 4


def test_suffixes_fill_slots_without_overlap() -> None:
    lengths = [7, 20, 5, 13, 8, 20, 3]
    places = _slots(lengths, 20)
    taken = np.zeros((4, 20), int)
    for length, (slot, start, _) in zip(lengths, places, strict=True):
        assert start + length <= 20
        taken[slot, start : start + length] += 1
    assert taken.max() == 1
    assert taken.sum() == sum(lengths)
    numbers = [(slot, number) for slot, _, number in places]
    assert len(set(numbers)) == len(lengths)
    assert min(number for _, number in numbers) == 1


def test_turns_are_one_chat_whose_answers_are_all_learned(parts: Parts, encoder: Encoder, pair: PooledPair) -> None:
    sample = pose_sample(pair, RECON, layout="turns")
    encoded = encoder.encode(sample)
    (labels,) = encoded.labels
    answers = "".join(lesson.answer + "<|im_end|>" for lesson in sample.lessons)
    assert parts.tokenizer.decode(labels[labels != IGNORED]) == answers
    text = _chat(parts.tokenizer, 2, sample.lessons)
    with torch.no_grad():
        parts.model.set_attn_implementation("sdpa")
        alone = _alone(parts, encoded, text)
        use_packed_attention(parts.model)
        batch = collate([encoded], int(parts.tokenizer.pad_token_id))
        for name in ("labels", "datasets", "skipped"):
            batch.pop(name)
        assert batch["input_ids"].shape[1] == len(alone)
        logits = parts.model(**batch, use_cache=False).logits[0]
    torch.testing.assert_close(logits, alone, atol=1e-4, rtol=1e-4)


def test_all_tasks_are_trained_together_with_losses_of_each(pool: Path, tmp_path: Path) -> None:
    entries = {
        task: {"task": task, "rooms": 2, "pool": str(pool), "questions": 4}
        for task in ("depth", "match", "pose", "object")
    }
    mixture = parse_mixture({"datasets": entries, "weights": "uniform"}, pool, "m.yaml")
    parts = build_parts("tiny", 0)
    settings = SftSettings(steps=3, batch=4, warmup=1, decay=1, save_every=9, log_every=3)
    (entry,) = train(parts.model, parts.tokenizer, parts.image_processor, mixture, tmp_path, settings)
    drawn = [mixture.dataset_of(index).name for index in range(12)]
    assert {name: entry[f"samples/{name}"] for name in set(drawn)} == {name: drawn.count(name) for name in set(drawn)}
    assert all(0 < entry[f"loss/{name}"] < 12 for name in set(drawn))
    assert len(set(drawn)) >= 3
