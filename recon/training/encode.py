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
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase

from recon.engine.prompts import PromptWriter, common_prefix_length
from recon.errors import BadInputError, CheckpointError
from recon.training.region_targets import PlacedTarget, RegionTarget, region_batch
from recon.training.tokenizer import coordinate_ids
from recon.types import UnifiedImage

IGNORED = -100  # label of a token that is not learned (PyTorch's cross entropy)


@dataclass(frozen=True)
class Lesson:
    """A question in text and the answer that teaches it; ``region``: what region units learn from it."""

    question: str
    answer: str
    region: RegionTarget | None = None


Layout = Literal["packed", "turns"]


@dataclass(frozen=True)
class Sample:
    """Images (unified) and lessons about them; ``dataset`` names where it comes from.

    ``layout``: ``packed`` lessons do not see each other, as at inference; as ``turns`` of one chat (the paper's way)
    each sees the ones before it. ``motion`` [7] (``dense_pairs.motion_of``) of a pair, where it is taught too.
    """

    images: tuple[UnifiedImage, ...]
    lessons: tuple[Lesson, ...]
    dataset: str
    layout: Layout = "packed"
    motion: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class EncodedRegions:
    """What region units learn from a suffix, and at which of its tokens every region's last corner is."""

    target: RegionTarget
    corners: tuple[int, ...]


@dataclass(frozen=True)
class EncodedSample:
    """A sample in tokens.

    ``prefix_ids`` [P] and ``prefix_positions`` [3, P]; ``suffixes``: the ids of each [S_i]; ``labels``: what each
    suffix position predicts [S_i]; ``next_position``: where every suffix starts, on all axes; ``pixel_values``
    [patches, features] and ``grids`` [images, 3] of the images; ``dataset`` for the log, with how many unusable items
    of it were passed over (``skipped``). ``regions``: what region units learn from each suffix, where they do;
    ``motion`` as in :class:`Sample`, ``image_token``: the id that stands for images.
    """

    prefix_ids: Tensor
    prefix_positions: Tensor
    suffixes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    next_position: int
    pixel_values: Tensor
    grids: Tensor
    dataset: str
    skipped: int = 0
    regions: tuple[EncodedRegions | None, ...] = ()
    motion: NDArray[np.float32] | None = None
    image_token: int = -1


class Encoder:
    """Encodes samples for one tokenizer and image processor."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image_processor: Any, image_token_id: int) -> None:
        self._writer = PromptWriter(tokenizer, image_token_id)
        self._tokenizer = tokenizer
        self._image_processor = image_processor
        self._image_token_id = image_token_id
        self._end = f"{tokenizer.eos_token}"
        self._merge = int(image_processor.merge_size)
        self._y_tokens = torch.tensor(coordinate_ids(tokenizer, "y"))

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
        if sample.layout == "turns":
            shared, parts = len(form.after_images), [self._conversation(sample.lessons, prompts[0], answers)]
        else:
            shared = common_prefix_length(prompts) if len(prompts) > 1 else len(form.after_images)
            parts = [
                ([*prompt, *answer], [IGNORED] * len(prompt) + answer)
                for prompt, answer in zip(prompts, answers, strict=True)
            ]

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
        for ids, learned in parts:  # a token's label is the next one; the last end token is predicted, never read
            suffixes.append(torch.tensor(ids[shared:-1]))
            labels.append(torch.tensor(learned[shared + 1 :]))
        return EncodedSample(
            prefix_ids=torch.tensor([*head_ids, *common]),
            prefix_positions=torch.cat(head_positions, dim=1),
            suffixes=tuple(suffixes),
            labels=tuple(labels),
            next_position=position + len(common),
            pixel_values=pictures["pixel_values"],
            grids=grids,
            dataset=sample.dataset,
            motion=sample.motion,
            image_token=self._image_token_id,
            regions=tuple(
                self._regions(lesson, suffix) for lesson, suffix in zip(sample.lessons, suffixes, strict=True)
            )
            if sample.layout == "packed"
            else (),
        )

    def _regions(self, lesson: Lesson, suffix: Tensor) -> EncodedRegions | None:
        """Regions are written as x, y, x, y: every second y is a last corner.

        Raises:
            BadInputError: a dialect that writes them otherwise.
        """
        if lesson.region is None:
            return None
        count = len(lesson.region.regions)
        corners = torch.isin(suffix, self._y_tokens).nonzero().flatten().tolist()[1 : 2 * count : 2]
        if len(corners) != count:
            raise BadInputError("region units need a dialect that writes regions in tokens x0 ... x1000, y0 ... y1000")
        return EncodedRegions(lesson.region, tuple(corners))

    def _conversation(
        self, lessons: Sequence[Lesson], first_prompt: list[int], answers: list[list[int]]
    ) -> tuple[list[int], list[int]]:
        """Ids after the last image of a chat with one turn per lesson, and the same with what is not learned ignored.

        Raises:
            CheckpointError: the chat template rewrites earlier turns.
        """
        ids, learned = [*first_prompt, *answers[0]], [IGNORED] * len(first_prompt) + answers[0]
        messages: list[dict[str, str]] = []
        before = ""
        for number, lesson in enumerate(lessons):
            messages.append({"role": "user", "content": lesson.question})
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            assert isinstance(text, str)
            if not text.startswith(before):
                raise CheckpointError("the chat template changes earlier turns: lessons can't be turns of one chat")
            if number > 0:
                between = self._tokenizer(text[len(before) :], add_special_tokens=False)["input_ids"]
                ids += [*between, *answers[number]]
                learned += [IGNORED] * len(between) + answers[number]
            before = text + lesson.answer + self._end
            messages.append({"role": "assistant", "content": lesson.answer})
        return ids, learned


def _text_positions(start: int, length: int) -> Tensor:
    return torch.arange(start, start + length).expand(3, -1)


def _image_positions(start: int, rows: int, columns: int) -> Tensor:
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column]).reshape(3, -1) + start  # [3, rows * columns]


def collate(samples: Sequence[EncodedSample], pad_token_id: int) -> dict[str, Any]:
    """A batch for the model's forward with packed attention (and ``datasets``, ``skipped`` for the log).

    Rows are padded to a common prefix length P and to N slots of S tokens; short suffixes share a slot. ``input_ids``
    and ``labels`` [B, P + N * S], ``position_ids`` [3, B, P + N * S], ``packing``: ``prefix`` [B, P] marks the prefix's
    real tokens, ``suffixes`` [B, N, S] numbers the suffix of each token within its slot from 1 (0: padding). Where
    region units learn something, ``regions`` says what and at which tokens (``region_targets.region_batch``).
    """
    prefix = max(len(sample.prefix_ids) for sample in samples)
    length = max(len(suffix) for sample in samples for suffix in sample.suffixes)
    places = [_slots([len(suffix) for suffix in sample.suffixes], length) for sample in samples]
    count = max(slot for row in places for slot, _, _ in row) + 1
    shape = (len(samples), count, length)
    prefix_ids = torch.full((len(samples), prefix), pad_token_id)
    prefix_positions = torch.zeros(3, len(samples), prefix, dtype=torch.long)
    prefix_mask = torch.zeros(len(samples), prefix, dtype=torch.bool)
    suffix_ids, labels = torch.full(shape, pad_token_id), torch.full(shape, IGNORED)
    owners, suffix_positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for row, sample in enumerate(samples):
        used = len(sample.prefix_ids)
        prefix_ids[row, :used] = sample.prefix_ids
        prefix_positions[:, row, :used] = sample.prefix_positions
        prefix_mask[row, :used] = True
        for suffix, label, (slot, start, number) in zip(sample.suffixes, sample.labels, places[row], strict=True):
            span = slice(start, start + len(suffix))
            suffix_ids[row, slot, span] = suffix
            labels[row, slot, span] = label
            owners[row, slot, span] = number
            suffix_positions[row, slot, span] = sample.next_position + torch.arange(len(suffix))
    ignored = torch.full((len(samples), prefix), IGNORED)
    taught = [
        PlacedTarget(
            row,
            prefix + slot * length + start + int((label != IGNORED).nonzero()[0]),
            tuple(prefix + slot * length + start + corner for corner in region.corners),
            region.target,
        )
        for row, sample in enumerate(samples)
        for label, region, (slot, start, _) in zip(sample.labels, sample.regions, places[row], strict=False)
        if region is not None
    ]
    batch: dict[str, Any] = {
        "input_ids": torch.cat([prefix_ids, suffix_ids.flatten(1)], dim=1),
        "labels": torch.cat([ignored, labels.flatten(1)], dim=1),
        "position_ids": torch.cat([prefix_positions, suffix_positions.flatten(1).expand(3, -1, -1)], dim=2),
        "packing": {"prefix": prefix_mask, "suffixes": owners},
        "pixel_values": torch.cat([sample.pixel_values for sample in samples]),
        "image_grid_thw": torch.cat([sample.grids for sample in samples]),
        "datasets": [sample.dataset for sample in samples],
        "skipped": [sample.skipped for sample in samples],
    }
    if taught:
        batch["regions"] = region_batch(taught)
    if any(sample.motion is not None for sample in samples):
        firsts = [int(sample.grids[0].prod()) // 4 for sample in samples]
        motions = [sample.motion for sample in samples]
        batch["motion"] = _motion_batch(prefix_ids, samples[0].image_token, firsts, motions)
    return batch


def _slots(lengths: Sequence[int], size: int) -> list[tuple[int, int, int]]:
    """Places suffixes into slots of ``size`` tokens, each into the first with room, long ones first.

    Returns:
        per suffix: slot, first token in it, and its number in the slot from 1.
    """
    filled: list[list[int]] = []  # per slot: tokens used, suffixes held
    places = [(0, 0, 0)] * len(lengths)
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        slot = next((k for k, (used, _) in enumerate(filled) if used + lengths[index] <= size), len(filled))
        if slot == len(filled):
            filled.append([0, 0])
        places[index] = (slot, filled[slot][0], filled[slot][1] + 1)
        filled[slot][0] += lengths[index]
        filled[slot][1] += 1
    return places


def _motion_batch(
    prefix_ids: Tensor, image_token: int, firsts: Sequence[int], motions: Sequence[NDArray[np.float32] | None]
) -> dict[str, Tensor]:
    """Tensors for ``motion_lessons``: ``rows`` [M], ``targets`` [M, 7], ``second`` [M, P].

    Args:
        prefix_ids: of the batch [B, P].
        image_token: its id.
        firsts: image tokens of each row's first image.
        motions: per row ``dense_pairs.motion_of`` or None.
    """
    known = [(row, motion.tolist()) for row, motion in enumerate(motions) if motion is not None]
    rows = [row for row, _ in known]
    image = prefix_ids[rows] == image_token
    second = image & (image.cumsum(dim=1) > torch.tensor([firsts[row] for row in rows])[:, None])
    return {"rows": torch.tensor(rows), "targets": torch.tensor([motion for _, motion in known]), "second": second}
