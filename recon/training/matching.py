"""Matching and reading of regions, built into small models like pointing (:mod:`recon.training.init`).

To answer where a pixel of one image lies in another, a transformer has to gather a description of that pixel, to find
the image token that is described alike, and to say where it lies. From random weights none of these steps is rewarded
before the others work. So the last group of heads (one key head, two query heads) and the last 64 channels of the text
model begin with all of them:

* Image tokens carry a *descriptor* of 30 channels, further outputs of the merger, which schooling trains with pairs.
* Layer 0: the first head gives image tokens behind an end-of-image mark the flag of the *second* image; the second head
  gathers the coordinates of the last few tokens, so that the last corner of a region knows the region's middle.
* Layer 1: text tokens point at the first image with the gathered coordinate and copy the descriptor found there (the
  second head points at the middle of a region; what it reads is learned).
* Layer 2: text tokens compare their descriptor with those of the second image and copy the place code of what they
  find into 16 channels of their own. Tokens of the second image do the same with the first image: how every part of
  the picture moved, which is what pose questions are about. An end-of-image mark stands for "nothing alike".
* Layer 3: the answer copies the place from the assistant's head; coordinate tokens have their codes in these channels
  too, so that the next token with the highest logit is the place. The second head averages over the second image.

All of it is exact arithmetic of ordinary layers: keys and queries are read off channels, flags exclude what a head must
not see, and each head's sharpness is that of :mod:`recon.training.init`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Qwen3VLForConditionalGeneration

from recon.training.match_structure import DESCRIPTOR, HEAD_DIM, MatchLayout, can_match
from recon.training.structure import BLUR, POINTING_PERIODS, CodeLayout, position_code
from recon.training.tokenizer import COORDINATE_RANGE, coordinate_ids

SHARP = 16  # descriptor channels whose product counts five times (the sharp dimensions of pointing heads)
KERNEL = (1.0, 1.0, 0.5, 0.2)  # weights of the codes' periods where descriptors are read: between tokens they are mixed
POINT_FLAGS = 8.0  # squared length of the flags beside codes of squared length 8
MATCH_FLAGS = 12.0  # ... beside descriptors of squared length 12
ANSWER_GAIN = 1.0  # final norm's weight of the answer's place: as sharp as matches of an error of 0.08 deserve
END_MARK = 0.35  # of end-of-image marks: as keys they must lose against anything alike
EMBEDDED_CODE = 0.5  # amplitude of the answer's code in the coordinate tokens
READ_GAIN = 7.0  # place codes are read so much louder: beside the trained features' loudness they would be learned late
_RECENT = ((3, 4, 5), 3.0)  # rotary pairs and the distance in tokens at which recent coordinates count most
_FLAG, _OTHER, _POOL = 63, 62, 61  # rotary dimensions that hardly turn; the first is sharp


@dataclass(frozen=True)
class Measured:
    """What the construction has to know of a schooled tower and a trained text side.

    ``image_before_1``, ``image_before_2``, ``answer_before_3``: root mean square of the stream of image tokens before
    layers 1 and 2, and of the answer before layer 3. ``codes`` [17, 16]: how exact place codes are read from those in
    image tokens (the rows) and their flag of 1 (the last row): the merger's norm divides codes by the loudness of a
    tower's patches, and moves all of them by their mean.
    """

    image_before_1: float = 0.6
    image_before_2: float = 0.7
    answer_before_3: float = 1.0
    codes: Tensor = field(default_factory=lambda: torch.eye(17, 16))


def has_matching(model: Qwen3VLForConditionalGeneration) -> bool:
    """Whether matching is built into a model, and still about as it was built."""
    if not can_match(model.config):
        return False
    start = MatchLayout(model.config.text_config.hidden_size).descriptor.start
    comparing = _Group(model.model.language_model.layers[2].self_attn).key[16 : 16 + SHARP, start : start + SHARP]
    return bool(torch.allclose(comparing, torch.eye(SHARP).to(comparing), rtol=0.0, atol=BLUR))


def kernel_weights() -> Tensor:
    """Weights of the 16 place channels in queries for descriptors."""
    return torch.tensor(KERNEL).repeat_interleave(2).repeat(2)


@torch.no_grad()
def build_matching(
    model: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, measured: Measured | None = None
) -> None:
    """Writes the construction into the last group of heads and the last 64 channels; the rest is left as it is.

    Args:
        model, tokenizer: what is built into.
        measured: see there; None for a new model.

    Raises:
        ValueError: a shape without room for it.
    """
    if not can_match(model.config):
        raise ValueError("matching needs 4 layers and 3 key heads with 2 query heads each")
    measured = measured or Measured()
    _clear(model)
    layers = model.model.language_model.layers
    tokens = _build_embeddings(model, tokenizer)
    codes = CodeLayout()
    new = MatchLayout(model.config.text_config.hidden_size)
    heads = [_Group(layer.self_attn) for layer in layers]
    _build_places(model.model.visual.merger.linear_fc2, new, measured.codes)
    _read_loudly(layers[1:], new)
    norms = [layer.input_layernorm.weight for layer in layers]
    _build_gathering(heads[0], norms[0], codes, new, tokens)
    _build_reading(heads[1], codes, new, 0.25 * float(norms[0][0]) / tokens["coordinates"])
    _scale_columns(heads[1].output[0][new.descriptor], measured.image_before_1 / norms[1][new.descriptor])
    _build_comparing(heads[2], codes, new)
    _scale_columns(heads[2].output[0][new.answer], measured.image_before_2 / norms[2][:16])
    _build_answering(heads[3], codes, new)
    # the copy is as loud as the stream: louder than what the answer's own first token found in layer 2
    _scale_columns(heads[3].output[0][new.answer], measured.answer_before_3**2 / norms[3][:16])


@torch.no_grad()
def refit_matching(model: Qwen3VLForConditionalGeneration, before: Measured, after: Measured) -> None:
    """Fits the construction to a tower that has changed under a text side that uses it already.

    What depends on the tower is read off anew: the exact place codes of image tokens, and how loud what the heads copy
    from image tokens has to be. All that the text side has learned stays as it is.

    Args:
        model: with its new tower.
        before, after: measured with the former tower and with this one.
    """
    new = MatchLayout(model.config.text_config.hidden_size)
    _build_places(model.model.visual.merger.linear_fc2, new, after.codes)
    layers = model.model.language_model.layers
    louder1, louder2 = after.image_before_1 / before.image_before_1, after.image_before_2 / before.image_before_2
    _Group(layers[1].self_attn).output[0][new.descriptor] *= louder1
    _Group(layers[2].self_attn).output[0][new.answer] *= louder2


def _scale_columns(diagonal: Tensor, gains: Tensor) -> None:
    """Multiplies column k of ``diagonal`` (rows of an output matrix) by ``gains[k]``."""
    diagonal[:, : len(gains)] *= gains


def _read_loudly(layers: Any, new: MatchLayout) -> None:
    for layer in layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight[new.start :] = norm.weight[0]
            norm.weight[new.answer] *= READ_GAIN
            norm.weight[new.place] *= READ_GAIN


class _Group:
    """Views of the weights of the last key head and its two query heads."""

    def __init__(self, attention: nn.Module) -> None:
        query, key, value, output = (getattr(attention, f"{name}_proj").weight for name in "qkvo")
        self.query = (query[-2 * HEAD_DIM : -HEAD_DIM], query[-HEAD_DIM:])  # each [64, hidden]
        self.key, self.value = key[-HEAD_DIM:], value[-HEAD_DIM:]
        self.output = (output[:, -2 * HEAD_DIM : -HEAD_DIM], output[:, -HEAD_DIM:])  # each [hidden, 64]


def _clear(model: Qwen3VLForConditionalGeneration) -> None:
    new = MatchLayout(model.config.text_config.hidden_size)
    text, visual = model.model.language_model, model.model.visual
    model.get_input_embeddings().weight[:, new.start :] = 0.0
    text.norm.weight[new.start :] = 0.05
    for layer in text.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for reader in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            reader.weight[:, new.start :] = 0.0
        for writer in (attention.o_proj, mlp.down_proj):
            writer.weight[new.start :] = 0.0
        group = _Group(attention)
        for head in range(2):
            group.query[head].zero_()
            group.output[head].zero_()
        group.key.zero_()
    for merger in (visual.merger, *visual.deepstack_merger_list):
        rows = slice(new.descriptor.stop, None) if merger is visual.merger else slice(new.start, None)
        merger.linear_fc2.weight[rows] = 0.0
        merger.linear_fc2.bias[rows] = 0.0


def _build_embeddings(model: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """Codes and marks in the tokens; returns the root mean square of coordinate tokens and end-of-image marks."""
    table = model.get_input_embeddings().weight
    new = MatchLayout(table.shape[1])
    position = torch.arange(COORDINATE_RANGE + 1) / COORDINATE_RANGE
    code = EMBEDDED_CODE * position_code(position, POINTING_PERIODS)  # [1001, 8]
    middle = new.answer.start + code.shape[1]
    coordinates = []
    for axis, columns in (("x", slice(new.answer.start, middle)), ("y", slice(middle, new.answer.stop))):
        ids = torch.tensor(coordinate_ids(tokenizer, axis))
        table[ids, columns] = code
        coordinates.append(ids)
    end = int(tokenizer.convert_tokens_to_ids("<|vision_end|>"))
    table[end, new.second] = END_MARK
    table[assistant_token(tokenizer), new.assistant] = 1.0
    model.model.language_model.norm.weight[new.answer] = ANSWER_GAIN
    return {
        "coordinates": float(table[torch.cat(coordinates)].pow(2).mean(dim=1).sqrt().mean()),
        "end": float(table[end].pow(2).mean().sqrt()),
    }


def assistant_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The longest token of the word that opens the assistant's head."""
    tokens = tokenizer.tokenize("<|im_start|>assistant")[1:]
    return int(tokenizer.convert_tokens_to_ids(max(tokens, key=len)))


def _build_places(last: nn.Linear, new: MatchLayout, read: Tensor) -> None:
    """Image tokens get their exact place codes: what ``read`` makes of the codes that the merger hands on."""
    last.weight[new.place] = read[:16].T @ last.weight[:16]
    last.bias[new.place] = read[:16].T @ last.bias[:16] + read[16]


def _build_gathering(
    group: _Group, norm: Tensor, codes: CodeLayout, new: MatchLayout, loudness: dict[str, float]
) -> None:
    pairs, distance = _RECENT
    first, second = group.query
    first[_FLAG, codes.image_flag] = 1.0
    group.key[_FLAG, new.second] = 1.0
    group.key[_OTHER, codes.image_flag] = 0.03
    for pair in pairs:
        turn = distance * 5_000_000 ** (-pair / (HEAD_DIM // 2))  # radians
        second[pair, codes.image_flag] = -math.cos(turn)
        second[pair + HEAD_DIM // 2, codes.image_flag] = math.sin(turn)
        group.key[pair, codes.coordinate_flag] = 1.0
    group.value.zero_()
    group.value[0, new.second] = 1.0
    group.output[0][new.second, 0] = loudness["end"] / (END_MARK * norm[new.second])
    for code in range(2 * codes.pointing):
        group.value[1 + code, code] = 1.0
        # half of the coordinates are x and half are y
        group.output[1][new.place.start + code, 1 + code] = 2 * loudness["coordinates"] / norm[code]


def _build_reading(group: _Group, codes: CodeLayout, new: MatchLayout, gathered: float) -> None:
    sharp, other = math.sqrt(POINT_FLAGS * 5 / 8), math.sqrt(POINT_FLAGS * 3 / 8)
    # ``gathered``: amplitude of the codes that the first head of layer 0 gathers
    weights = kernel_weights()
    for code in range(2 * codes.pointing):
        group.key[16 + code, new.place.start + code] = 1 / READ_GAIN
        group.query[0][16 + code, code] = weights[code] / gathered
        group.query[1][16 + code, new.place.start + code] = weights[code] / READ_GAIN
    # the first image alone: text and the second image carry the other sign
    group.key[_FLAG, codes.image_flag], group.key[_FLAG, new.second] = sharp, -2 * sharp
    group.key[_OTHER, codes.image_flag] = other
    for query in group.query:
        query[_FLAG, codes.image_flag] = -sharp
        query[_OTHER, codes.image_flag] = -other
        query[_OTHER, new.second] = -4 * other  # tokens of the second image look away from images
    group.value[:DESCRIPTOR] = 0.0
    for channel in range(DESCRIPTOR):
        group.value[channel, new.descriptor.start + channel] = 1.0
        group.output[0][new.descriptor.start + channel, channel] = 1.0


def _build_comparing(group: _Group, codes: CodeLayout, new: MatchLayout) -> None:
    sharp, other = math.sqrt(MATCH_FLAGS * 3 / 4), math.sqrt(MATCH_FLAGS / 4)
    query = group.query[0]
    for channel in range(DESCRIPTOR):
        row = 16 + channel if channel < SHARP else 32 + channel
        query[row, new.descriptor.start + channel] = 1.0
        group.key[row, new.descriptor.start + channel] = 1.0
    group.key[_FLAG, new.second] = sharp
    group.key[_OTHER, codes.image_flag] = other
    query[_FLAG, codes.image_flag] = -sharp  # text looks for the second image, images for the first
    query[_OTHER, codes.image_flag], query[_OTHER, new.second] = -other, 2 * other
    group.value[:16] = 0.0
    for code in range(2 * codes.pointing):
        group.value[code, new.place.start + code] = 1 / READ_GAIN
        group.output[0][new.answer.start + code, code] = 1.0


def _build_answering(group: _Group, codes: CodeLayout, new: MatchLayout) -> None:
    first, second = group.query
    first[_FLAG, codes.image_flag] = -1.0
    group.key[_FLAG, new.assistant] = 1.0
    group.key[_OTHER, codes.image_flag] = 0.1
    group.key[_POOL, new.second] = 1.0
    second[_POOL, codes.image_flag] = -1.0
    group.value[:16] = 0.0
    for code in range(2 * codes.pointing):
        group.value[code, new.answer.start + code] = 1 / READ_GAIN
        group.output[0][new.answer.start + code, code] = 1.0


@torch.no_grad()
def codes_reading(tokens: Tensor, codes: Tensor, ridge: float = 1e-4) -> Tensor:
    """``Measured.codes`` [17, 16] from image tokens [N, hidden] and the exact codes of their places [N, 16]."""
    seen = torch.cat([tokens[:, :16], torch.ones(len(tokens), 1)], dim=1).double()
    gram = seen.T @ seen
    return torch.linalg.solve(gram + ridge * len(tokens) * torch.eye(17).double(), seen.T @ codes.double()).float()
