"""Where matching lives in a small model: the last 64 channels of the text model and its last group of heads.

:mod:`recon.training.matching` builds it in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

HEAD_DIM = 64
DESCRIPTOR = 30
CHANNELS = 64


@dataclass(frozen=True)
class MatchLayout:
    """The last 64 channels of a text model of width ``hidden``."""

    hidden: int

    @property
    def start(self) -> int:
        return self.hidden - CHANNELS

    @property
    def descriptor(self) -> slice:
        return slice(self.start, self.start + DESCRIPTOR)

    @property
    def second(self) -> int:  # 1 in tokens of the second image, less in end-of-image marks
        return self.start + 30

    @property
    def assistant(self) -> int:  # 1 in the assistant's head
        return self.start + 31

    @property
    def answer(self) -> slice:  # place code of the answer, x then y
        return slice(self.start + 32, self.start + 48)

    @property
    def place(self) -> slice:  # exact place code of an image token; of the last few coordinates in text
        return slice(self.start + 48, self.start + 64)


def can_match(config: Qwen3VLConfig) -> bool:
    """Whether a shape has room for matching: four layers, and a third group of two heads."""
    text = config.text_config
    groups_of_two = text.num_attention_heads == 2 * text.num_key_value_heads
    return bool(groups_of_two and text.num_hidden_layers == 4 and text.num_key_value_heads >= 3)


def hold_matching(model: Qwen3VLForConditionalGeneration, hold: Callable[..., None]) -> None:
    """Calls ``hold(name, *index)`` for all weights of the construction (see ``structure.trainable_masks``)."""
    new = MatchLayout(model.config.text_config.hidden_size)
    text, last = "model.language_model", slice(-HEAD_DIM, None)
    first, everything = slice(-2 * HEAD_DIM, -HEAD_DIM), slice(None)
    hold(f"{text}.embed_tokens.weight", everything, slice(new.start, None))
    for number in range(model.config.text_config.num_hidden_layers):
        layer = f"{text}.layers.{number}"
        attention = f"{layer}.self_attn"
        hold(f"{layer}.input_layernorm.weight", slice(new.start, None))
        hold(f"{attention}.o_proj.weight", slice(new.start, None))
        # the last layer may correct the answer's place
        hold(f"{layer}.mlp.down_proj.weight", slice(new.start, None if number < 3 else new.answer.start))
        hold(f"{attention}.q_proj.weight", first)
        if number != 2:  # the second head of layer 2 is free
            hold(f"{attention}.q_proj.weight", last)
        hold(f"{attention}.k_proj.weight", last)
        built = (HEAD_DIM, DESCRIPTOR, 16, 16)[number]
        hold(f"{attention}.v_proj.weight", slice(-HEAD_DIM, -HEAD_DIM + built if built < HEAD_DIM else None))
    merger = "model.visual.merger.linear_fc2"
    for name in (f"{merger}.weight", f"{merger}.bias"):
        hold(name, slice(new.descriptor.stop, None))
    for number in range(len(model.config.vision_config.deepstack_visual_indexes)):
        extra = f"model.visual.deepstack_merger_list.{number}.linear_fc2"
        for name in (f"{extra}.weight", f"{extra}.bias"):
            hold(name, slice(new.start, None))
