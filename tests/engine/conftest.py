"""A small checkpoint of the real architecture with random weights that are wide enough to say varied things."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from recon.engine.checkpoint import Checkpoint, from_parts
from recon.questions import depth, match, pose
from recon.questions.dialects import DIALECTS, Dialect
from recon.questions.profile import default_profile
from recon.training.tokenizer import build_image_processor, build_tokenizer
from recon.types import Question, UnifiedImage
from tests.engine.oracle import generate, random_image

NUM_TOKENS = 14


@dataclass(frozen=True)
class Case:
    """Images, questions about them, and the token ids that the oracle gives for each."""

    images: list[UnifiedImage]
    questions: list[Question]
    expected: list[tuple[int, ...]]


TEXTS = [
    "Depth in metres at x1 y2",
    "Given this image, how far is the point at coordinates (12, 345) from the camera?",
    "<think> The point is around 2.35 meters away from the camera. </think> <answer> 2.35 </answer>",
    "user assistant user assistant",
    "Rotation angle: 89.7 degrees not visible Yaw=+89.6°, Pitch=+2.6°, Roll=+6.1°",
]


def make_checkpoint(dialect: str = "recon-1", seed: int = 0, spread: float = 0.3) -> Checkpoint:
    """Random weights with standard deviation ``spread``; at 0.3 the answers are long, varied and free of near ties."""
    tokenizer = build_tokenizer(TEXTS, num_merges=200)
    token = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "initializer_range": spread,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "eos_token_id": token("<|im_end|>"),
            "bos_token_id": token("<|endoftext|>"),
            "pad_token_id": token("<|endoftext|>"),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 16,
            "out_hidden_size": 64,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": spread,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(config).float().eval()
    # Every 16th token ends an answer, so that lengths vary and questions leave the batch at different times.
    model.generation_config.eos_token_id = [token("<|im_end|>"), *range(5, len(tokenizer), 16)]
    model.generation_config.pad_token_id = token("<|endoftext|>")
    return from_parts(model, tokenizer, build_image_processor(), default_profile(dialect, "test"), "test")


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    return make_checkpoint()


@pytest.fixture(scope="session")
def cases(checkpoint: Checkpoint) -> list[Case]:
    """Random questions in all dialects about odd-sized images and pairs, and what ``generate`` answers."""
    rng = np.random.default_rng(0)
    made = []
    for sizes in [[(64, 64)], [(131, 70)], [(333, 41)], [(97, 200), (64, 45)], [(70, 131), (70, 131)]]:
        images = [random_image(rng, width, height) for width, height in sizes]
        questions = [q for dialect in DIALECTS.values() for q in questions_about(images, rng, 12, dialect)]
        order = rng.permutation(len(questions))
        questions = [questions[i] for i in order]
        expected = [generate(checkpoint, images, question, NUM_TOKENS) for question in questions]
        made.append(Case(images, questions, expected))
    return made


def questions_about(
    images: list[UnifiedImage], rng: np.random.Generator, count: int, dialect: Dialect
) -> list[Question]:
    """Depth questions about one image, match and pose questions about a pair."""
    pixels = rng.uniform(0, 1, (count, 2)) * [images[0].camera.width_px, images[0].camera.height_px]
    if len(images) == 1:
        return depth.ask(dialect, images[0], pixels)
    return match.ask(dialect, images[0], images[1], pixels) + (pose.ask(dialect) if dialect.pose else [])
