"""Packing question suffixes into forward passes of constant size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_MIN_SAVING = 0.04  # of all tokens; less does not pay for one more forward pass


@dataclass(frozen=True)
class Piece:
    """Tokens ``begin:end`` of question ``index``; ``is_last`` when the question's suffix ends with them."""

    index: int
    begin: int
    end: int
    is_last: bool


def pack(lengths: Sequence[int], chunk_tokens: int, split: bool = False, first: int = 0) -> list[list[Piece]]:
    """Chunks of at most ``chunk_tokens`` tokens in the given order, without padding.

    With ``split`` a suffix may continue in the next chunk, so that all chunks but the last are exactly full; without,
    a chunk holds whole suffixes (one longer than a chunk is split in any case). ``first``: tokens of each suffix that
    are left out at its beginning (fewer than its length).
    """
    chunks: list[list[Piece]] = []
    room = 0
    for index, length in enumerate(lengths):
        begin = first
        while begin < length:
            whole = not split and length - begin <= chunk_tokens
            if room == 0 or (whole and room < length - begin):
                chunks.append([])
                room = chunk_tokens
            end = min(length, begin + room)
            chunks[-1].append(Piece(index, begin, end, end == length))
            room -= end - begin
            begin = end
    return chunks


def branch_depth(suffixes: Sequence[Sequence[int]]) -> int:
    """How many first tokens to compute once per distinct beginning instead of once per question.

    Questions on a grid share columns (and all share leading digits): with depth d, ``distinct(d) * d`` tokens stand for
    ``len(suffixes) * d``. Returns the depth that saves most, 0 when that is too little to pay for the extra pass.
    """
    shortest = min(len(suffix) for suffix in suffixes)
    best_depth, best_saving = 0, _MIN_SAVING * sum(len(suffix) for suffix in suffixes)
    for depth in range(1, shortest):
        distinct = len({tuple(suffix[:depth]) for suffix in suffixes})
        saving = (len(suffixes) - distinct) * depth
        if saving > best_saving:
            best_depth, best_saving = depth, saving
        if distinct == len(suffixes):
            break
    return best_depth
