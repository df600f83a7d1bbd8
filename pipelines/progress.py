"""Progress bars: one per stage, shown when it takes longer than a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Progress = Callable[[int, int], None]


@contextmanager
def progress_bar(name: str, unit: str, quiet: bool) -> Iterator[Progress]:
    """A function ``(done, total)`` that keeps a bar on stderr up to date; the bar appears after one second."""
    with tqdm(desc=name, unit=f" {unit}", disable=quiet, delay=1.0, dynamic_ncols=True, leave=True) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update
