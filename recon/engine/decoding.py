"""Greedy decoding of many questions together against one prefix.

A wave of questions is prefilled in packed chunks, then all its answers are decoded step by step. A drafter may propose
the next tokens of an answer; they are run in the same pass and kept only as far as they are what greedy decoding gives,
so drafts change the speed and nothing else. Finished questions leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from vlm3_kernels.prefix_attention.spans import token_places

from recon.engine.forward import TextRunner
from recon.engine.keyvalues import SlabKeeper, SuffixSlab
from recon.engine.prefill import Prefiller
from recon.engine.prefix import Prefix
from recon.engine.statistics import DecodeStats
from recon.engine.steps import Batch, Chooser, FixedSteps, PlainSteps, to_host
from recon.engine.tape import Floats, Generated, Ints, Tape

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
class DecodeOptions:
    """How a decoder works.

    Attributes:
        chunk_tokens: tokens per packed prefill pass.
        slab_bytes: memory kept for questions in flight from one wave to the next.
        share_beginnings: run equal first tokens of the suffixes once.
        prune_last_layer: run the last layer's queries only where an output is read.
        fixed_sizes: pad small decoding passes to fixed sizes (see :class:`recon.engine.steps.FixedSteps`).
    """

    chunk_tokens: int
    slab_bytes: int = 0
    share_beginnings: bool = True
    prune_last_layer: bool = True
    fixed_sizes: bool = False


class WaveDecoder:
    """Decodes one wave of questions after another; between waves it keeps memory and statistics only."""

    def __init__(
        self,
        runner: TextRunner,
        end_token_ids: Sequence[int],
        digit_ids: tuple[int, ...],
        options: DecodeOptions,
    ) -> None:
        self.stats = DecodeStats()
        self._runner = runner
        self._end_ids = np.array(end_token_ids)
        # Kernels read any rows and scattered pieces; the CPU is faster with consecutive rows and whole suffixes.
        self._in_place = runner.device.type == "cuda"
        self._chooser = Chooser(runner, digit_ids)
        self._plain = PlainSteps(runner, self._chooser)
        self._fixed = FixedSteps(runner, self._chooser, record=self._in_place) if options.fixed_sizes else None
        self._slabs = SlabKeeper(options.slab_bytes)
        self._prefiller = Prefiller(
            runner,
            options.chunk_tokens,
            options.share_beginnings,
            options.prune_last_layer,
            split=self._in_place,
            stats=self.stats,
        )

    def release(self) -> None:
        """Gives back the memory kept between waves."""
        self._slabs.clear()
        if self._fixed is not None:
            self._fixed.clear()

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
        order = sorted(range(len(suffixes)), key=lambda i: len(suffixes[i]))  # equal lengths stand together: no padding
        wave = _Wave(
            order,
            lengths=np.array([len(suffixes[i]) for i in order]),
            limit=np.array([max_new_tokens[i] for i in order]),
            num_digits=self._chooser.num_digits,
        )
        room = int(wave.seen[-1]) + min(_FIRST_ROOM, int(wave.limit.max()))
        slab = self._slabs.get(prefix.key_values, len(order) + (self._fixed is not None), room)
        self._note_memory(slab, len(order))
        last = self._prefiller.run(prefix, slab, [suffixes[i] for i in order])
        wave.begin(*to_host(*self._chooser.choose(last)), self._end_ids)
        while True:
            if wave.drop_finished(drafter):
                if finished is not None:
                    finished(len(order) - len(wave.question))
                if len(wave.question) == 0:
                    break
                if not self._in_place:
                    slab.keep(torch.from_numpy(wave.row), int(wave.seen.max()))
                    wave.row = np.arange(len(wave.row))
            drafts = wave.drafts(drafter)
            ids, figures = self._step(prefix, slab, wave.batch(drafts))
            fed, accepted = wave.accept(drafts, ids, figures, self._end_ids)
            self.stats.num_drafted_tokens += fed - len(accepted)
            self.stats.num_accepted_tokens += int(accepted.sum()) - len(accepted)
        return wave.answers()

    def _step(self, prefix: Prefix, slab: SuffixSlab, batch: Batch) -> tuple[Ints, Floats]:
        needed = int((batch.seen + batch.lengths).max())
        if needed > slab.capacity:
            slab.grow(max(needed, slab.capacity * 3 // 2))
            self._note_memory(slab, slab.num_rows)
        self.stats.num_steps += 1
        self.stats.num_decode_tokens += len(batch.ids)
        if self._fixed is not None and self._fixed.fits(batch):
            self.stats.num_fixed_steps += 1
            return self._fixed.run(prefix, slab, batch)
        return self._plain.run(prefix, slab, batch)

    def _note_memory(self, slab: SuffixSlab, num_rows: int) -> None:
        size = slab.num_bytes * num_rows // slab.num_rows
        self.stats.peak_slab_bytes = max(self.stats.peak_slab_bytes, size)


class _Wave:
    """The questions of one wave, shortest suffix first, and how far each of them is.

    ``question``, ``row`` and ``seen`` are of those still decoding: their index, slab row and own tokens in it.
    """

    def __init__(self, order: Sequence[int], lengths: Ints, limit: Ints, num_digits: int) -> None:
        self.order = order
        self.limit = limit
        self.tape = Tape(len(order), num_digits)
        self.ended: NDArray[np.bool_] = np.zeros(len(order), dtype=bool)
        self.question: Ints = np.arange(len(order))
        self.row: Ints = np.arange(len(order))
        self.seen = lengths

    def begin(self, ids: Ints, figures: Floats, end_ids: Ints) -> None:
        """Takes the first token of every answer."""
        self.tape.append(self.question, np.zeros_like(self.question), ids, figures)
        self.ended = np.isin(ids, end_ids)

    def drop_finished(self, drafter: Drafter | None) -> bool:
        """Takes out answers that ended, reached their limit or may be stopped; whether there were any."""
        done = self.ended[self.question] | (self.tape.count[self.question] >= self.limit[self.question])
        if drafter is not None and drafter.stops:
            done |= [drafter.is_complete(self.order[q], self.tape.said(q)) for q in self.question]
        self.question, self.row, self.seen = self.question[~done], self.row[~done], self.seen[~done]
        return bool(done.any())

    def drafts(self, drafter: Drafter | None) -> list[list[int]] | None:
        """Drafts per question; None when there is not a single one."""
        if drafter is None:
            return None
        drafts = []
        for q in self.question:
            room = int(self.limit[q] - self.tape.count[q]) - 1  # the pass itself gives one more token than was drafted
            drafts.append(list(drafter.draft(self.order[q], self.tape.said(q)))[: max(room, 0)])
        return drafts if any(drafts) else None

    def batch(self, drafts: list[list[int]] | None) -> Batch:
        """The next pass: the newest token of every question, followed by its draft."""
        newest = self.tape.newest(self.question)
        if drafts is None:
            return Batch(newest, np.ones_like(newest), self.row, self.seen)
        ids = np.array([t for first, draft in zip(newest.tolist(), drafts, strict=True) for t in (first, *draft)])
        return Batch(ids, np.array([1 + len(draft) for draft in drafts]), self.row, self.seen)

    def accept(self, drafts: list[list[int]] | None, ids: Ints, figures: Floats, end_ids: Ints) -> tuple[int, Ints]:
        """Records the outputs that greedy decoding gives; how many tokens were fed, and stand per question."""
        batch = self.batch(drafts)
        offset = token_places(batch.lengths, np.zeros_like(batch.lengths))
        span = np.repeat(np.arange(len(self.question)), batch.lengths)
        is_end = np.isin(ids, end_ids)
        # An output counts while every token fed before it in its span was what the pass before it gave.
        good = offset == 0
        for depth in range(1, int(batch.lengths.max())):
            here = np.flatnonzero(offset == depth)
            good[here] = good[here - 1] & (ids[here - 1] == batch.ids[here]) & ~is_end[here - 1]
        count = self.tape.count[self.question][span] + offset
        good &= count < self.limit[self.question][span]
        kept = np.flatnonzero(good)
        self.tape.append(self.question[span[kept]], count[kept], ids[kept], figures[kept])
        self.ended[self.question[span[kept[is_end[kept]]]]] = True
        accepted = np.bincount(span[kept], minlength=len(self.question))
        self.seen = self.seen + accepted
        return len(ids), accepted

    def answers(self) -> list[Generated]:
        """All answers in the order in which the questions came."""
        answers: list[Generated | None] = [None] * len(self.order)
        for i, original in enumerate(self.order):
            answers[original] = self.tape.answer(i, bool(self.ended[i]))
        return [answer for answer in answers if answer is not None]
