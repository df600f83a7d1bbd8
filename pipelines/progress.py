"""Progress bars: one per stage, shown when it takes longer than a second."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Progress = Callable[[int, int], None]


@contextmanager
def progress_bar(name: str, unit: str, quiet: bool) -> Iterator[Progress]:
    """A function ``(done, total)`` that keeps a bar on stderr up to date; the bar appears after one second, and a file
    in the place of a terminal gets a line every half minute."""
    seconds = 0.1 if sys.stderr.isatty() else 30.0
    with tqdm(desc=name, unit=f" {unit}", disable=quiet, delay=1.0, dynamic_ncols=True, mininterval=seconds) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update
