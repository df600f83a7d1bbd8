"""What the engine must equal: ``generate(do_sample=False)`` for one question alone, without any of our code."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from transformers import Qwen3VLForConditionalGeneration

from recon.engine.checkpoint import Checkpoint
from recon.types import Camera, Question, UnifiedImage

_PLAIN: dict[int, Qwen3VLForConditionalGeneration] = {}


def plain_model(checkpoint: Checkpoint) -> Qwen3VLForConditionalGeneration:
    """A copy of the model with Hugging Face's own attention."""
    if id(checkpoint.model) not in _PLAIN:
        model = copy.deepcopy(checkpoint.model)
        model.set_attn_implementation("sdpa")
        _PLAIN[id(checkpoint.model)] = model
    return _PLAIN[id(checkpoint.model)]


def generate(
    checkpoint: Checkpoint, images: Sequence[UnifiedImage], question: Question, max_new_tokens: int
) -> tuple[int, ...]:
    """The generated ids (end token included) of one question, everything computed from the start."""
    tokenizer = checkpoint.tokenizer
    batch = checkpoint.image_processor(images=[Image.fromarray(i.pixels) for i in images], return_tensors="pt")
    content = [{"type": "image"}] * len(images) + [{"type": "text", "text": question.text}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    parts = str(text).split("<|image_pad|>")
    text = parts[0]
    for grid, part in zip(batch["image_grid_thw"], parts[1:], strict=True):
        text += "<|image_pad|>" * (int(grid.prod()) // 4) + part
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        output = plain_model(checkpoint).generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == checkpoint.model.config.image_token_id).int(),
            pixel_values=batch["pixel_values"],
            image_grid_thw=batch["image_grid_thw"],
            do_sample=False,
            max_new_tokens=max_new_tokens,
        )
    return tuple(output[0, ids.shape[1] :].tolist())


def random_image(rng: np.random.Generator, width_px: int, height_px: int) -> UnifiedImage:
    """Noise over a gradient: every image token differs."""
    ramp = np.linspace(0, 120, width_px)[None, :, None] + np.linspace(0, 60, height_px)[:, None, None]
    pixels = (ramp + rng.integers(0, 76, (height_px, width_px, 3))).astype(np.uint8)
    camera = Camera.pinhole(width_px, height_px, 224.0, 224.0, width_px / 2, height_px / 2)
    return UnifiedImage(pixels, camera, camera)
