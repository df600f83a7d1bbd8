"""How much memory a training run needs per GPU, from the architecture's real shapes without its weights.

The model is built on PyTorch's meta device, which holds shapes and no data. Parameters, gradients and AdamW's two
moments are counted and divided by the GPUs that share them (FSDP, full shard). Activations are what autograd keeps for
the backward pass: one text layer and one vision block are run on the meta device and what they save is summed. With
gradient checkpointing only each layer's input is kept, and one layer's activations at a time.

Not counted: the framework's own workspace and fragmentation (allow 10 %), and the gathered weights that the GPU's
communication library buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from recon.training.attention import use_packed_attention

FLOAT32, BFLOAT16 = 4, 2  # bytes
ADAM_MOMENTS = 2


@dataclass(frozen=True)
class Workload:
    """What one GPU is given per step.

    Attributes:
        samples: images or pairs.
        image_tokens: of one sample (after merging four patches).
        questions: per sample.
        suffix_tokens: of one question and its answer.
        answer_tokens: learned tokens of one answer.
        text_tokens: shared by a sample's questions beside the image tokens.
    """

    samples: int = 1
    image_tokens: int = 1102  # a 4:3 photo of 1215 x 920 pixels, focal length 1000
    questions: int = 10
    suffix_tokens: int = 110
    answer_tokens: int = 36
    text_tokens: int = 30

    @property
    def sequence(self) -> int:
        """Tokens of one packed row."""
        return self.image_tokens + self.text_tokens + self.questions * self.suffix_tokens


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on each of ``gpus`` GPUs. ``gathered``: the largest layer, whole, twice (one in use, one on its way)."""

    gpus: int
    num_parameters: int
    num_trained: int
    parameters: int
    gradients: int
    optimiser: int
    activations: int
    gathered: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.gradients + self.optimiser + self.activations + self.gathered


def plan_memory(
    config: Qwen3VLConfig,
    workload: Workload,
    gpus: int,
    bf16: bool = True,
    gradient_checkpointing: bool = True,
    lora_rank: int = 0,
) -> MemoryPlan:
    """Memory of full fine-tuning (or of LoRA) with float32 master weights, shared by ``gpus`` under FSDP.

    Raises:
        ValueError: fewer than one GPU.
    """
    if gpus < 1:
        raise ValueError(f"gpus must be at least 1, got {gpus}")
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config)
    use_packed_attention(model)
    total = count_parameters(model)
    trained = _lora_parameters(model, lora_rank) if lora_rank else total
    kept = total + (trained if lora_rank else 0)
    layers: list[nn.Module] = [*model.model.language_model.layers, *model.model.visual.blocks]
    largest = max(count_parameters(layer) for layer in layers)
    return MemoryPlan(
        gpus=gpus,
        num_parameters=total,
        num_trained=trained,
        parameters=_share(kept * FLOAT32, gpus),
        gradients=_share(trained * FLOAT32, gpus),
        optimiser=_share(trained * FLOAT32 * ADAM_MOMENTS, gpus),
        activations=activation_bytes(model, workload, bf16, gradient_checkpointing),
        gathered=2 * largest * (BFLOAT16 if bf16 else FLOAT32) if gpus > 1 else 0,
    )


def count_parameters(module: nn.Module) -> int:
    """Numbers in the module's parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def activation_bytes(
    model: Qwen3VLForConditionalGeneration, workload: Workload, bf16: bool, gradient_checkpointing: bool
) -> int:
    """What autograd keeps for the backward pass of one GPU's samples; ``model`` lies on the meta device."""
    config, tower = model.config.text_config, model.config.vision_config
    dtype = torch.bfloat16 if bf16 else torch.float32
    size = BFLOAT16 if bf16 else FLOAT32
    text_layer, text_input = _text_layer(model, workload, dtype)
    one_text = text_input.numel() * size if gradient_checkpointing else saved_bytes(text_layer, text_input)
    block, block_input = _vision_block(model, workload, dtype)
    one_block = block_input.numel() * size if gradient_checkpointing else saved_bytes(block, block_input)
    kept = config.num_hidden_layers * one_text + tower.depth * workload.samples * one_block
    if gradient_checkpointing:  # one layer is recomputed at a time; the tower goes image by image, but keeps them all
        kept += max(saved_bytes(text_layer, text_input), workload.samples * saved_bytes(block, block_input))
    patches = workload.samples * workload.image_tokens * tower.spatial_merge_size**2
    wide = patches * tower.hidden_size  # as many numbers as the merged tokens have, four times as wide
    kept += (1 + len(tower.deepstack_visual_indexes)) * 3 * wide * size  # mergers: normalised, hidden, activated
    # logits, their logarithmic softmax and its gradient, in float32, at the answers' columns
    columns = workload.samples * workload.questions * workload.answer_tokens
    return kept + columns * config.vocab_size * (size + 2 * FLOAT32)


def saved_bytes(run: Callable[[Tensor], Tensor], hidden: Tensor) -> int:
    """Bytes of what autograd saves in ``run(hidden)`` beside parameters, each storage once."""
    seen: dict[int, tuple[int, Tensor]] = {}  # the tensors are kept, so that no id is used twice

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and not (tensor.is_leaf and tensor.requires_grad):
            base = tensor if tensor._base is None else tensor._base
            if not isinstance(base, nn.Parameter):
                seen[id(base)] = (base.numel() * base.element_size(), base)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run(hidden)
    assert result.requires_grad
    return sum(count for count, _ in seen.values())


def _text_layer(
    model: Qwen3VLForConditionalGeneration, workload: Workload, dtype: torch.dtype
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    text, config = model.model.language_model, model.config.text_config
    device = next(text.parameters()).device
    layer = text.layers[0].to(dtype)
    shape = (workload.samples, workload.sequence)
    prefix = workload.image_tokens + workload.text_tokens
    packing = {
        "prefix": torch.ones((workload.samples, prefix), dtype=torch.bool, device=device),
        "suffixes": torch.ones(
            (workload.samples, workload.questions, workload.suffix_tokens), dtype=torch.long, device=device
        ),
    }
    angles = torch.ones((*shape, config.head_dim), dtype=dtype, device=device)

    def run(hidden: Tensor) -> Tensor:
        return _first(layer(hidden, position_embeddings=(angles, angles), attention_mask=None, packing=packing))

    return run, torch.ones((*shape, config.hidden_size), dtype=dtype, device=device, requires_grad=True)


def _vision_block(
    model: Qwen3VLForConditionalGeneration, workload: Workload, dtype: torch.dtype
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A block on one image."""
    visual, config = model.model.visual, model.config.vision_config
    device = next(visual.parameters()).device
    block = visual.blocks[0].to(dtype)
    patches = workload.image_tokens * config.spatial_merge_size**2
    ends = torch.tensor([0, patches], dtype=torch.int32)
    angles = torch.ones((patches, config.hidden_size // config.num_heads), dtype=dtype, device=device)

    def run(hidden: Tensor) -> Tensor:
        return _first(block(hidden, cu_seqlens=ends, position_embeddings=(angles, angles)))

    return run, torch.ones((patches, config.hidden_size), dtype=dtype, device=device, requires_grad=True)


def _first(output: Any) -> Tensor:
    tensor = output[0] if isinstance(output, tuple) else output
    assert isinstance(tensor, Tensor)
    return tensor


def _lora_parameters(model: Qwen3VLForConditionalGeneration, rank: int) -> int:
    matrices: Iterable[nn.Module] = (
        module for layer in model.model.language_model.layers for module in layer.modules()
    )
    return sum(rank * (m.in_features + m.out_features) for m in matrices if isinstance(m, nn.Linear))


def _share(count: int, gpus: int) -> int:
    return -(-count // gpus)


def table(plans: Iterable[MemoryPlan]) -> str:
    """The plans as text, a line per number of GPUs, in GiB per GPU."""
    names = ("parameters", "gradients", "optimiser", "activations", "gathered", "total")
    lines = ["GPUs  " + "  ".join(f"{name:>11}" for name in names) + "   (GiB per GPU)"]
    for plan in plans:
        values = "  ".join(f"{getattr(plan, name) / 2**30:11.2f}" for name in names)
        lines.append(f"{plan.gpus:4d}  {values}")
    return "\n".join(lines)
