"""Room for matching in a small model that answers already: wider by 64 channels and one group of heads.

Everything that the model computes stays as it was (up to rounding): new channels and heads are read by nobody and write
nothing but what :mod:`recon.training.matching` builds into them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from recon.training.attention import use_packed_attention
from recon.training.descriptors import place_codes
from recon.training.encode import EncodedSample, collate
from recon.training.match_structure import CHANNELS, HEAD_DIM, MatchLayout, can_match
from recon.training.matching import Measured, build_matching, codes_reading

_PER_GROUP = 2


def widened_config(config: Qwen3VLConfig) -> Qwen3VLConfig:
    """The configuration with 64 more channels and one more group of two heads in the text model."""
    wider = Qwen3VLConfig.from_dict(config.to_dict())
    text = wider.text_config
    text.hidden_size += CHANNELS
    text.num_key_value_heads += 1
    text.num_attention_heads += _PER_GROUP
    wider.vision_config.out_hidden_size = text.hidden_size
    return wider


@torch.no_grad()
def widened(
    model: Qwen3VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[EncodedSample],
    seed: int = 0,
) -> Qwen3VLForConditionalGeneration:
    """A model that answers what ``model`` answers and has matching built in (float32, on the CPU).

    Args:
        model: a small model of this project's own making, with two heads per key head and four layers.
        tokenizer: its tokenizer.
        samples: some questions about single images, to measure how loud its streams are.
        seed: of the few new weights that are random.

    Raises:
        ValueError: a shape that matching can't be built into, or one that has it.
    """
    config = widened_config(model.config)
    if not can_match(config) or can_match(model.config):
        raise ValueError("matching is built into models of 4 layers with 2 key heads of 2 query heads each")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wider = Qwen3VLForConditionalGeneration(config).float()
        old, new = model.state_dict(), wider.state_dict()
        shrink = math.sqrt(model.config.text_config.hidden_size / config.text_config.hidden_size)
        for name, tensor in new.items():
            if name != "lm_head.weight":
                _extend(name, tensor, old[name].float(), shrink)
        wider.load_state_dict(new)
        wider.tie_weights()
        described = MatchLayout(config.text_config.hidden_size).descriptor
        wider.model.visual.merger.linear_fc2.weight[described].normal_(0.0, 0.02)  # from 0 nothing would be learned
        rebuild(wider, tokenizer, samples)
        free = wider.model.language_model.layers[2].self_attn.q_proj.weight[-HEAD_DIM:]
        free.normal_(0.0, 1 / math.sqrt(config.text_config.hidden_size))
    return wider


def rebuild(
    model: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, samples: Sequence[EncodedSample]
) -> None:
    """Builds matching anew for the tower as it is now (after schooling, before questions are learned)."""
    build_matching(model, tokenizer, measure(model, int(tokenizer.pad_token_id), samples))


def _extend(name: str, new: Tensor, old: Tensor, shrink: float) -> None:
    """Copies ``old`` into the corner of ``new``; the rest is 0, or random in the values of new heads."""
    corner = tuple(slice(size) for size in old.shape)
    if new.shape == old.shape:
        new.copy_(old)
        return
    if "layernorm" in name or name.endswith("language_model.norm.weight"):
        new.fill_(1.0)
        new[corner] = old
        new.mul_(shrink)  # the mean square is taken over more channels, of which the new ones are 0
        return
    new.zero_()
    if "v_proj" in name:
        new[old.shape[0] :, : old.shape[1]].normal_(0.0, 1 / math.sqrt(old.shape[1]))
    new[corner] = old


def measure(model: Qwen3VLForConditionalGeneration, pad_token_id: int, samples: Sequence[EncodedSample]) -> Measured:
    """What :func:`build_matching` has to know, from questions about single images."""
    use_packed_attention(model)
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            seen[name] = (arguments[0] if arguments else keywords["hidden_states"]).detach()[0]

        return hook

    layers = model.model.language_model.layers
    handles = [
        layers[number].register_forward_pre_hook(keep(str(number)), with_kwargs=True) for number in range(len(layers))
    ]
    tokens, codes, loudness = [], [], []
    try:
        for sample in samples:
            batch = collate([sample], pad_token_id)
            labels = batch.pop("labels")[0]
            del batch["datasets"], batch["skipped"]
            model(**batch, use_cache=False, logits_to_keep=1)
            image = batch["input_ids"][0] == model.config.image_token_id
            answers = (labels >= 0).nonzero().flatten()
            rows, columns = (int(n) // 2 for n in sample.grids[0, 1:])
            tokens.append(seen["0"][image])
            codes.append(place_codes(rows, columns))
            places = (("1", image), ("2", image), ("3", answers))
            loudness.append([float(seen[layer][where].pow(2).mean(dim=1).sqrt().mean()) for layer, where in places])
    finally:
        for handle in handles:
            handle.remove()
    image1, image2, answer3 = torch.tensor(loudness).mean(dim=0).tolist()
    return Measured(image1, image2, answer3, codes_reading(torch.cat(tokens), torch.cat(codes)))
