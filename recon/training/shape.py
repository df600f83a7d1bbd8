"""Shapes of small Qwen3-VL models, as configurations of the real architecture."""

from __future__ import annotations

import math
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase, Qwen3VLConfig


@dataclass(frozen=True)
class ModelSize:
    """Shape of a small model. ``head_dim`` must be 64: its slow rotary half holds the codes."""

    text_layers: int = 4
    text_hidden: int = 256
    text_heads: int = 4
    text_kv_heads: int = 2
    text_mlp: int = 384
    vision_layers: int = 5
    vision_hidden: int = 192
    vision_heads: int = 6
    vision_mlp: int = 640
    position_grid: int = 24
    deepstack: tuple[int, ...] = (2,)


SIZES = {
    "small": ModelSize(),
    "tiny": ModelSize(
        text_layers=3, text_hidden=128, text_heads=2, text_mlp=192, vision_layers=2, vision_hidden=96, vision_heads=3,
        vision_mlp=192, position_grid=16, deepstack=(0,),
    ),
}  # fmt: skip


def make_config(size: ModelSize, tokenizer: PreTrainedTokenizerBase) -> Qwen3VLConfig:
    """A configuration of the real Qwen3-VL architecture, patch 16, merge 2, interleaved M-RoPE, tied embeddings."""
    token = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 5_000_000, "mrope_section": [12, 10, 10], "mrope_interleaved": True}
    return Qwen3VLConfig(
        text_config={
            "vocab_size": math.ceil(len(tokenizer) / 16) * 16,
            "hidden_size": size.text_hidden,
            "intermediate_size": size.text_mlp,
            "num_hidden_layers": size.text_layers,
            "num_attention_heads": size.text_heads,
            "num_key_value_heads": size.text_kv_heads,
            "head_dim": 64,
            "max_position_embeddings": 32768,
            "initializer_range": 1 / math.sqrt(size.text_hidden),
            "rope_parameters": rope,
            "eos_token_id": token("<|im_end|>"),
            "bos_token_id": token("<|endoftext|>"),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": size.vision_mlp,
            "num_heads": size.vision_heads,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": size.text_hidden,
            "num_position_embeddings": size.position_grid**2,
            "deepstack_visual_indexes": list(size.deepstack),
            "initializer_range": 1 / math.sqrt(size.vision_hidden),
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def qwen3_vl_4b() -> Qwen3VLConfig:
    """The shapes of Qwen3-VL-4B, the architecture of the public checkpoints (its published config.json)."""
    return Qwen3VLConfig(
        text_config={
            "vocab_size": 151936,
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5_000_000,
                "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 2560,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        tie_word_embeddings=True,
    )
