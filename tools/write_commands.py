"""Writes docs/commands.md: every command with its options, from the option classes that the command line is made of.

python -m tools.write_commands
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import warnings
from pathlib import Path
from typing import Any

from pipelines.cli import COMMANDS

TARGET = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
MAIN = "reconstruct"
HEAD = """# Commands

Made from the option classes by `python -m tools.write_commands`; `vlm3-recon COMMAND --help` says the same. A command
ends with exit code 0 when it is done, 1 when the input, a checkpoint or the disk stood in the way (one line says what),
2 when the command line was wrong, 130 when it was interrupted.

| | |
|---|---|
"""


def main() -> None:
    TARGET.write_text(commands_page(), encoding="utf-8")


def commands_page() -> str:
    """The page."""
    entries = {name: _entry(name) for name in COMMANDS}
    page = HEAD + "".join(f"| [{name}](#{name}) | {_summary(options)} |\n" for name, (options, _) in entries.items())
    main_rows = entries[MAIN][1]
    for name, (options, rows) in entries.items():
        shared = [row for row in rows if name != MAIN and "." in row[0] and row in main_rows]
        own = [row for row in rows if row not in shared]
        usage = "vlm3-recon" if name == MAIN else f"vlm3-recon {name}"
        page += f"\n## {name}\n\n`{usage} {' '.join(_usage(row) for row in own if row[3])}`\n\n"
        page += f"{inspect.getdoc(options)}\n\n| | | |\n|---|---|---|\n"
        page += "".join(f"| {option} | {kind} | {text} |\n" for option, kind, text, _ in own)
        if shared:
            groups = sorted({row[0].split(".")[0].strip("`-") for row in shared})
            page += f"\nAnd {', '.join(f'`--{g}.*`' for g in groups)} as in [{MAIN}](#{MAIN}).\n"
    return page


def _entry(name: str) -> tuple[type[Any], list[tuple[str, str, str, bool]]]:
    """The option class of a command, and a row per option: how it is written, its values, its help, whether needed."""
    import tyro

    module, options, _ = COMMANDS[name]
    kind = getattr(importlib.import_module(module), options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # no other way to the options without a terminal's layout
        parser = tyro.extras.get_parser(kind, config=(tyro.conf.FlagCreatePairsOff,))
    missing = dataclasses.MISSING
    needed = {f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing}
    rows = []
    for action in parser._actions:
        if action.dest == "help":
            continue
        text = _cell(str(action.help or ""))
        written = ", ".join(f"`{option}`" for option in action.option_strings) or f"`{action.dest.upper()}`"
        values = f"`{_cell(str(action.metavar))}`" if action.metavar and action.option_strings else ""
        for nothing_more in ("(required)", "(default: )", "(default: None)", "(default: False)"):
            text = text.removesuffix(nothing_more).strip()
        rows.append((written, values, text, action.dest in needed))
    return kind, rows


def _usage(row: tuple[str, str, str, bool]) -> str:
    option, kind, _, _ = row
    return f"{option.strip('`')} {kind.strip('`')}".strip()


def _summary(options: type[Any]) -> str:
    return (inspect.getdoc(options) or "").split("\n\n")[0].replace("\n", " ")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("{None}\\|", "")


if __name__ == "__main__":
    main()
