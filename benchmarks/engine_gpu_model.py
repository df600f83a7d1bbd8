"""What :mod:`benchmarks.engine_gpu` measures on: sizes, and Qwen3-VL-4B's architecture with random weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from pipelines.bench import report
from recon.engine.checkpoint import Checkpoint, from_parts
from recon.questions import depth
from recon.questions.dialects import get_dialect
from recon.questions.profile import default_profile
from recon.training.tokenizer import build_image_processor, build_tokenizer
from recon.types import Camera, Question, UnifiedImage

DIALECT = "vlm3-released"
Results = Iterator[tuple[str, Any]]  # what a section measures, figure by figure
MOST_SECONDS = 20.0  # that the counted repeats of one call may take
# Qwen3-VL-4B's architecture as the public checkpoints have it.
TEXT_4B: dict[str, Any] = {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 262_144,
}
VISION_4B: dict[str, Any] = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_heads": 16,
    "out_hidden_size": 2560,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [5, 11, 17],
}
PIXELS_4B = 16_777_216  # largest photo that the public checkpoints' processor leaves at its size
VOCABULARY_4B, SECTION_4B, THETA_4B = 151_936, [24, 20, 20], 5_000_000.0
TEXT_TINY = TEXT_4B | {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
VISION_TINY = VISION_4B | {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": 64,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1],
}


@dataclass(frozen=True)
class Size:
    """How much is asked: the photo, many and few questions, answer tokens, questions for the slow ways."""

    width_px: int = 1215
    height_px: int = 920
    many: int = 3072
    few: int = 100
    answer_tokens: int = 35
    number_tokens: int = 6
    one_by_one: int = 6
    batched: int = 64
    agreement: int = 48
    repeats: int = 3


TINY = Size(97, 70, many=24, few=5, answer_tokens=5, number_tokens=2, one_by_one=2, batched=4, agreement=6, repeats=1)


@dataclass
class Bench:
    """What the sections share. Answers are forced to full length: no token ends one."""

    checkpoint: Checkpoint
    image: UnifiedImage
    size: Size
    tiny: bool

    @property
    def device(self) -> torch.device:
        return self.checkpoint.device

    def questions(self, count: int) -> list[Question]:
        """Random pixels, the same for every way of asking."""
        rng = np.random.default_rng(0)
        pixels = rng.uniform(0, 1, (count, 2)) * [self.image.camera.width_px, self.image.camera.height_px]
        return depth.ask(get_dialect(DIALECT), self.image, pixels)

    def seconds(self, work: Callable[[], object], repeats: int | None = None) -> dict[str, float]:
        """Wall-clock time of a call, after one that is not counted; slow calls are repeated less."""
        first = self.once(work)
        count = min(repeats or self.size.repeats, max(1, int(MOST_SECONDS / first)))
        return report.percentiles([self.once(work) for _ in range(count)])

    def once(self, work: Callable[[], object]) -> float:
        """Wall-clock time of one call."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def make_bench(device: torch.device, dtype: torch.dtype, tiny: bool) -> Bench:
    """The model with random weights, on the device from the start."""
    form = get_dialect(DIALECT).depth
    assert form is not None
    texts = [form.prompt.format(x=1215, y=920), "user assistant"] * 2  # so that its words are one token each
    tokenizer = build_tokenizer(texts, num_merges=40 if tiny else 600)
    token = tokenizer.convert_tokens_to_ids
    text, vision = (TEXT_TINY, VISION_TINY) if tiny else (TEXT_4B, VISION_4B)
    section = [6, 5, 5] if tiny else SECTION_4B
    config = Qwen3VLConfig(
        text_config={
            **text,
            "vocab_size": len(tokenizer) if tiny else VOCABULARY_4B,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": THETA_4B,
                "mrope_section": section,
                "mrope_interleaved": True,
            },
            "eos_token_id": token("<|im_end|>"),
            "bos_token_id": token("<|endoftext|>"),
            "pad_token_id": token("<|endoftext|>"),
            "tie_word_embeddings": True,
        },
        vision_config={**vision, "patch_size": 16, "spatial_merge_size": 2},
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = Qwen3VLForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(before)
    # Answers are forced to their full length: the end token is one that the head is never going to choose.
    unreachable = config.text_config.vocab_size + 1
    model.generation_config.eos_token_id = unreachable
    model.generation_config.pad_token_id = token("<|endoftext|>")
    profile = default_profile(DIALECT, "random weights")
    checkpoint = from_parts(model, tokenizer, build_image_processor(PIXELS_4B), profile, "random weights")
    size = TINY if tiny else Size()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (size.height_px, size.width_px, 3)).astype(np.uint8)
    camera = Camera.pinhole(size.width_px, size.height_px, 1000.0, 1000.0, size.width_px / 2, size.height_px / 2)
    return Bench(checkpoint, UnifiedImage(pixels, camera, camera), size, tiny)
