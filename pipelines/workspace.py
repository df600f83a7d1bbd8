"""The workspace: a folder beside the mesh that holds everything computed, in COLMAP's layout.

::

    mesh-workspace/
        images/        upright photos                 database.db   keypoints and verified matches
        sparse/0/      cameras, poses, points         dense/        depth maps
        stages/        what each stage found          evidence/     answers, one file per photo or pair
        summary.json   what was done and why          run.log       the log of all runs
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.records import write_atomically
from recon.capture.sources import WORKSPACE_MARKER
from recon.errors import BadInputError, OutputError, ReconError

logger = logging.getLogger(__name__)

MARKER = WORKSPACE_MARKER  # is locked while a run uses the workspace
FORMAT = "vlm3-recon workspace, format 1\n"


@dataclass(frozen=True)
class Workspace:
    """Paths of a workspace; ``root`` is absolute."""

    root: Path

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def database(self) -> Path:
        return self.root / "database.db"

    @property
    def sparse(self) -> Path:
        return self.root / "sparse" / "0"

    @property
    def dense(self) -> Path:
        return self.root / "dense"

    @property
    def stages(self) -> Path:
        return self.root / "stages"

    @property
    def evidence(self) -> Path:
        return self.root / "evidence"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def log(self) -> Path:
        return self.root / "run.log"


def workspace_beside(out: Path) -> Path:
    """Where the workspace of an output file lies when the user names none."""
    return out.parent / f"{out.stem}-workspace"


def check_output_folder(folder: Path, option: str) -> None:
    """Fail early where nothing can be written: ``folder``, or where it would be made.

    Raises:
        OutputError: naming what stands in the way.
    """
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise OutputError(f"{option} {folder}: {existing} is a file, a folder is needed")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{option} {folder}: {existing} is read-only; choose a folder you may write to")


def check_free_space(folder: Path, needed_bytes: int) -> None:
    """Fail while there is still room to say why: SQLite under COLMAP ends the whole process on a full disk.

    Raises:
        OutputError: fewer than ``needed_bytes`` are free where ``folder`` lies.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise OutputError(
            f"{folder}: {free / 1e6:.0f} MB are free, about {needed_bytes / 1e6:.0f} MB are needed next; "
            "free some space and run the same command again, it continues"
        )


@contextmanager
def open_workspace(root: Path, overwrite: bool = False) -> Iterator[Workspace]:
    """The workspace at ``root``, made when absent, emptied first with ``overwrite``, locked against other runs.

    The lock belongs to the process: whatever ends the process ends the lock.

    Raises:
        BadInputError: ``root`` is a folder with something else in it, or another run uses it.
        OutputError: it can't be written.
    """
    root = Path(os.path.abspath(root))
    workspace = Workspace(root)
    marker = root / MARKER
    with readable_os_errors():
        if root.is_dir() and not marker.exists() and any(root.iterdir()):
            raise BadInputError(f"--workspace {root}: the folder holds other files; give an empty or a new folder")
        root.mkdir(parents=True, exist_ok=True)
        with open(marker, "a+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                raise BadInputError(
                    f"--workspace {root}: another run is using it; wait for it or name another"
                ) from error
            if overwrite:
                _empty(root)
            if marker.stat().st_size == 0:
                lock.write(FORMAT)
                lock.flush()
            yield workspace


def _empty(root: Path) -> None:
    """Remove everything but the (locked) marker."""
    for entry in root.iterdir():
        if entry.name == MARKER:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextmanager
def readable_os_errors() -> Iterator[None]:
    """Turns an operating-system error into one line that names the file and what to do."""
    try:
        yield
    except OSError as error:
        raise os_error_line(error) from error
    except RuntimeError as error:
        if "database or disk is full" not in str(error):  # SQLite's words, through pycolmap
            raise
        raise os_error_line(OSError(errno.ENOSPC, "", None)) from error


def os_error_line(error: OSError) -> OutputError:
    where = f"{error.filename}: " if error.filename else ""
    advice = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again, it continues",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again, it continues",
        errno.EROFS: "the disk is read-only; choose another folder for --out",
        errno.EACCES: "permission denied; choose a folder you may write to for --out",
        errno.ENOTDIR: "a part of the path is a file, a folder is needed",
        errno.ENAMETOOLONG: "the name is too long for this disk",
    }
    return OutputError(where + advice.get(error.errno or 0, error.strerror or str(error)))


@contextmanager
def logging_to(path: Path, verbose: bool) -> Iterator[None]:
    """Sends the log of the project to ``path`` (appended), and to stderr when ``verbose``."""
    formatter = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handlers: list[logging.Handler] = [logging.FileHandler(path, encoding="utf-8")]
    handlers += [logging.StreamHandler()] if verbose else []
    loggers = [logging.getLogger(name) for name in ("recon", "pipelines", "py.warnings")]
    levels = [(logger.level, logger.propagate) for logger in loggers]
    logging.captureWarnings(True)
    for handler in handlers:
        handler.setFormatter(formatter)
    for logger in loggers:
        logger.setLevel(logging.DEBUG if verbose else logging.INFO)
        logger.propagate = False
        for handler in handlers:
            logger.addHandler(handler)
    try:
        yield
    except ReconError as error:
        logger.error("%s", error)
        raise
    except Exception as error:
        logger.exception("unexpected error")
        error.add_note(f"details in {path}")  # for the line on the console
        raise
    finally:
        logging.captureWarnings(False)
        for logger, (level, propagate) in zip(loggers, levels, strict=True):
            logger.setLevel(level)
            logger.propagate = propagate
            for handler in handlers:
                logger.removeHandler(handler)
        for handler in handlers:
            handler.close()


@contextmanager
def native_output_to(path: Path, verbose: bool) -> Iterator[None]:
    """Sends what C++ libraries write to stderr into the log at ``path``; Python's own stderr stays where it is."""
    if verbose:
        yield
        return
    sys.stderr.flush()
    terminal, python_stderr = os.dup(2), sys.stderr
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        with os.fdopen(os.dup(terminal), "w", buffering=1, errors="backslashreplace") as stderr:
            os.dup2(log, 2)
            if python_stderr is sys.__stderr__:  # otherwise someone has redirected it already
                sys.stderr = stderr
            yield
    finally:
        os.dup2(terminal, 2)
        sys.stderr = python_stderr
        os.close(terminal)
        os.close(log)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_atomically(path, text.encode("utf-8", "surrogateescape"))
