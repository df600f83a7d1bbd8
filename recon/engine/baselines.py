"""The same questions through Hugging Face's ``generate``, three ways: what the engine is measured against.

(a) one question at a time, image processed each time (the notebook way); (b) in batches; (c) in batches behind a prefix
cache computed once, repeated for the batch (Hugging Face's prefix-caching recipe). All are greedy and give every
question's token ids up to and including the end token. Batches hold prompts of equal length, so nothing is padded.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from transformers import DynamicCache, Qwen3VLForConditionalGeneration

from recon.engine.checkpoint import Checkpoint
from recon.engine.prompts import PromptWriter, common_prefix_length
from recon.types import ImageArray, Question

TokenIds = tuple[int, ...]


class Baselines:
    """Hugging Face on a copy of the checkpoint's model, with its own SDPA attention."""

    def __init__(self, checkpoint: Checkpoint, max_new_tokens: int) -> None:
        self._checkpoint = checkpoint
        self._max_new_tokens = max_new_tokens
        self._prompts = PromptWriter(checkpoint.tokenizer, checkpoint.model.config.image_token_id)
        model = copy.deepcopy(checkpoint.model)
        model.set_attn_implementation("sdpa")
        self._model: Qwen3VLForConditionalGeneration = model

    @torch.inference_mode()
    def one_by_one(self, image: ImageArray, questions: Sequence[Question]) -> list[TokenIds]:
        """(a)"""
        return [self._generate([question], image)[0] for question in questions]

    @torch.inference_mode()
    def batched(self, image: ImageArray, questions: Sequence[Question], batch_size: int) -> list[TokenIds]:
        """(b)"""
        ids = [self._full_ids(question, image) for question in questions]
        answers: dict[int, TokenIds] = {}
        for batch in _equal_lengths(ids, batch_size):
            answers.update(zip(batch, self._generate([questions[i] for i in batch], image), strict=True))
        return [answers[i] for i in range(len(questions))]

    @torch.inference_mode()
    def shared_prefix(self, image: ImageArray, questions: Sequence[Question], batch_size: int) -> list[TokenIds]:
        """(c)"""
        inputs = self._image_inputs(image, 1)
        ids = [self._full_ids(question, image) for question in questions]
        num_shared = common_prefix_length(ids)
        head = torch.tensor([ids[0][:num_shared]], device=self._checkpoint.device)
        cache = DynamicCache(config=self._model.config.text_config)
        self._model(
            input_ids=head,
            mm_token_type_ids=self._image_places(head),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **inputs,
        )
        answers: dict[int, TokenIds] = {}
        for batch in _equal_lengths(ids, batch_size):
            repeated = copy.deepcopy(cache)
            repeated.batch_repeat_interleave(len(batch))
            rows = torch.tensor([ids[i] for i in batch], device=self._checkpoint.device)
            answers.update(zip(batch, self._run(rows, past_key_values=repeated), strict=True))
        return [answers[i] for i in range(len(questions))]

    def _generate(self, questions: Sequence[Question], image: ImageArray) -> list[TokenIds]:
        inputs = self._image_inputs(image, len(questions))
        rows = torch.tensor([self._full_ids(question, image) for question in questions], device=self._checkpoint.device)
        return self._run(rows, mm_token_type_ids=self._image_places(rows), **inputs)

    def _run(self, rows: torch.Tensor, **inputs: Any) -> list[TokenIds]:
        output = self._model.generate(
            input_ids=rows,
            attention_mask=torch.ones_like(rows),
            do_sample=False,
            max_new_tokens=self._max_new_tokens,
            **inputs,
        )
        return [self._until_end(row) for row in output[:, rows.shape[1] :].tolist()]

    def _until_end(self, ids: list[int]) -> TokenIds:
        for i, token in enumerate(ids):
            if token in self._checkpoint.end_token_ids:
                return tuple(ids[: i + 1])
        return tuple(ids)

    def _image_inputs(self, image: ImageArray, count: int) -> dict[str, torch.Tensor]:
        batch = self._checkpoint.image_processor(images=[Image.fromarray(image)] * count, return_tensors="pt")
        return {name: batch[name].to(self._checkpoint.device) for name in ("pixel_values", "image_grid_thw")}

    def _image_places(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows == self._checkpoint.model.config.image_token_id).int()

    def _full_ids(self, question: Question, image: ImageArray) -> list[int]:
        processor = self._checkpoint.image_processor
        num_patches = processor.get_number_of_image_patches(image.shape[0], image.shape[1])
        return self._prompts.full_prompt(question.text, [num_patches // processor.merge_size**2])


def _equal_lengths(ids: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of prompts of one length."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, prompt in enumerate(ids):
        by_length[len(prompt)].append(i)
    for indices in by_length.values():
        for begin in range(0, len(indices), batch_size):
            yield indices[begin : begin + batch_size]
