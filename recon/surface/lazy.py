"""Sequences of depth maps that are made when they are asked for, so that one at a time is in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from recon.surface.types import DepthMap


class LazyDepthMaps(Sequence[DepthMap]):
    """A sequence whose maps come from :meth:`_at`; a slice of it is as lazy."""

    def __init__(self, indices: Sequence[int]) -> None:
        self._indices = indices

    def _at(self, index: int) -> DepthMap:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> DepthMap: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[DepthMap]: ...
    def __getitem__(self, index: int | slice) -> DepthMap | Sequence[DepthMap]:
        if isinstance(index, slice):
            return _Slice(self, self._indices[index])
        return self._at(self._indices[index])

    def __iter__(self) -> Iterator[DepthMap]:
        return (self._at(index) for index in self._indices)


class _Slice(LazyDepthMaps):
    def __init__(self, whole: LazyDepthMaps, indices: Sequence[int]) -> None:
        super().__init__(indices)
        self._whole = whole

    def _at(self, index: int) -> DepthMap:
        return self._whole._at(index)
