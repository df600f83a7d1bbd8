"""Running the questions' own tokens for the first time, in packed passes of constant size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from vlm3_kernels.prefix_attention.spans import Spans

from recon.engine.attention import SuffixContext
from recon.engine.forward import TextRunner
from recon.engine.keyvalues import SlabKeeper, SuffixSlab
from recon.engine.packing import Piece, branch_depth, pack
from recon.engine.prefix import Prefix
from recon.engine.statistics import DecodeStats

_BRANCH_BYTES = 1 << 26  # memory kept for shared beginnings between waves


class Prefiller:
    """Fills slab rows with the keys and values of question suffixes."""

    def __init__(
        self,
        runner: TextRunner,
        chunk_tokens: int,
        share_beginnings: bool,
        prune_last_layer: bool,
        split: bool,
        stats: DecodeStats,
    ) -> None:
        self._runner = runner
        self._chunk_tokens = chunk_tokens
        self._share_beginnings = share_beginnings
        self._prune_last_layer = prune_last_layer
        self._split = split
        self._stats = stats
        self._branches = SlabKeeper(_BRANCH_BYTES)

    def run(self, prefix: Prefix, slab: SuffixSlab, suffixes: Sequence[Sequence[int]]) -> torch.Tensor:
        """Runs all suffixes, suffix ``i`` in row ``i``; returns the last hidden state of each, [N, H]."""
        depth = branch_depth(suffixes) if self._share_beginnings else 0
        if depth:
            self._run_branches(prefix, slab, [tuple(suffix[:depth]) for suffix in suffixes])
        chunks = pack([len(s) for s in suffixes], self._chunk_tokens, split=self._split, first=depth)
        return torch.cat([self._run_chunk(prefix, slab, suffixes, chunk) for chunk in chunks])

    def _run_branches(self, prefix: Prefix, slab: SuffixSlab, heads: Sequence[tuple[int, ...]]) -> None:
        """Computes each distinct beginning once and copies its keys and values to the rows that begin so."""
        distinct = {head: i for i, head in enumerate(dict.fromkeys(heads))}
        depth = len(heads[0])
        branches = self._branches.get(prefix.key_values, len(distinct), depth)
        for chunk in pack([depth] * len(distinct), self._chunk_tokens):
            keys_only = [replace(piece, is_last=False) for piece in chunk]  # their outputs are not wanted
            self._run_chunk(prefix, branches, list(distinct), keys_only)
        branch_of_row = torch.tensor([distinct[head] for head in heads], device=self._runner.device)
        slab.copy_beginnings(branches, branch_of_row, depth)

    def _run_chunk(
        self, prefix: Prefix, slab: SuffixSlab, suffixes: Sequence[Sequence[int]], chunk: list[Piece]
    ) -> torch.Tensor:
        """Runs the chunk's tokens; returns the last hidden state of each suffix that ends in it."""
        device = self._runner.device
        ids = np.concatenate([suffixes[piece.index][piece.begin : piece.end] for piece in chunk])
        tokens = torch.from_numpy(ids).to(device)
        self._stats.num_prefill_tokens += len(ids)
        spans = Spans.pack([p.index for p in chunk], [p.end - p.begin for p in chunk], [p.begin for p in chunk], device)
        context = SuffixContext(prefix.key_values, slab, spans)
        complete = [i for i, piece in enumerate(chunk) if piece.is_last]
        keep = spans.first_token[1:][complete].long() - 1
        positions = prefix.next_position + spans.token_place
        if not self._prune_last_layer:
            return self._runner.run_suffix(tokens, positions, context)[keep]
        rows = [chunk[i].index for i in complete]
        keep_spans = Spans.pack(rows, [1] * len(rows), [chunk[i].end - 1 for i in complete], device)
        return self._runner.run_suffix(tokens, positions, context, keep, keep_spans)
