"""The command line: ``vlm3-recon SCENE --out mesh.ply``, and sub-commands. Options are generated from dataclasses.

Exit codes: 0 done; 1 the input, a checkpoint or the disk stood in the way (one line on stderr says what); 2 the command
line itself was wrong; 130 interrupted. A user never sees a traceback: it goes to the log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import os
import re
import sys
import tempfile
import traceback
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recon import __version__
from recon.errors import ReconError

# command -> module, its options (a dataclass whose docstring is the help text), and the function that takes them
COMMANDS = {
    "reconstruct": ("pipelines.reconstruct", "Options", "run"),
    "query": ("pipelines.query", "Options", "run"),
    "compare": ("pipelines.compare", "Options", "run"),
    "report": ("pipelines.report.command", "Options", "run"),
    "export": ("pipelines.export", "Options", "run"),
    "batch": ("pipelines.batch", "Options", "run"),
    "info": ("pipelines.info", "Options", "run"),
    "view": ("pipelines.view", "Options", "run"),
    "train": ("pipelines.train", "TrainOptions", "train"),
    "eval": ("pipelines.eval.command", "Options", "run"),
    "convert": ("pipelines.convert", "Options", "run"),
    "bench": ("pipelines.bench", "Options", "run"),
}


class UsageError(Exception):
    """The command line is wrong; the message says how and what is accepted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code. Raises nothing but SystemExit for ``--help``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        print(f"vlm3-recon {__version__}")
        return 0
    return guarded(lambda: _run(arguments))


def _run(arguments: list[str]) -> None:
    command, rest = split_command(arguments)
    module_name, options, function = COMMANDS[command]
    module = importlib.import_module(module_name)
    getattr(module, function)(parse(getattr(module, options), command, rest))


def guarded(work: Callable[[], None]) -> int:
    """Does the work; whatever goes wrong becomes one line on stderr. Returns the exit code."""
    try:
        work()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ReconError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `vlm3-recon query ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        where = _where_details_are(error)
        print(f"error: unexpected {type(error).__name__}: {one_line(error)}; {where}", file=sys.stderr)
        return 1
    return 0


def split_command(arguments: list[str]) -> tuple[str, list[str]]:
    """The command and its arguments; without a command it's ``reconstruct``.

    Raises:
        UsageError: the first argument is neither a command nor a path, or there is no argument at all.
    """
    commands = ", ".join(COMMANDS)
    if not arguments:
        raise UsageError(f"nothing to do; try `vlm3-recon SCENE --out mesh.ply` or a command: {commands} (or --help)")
    first = arguments[0]
    if first in COMMANDS:
        return first, arguments[1:]
    is_path = first.startswith("-") or os.sep in first or "." in first or Path(first).exists()
    if not is_path:
        raise UsageError(f"{first!r} is neither a folder of photos nor a command; accepted commands: {commands}")
    return "reconstruct", arguments


def parse(options: type[Any], command: str, arguments: Sequence[str]) -> Any:
    """An ``options`` object from the command line.

    Raises:
        UsageError: unknown options, missing or wrong values.
    """
    import tyro

    prog = "vlm3-recon" if command == "reconstruct" else f"vlm3-recon {command}"
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed, unknown = tyro.cli(
                options,
                prog=prog,
                args=list(arguments),
                return_unknown_args=True,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        raise UsageError(f"{_plain(said.getvalue())} (see {prog} --help)") from exit_
    if unknown:
        kind = "unknown option" if unknown[0].startswith("-") else "unexpected argument"
        raise UsageError(f"{kind} {unknown[0]}; accepted: {' '.join(option_names(options))} (see {prog} --help)")
    return parsed


def option_names(options: type[Any]) -> list[str]:
    """The options of a dataclass as typed on the command line; a group of a room is named ``--group.*``."""
    names = []
    hints = typing.get_type_hints(options, include_extras=True)
    for field in dataclasses.fields(options):
        kind = hints[field.name]
        metadata = getattr(kind, "__metadata__", ())
        given = [marker.name for marker in metadata if getattr(marker, "name", None)]  # tyro.conf.arg(name=...)
        name = given[0] if given else field.name.rstrip("_").replace("_", "-")
        markers = str(metadata)
        bare = typing.get_args(kind)[0] if metadata else kind
        if dataclasses.is_dataclass(bare) and "OmitArgPrefixes" in markers:
            names += option_names(typing.cast(type[Any], bare))
        elif dataclasses.is_dataclass(bare):
            names.append(f"--{name}.*")
        elif "Positional" in markers:
            names.append(name.upper())
        else:
            names.append(f"--no-{name}" if bare is bool and field.default is True else f"--{name}")
    return names


def _plain(box: str) -> str:
    """The message inside tyro's box of text, on one line.

    On terminals without UTF-8 the box has no sides, and its title is the text before the first rule.
    """
    lines = [line.strip("│ \n") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    sections = re.split(r"^[─-]{3,}$", "\n".join(lines), flags=re.MULTILINE)
    message = sections[0] if "╭" in box else sections[min(1, len(sections) - 1)]
    return one_line(message.replace("[bold]", "").replace("[/bold]", ""))


def one_line(message: object) -> str:
    return re.sub(r"\s+", " ", str(message)).strip()


def _where_details_are(error: Exception) -> str:
    """Where the traceback can be read: the run's log, or a file of its own."""
    notes = getattr(error, "__notes__", [])
    if notes:
        return str(notes[-1])
    try:
        with tempfile.NamedTemporaryFile("w", prefix="vlm3-recon-", suffix=".log", delete=False) as file:
            file.write("".join(traceback.format_exception(error)))
        return f"details in {file.name}"
    except OSError:
        return "the details could not be written anywhere"


if __name__ == "__main__":
    sys.exit(main())
