"""Structured initialisation of small Qwen3-VL models trained from nothing.

A small model with random weights sits for thousands of images at the unigram plateau, because it must first discover
how to *point*: to turn the coordinate tokens of a question into attention on the image token that shows that pixel.
This module starts training with that ability ("mimetic" initialisation, as Trockman & Kolter, arXiv 2305.09828, do for
attention in general); everything is still an ordinary Qwen3-VL, trained by ordinary next-token SFT. The parts:

1. *Codes.* A position u in [0, 1] is written as ``cos, sin(2 pi u / P)`` for some periods P, x and y in their own
   hidden dimensions. Embeddings of ``x0 ... x1000`` and ``y0 ... y1000`` hold the codes of their values.
2. *Image tokens carry the code of their place.* The vision position table holds the codes in dedicated channels, no
   residual branch writes there at first, and the merger hands them on exactly, as ``gelu(a) - gelu(-a) = a``.
3. *Gathering.* One head of text layer 0 attends to the coordinate tokens seen so far and copies their codes.
4. *Pointing.* In the following layers, heads compare the gathered code with the image tokens' codes: queries and keys
   are near-identities on the codes, placed in those rotary dimensions that hardly turn over a prompt's length.

5. *Seeing.* Patch filters start as cosine transforms whose gain grows with frequency (photos have little energy there),
   and the queries and keys of the vision tower start correlated: a patch looks at like patches near it.

Widths: the usual ``0.02`` is far too small for narrow models; matrices start at ``1 / sqrt(fan_in)``, and those that
write to the residual stream smaller by ``sqrt(2 * layers)``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Qwen3VLForConditionalGeneration

from recon.training.shape import ModelSize, make_config
from recon.training.structure import FINE_PERIODS, POINTING_PERIODS, CodeLayout, position_code
from recon.training.tokenizer import COORDINATE_RANGE, coordinate_ids

SHARPNESS = 5.0  # product of the pointing heads' query and key norms' weights: attention logits span 8 * SHARPNESS


@torch.no_grad()
def new_model(size: ModelSize, tokenizer: PreTrainedTokenizerBase, seed: int) -> Qwen3VLForConditionalGeneration:
    """A model of the given size that points at text coordinates from its first step (float32, on the CPU).

    Raises:
        ValueError: a shape that the construction can't hold (too narrow).
    """
    layout = CodeLayout()
    if size.text_hidden < 2 * layout.size or size.vision_hidden < 2 * layout.pointing or size.text_layers < 2:
        raise ValueError(f"too small for the coordinate codes: {size}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(make_config(size, tokenizer)).float()
        _scale_matrices(model)
        _init_embeddings(model, tokenizer, layout)
        _init_vision(model, layout)
        layers = model.model.language_model.layers
        _init_gathering(layers[0].self_attn, layout)
        for layer in layers[1:]:
            _init_pointing(layer.self_attn, layout)
    return model


def _scale_matrices(model: Qwen3VLForConditionalGeneration) -> None:
    visual, text = model.model.visual, model.model.language_model
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not model.lm_head:
            module.weight.normal_(0.0, 1 / math.sqrt(module.in_features))
            if module.bias is not None:
                module.bias.zero_()
    patch = visual.patch_embed.proj
    patch.weight.normal_(0.0, 1 / math.sqrt(patch.weight[0].numel()))
    for block in visual.blocks:
        for writer in (block.attn.proj, block.mlp.linear_fc2):
            writer.weight.mul_(1 / math.sqrt(2 * len(visual.blocks)))
    for layer in text.layers:
        for writer in (layer.self_attn.o_proj, layer.mlp.down_proj):
            writer.weight.mul_(1 / math.sqrt(2 * len(text.layers)))
            writer.weight[: CodeLayout().size] = 0.0  # nothing but the gathering head writes codes and flags at first


def _init_embeddings(
    model: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, layout: CodeLayout
) -> None:
    table = model.get_input_embeddings().weight  # [V, hidden], also the output matrix
    hidden = table.shape[1]
    table.normal_(0.0, 1 / math.sqrt(hidden))
    table[:, : layout.size] = 0.0
    table[:, layout.image_flag] = -1.0
    position = torch.arange(COORDINATE_RANGE + 1) / COORDINATE_RANGE
    for axis, name in enumerate("xy"):
        ids = torch.tensor(coordinate_ids(tokenizer, name))
        # neighbours should be alike in everything: one random vector per axis instead of one per token
        table[ids, layout.size :] = torch.randn(hidden - layout.size) / math.sqrt(hidden)
        table[ids, layout.columns(axis, fine=False)] = position_code(position, POINTING_PERIODS)
        table[ids, layout.columns(axis, fine=True)] = position_code(position, FINE_PERIODS)
        table[ids, layout.coordinate_flag] = 1.0
    digits = torch.tensor(tokenizer.convert_tokens_to_ids([str(digit) for digit in range(10)]))
    # neighbouring digits mean similar numbers
    table[digits, layout.size : layout.size + 4] = 0.25 * position_code(torch.arange(10) / 10, (2.0, 1.0))
    # the output shares the table: codes in the stream must not shout for coordinate tokens before it has learned to
    model.model.language_model.norm.weight[: layout.size] = 0.05


def _init_vision(model: Qwen3VLForConditionalGeneration, layout: CodeLayout) -> None:
    visual = model.model.visual
    grid, codes, hidden = visual.num_grid_per_side, 2 * layout.pointing, model.config.vision_config.hidden_size
    # The table's ends lie on the centres of the outermost patches; 16 patches stand for the usual image.
    centres = torch.linspace(0.5 / 16, 1 - 0.5 / 16, grid)
    code = position_code(centres, POINTING_PERIODS)  # [grid, 8]
    table = torch.randn(grid, grid, hidden) * 0.02
    table[..., : layout.pointing] = code[None, :, :]  # x varies along a row
    table[..., layout.pointing : codes] = code[:, None, :]
    visual.pos_embed.weight.copy_(table.flatten(0, 1))
    patch = visual.patch_embed.proj.weight  # [hidden, 3, 2, 16, 16]
    patch[:codes] = 0.0
    filters = _cosine_filters(hidden - codes, patch.shape[-1])  # [hidden - codes, 3, 16, 16]
    patch[codes:] = filters[:, :, None] / patch.shape[2]  # a photo is shown as two equal frames
    for block in visual.blocks:
        for writer in (block.attn.proj, block.mlp.linear_fc2):
            writer.weight[:codes] = 0.0
        query, key, _ = block.attn.qkv.weight.chunk(3)
        key.copy_((query + key) / math.sqrt(2))

    merger = visual.merger
    fc1, fc2 = merger.linear_fc1, merger.linear_fc2
    fc2.weight[: layout.size] = 0.0
    fc1.weight[: 2 * codes] = 0.0
    fc2.weight[:, : 2 * codes] = 0.0
    for channel in range(codes):
        mean = torch.zeros(4, hidden)
        mean[:, channel] = 0.25  # of the four merged patches
        fc1.weight[2 * channel] = mean.flatten()
        fc1.weight[2 * channel + 1] = -mean.flatten()
        fc2.weight[channel, 2 * channel] = 1.0
        fc2.weight[channel, 2 * channel + 1] = -1.0
    fc2.bias[layout.image_flag] = 1.0
    for extra in visual.deepstack_merger_list:
        extra.linear_fc2.weight.mul_(0.25)
        extra.linear_fc2.weight[: layout.size] = 0.0


def _cosine_filters(count: int, side: int) -> Tensor:
    """The ``count`` lowest-frequency cosine filters of brightness and two colour differences, [count, 3, side, side].

    Gains grow with frequency so that responses to usual photos (amplitude falling with frequency) are about alike.
    """
    colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [0.5, -1.0, 0.5]])
    colours = colours / colours.norm(dim=1, keepdim=True)
    place = (torch.arange(side) + 0.5) / side
    waves = torch.cos(math.pi * torch.arange(side)[:, None] * place)  # [side, side]
    waves = waves / waves.norm(dim=1, keepdim=True)
    # colour differences count as if of a higher frequency: they vary less
    order = sorted(
        (math.hypot(u, v) * (1.0 if c == 0 else 2.5) + (0.0 if c == 0 else 2.0), c, u, v)
        for c in range(3)
        for u in range(side)
        for v in range(side)
    )
    filters = []
    for _, c, u, v in order[:count]:
        gain = 3.0 * (1.0 + math.hypot(u, v)) ** 1.3 / side
        filters.append(gain * colours[c][:, None, None] * waves[v][:, None] * waves[u][None, :])
    return torch.stack(filters)


def _init_gathering(attention: Any, layout: CodeLayout) -> None:
    """Query head 0 attends to coordinate tokens alone and copies their codes."""
    marker, other = 63, 62  # the rotary dimensions that turn slowest
    head_dim = attention.head_dim
    query, key, value, output = (getattr(attention, name).weight for name in ("q_proj", "k_proj", "v_proj", "o_proj"))
    query[:head_dim] = 0.0
    query[marker, layout.image_flag] = -1.0
    key[:head_dim] = 0.0
    key[marker, layout.coordinate_flag] = 1.0
    key[other, layout.image_flag] = 0.1
    value[:head_dim] = 0.0
    output[:, :head_dim] = 0.0
    for code in range(layout.num_codes):
        value[code, code] = 1.0
        output[code, code] = 0.5
    _sharpen(attention, slice(marker, marker + 1))


def _init_pointing(attention: Any, layout: CodeLayout) -> None:
    """Query heads 0 and 1 (sharing key head 0) attend to image tokens near the gathered coordinate: 0 sharply."""
    head_dim, codes = attention.head_dim, 2 * layout.pointing
    slow = slice(16, 16 + codes)  # first members of the 16 slow rotary pairs (16..31, 48..63)
    flag = 63
    query, key = attention.q_proj.weight, attention.k_proj.weight
    sharers = attention.num_key_value_groups
    for head in range(sharers):
        rows = query[head * head_dim : (head + 1) * head_dim]
        rows.mul_(0.02)
        for code in range(codes):
            # the second head leaves out the two shortest periods: it looks at the wider neighbourhood
            if head == 0 or code % layout.pointing < layout.pointing // 2:
                rows[slow.start + code, code] = 1.0
        rows[flag, layout.image_flag] = -2.5
    key[:head_dim].mul_(0.02)
    for code in range(codes):
        key[slow.start + code, code] = 1.0
    key[flag, layout.image_flag] = 2.5
    _sharpen(attention, slow)
    _sharpen(attention, slice(flag, flag + 1))


def _sharpen(attention: Any, dims: slice) -> None:
    attention.q_norm.weight[dims] = math.sqrt(SHARPNESS)
    attention.k_norm.weight[dims] = math.sqrt(SHARPNESS)
