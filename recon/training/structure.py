"""The structure of a small model: where its coordinate codes live, and holding it while the rest learns.

A position u in [0, 1] is written as ``cos, sin(2 pi u / P)`` for some periods P, x and y in hidden dimensions of their
own. :mod:`recon.training.init` builds them in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration

from recon.training.match_structure import can_match, hold_matching

POINTING_PERIODS = (2.0, 1.0, 0.5, 0.25)  # resolvable by image tokens; in units of the image's side
BLUR = 0.2  # how far built weights of 1 may have moved in training that does not hold them, to be known as such
FINE_PERIODS = (0.125, 0.0625, 0.03125)  # place within an image token, known to the question only


@dataclass(frozen=True)
class CodeLayout:
    """Hidden dimensions of the codes in the text model: pointing x, pointing y, fine x, fine y, two flags."""

    pointing: int = 2 * len(POINTING_PERIODS)
    fine: int = 2 * len(FINE_PERIODS)

    @property
    def num_codes(self) -> int:
        return 2 * (self.pointing + self.fine)

    @property
    def image_flag(self) -> int:  # +1 image token, -1 text token
        return self.num_codes

    @property
    def coordinate_flag(self) -> int:  # +1 coordinate token, 0 otherwise
        return self.num_codes + 1

    @property
    def size(self) -> int:
        return self.num_codes + 2

    def columns(self, axis: int, fine: bool) -> slice:
        if fine:
            start = 2 * self.pointing + axis * self.fine
            return slice(start, start + self.fine)
        return slice(axis * self.pointing, (axis + 1) * self.pointing)


CODE_CHANNELS = CodeLayout().size


def has_codes(model: Qwen3VLForConditionalGeneration) -> bool:
    """Whether a model's vision tower hands on the codes of places about as :mod:`recon.training.init` builds it: one of
    this project's making."""
    codes = 2 * CodeLayout().pointing
    last = model.model.visual.merger.linear_fc2.weight
    if len(last) < CODE_CHANNELS or last.shape[1] < 2 * codes:
        return False
    built = torch.eye(codes).repeat_interleave(2, dim=1) * torch.tensor([1.0, -1.0]).repeat(codes)
    return bool(torch.allclose(last[:codes, : 2 * codes], built.to(last), rtol=0.0, atol=BLUR))


def position_code(position: Tensor, periods: tuple[float, ...]) -> Tensor:
    """``cos, sin(2 pi u / P)`` of positions ``[N]`` in [0, 1]: ``[N, 2 * len(periods)]``."""
    angles = 2 * math.pi * position[:, None] / torch.tensor(periods)  # [N, P]
    return torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(1)


@torch.no_grad()
def trainable_masks(model: Qwen3VLForConditionalGeneration) -> dict[str, Tensor]:
    """Which weights may move while the construction is held: 1 where they may, 0 on codes, gathering and pointing.

    Adam moves every weight by about the learning rate in each step, however small its gradient: while the model only
    learns how often each digit occurs, that blurs the codes and ends all pointing (measured: after 300 steps the
    pointing heads gave 0.00 of their attention to the image instead of 1.00). So the construction is held while the
    rest is trained.

    Returns:
        mask by parameter name, of the parameter's shape; parameters that are free are left out.
    """
    layout = CodeLayout()
    codes, patch_codes, head_dim = layout.size, 2 * layout.pointing, 64
    masks: dict[str, Tensor] = {}

    def hold(name: str, *index: slice) -> None:
        parameter = parameters[name]
        masks.setdefault(name, torch.ones_like(parameter))[index] = 0.0

    parameters = dict(model.named_parameters())
    everything = slice(None)
    text, visual = "model.language_model", "model.visual"
    hold(f"{text}.embed_tokens.weight", everything, slice(codes))
    hold(f"{text}.norm.weight", slice(codes))
    config = model.config.text_config
    sharers = config.num_attention_heads // config.num_key_value_heads
    for number in range(config.num_hidden_layers):
        layer = f"{text}.layers.{number}"
        hold(f"{layer}.self_attn.o_proj.weight", slice(codes))
        hold(f"{layer}.mlp.down_proj.weight", slice(codes))
        hold(f"{layer}.input_layernorm.weight", slice(codes))
        hold(f"{layer}.self_attn.q_norm.weight", everything)
        hold(f"{layer}.self_attn.k_norm.weight", everything)
        hold(f"{layer}.self_attn.q_proj.weight", slice(head_dim * (1 if number == 0 else sharers)))
        hold(f"{layer}.self_attn.k_proj.weight", slice(head_dim))
        if number == 0:
            hold(f"{layer}.self_attn.v_proj.weight", slice(head_dim))
    if can_match(model.config):
        hold_matching(model, hold)
    hold(f"{visual}.pos_embed.weight", everything, slice(patch_codes))
    hold(f"{visual}.patch_embed.proj.weight", slice(patch_codes))
    hold(f"{visual}.patch_embed.proj.bias", slice(patch_codes))
    for number in range(model.config.vision_config.depth):
        for writer in ("attn.proj", "mlp.linear_fc2"):
            hold(f"{visual}.blocks.{number}.{writer}.weight", slice(patch_codes))
            hold(f"{visual}.blocks.{number}.{writer}.bias", slice(patch_codes))
    merger = f"{visual}.merger"
    hold(f"{merger}.norm.weight", slice(patch_codes))
    hold(f"{merger}.norm.bias", slice(patch_codes))
    hold(f"{merger}.linear_fc1.weight", slice(2 * patch_codes))
    hold(f"{merger}.linear_fc1.bias", slice(2 * patch_codes))
    hold(f"{merger}.linear_fc2.weight", slice(codes))
    hold(f"{merger}.linear_fc2.bias", slice(codes))
    for number in range(len(model.config.vision_config.deepstack_visual_indexes)):
        hold(f"{visual}.deepstack_merger_list.{number}.linear_fc2.weight", slice(codes))
        hold(f"{visual}.deepstack_merger_list.{number}.linear_fc2.bias", slice(codes))
    return masks
