"""One decoding pass: the newest tokens (and drafts) of all unfinished answers.

:class:`PlainSteps` makes tensors of just the size that a pass needs. :class:`FixedSteps` pads it to one of a few sizes
in buffers that stay where they are, so that on a GPU the whole pass, from token ids to chosen tokens, is one CUDA graph
that is recorded once per size and replayed. A decoding pass of few tokens is hundreds of small kernels, whose launches
take longer than their work.
"""

from __future__ import annotations

import logging
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from vlm3_kernels.lm_head import dispatch as head
from vlm3_kernels.prefix_attention.spans import SHORT_SPAN_TOKENS, Spans, first_tokens, span_groups, token_places

from recon.engine.attention import SuffixContext
from recon.engine.forward import TextRunner
from recon.engine.keyvalues import KeyValues, SuffixSlab
from recon.engine.prefix import Prefix
from recon.engine.tape import Floats, Ints

logger = logging.getLogger(__name__)

FIXED_SIZES = (8, 16, 32, 64, 128, 256, 512)  # tokens per pass; above, the work hides the launches
_PREFIX_STEP = 1024  # prefixes are kept in room for a multiple of it, so that graphs outlive the photo


@dataclass(frozen=True)
class Batch:
    """What a pass feeds: ``ids`` [T] in spans of ``lengths`` [N], which continue slab rows ``rows`` at ``seen``."""

    ids: Ints
    lengths: Ints
    rows: Ints
    seen: Ints


class Chooser:
    """Greedy choice from final hidden states."""

    def __init__(self, runner: TextRunner, digit_ids: tuple[int, ...]) -> None:
        self._weight = runner.head_weight
        self._digit_weight = runner.head_weight[list(digit_ids)] if digit_ids else None
        self.num_digits = len(digit_ids)

    def choose(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [T] and their figures [T, 2 + digits]: log-probability, margin, digit log-probabilities."""
        out = head.lm_head(hidden, self._weight)
        figures = [(out.logit - out.log_sum_exp)[:, None], out.margin[:, None]]
        if self._digit_weight is not None:
            figures.append((hidden @ self._digit_weight.T).float() - out.log_sum_exp[:, None])
        return out.token, torch.cat(figures, dim=1)


class PlainSteps:
    """Passes of any size."""

    def __init__(self, runner: TextRunner, chooser: Chooser) -> None:
        self._runner = runner
        self._chooser = chooser

    def run(self, prefix: Prefix, slab: SuffixSlab, batch: Batch) -> tuple[Ints, Floats]:
        """The chosen token after every token fed, and its figures."""
        device = self._runner.device
        spans = Spans.pack(batch.rows, batch.lengths, batch.seen, device)
        context = SuffixContext(prefix.key_values, slab, spans)
        ids = torch.from_numpy(batch.ids).to(device)
        hidden = self._runner.run_suffix(ids, prefix.next_position + spans.token_place, context)
        return to_host(*self._chooser.choose(hidden))


class FixedSteps:
    """Passes of a few fixed sizes in fixed buffers; recorded as CUDA graphs when ``record`` is set.

    The slab must have one row more than there are questions: tokens that pad a pass write there. Where a recording
    fails, passes are plain from then on.
    """

    def __init__(self, runner: TextRunner, chooser: Chooser, record: bool) -> None:
        self._runner = runner
        self._chooser = chooser
        self._plain = PlainSteps(runner, chooser)
        self._record = record
        self._failed = False
        self._prefix: KeyValues | None = None  # with room behind the tokens
        self._filled_from: KeyValues | None = None
        self._passes: dict[tuple[int, int], _FixedPass] = {}
        # Not id(slab): a new slab may stand where a freed one was, and graphs would write into the old one's memory.
        self._slab: weakref.ref[SuffixSlab] | None = None
        self._slab_version = 0
        self._pool: Any = None  # CUDA's handle of the memory that all graphs share
        # Not PyTorch's common one: freeing a graph frees the workspace of its stream's products, whoever uses it.
        self._stream: Any = None

    def fits(self, batch: Batch) -> bool:
        """Whether a pass is small enough."""
        return not self._failed and len(batch.ids) <= FIXED_SIZES[-1] and int(batch.lengths.max()) <= SHORT_SPAN_TOKENS

    def run(self, prefix: Prefix, slab: SuffixSlab, batch: Batch) -> tuple[Ints, Floats]:
        """As :meth:`PlainSteps.run`."""
        if self._slab is None or self._slab() is not slab or self._slab_version != slab.version:
            self.clear()
            self._slab, self._slab_version = weakref.ref(slab), slab.version
        self._fill_prefix(prefix.key_values)
        assert self._prefix is not None
        size = next(size for size in FIXED_SIZES if size >= len(batch.ids))
        longest = 1 if int(batch.lengths.max()) == 1 else SHORT_SPAN_TOKENS
        if (size, longest) not in self._passes:
            self._passes[size, longest] = _FixedPass(self._runner, self._chooser, size, longest)
        fixed = self._passes[size, longest]
        fixed.fill(batch, prefix, spare_row=slab.num_rows - 1)
        if not self._record:
            return to_host(*fixed.run(self._prefix, slab, len(batch.ids), groups=True))
        if fixed.graph is None and not self._recorded(fixed, slab):
            return self._plain.run(prefix, slab, batch)
        assert fixed.graph is not None
        fixed.graph.replay()
        return to_host(*(t[: len(batch.ids)] for t in fixed.outputs))

    def _recorded(self, fixed: _FixedPass, slab: SuffixSlab) -> bool:
        """Records a pass; False, and never again, when that fails."""
        assert self._prefix is not None
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._runner.device)
        try:
            self._pool = fixed.record(self._prefix, slab, self._stream, self._pool)
        except torch.OutOfMemoryError:
            self.clear()
            raise
        except RuntimeError as error:
            logger.warning("CUDA graphs are off: recording failed (%s)", " ".join(str(error).split())[:200])
            self._failed = True
            self.clear()
        return not self._failed

    def clear(self) -> None:
        """Forgets the graphs and gives the prefix's room back."""
        self._passes.clear()
        self._prefix = self._filled_from = None
        self._pool = None

    def _fill_prefix(self, source: KeyValues) -> None:
        if self._filled_from is source:
            return
        if self._prefix is None or self._prefix.num_tokens < source.num_tokens:
            self.clear()  # the graphs' memory pool too: it ends with its last graph
            room = -(-source.num_tokens // _PREFIX_STEP) * _PREFIX_STEP
            self._prefix = source.with_room(room)
        self._prefix.fill(source)
        self._filled_from = source


class _FixedPass:
    """The buffers of one size: everything that changes from pass to pass is one array of integers."""

    def __init__(self, runner: TextRunner, chooser: Chooser, size: int, longest: int) -> None:
        self._runner = runner
        self._chooser = chooser
        self._size = size
        self._longest = longest
        self._parts = {"ids": size, "row_of": size, "place": size, "row": size, "first": size + 1, "seen": size}
        self._parts |= {"length": 1, "position": 1}
        pinned = runner.device.type == "cuda"
        self._host = torch.zeros(sum(self._parts.values()), dtype=torch.int64, pin_memory=pinned)
        self._device = torch.zeros_like(self._host, device=runner.device)
        self._batch: Batch | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.outputs: tuple[torch.Tensor, torch.Tensor]

    def fill(self, batch: Batch, prefix: Prefix, spare_row: int) -> None:
        """Takes a batch in; what is behind it in the buffers is harmless: spans without tokens, writes to a spare row.

        The copy may be asynchronous: every pass ends with its outputs on the host, so the last one is done.
        """
        part = dict(zip(self._parts, self._host.split(list(self._parts.values())), strict=True))
        num_tokens, num_spans = len(batch.ids), len(batch.lengths)

        def put(name: str, values: Ints, rest: int) -> None:
            part[name][: len(values)] = torch.from_numpy(values)
            part[name][len(values) :] = rest

        put("ids", batch.ids, 0)
        put("row_of", np.repeat(batch.rows, batch.lengths), spare_row)
        put("place", token_places(batch.lengths, batch.seen), 0)
        put("row", batch.rows, spare_row)
        put("first", first_tokens(batch.lengths), num_tokens)
        put("seen", batch.seen, 0)
        part["length"][0], part["position"][0] = prefix.key_values.num_tokens, prefix.next_position
        assert num_spans <= num_tokens <= self._size
        self._batch = batch
        self._device.copy_(self._host, non_blocking=True)

    def run(
        self, prefix: KeyValues, slab: SuffixSlab, num_tokens: int, groups: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The pass on the buffers as they are; ``groups``: with the host's view, which the CPU's attention needs."""
        part = dict(zip(self._parts, self._device.split(list(self._parts.values())), strict=True))
        batch = self._batch
        assert batch is not None
        spans = Spans(
            row=part["row"].int(),
            first_token=part["first"].int(),
            num_seen=part["seen"].int(),
            token_row=part["row_of"],
            token_place=part["place"],
            groups=span_groups(batch.rows, batch.lengths, batch.seen) if groups else (),
            num_tokens=self._size,
            longest=self._longest,
            prefix_length=part["length"].int(),
        )
        context = SuffixContext(prefix, slab, spans)
        hidden = self._runner.run_suffix(part["ids"], part["position"] + part["place"], context)
        token, figures = self._chooser.choose(hidden)
        return token[:num_tokens], figures[:num_tokens]

    def record(self, prefix: KeyValues, slab: SuffixSlab, stream: Any, pool: Any) -> Any:
        """Records the pass as a graph on a stream and in a memory pool; returns the pool."""
        device = self._runner.device
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):  # kernels are compiled and libraries made ready outside the recording
            self.run(prefix, slab, self._size, groups=False)
        torch.cuda.current_stream(device).wait_stream(stream)
        torch.cuda.synchronize(device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            self.outputs = self.run(prefix, slab, self._size, groups=False)
        self.graph = graph
        return graph.pool()


def to_host(token: torch.Tensor, figures: torch.Tensor) -> tuple[Ints, Floats]:
    """Outputs as arrays; waits for them."""
    return token.cpu().numpy(), figures.cpu().numpy()
