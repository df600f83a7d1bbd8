"""One pass through Hugging Face's text layers with our attention context.

The layers, norms and rotary tables are the checkpoint's own modules. The loop is ours because the last layer only has
work where logits are read, and because no mask, cache object or ``rope_deltas`` of the model is involved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Qwen3VLForConditionalGeneration
from vlm3_kernels.prefix_attention.spans import Spans

from recon.engine.attention import AttentionContext, SegmentContext, SuffixContext
from recon.engine.keyvalues import KeyValues
from recon.engine.layers import Rotary, rotate


class TextRunner:
    """Runs tokens of one packed sequence through the text model. ``model`` is a twin of :mod:`recon.engine.modules`."""

    def __init__(self, model: Qwen3VLForConditionalGeneration) -> None:
        text: Any = model.model.language_model
        self.config = text.config
        self.device = model.device
        self.dtype = model.dtype
        self.head_weight: torch.Tensor = model.lm_head.weight
        self._text = text

    @property
    def num_layers(self) -> int:
        return len(self._text.layers)

    @property
    def head_dim(self) -> int:
        return int(self._text.layers[0].self_attn.head_dim)

    @property
    def kv_bytes_per_token(self) -> int:
        per_layer = 2 * self.config.num_key_value_heads * self.head_dim * self.dtype.itemsize
        return int(self.num_layers * per_layer)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """[T] token ids -> [T, H]."""
        return self._text.embed_tokens(ids)

    def empty_keys(self) -> KeyValues:
        return KeyValues.empty(self.num_layers, self.config.num_key_value_heads, self.head_dim, self.device, self.dtype)

    def run_segment(
        self,
        hidden: torch.Tensor,  # [T, H]
        positions: torch.Tensor,  # [3, T]
        past: KeyValues,
        image_mask: torch.Tensor | None = None,  # [T] bool
        deepstack: Sequence[torch.Tensor] = (),  # each [number of image tokens, H]
    ) -> KeyValues:
        """Runs prefix tokens after ``past`` and returns their keys and values."""
        context = SegmentContext(past)
        rotary = self._rotary(hidden, positions)
        hidden = hidden[None]
        layers = self._text.layers
        for i, layer in enumerate(layers[:-1]):
            hidden = self._layer(layer, hidden, rotary, context)
            if i < len(deepstack) and image_mask is not None:
                hidden = hidden.clone()
                hidden[0, image_mask] += deepstack[i].to(hidden.dtype)
        # Nothing reads the prefix's last hidden states, only its last keys and values.
        last = layers[-1].self_attn
        key, value = self._key_value(last, layers[-1].input_layernorm(hidden), rotary)
        context.keys.append(key[0].contiguous())
        context.values.append(value[0].contiguous())
        return context.collected()

    def run_suffix(
        self,
        ids: torch.Tensor,  # [T]
        positions: torch.Tensor,  # [T], the same on all three axes
        context: SuffixContext,
        keep: torch.Tensor | None = None,  # [K] packed tokens whose output is wanted
        keep_spans: Spans | None = None,  # one span of one token for each of them
    ) -> torch.Tensor:
        """Runs packed question tokens; returns the final hidden states [K or T, H] (normalised)."""
        hidden = self.embed(ids)
        rotary = self._rotary(hidden, positions.expand(3, -1))
        hidden = hidden[None]
        layers = self._text.layers
        for layer in layers[:-1]:
            hidden = self._layer(layer, hidden, rotary, context)
        if keep is None:
            hidden = self._layer(layers[-1], hidden, rotary, context)
        else:
            assert keep_spans is not None
            context.set_query_spans(keep_spans)
            hidden = self._last_layer(layers[-1], hidden, rotary, context, keep)
        return self._text.norm(hidden)[0]

    def _rotary(self, hidden: torch.Tensor, positions: torch.Tensor) -> Rotary:
        return self._text.rotary_emb(hidden[None], positions[:, None])

    @staticmethod
    def _layer(layer: Any, hidden: torch.Tensor, rotary: Rotary, context: AttentionContext) -> torch.Tensor:
        return layer(hidden, position_embeddings=rotary, attention_mask=None, recon_context=context)

    @staticmethod
    def _key_value(attn: Any, hidden: torch.Tensor, rotary: Rotary) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (*hidden.shape[:-1], -1, attn.head_dim)
        key = rotate(attn.k_norm(attn.k_proj(hidden).view(shape)), rotary)
        return key.transpose(1, 2), attn.v_proj(hidden).view(shape).transpose(1, 2)

    def _last_layer(
        self,
        layer: Any,
        hidden: torch.Tensor,  # [1, T, H]
        rotary: Rotary,
        context: SuffixContext,
        keep: torch.Tensor,
    ) -> torch.Tensor:  # [1, K, H]
        """The layer's forward for all keys but only the kept queries (the same arithmetic per token)."""
        attn = layer.self_attn
        normed = layer.input_layernorm(hidden)
        key, value = self._key_value(attn, normed, rotary)
        if len(keep) == 0:
            context.store(attn.layer_idx, key, value)
            return hidden[:, :0]
        kept, kept_rotary = normed[:, keep], (rotary[0][:, keep], rotary[1][:, keep])
        query = rotate(attn.q_norm(attn.q_proj(kept).view(*kept.shape[:-1], -1, attn.head_dim)), kept_rotary)
        mixed = context.attend(attn.layer_idx, query.transpose(1, 2), key, value, attn.scaling)
        hidden = hidden[:, keep] + attn.o_proj(mixed.reshape(*kept.shape[:-1], -1))
        return hidden + layer.mlp(layer.post_attention_layernorm(hidden))
