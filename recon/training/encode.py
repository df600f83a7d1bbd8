"""From samples to training batches: many questions about the same images packed behind one shared prefix.

A packed row is ``[prefix][suffix 1][suffix 2]...``: the prefix holds the images and everything that all questions
begin with; a suffix is the rest of a question, the assistant's head and the answer. A suffix sees the prefix and
itself only (:mod:`recon.training.attention`), and its positions restart after the prefix on all three M-RoPE axes, so
that each question's logits are those of the question asked alone (as at inference). Only answers and their end token
are learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase

from recon.engine.prompts import PromptWriter, common_prefix_length
from recon.errors import BadInputError
from recon.types import UnifiedImage

IGNORED = -100  # label of a token that is not learned (PyTorch's cross entropy)


@dataclass(frozen=True)
class Lesson:
    """A question in text and the answer that teaches it."""

    question: str
    answer: str


@dataclass(frozen=True)
class Sample:
    """Images (unified) and lessons about them that do not see each other; ``dataset`` names where it comes from."""

    images: tuple[UnifiedImage, ...]
    lessons: tuple[Lesson, ...]
    dataset: str


@dataclass(frozen=True)
class EncodedSample:
    """A sample in tokens.

    ``prefix_ids`` [P] and ``prefix_positions`` [3, P]; ``suffixes``: the ids of each [S_i]; ``labels``: what each
    suffix position predicts [S_i]; ``next_position``: where every suffix starts, on all axes; ``pixel_values``
    [patches, features] and ``grids`` [images, 3] of the images; ``dataset`` for the log.
    """

    prefix_ids: Tensor
    prefix_positions: Tensor
    suffixes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    next_position: int
    pixel_values: Tensor
    grids: Tensor
    dataset: str


class Encoder:
    """Encodes samples for one tokenizer and image processor."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image_processor: Any, image_token_id: int) -> None:
        self._writer = PromptWriter(tokenizer, image_token_id)
        self._tokenizer = tokenizer
        self._image_processor = image_processor
        self._image_token_id = image_token_id
        self._end = f"{tokenizer.eos_token}"
        self._merge = int(image_processor.merge_size)

    def encode(self, sample: Sample) -> EncodedSample:
        """Packs one sample.

        Raises:
            BadInputError: no image or no lesson.
        """
        if not sample.lessons or not sample.images:
            raise BadInputError(f"dataset {sample.dataset}: a sample needs images and at least one lesson")
        pictures: BatchFeature = self._image_processor(
            [np.ascontiguousarray(image.pixels) for image in sample.images], return_tensors="pt"
        )
        grids: Tensor = pictures["image_grid_thw"]  # [images, 3]
        form = self._writer.form(len(sample.images))
        prompts = self._writer.encode([lesson.question for lesson in sample.lessons], len(sample.images))
        answers = self._tokenizer([lesson.answer + self._end for lesson in sample.lessons], add_special_tokens=False)[
            "input_ids"
        ]
        shared = common_prefix_length(prompts) if len(prompts) > 1 else len(form.after_images)

        head_ids: list[int] = []
        head_positions: list[Tensor] = []
        position = 0
        for head, grid in zip(form.heads, grids, strict=True):
            head_ids += head
            head_positions.append(_text_positions(position, len(head)))
            position += len(head)
            rows, columns = int(grid[1]) // self._merge, int(grid[2]) // self._merge
            head_ids += [self._image_token_id] * (rows * columns)
            head_positions.append(_image_positions(position, rows, columns))
            position += max(rows, columns)
        common = prompts[0][:shared]
        head_positions.append(_text_positions(position, len(common)))
        suffixes, labels = [], []
        for prompt, answer in zip(prompts, answers, strict=True):
            suffix = [*prompt[shared:], *answer[:-1]]  # the end token is predicted, never read
            suffixes.append(torch.tensor(suffix))
            labels.append(torch.tensor([IGNORED] * (len(suffix) - len(answer)) + answer))
        return EncodedSample(
            prefix_ids=torch.tensor([*head_ids, *common]),
            prefix_positions=torch.cat(head_positions, dim=1),
            suffixes=tuple(suffixes),
            labels=tuple(labels),
            next_position=position + len(common),
            pixel_values=pictures["pixel_values"],
            grids=grids,
            dataset=sample.dataset,
        )


def _text_positions(start: int, length: int) -> Tensor:
    return torch.arange(start, start + length).expand(3, -1)


def _image_positions(start: int, rows: int, columns: int) -> Tensor:
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column]).reshape(3, -1) + start  # [3, rows * columns]


def collate(samples: Sequence[EncodedSample], pad_token_id: int) -> dict[str, Any]:
    """A batch for the model's forward with packed attention (and ``datasets``, names for the log).

    Rows are padded to a common prefix length P, suffix count N and suffix length S: ``input_ids`` and ``labels``
    [B, P + N * S], ``position_ids`` [3, B, P + N * S], ``packing`` the masks of the real tokens: ``prefix`` [B, P] and
    ``suffixes`` [B, N, S].
    """
    prefix = max(len(sample.prefix_ids) for sample in samples)
    count = max(len(sample.suffixes) for sample in samples)
    length = max(len(suffix) for sample in samples for suffix in sample.suffixes)
    shape = (len(samples), count, length)
    prefix_ids = torch.full((len(samples), prefix), pad_token_id)
    prefix_positions = torch.zeros(3, len(samples), prefix, dtype=torch.long)
    prefix_mask = torch.zeros(len(samples), prefix, dtype=torch.bool)
    suffix_ids, labels = torch.full(shape, pad_token_id), torch.full(shape, IGNORED)
    suffix_mask = torch.zeros(shape, dtype=torch.bool)
    starts = torch.tensor([sample.next_position for sample in samples])
    suffix_positions = (starts[:, None, None] + torch.arange(length)).expand(shape)  # [B, N, S]
    for row, sample in enumerate(samples):
        used = len(sample.prefix_ids)
        prefix_ids[row, :used] = sample.prefix_ids
        prefix_positions[:, row, :used] = sample.prefix_positions
        prefix_mask[row, :used] = True
        for number, (suffix, label) in enumerate(zip(sample.suffixes, sample.labels, strict=True)):
            suffix_ids[row, number, : len(suffix)] = suffix
            labels[row, number, : len(suffix)] = label
            suffix_mask[row, number, : len(suffix)] = True
    ignored = torch.full((len(samples), prefix), IGNORED)
    return {
        "input_ids": torch.cat([prefix_ids, suffix_ids.flatten(1)], dim=1),
        "labels": torch.cat([ignored, labels.flatten(1)], dim=1),
        "position_ids": torch.cat([prefix_positions, suffix_positions.flatten(1).expand(3, -1, -1)], dim=2),
        "packing": {"prefix": prefix_mask, "suffixes": suffix_mask},
        "pixel_values": torch.cat([sample.pixel_values for sample in samples]),
        "image_grid_thw": torch.cat([sample.grids for sample in samples]),
        "datasets": [sample.dataset for sample in samples],
    }
