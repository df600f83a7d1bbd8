"""Greedy decoding of many questions together against one prefix.

A wave of questions is prefilled in packed chunks, then all its answers are decoded step by step. A drafter may propose
the next tokens of an answer; they are run in the same pass and kept only as far as they are what greedy decoding gives,
so drafts change the speed and nothing else. Finished questions leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from vlm3_kernels.lm_head import dispatch as head
from vlm3_kernels.prefix_attention.spans import Spans

from recon.engine.attention import SuffixContext, SuffixSlab
from recon.engine.forward import TextRunner
from recon.engine.packing import Piece, branch_depth, pack
from recon.engine.prefix import Prefix

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

_FIRST_ROOM = 32  # answer tokens that a slab row has room for before it grows


class Drafter(Protocol):
    """Proposes how answers go on; see :mod:`recon.engine.templates`. ``stops``: whether ``is_complete`` is asked."""

    @property
    def stops(self) -> bool: ...

    def draft(self, index: int, ids: Sequence[int]) -> Sequence[int]:
        """Likely next tokens of question ``index`` whose answer so far is ``ids`` (never the end token)."""
        ...

    def is_complete(self, index: int, ids: Sequence[int]) -> bool:
        """Whether decoding may stop here although the answer has not ended (its value is decided)."""
        ...


@dataclass(frozen=True)
class Generated:
    """One answer in tokens: ``ids`` with the end token if reached; per token its log-probability, its logit's margin
    over the second best, and the log-probabilities of the ten digits [n, 10] (NaN without single-digit tokens).
    """

    ids: tuple[int, ...]
    log_probs: Floats
    margins: Floats
    digit_log_probs: Floats
    ended: bool


@dataclass
class DecodeStats:
    """Work done: forward passes and tokens fed in prefill and decode, drafted and accepted tokens, most slab bytes."""

    num_prefill_tokens: int = 0
    num_steps: int = 0
    num_decode_tokens: int = 0
    num_drafted_tokens: int = 0
    num_accepted_tokens: int = 0
    peak_slab_bytes: int = 0


class _Tape:
    """The answers of a wave while they grow: arrays [N, room]."""

    def __init__(self, num_questions: int, num_digits: int) -> None:
        self.count = np.zeros(num_questions, dtype=np.int64)
        self.ids = np.zeros((num_questions, 16), dtype=np.int64)
        self.figures = np.zeros((num_questions, 16, 2 + num_digits), dtype=np.float32)

    def append(self, question: Ints, place: Ints, ids: Ints, figures: Floats) -> None:
        """Puts tokens at given places of given questions, growing the arrays when needed."""
        while place.max() >= self.ids.shape[1]:
            self.ids = np.concatenate([self.ids, np.zeros_like(self.ids)], axis=1)
            self.figures = np.concatenate([self.figures, np.zeros_like(self.figures)], axis=1)
        self.ids[question, place] = ids
        self.figures[question, place] = figures
        np.maximum.at(self.count, question, place + 1)

    def answer(self, i: int, ended: bool) -> Generated:
        n = self.count[i]
        figures = self.figures[i, :n]
        ids = tuple(int(t) for t in self.ids[i, :n])
        return Generated(ids, figures[:, 0], figures[:, 1], figures[:, 2:], ended)


class WaveDecoder:
    """Decodes one wave of questions after another; holds no state between waves but the statistics."""

    def __init__(
        self,
        runner: TextRunner,
        end_token_ids: Sequence[int],
        digit_ids: Sequence[int],
        chunk_tokens: int,
        share_beginnings: bool = True,
        prune_last_layer: bool = True,
    ) -> None:
        self._runner = runner
        self._end_ids = np.array(end_token_ids)
        self._digit_weight = runner.head_weight[list(digit_ids)] if digit_ids else None
        self._chunk_tokens = chunk_tokens
        self._share_beginnings = share_beginnings
        self._prune_last_layer = prune_last_layer
        self._on_gpu = runner.device.type == "cuda"
        self.stats = DecodeStats()

    def decode(
        self,
        prefix: Prefix,
        suffixes: Sequence[Sequence[int]],
        max_new_tokens: Sequence[int],
        drafter: Drafter | None = None,
        finished: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """Answers of all questions, in their order.

        ``suffixes``: the tokens of each question after the prefix (at least one). ``finished`` is called with the
        number of answers completed so far whenever it grows.
        """
        n = len(suffixes)
        order = sorted(range(n), key=lambda i: len(suffixes[i]))  # equal lengths stand together: no padding
        lengths = [len(suffixes[i]) for i in order]
        limit = np.array([max_new_tokens[i] for i in order])
        slab = SuffixSlab(prefix.key_values, n, lengths[-1] + min(_FIRST_ROOM, int(limit.max())))
        tape = _Tape(n, 0 if self._digit_weight is None else 10)

        last = self._prefill(prefix, slab, [suffixes[i] for i in order], lengths)
        outputs = self._choose(last)
        seen = np.array(lengths)  # own tokens in each slab row
        question = np.arange(n)  # of each active row
        row = np.arange(n)
        tape.append(question, np.zeros(n, dtype=np.int64), *outputs)
        ended = np.isin(tape.ids[:, 0], self._end_ids)

        while True:
            done = ended[question] | (tape.count[question] >= limit[question])
            if drafter is not None and drafter.stops:
                done |= [drafter.is_complete(order[q], tape.ids[q, : tape.count[q]].tolist()) for q in question]
            if done.any():
                question, row, seen = question[~done], row[~done], seen[~done]
                if finished is not None:
                    finished(n - len(question))
                if len(question) == 0:
                    break
                if not self._on_gpu:  # kernels read any rows; the reference reads consecutive rows in place
                    slab.keep(torch.from_numpy(row))
                    row = np.arange(len(row))
            drafts = self._drafts(drafter, order, tape, question, limit)
            outputs, fed = self._step(prefix, slab, tape, question, row, seen, drafts)
            seen = seen + self._accept(tape, question, limit, drafts, fed, outputs, ended)
        answers: list[Generated | None] = [None] * n
        for i, original in enumerate(order):
            answers[original] = tape.answer(i, bool(ended[i]))
        return [answer for answer in answers if answer is not None]

    def _prefill(
        self, prefix: Prefix, slab: SuffixSlab, suffixes: Sequence[Sequence[int]], lengths: Sequence[int]
    ) -> torch.Tensor:
        """Runs all suffixes; returns the last hidden state of each, [N, H]."""
        depth = branch_depth(suffixes) if self._share_beginnings else 0
        if depth:
            self._prefill_branches(prefix, slab, [tuple(suffix[:depth]) for suffix in suffixes])
        chunks = pack(lengths, self._chunk_tokens, split=self._on_gpu, first=depth)
        outputs = [self._prefill_chunk(prefix, slab, suffixes, chunk) for chunk in chunks]
        self._note_memory(slab)
        return torch.cat(outputs)

    def _prefill_branches(self, prefix: Prefix, slab: SuffixSlab, heads: Sequence[tuple[int, ...]]) -> None:
        """Computes each distinct beginning once and copies its keys and values to the rows that begin so."""
        distinct = {head: i for i, head in enumerate(dict.fromkeys(heads))}
        depth = len(heads[0])
        branches = SuffixSlab(prefix.key_values, len(distinct), depth)
        for chunk in pack([depth] * len(distinct), self._chunk_tokens):
            keys_only = [replace(piece, is_last=False) for piece in chunk]  # their outputs are not wanted
            self._prefill_chunk(prefix, branches, list(distinct), keys_only)
        branch_of_row = torch.tensor([distinct[head] for head in heads], device=self._runner.device)
        slab.copy_beginnings(branches, branch_of_row)

    def _prefill_chunk(
        self, prefix: Prefix, slab: SuffixSlab, suffixes: Sequence[Sequence[int]], chunk: list[Piece]
    ) -> torch.Tensor:
        """Runs the chunk's tokens; returns the last hidden state of each suffix that ends in it."""
        device = self._runner.device
        ids = [t for piece in chunk for t in suffixes[piece.index][piece.begin : piece.end]]
        self.stats.num_prefill_tokens += len(ids)
        spans = Spans.pack([p.index for p in chunk], [p.end - p.begin for p in chunk], [p.begin for p in chunk], device)
        _, places = spans.token_places()
        context = SuffixContext(prefix.key_values, slab, spans)
        complete = [i for i, piece in enumerate(chunk) if piece.is_last]
        ends = [chunk[i].end for i in complete]
        keep = spans.first_token[1:][complete].long() - 1
        tokens = torch.tensor(ids, device=device)
        if not self._prune_last_layer:
            return self._runner.run_suffix(tokens, prefix.next_position + places, context)[keep]
        keep_spans = Spans.pack([chunk[i].index for i in complete], [1] * len(ends), [e - 1 for e in ends], device)
        return self._runner.run_suffix(tokens, prefix.next_position + places, context, keep, keep_spans)

    def _choose(self, hidden: torch.Tensor) -> tuple[Ints, Floats]:
        """Greedy tokens [T] and their figures [T, 2 + digits]: log-probability, margin, digit log-probabilities."""
        out = head.lm_head(hidden, self._runner.head_weight)
        figures = [(out.logit - out.log_sum_exp)[:, None], out.margin[:, None]]
        if self._digit_weight is not None:
            figures.append((hidden @ self._digit_weight.T).float() - out.log_sum_exp[:, None])
        return out.token.cpu().numpy(), torch.cat(figures, dim=1).cpu().numpy()

    @staticmethod
    def _drafts(
        drafter: Drafter | None,
        order: Sequence[int],
        tape: _Tape,
        question: Ints,
        limit: Ints,
    ) -> list[list[int]] | None:
        """Drafts per active question; None when there is not a single one."""
        if drafter is None:
            return None
        drafts = []
        for q in question:
            room = int(limit[q] - tape.count[q]) - 1  # the pass itself gives one more token than was drafted
            drafts.append(list(drafter.draft(order[q], tape.ids[q, : tape.count[q]].tolist()))[: max(room, 0)])
        return drafts if any(drafts) else None

    def _step(
        self,
        prefix: Prefix,
        slab: SuffixSlab,
        tape: _Tape,
        question: Ints,
        row: Ints,
        seen: Ints,
        drafts: list[list[int]] | None,
    ) -> tuple[tuple[Ints, Floats], Ints]:
        """One pass over the last token and the draft of every active question; the outputs and what was fed."""
        device = self._runner.device
        newest = tape.ids[question, tape.count[question] - 1]
        if drafts is None:
            lengths = np.ones(len(question), dtype=np.int64)
            fed = newest
        else:
            lengths = np.array([1 + len(draft) for draft in drafts])
            fed = np.concatenate([[first, *draft] for first, draft in zip(newest, drafts, strict=True)]).astype(
                np.int64
            )
            self.stats.num_drafted_tokens += int(lengths.sum() - len(lengths))
        needed = int((seen + lengths).max())
        if needed > slab.capacity:
            slab.grow(max(needed, slab.capacity * 3 // 2))
            self._note_memory(slab)
        self.stats.num_steps += 1
        self.stats.num_decode_tokens += len(fed)
        spans = Spans.pack(row.tolist(), lengths.tolist(), seen.tolist(), device)
        places = np.repeat(seen, lengths) + _offsets(lengths)
        positions = prefix.next_position + torch.from_numpy(places).to(device)
        context = SuffixContext(prefix.key_values, slab, spans)
        hidden = self._runner.run_suffix(torch.from_numpy(fed).to(device), positions, context)
        return self._choose(hidden), fed

    def _accept(
        self,
        tape: _Tape,
        question: Ints,
        limit: Ints,
        drafts: list[list[int]] | None,
        fed: Ints,
        outputs: tuple[Ints, Floats],
        ended: NDArray[np.bool_],
    ) -> Ints:
        """Records the outputs that greedy decoding gives; returns how many fed tokens of each question stand."""
        ids, figures = outputs
        lengths = np.array([1] * len(question) if drafts is None else [1 + len(draft) for draft in drafts])
        offset = _offsets(lengths)
        span = np.repeat(np.arange(len(question)), lengths)
        is_end = np.isin(ids, self._end_ids)
        # An output counts while every token fed before it in its span was what the pass before it gave.
        good = offset == 0
        for depth in range(1, int(lengths.max())):
            here = np.flatnonzero(offset == depth)
            good[here] = good[here - 1] & (ids[here - 1] == fed[here]) & ~is_end[here - 1]
        good &= tape.count[question][span] + offset < limit[question][span]
        kept = np.flatnonzero(good)
        accepted = np.bincount(span[kept], minlength=len(question))
        tape.append(question[span[kept]], tape.count[question][span[kept]] + offset[kept], ids[kept], figures[kept])
        ended[question[span[kept[is_end[kept]]]]] = True
        self.stats.num_accepted_tokens += int(accepted.sum() - len(question))
        return accepted

    def _note_memory(self, slab: SuffixSlab) -> None:
        size = sum(t.numel() * t.element_size() for t in (*slab.keys, *slab.values))
        self.stats.peak_slab_bytes = max(self.stats.peak_slab_bytes, size)


def _offsets(lengths: Ints) -> Ints:
    """0 .. length-1 for each span, concatenated."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
