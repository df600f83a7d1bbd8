"""What the decoder did, for benchmarks and tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class DecodeStats:
    """Work done: forward passes and tokens fed in prefill and decode, drafted and accepted tokens, most slab bytes.

    ``num_fixed_steps``: decode passes that ran in buffers of fixed size (as a graph on a GPU).
    """

    num_prefill_tokens: int = 0
    num_steps: int = 0
    num_fixed_steps: int = 0
    num_decode_tokens: int = 0
    num_drafted_tokens: int = 0
    num_accepted_tokens: int = 0
    peak_slab_bytes: int = 0
