"""Files of labels, of any length: the lines are checked once, and afterwards read again when they are asked for.

Of JSON lines only the offsets and numbers of the usable ones are kept, 16 bytes a line: 160 MB for ten million photos.
A JSON list can't be read in parts and is kept in memory as a whole.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from recon.errors import BadInputError
from recon.interop.datasets.records import Fault

T = TypeVar("T")
Read = Callable[[dict[str, Any], int], T]

MOST_FAULTS = 1000  # kept with their reasons; more are only counted
_MAX_LINE_BYTES = 16 << 20
_MAX_JSON_BYTES = 1 << 30
_SHOWN_FAULTS = 5


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What a file holds.

    Attributes:
        path: the file.
        items: its usable items in order; those of JSON lines are read from the file at each access.
        faults: lines that were left out, the first ``MOST_FAULTS`` of ``num_faults``.
        num_others: items that can be used but were not wanted.
    """

    path: Path
    items: Sequence[T]
    faults: tuple[Fault, ...]
    num_faults: int
    num_others: int = 0

    def faults_in_words(self) -> str:
        """One line about what was left out; empty when nothing was."""
        if not self.num_faults:
            return ""
        shown = "; ".join(f"line {fault.line}: {fault.reason}" for fault in self.faults[:_SHOWN_FAULTS])
        more = f"; and {self.num_faults - _SHOWN_FAULTS} more" if self.num_faults > _SHOWN_FAULTS else ""
        lines = "line" if self.num_faults == 1 else "lines"
        return f"{self.path}: {self.num_faults} {lines} left out ({shown}{more})"


class StoredLines(Sequence[T]):
    """Items of chosen lines of a file, made anew at each access; any number of processes may read.

    Access raises BadInputError, naming the file and the line, when the line can't be used any more: the file or the
    photo that it names was changed or removed since it was checked.
    """

    def __init__(self, path: Path, offsets: NDArray[np.int64], lines: NDArray[np.int64], read: Read[T]) -> None:
        self._path, self._offsets, self._lines, self._read = path, offsets, lines, read

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> StoredLines[T]: ...

    def __getitem__(self, index: int | slice) -> T | StoredLines[T]:
        if isinstance(index, slice):
            return StoredLines(self._path, self._offsets[index], self._lines[index], self._read)
        line = int(self._lines[index])
        try:
            with open(self._path, "rb") as file:  # a handle kept open would share its place with forked processes
                file.seek(int(self._offsets[index]))
                return self._read(json.loads(file.readline(_MAX_LINE_BYTES)), line)
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise BadInputError(f"{self._path} line {line}: was changed after it had been checked ({error})") from error
        except BadInputError as error:
            raise BadInputError(f"{self._path} line {line}: {error}") from error


def read_items(path: Path, read: Read[T], strict: bool, keep: Callable[[T], bool] | None = None) -> Reading[T]:
    """The items of a JSON-lines file, or of a JSON list; every one is checked.

    Args:
        path: the file.
        read: makes an item of an entry and its line; raises BadInputError when the entry can't be used. Picklable where
            processes are spawned that read too.
        strict: stop at the first such entry.
        keep: which usable items are wanted; None: all.

    Raises:
        BadInputError: the file can't be read, a line is bad (strict), or nothing usable is left.
    """
    try:
        with open(path, "rb") as file:
            is_list = file.read(64).lstrip().startswith(b"[")
        if is_list:
            return _checked(path, _listed(path), read, strict, keep, stored=False)
        with open(path, "rb") as file:
            return _checked(path, _lines(file), read, strict, keep, stored=True)
    except OSError as error:
        raise BadInputError(f"{path}: can't be read ({error.strerror or error})") from error


def _checked(
    path: Path,
    entries: Iterable[tuple[int, int, Any]],
    read: Read[T],
    strict: bool,
    keep: Callable[[T], bool] | None,
    stored: bool,
) -> Reading[T]:
    items: list[T] = []
    offsets, lines = array("q"), array("q")
    faults: list[Fault] = []
    num_faults = num_others = 0
    for line, offset, entry in entries:
        try:
            if isinstance(entry, Exception):
                raise BadInputError(f"not readable as JSON ({' '.join(str(entry).split())[:80]})")
            if not isinstance(entry, dict):
                raise BadInputError(f"holds a {type(entry).__name__}; accepted: a JSON object")
            item = read(entry, line)
        except BadInputError as error:
            if strict:
                raise BadInputError(f"{path} line {line}: {error}; without --strict such lines are skipped") from error
            num_faults += 1
            if len(faults) < MOST_FAULTS:
                faults.append(Fault(line, str(error)))
            continue
        if keep is not None and not keep(item):
            num_others += 1
        elif stored:
            offsets.append(offset)
            lines.append(line)
        else:
            items.append(item)
    kept: Sequence[T] = items
    if stored:
        kept = StoredLines(path, np.array(offsets, np.int64), np.array(lines, np.int64), read)
    reading = Reading(path, kept, tuple(faults), num_faults, num_others)
    if not len(kept) and not num_others:
        raise BadInputError(reading.faults_in_words() or f"{path}: holds no line; accepted: one JSON object per line")
    return reading


def _lines(file: Any) -> Iterator[tuple[int, int, Any]]:
    """Line (from 1), offset and the parsed entry of every line that is not empty; the exception itself where it can't
    be parsed."""
    number, offset = 0, 0
    while raw := file.readline(_MAX_LINE_BYTES):
        number += 1
        start, offset = offset, offset + len(raw)
        if len(raw) == _MAX_LINE_BYTES and not raw.endswith(b"\n"):
            while rest := file.readline(_MAX_LINE_BYTES):  # to its end: the next line keeps its number
                offset += len(rest)
                if rest.endswith(b"\n"):
                    break
            yield number, start, ValueError(f"a line of more than {_MAX_LINE_BYTES >> 20} MiB")
        elif raw.strip():
            try:
                yield number, start, json.loads(raw)
            except (ValueError, RecursionError) as error:
                yield number, start, error


def _listed(path: Path) -> Iterator[tuple[int, int, Any]]:
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise BadInputError(f"{path}: a JSON list of more than {_MAX_JSON_BYTES >> 30} GiB; use one object per line")
    try:
        entries = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{path}: not readable as a JSON list ({' '.join(str(error).split())[:80]})") from error
    for number, entry in enumerate(entries, start=1):
        yield number, 0, entry
