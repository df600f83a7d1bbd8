"""The stage runner: a stage is redone exactly when its inputs, its options or the code behind it have changed.

Every stage has a name, a room of the library whose code (and that of the rooms before it) makes it, and inputs that
are keyed by content. What it found is one file, written last and whole: the file is the completion mark. Work that is
done item by item (photos, pairs) keeps one such file per item, so an interruption costs the item in work.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import recon
from pipelines.progress import Progress, progress_bar
from pipelines.records import fingerprint, load_record, save_record, write_atomically
from pipelines.workspace import Workspace
from recon.errors import CheckpointError, OutputError, ReconError
from recon.types import Capture, Rejected

logger = logging.getLogger(__name__)
T = TypeVar("T")
Item = TypeVar("Item", str, tuple[str, str])
Status = Literal["done", "resumed", "reused", "skipped", "failed"]

# The rooms in the order in which they use one another: a stage depends on the code of its room and those before it.
ROOMS = ("capture", "cameras", "questions", "engine", "evidence", "mapping", "surface", "interop")


@dataclass
class StageReport:
    """What a stage did: for the console and ``summary.json``."""

    name: str
    status: Status = "done"
    seconds: float = 0.0
    counts: dict[str, int | float] = field(default_factory=dict)
    reason: str = ""
    rejected: tuple[Rejected, ...] = ()


@lru_cache(maxsize=16)
def code_version(room: str) -> str:
    """Digest of the source files that a stage made by ``room`` depends on."""
    root = Path(recon.__file__).parent
    folders = ROOMS[: ROOMS.index(room) + 1]
    files = sorted(root.glob("*.py")) + sorted(path for name in folders for path in (root / name).rglob("*.py"))
    digest = hashlib.sha256(recon.__version__.encode())
    for path in files:
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def photo_keys(capture: Capture) -> list[tuple[object, ...]]:
    """What features, maps and depth depend on in each photo; masks and sensor depth by their content."""
    return [(v.name, v.content_hash, v.camera_key, v.camera, v.mask_path, v.depth_path) for v in capture.views]


class Stages:
    """Runs the stages of one reconstruction in a workspace and keeps their reports."""

    def __init__(self, workspace: Workspace, quiet: bool = True) -> None:
        self.workspace = workspace
        self.quiet = quiet
        self.reports: list[StageReport] = []

    def run(
        self,
        name: str,
        result: Any,
        inputs: Sequence[object],
        compute: Callable[[Progress], T],
        *,
        room: str,
        unit: str = "photos",
        outputs: Sequence[Path] = (),
        resumable: bool = False,
        counts: Callable[[T], dict[str, int | float]] | None = None,
    ) -> T:
        """The stage's result (of type ``result``): read back when nothing changed, otherwise computed and stored.

        ``outputs`` are files and folders that the stage writes beside its result; when they have changed since, it is
        redone. Those in the workspace are removed before it starts, unless it is ``resumable`` and was interrupted
        while doing exactly this.
        """
        workspace, key = self.workspace, fingerprint(name, code_version(room), *inputs)
        path = workspace.stages / f"{name}.npz"
        with self.report(name) as report:
            # One record holds the result and the sizes of the outputs: it is there or not, there is no in between.
            record_type = tuple[result, dict[str, int]]
            stored: tuple[T, dict[str, int]] | None = load_record(path, record_type, key, workspace.root)
            if stored is not None and stored[1] == self._sizes(outputs):
                value = stored[0]
                report.status = "reused"
            else:
                report.status = "resumed" if self._begin(name, key, outputs, resumable) else "done"
                with progress_bar(name, unit, self.quiet) as progress:
                    value = compute(progress)
                save_record(path, (value, self._sizes(outputs)), key, workspace.root)
            report.counts = counts(value) if counts else {}
        return value

    def each(
        self,
        name: str,
        result: Any,
        items: Mapping[Item, Sequence[object]],
        compute: Callable[[Item], T | Rejected],
        *,
        room: str,
        unit: str = "photos",
        counts: Callable[[Mapping[Item, T]], dict[str, int | float]] | None = None,
    ) -> dict[Item, T]:
        """One result per item (a photo or a pair by name -> what its result depends on), each stored at once.

        ``compute`` may return a ``Rejected``: an outcome like another, stored too. An item that fails with a ReconError
        is left out and tried again by the next run. Reasons of both go to the report. A full disk or a wrong
        checkpoint ends the stage: what is there stays.
        """
        code = code_version(room)
        results: dict[Item, T] = {}
        rejected: list[Rejected] = []
        num_reused = 0
        with self.report(name) as report, progress_bar(name, unit, self.quiet) as progress:
            for done, (item, inputs) in enumerate(items.items(), start=1):
                key = fingerprint(name, code, *inputs)
                path = self.workspace.evidence / name / f"{key[:40]}.npz"
                outcome: tuple[T | None, str] | None = load_record(path, tuple[result | None, str], key)
                if outcome is None:
                    outcome = self._outcome(name, item, compute, path, key)
                else:
                    num_reused += 1
                value, reason = outcome
                if value is not None:
                    results[item] = value
                else:
                    rejected.append(Rejected(_label(item), reason))
                progress(done, len(items))
            if num_reused:
                report.status = "reused" if num_reused == len(items) else "resumed"
            report.rejected = tuple(rejected)
            report.counts = {unit: len(results), **(counts(results) if counts else {})}
        return results

    def _outcome(
        self, name: str, item: Item, compute: Callable[[Item], T | Rejected], path: Path, key: str
    ) -> tuple[T | None, str]:
        """Computes and stores one item: its result, or the reason why there is none."""
        try:
            value = compute(item)
        except (OutputError, CheckpointError):
            raise  # not this item's fault: the next one would fail, too
        except ReconError as error:
            logger.warning("%s: %s: %s", name, _label(item), error)
            return None, str(error)
        outcome = (None, value.reason) if isinstance(value, Rejected) else (value, "")
        save_record(path, outcome, key)
        return outcome

    def skip(self, name: str, reason: str) -> None:
        """Note a stage that has nothing to do, and why."""
        self.reports.append(StageReport(name, "skipped", reason=reason))
        logger.info("%s: skipped: %s", name, reason)

    @contextmanager
    def report(self, name: str) -> Iterator[StageReport]:
        """Times a stage and notes its end, also when it fails."""
        report = StageReport(name)
        self.reports.append(report)
        started = time.perf_counter()
        logger.info("%s: started", name)
        try:
            yield report
        except BaseException as error:
            report.status, report.reason = "failed", str(error) or type(error).__name__
            raise
        finally:
            report.seconds = time.perf_counter() - started
            logger.info("%s: %s in %.2f s %s", name, report.status, report.seconds, report.counts)

    def _begin(self, name: str, key: str, outputs: Sequence[Path], resumable: bool) -> bool:
        """Clears the way for a stage's work; True when it continues interrupted work instead."""
        started = self.workspace.stages / f"{name}.started"
        finished = self.workspace.stages / f"{name}.npz"
        interrupted = started.is_file() and started.read_bytes() == key.encode() and not finished.exists()
        if resumable and interrupted:
            return True
        finished.unlink(missing_ok=True)
        for output in outputs:
            if output.is_relative_to(self.workspace.root):
                _remove(output)
        write_atomically(started, key.encode())
        return False

    def _sizes(self, outputs: Sequence[Path]) -> dict[str, int]:
        """Size of every file in ``outputs``, by path as seen from the workspace."""
        files = [f for path in outputs for f in (sorted(path.rglob("*")) if path.is_dir() else [path]) if f.is_file()]
        return {os.path.relpath(f, self.workspace.root): f.stat().st_size for f in files}


def _label(item: str | tuple[str, str]) -> str:
    return item if isinstance(item, str) else " - ".join(item)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
        for suffix in ("-journal", "-wal", "-shm"):  # what SQLite leaves beside an interrupted database
            path.with_name(path.name + suffix).unlink(missing_ok=True)
