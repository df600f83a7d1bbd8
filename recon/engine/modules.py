"""The checkpoint's model as the engine runs it: the same weights in modules that are faster in inference.

The twin is a copy of the module tree that shares every parameter, so that the model the user holds (and may train, or
ask with ``generate``) stays as it is. On a GPU everything in it is Hugging Face's; on a CPU the linear layers and the
text model's layers (:mod:`recon.engine.layers`) are not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextDecoderLayer, Qwen3VLTextRMSNorm
from vlm3_kernels.linear import linear

from recon.engine import attention
from recon.engine.layers import FastLayer, FastLinear, FastNorm

Replace = Callable[[nn.Module], nn.Module | None]


class FastPatches(nn.Module):
    """A convolution whose windows are its whole input (the patch embedding), as the matrix product that it is."""

    def __init__(self, source: nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = source.weight, source.bias

    def forward(self, patches: torch.Tensor) -> torch.Tensor:  # [n, C, T, P, P] -> [n, H, 1, 1, 1]
        return linear(patches.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None, None]


def fast_modules(module: nn.Module) -> nn.Module | None:
    """The replacement of a module on a CPU; None: as it is."""
    if type(module) is nn.Linear:
        return FastLinear(module)
    if type(module) is nn.Conv3d and module.kernel_size == module.stride:
        return FastPatches(module)
    if type(module) is Qwen3VLTextRMSNorm:
        return FastNorm(module)
    if type(module) is Qwen3VLTextDecoderLayer:
        mlp: Any = module.mlp
        return FastLayer(module) if mlp.config.hidden_act == "silu" else None
    return None


def inference_twin(
    model: Qwen3VLForConditionalGeneration, replace: Replace | None = None
) -> Qwen3VLForConditionalGeneration:
    """The model with replaced modules and our attention function in its text layers; parameters are shared.

    ``replace`` gives a module's replacement or None; by default the fast modules on a CPU and nothing elsewhere.
    """
    attention.register()
    if model.device.type == "cpu":
        _keep_freed_memory()
    if replace is None:
        replace = fast_modules if model.device.type == "cpu" else _nothing
    text_config = copy.copy(model.config.text_config)
    text_config._attn_implementation = attention.ATTENTION_NAME
    twin = _copy(model, replace, model.config.text_config, text_config)
    assert isinstance(twin, Qwen3VLForConditionalGeneration)
    return twin


def _keep_freed_memory() -> None:
    """Lets the C library reuse freed blocks instead of giving them back to the system after every operation.

    glibc maps large blocks anew, and the system clears them page by page, until a block of that size has been freed
    once (mallopt(3), M_MMAP_THRESHOLD, at most 32 MiB). It is never touched, so it takes no memory.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def _copy(module: nn.Module, replace: Replace, old_config: Any, new_config: Any) -> nn.Module:
    replacement = replace(module)
    if replacement is not None:
        return replacement
    twin = copy.copy(module)
    twin._modules = {
        name: child if child is None else _copy(child, replace, old_config, new_config)
        for name, child in module._modules.items()
    }
    if getattr(twin, "config", None) is old_config:
        twin.config = new_config
    return twin


def _nothing(module: nn.Module) -> nn.Module | None:
    return None
