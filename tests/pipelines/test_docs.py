"""The documentation: its examples run, its commands and links exist."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines import cli
from tests.helpers import REPOSITORY
from tools.write_commands import TARGET, commands_page

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.glob("*.md"))]
_BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>.+?) -->\n)?```sh\n(?P<code>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Example:
    """One shell line of a page; ``reason`` says why it is not run, empty where it is."""

    page: str
    words: tuple[str, ...]
    reason: str


def examples(page: Path) -> list[Example]:
    found = []
    for block in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        for line in block["code"].replace("\\\n", " ").splitlines():
            words = tuple(shlex.split(line, comments=True))
            if words:
                found.append(Example(page.name, words, block["reason"] or ""))
    return found


def test_blocks_and_reasons_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\na b  # why\n```\n<!-- not run: a GPU -->\n```sh\nc \\\n  d\n```\n```\nno shell\n```\n")
    assert examples(page) == [Example("page.md", ("a", "b"), ""), Example("page.md", ("c", "d"), "a GPU")]


def test_commands_page_is_up_to_date() -> None:
    assert TARGET.read_text(encoding="utf-8") == commands_page(), "run `python -m tools.write_commands`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_name_commands_and_options_that_exist(page: Path) -> None:
    for example in examples(page):
        if example.words[0] != "vlm3-recon" or "--help" in example.words:
            continue
        command, rest = cli.split_command(list(example.words[1:]))
        module, options, _ = cli.COMMANDS[command]
        cli.parse(getattr(importlib.import_module(module), options), command, rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]*)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert not target or (page.parent / target).exists(), target


@pytest.mark.slow
def test_the_tutorial_works(
    tmp_path: Path, few_photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(few_photos / "images", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    lines = examples(DOCS / "tutorial.md")
    ran = [line for line in lines if not line.reason]
    assert len(ran) >= 10
    for line in ran:
        assert line.words[0] == "vlm3-recon", "a line that isn't ours needs a reason why it isn't run"
        assert cli.main(line.words[1:]) == 0, (line, capsys.readouterr().err)
    for made in ("mesh.ply", "model.glb", "mesh-nerfstudio/transforms.json", "mesh-splat/sparse/0", "agreement.json"):
        assert (tmp_path / made).exists(), made
    assert "known distance" in capsys.readouterr().out  # the scale's source, in what `info` and the run say
