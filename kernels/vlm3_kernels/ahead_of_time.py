"""Compiling the kernels without a GPU: proof that they build for an architecture, and what they cost there.

Works on NVIDIA targets through the ``ptxas`` that Triton brings along, and on AMD targets through LLVM.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vlm3_kernels.lm_head import kernel as head
from vlm3_kernels.prefix_attention import kernel as attention

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
TENSOR_CORE = {"sm_80": r"\bmma\.sync", "sm_90": r"\b(wgmma\.mma_async|mma\.sync)", "gfx942": r"\bv_mfma_"}


@dataclass(frozen=True)
class Built:
    """One kernel on one architecture: registers per thread, spilled bytes (or registers on AMD), shared memory."""

    kernel: str
    target: str
    registers: int
    spills: int
    shared_bytes: int
    uses_tensor_cores: bool


@dataclass(frozen=True)
class Variant:
    """A kernel with the argument types and constants it is launched with for Qwen3-VL-4B in bfloat16."""

    name: str
    function: Any
    types: dict[str, str]
    constants: dict[str, Any]
    num_warps: int
    num_stages: int


def variants(target: str, dtype: torch.dtype = torch.bfloat16) -> list[Variant]:
    """All kernels that do matrix products, as launched for Qwen3-VL-4B (8 key-value heads, groups of 4, D 128)."""
    pointer = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}[dtype]
    shape = {"NUM_KV": 8, "GROUP": 4, "DIM": 128, "PRECISION": "ieee"}
    made = []
    for part, function in (
        ("prefill", attention._prefix_attention_prefill),
        ("shared", attention._prefix_attention_shared),
        ("own", attention._prefix_attention_own),
    ):
        tiles = attention.tiles_for(part, target, dtype)
        constants = {**shape, "BLOCK_M": tiles.block_m, "BLOCK_N": tiles.block_n}
        types = _types(function, constants, pointer)
        made.append(Variant(f"prefix_attention_{part}", function, types, constants, tiles.num_warps, tiles.num_stages))
    sizes = head.tiles_for(dtype)
    constants = {
        "HIDDEN": 2560,
        "SLICE_BLOCKS": head.SLICE_BLOCKS,
        "BLOCK_M": sizes.block_m,
        "BLOCK_V": sizes.block_v,
        "BLOCK_H": sizes.block_h,
        "PRECISION": "ieee",
    }
    function = head._lm_head_blocks
    types = _types(function, constants, pointer)
    made.append(Variant("lm_head_blocks", function, types, constants, sizes.num_warps, sizes.num_stages))
    return made


def build(variant: Variant, target: str) -> Built:
    """Compiles one kernel for one architecture."""
    # Pointers and head strides are multiples of 16 bytes, as launches find by themselves.
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(variant.function.arg_names)
        if variant.types.get(name, "").startswith("*")
    }
    source = ASTSource(variant.function, variant.types, variant.constants, aligned)
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages, "enable_fp_fusion": True}
    compiled = triton.compile(source, target=TARGETS[target], options=options)
    text = compiled.asm["ptx"] if "ptx" in compiled.asm else compiled.asm["amdgcn"]
    registers, spills = _ptxas(text, target) if "ptx" in compiled.asm else _amd(text)
    uses_cores = re.search(TENSOR_CORE[target], text) is not None
    return Built(variant.name, target, registers, spills, int(compiled.metadata.shared), uses_cores)


def _types(function: Any, constants: dict[str, Any], pointer: str) -> dict[str, str]:
    """Argument types by name: what holds indices, statistics or sizes is known by it."""
    special = {
        **dict.fromkeys(("row", "first_token", "num_seen", "span_of_token", "index", "prefix_length"), "*i32"),
        **dict.fromkeys(("state_acc", "state_max", "state_sum", "best", "second", "total"), "*fp32"),
        **dict.fromkeys(
            ("num_tokens", "num_prefix", "prefix_room", "capacity", "num_spans", "num_vocab", "num_slices"), "i32"
        ),
        "scale_log2": "fp32",
    }
    return {name: "constexpr" if name in constants else special.get(name, pointer) for name in function.arg_names}


def _ptxas(ptx: str, target: str) -> tuple[int, int]:
    """Registers per thread and spilled bytes, as ``ptxas -v`` says."""
    from triton.backends.nvidia.compiler import get_ptxas

    architecture = {"sm_90": "sm_90a"}.get(target, target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        ptxas = get_ptxas(TARGETS[target].arch).path  # which one depends on the architecture
        command = [ptxas, "-v", "--regAllocOptLevel=2", f"--gpu-name={architecture}", str(path), "-o", str(path) + ".o"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", said)
    spills = re.findall(r"(\d+) bytes spill", said)
    if registers is None or not spills:
        raise RuntimeError(f"ptxas said nothing about registers: {said[:200]}")
    return int(registers.group(1)), sum(int(s) for s in spills)


def _amd(text: str) -> tuple[int, int]:
    """Vector registers per lane and spilled ones, from the code object's metadata."""

    def value(key: str) -> int:
        found = re.search(rf"\.{key}:\s+(\d+)", text)
        if found is None:
            raise RuntimeError(f"the code object does not say {key}")
        return int(found.group(1))

    return value("vgpr_count"), value("vgpr_spill_count")
