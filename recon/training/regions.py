"""Comparing regions, built into small models like pointing and matching.

"Is A wider than B?" needs the product of what is asked (which difference, which way round) and what is seen. The MLPs
of the architecture multiply: ``down(silu(gate(x)) * up(x))``. So every MLP gets one more unit per form of question, and
in one layer each of them has a fixed job: its *gate* opens when its form is asked, its *up* says how clearly the form
holds for the regions (or the logarithm of a length), and its *down* writes that where the two words of an answer differ
(or into a channel that the next layer says in digits). Gate and up are taught directly (:func:`region_loss`): each of
them has a label of its own and need not wait for the other. So is what an up has to be made of: a linear reading of
what is known about a region at its last corner, thrown away afterwards.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot, smooth_l1_loss
from transformers import PreTrainedTokenizerBase, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from recon.training.match_structure import MatchLayout, can_match
from recon.training.region_targets import COMPARISONS, KNOWN, LENGTHS, UNITS
from recon.training.structure import CODE_CHANNELS

LAYER = 2
WORD_GAIN, LENGTH_GAIN = 0.5, 1.5
_UP_WEIGHT, _CORNER_WEIGHT = 4.0, 3.0
_CORNER_LAYER = 1  # whose output holds at a region's last corner what is known about the region
_START = 0.02  # standard deviation of new gates and ups


def has_regions(model: Qwen3VLForConditionalGeneration) -> bool:
    """Whether a model has the units of :func:`with_regions` (as long as its structure is held)."""
    if not can_match(model.config):
        return False
    channel = MatchLayout(model.config.text_config.hidden_size).descriptor.start
    written = region_mlp(model).down_proj.weight[channel, -UNITS:]
    expected = torch.zeros_like(written)
    expected[list(LENGTHS)] = LENGTH_GAIN
    return bool(torch.equal(written, expected))


@torch.no_grad()
def with_regions(
    model: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, loudness: float = 30.0, seed: int = 0
) -> Qwen3VLForConditionalGeneration:
    """The model with a unit per form of question in every MLP, answering as before (float32, on the CPU); a model that
    has them stays as it is.

    Args:
        model: one in which matching is built in.
        tokenizer: its tokenizer.
        loudness: root mean square of the last layer's output, beside which the answer's word must be heard.
        seed: of the new units, which begin nearly closed.

    Raises:
        ValueError: a shape without matching.
    """
    if not can_match(model.config):
        raise ValueError("comparing regions is built into models that have matching")
    if has_regions(model):
        return model
    config = Qwen3VLConfig.from_dict(model.config.to_dict())
    config.text_config.intermediate_size += UNITS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wider = Qwen3VLForConditionalGeneration(config).float()
        old, new = model.state_dict(), wider.state_dict()
        for name, tensor in new.items():
            if name != "lm_head.weight":
                tensor.zero_()
                tensor[tuple(slice(size) for size in old[name].shape)] = old[name].float()
        wider.load_state_dict(new)
        wider.tie_weights()
        for layer in wider.model.language_model.layers:  # from 0 in gate, up and down no unit would ever learn
            for reader in (layer.mlp.gate_proj, layer.mlp.up_proj):
                reader.weight[-UNITS:].normal_(0.0, _START)
    _build_words(wider, tokenizer, region_mlp(wider).down_proj.weight[:, -UNITS:], loudness)
    return wider


def region_mlp(model: Qwen3VLForConditionalGeneration) -> Any:
    """The MLP whose last units compare regions."""
    return model.model.language_model.layers[LAYER].mlp


def _build_words(
    model: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, down: Tensor, loudness: float
) -> None:
    table, norm = model.get_input_embeddings().weight, model.model.language_model.norm.weight
    layout = MatchLayout(table.shape[1])
    yes, no = (tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("Correct.", "Incorrect."))
    differ = norm * (table[yes] - table[no])
    differ[:CODE_CHANNELS] = 0.0  # codes and matching stay what they are
    differ[layout.start :] = 0.0
    down[:, list(COMPARISONS)] = (WORD_GAIN * loudness * differ / differ.pow(2).sum())[:, None]
    # text needs its descriptor no more once layer 2 has compared it
    down[layout.descriptor.start, list(LENGTHS)] = LENGTH_GAIN


class RegionLessons:
    """Teaches a model's region units beside its answers.

    While it is open the model has one more part, ``region_reading``, which optimisers train and checkpoints hold.
    """

    def __init__(self, model: Qwen3VLForConditionalGeneration) -> None:
        self._said: dict[str, Tensor] = {}
        self._model = model
        self._reading = nn.Linear(model.config.text_config.hidden_size, KNOWN)
        nn.init.zeros_(self._reading.weight)
        nn.init.zeros_(self._reading.bias)
        model.region_reading = self._reading
        mlp = region_mlp(model)
        parts = {
            "gate": mlp.gate_proj,
            "up": mlp.up_proj,
            "corner": model.model.language_model.layers[_CORNER_LAYER],
        }
        self._handles = [part.register_forward_hook(self._keep(name)) for name, part in parts.items()]

    def _keep(self, name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            self._said[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def loss(self, regions: dict[str, Tensor]) -> Tensor:
        """Of the last forward pass, at the places that ``regions`` (of a batch) names."""
        where = regions["rows"], regions["columns"]
        gates, ups = (self._said[name][where][:, -UNITS:].float() for name in ("gate", "up"))
        corners = self._said["corner"][regions["corner_rows"], regions["corner_columns"]].float()
        seen = self._reading(corners * corners.pow(2).mean(dim=1, keepdim=True).rsqrt())
        corner = smooth_l1_loss(seen.float(), regions["known"].to(seen), beta=0.2)
        return region_loss(gates, ups, regions["forms"], regions["values"]) + _CORNER_WEIGHT * corner

    def close(self) -> None:
        """The model is as it was, but for what it has learned."""
        for handle in self._handles:
            handle.remove()
        del self._model.region_reading


def region_loss(gates: Tensor, ups: Tensor, forms: Tensor, values: Tensor) -> Tensor:
    """How far the units are from their jobs.

    Args:
        gates, ups: of N questions [N, 18], where the first token of the answer is said.
        forms: which form each question has [N].
        values: ``RegionTarget.values`` [N, 18].
    """
    asked = one_hot(forms, UNITS).to(gates)
    gate = binary_cross_entropy_with_logits(gates, asked) * UNITS
    known = values.isfinite()
    up = smooth_l1_loss(ups[known], values[known].to(ups), beta=0.3) if known.any() else ups.sum() * 0.0
    return gate + _UP_WEIGHT * up
