"""``vlm3-recon query PHOTO --ask ... --box ...``: questions about regions of a photo, named by boxes in the text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines import query
from pipelines.cli import main
from recon.questions import object
from recon.questions.parse import parse_answer
from recon.questions.profile import default_profile
from recon.types import Answer, Question, UnifiedImage
from tests.interop.curated import photo

# How the released checkpoints write the two boxes below of a 200x100 photo. Without a known focal length it is taken as
# 240 px and unified to 1000: 833x416. The first box ends with pixel 60, whose last unified pixel is
# 61 / 240 * 1000 - 1 = 253.2: 253.2 / 833 * 1000 = 304.
FIRST, SECOND = "bounding box region (50, 100, 304, 799)", "bounding box region (500, 0, 999, 498)"


class Model:
    """Answers every question with the texts that it was given, and keeps what was asked."""

    source, notice = "model", ""

    def __init__(self, text: str) -> None:
        self.profile = default_profile("vlm3-released", "model")
        self.engine = self
        self.text = text
        self.asked: list[str] = []

    def ask(self, images: Sequence[UnifiedImage], questions: Sequence[Question]) -> list[Answer]:
        self.asked += [question.text for question in questions]
        parsed = [parse_answer(question, self.text, images) for question in questions]
        return [Answer(self.text, (), p.status, p.value, p.reason, -0.1, 0.8) for p in parsed]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(answer: str, *arguments: str) -> tuple[int, Model, str]:
        model = Model(answer)
        monkeypatch.setattr(query, "TaskModel", lambda options, task: model)
        path = photo(tmp_path / "photo.png", size=(200, 100))
        code = main(["query", str(path), *arguments])
        captured = capsys.readouterr()
        return code, model, captured.out + captured.err

    return run


def test_words_with_masks_name_the_boxes(ask: Any) -> None:
    question = "Is <mask> to the left of <mask>?"
    code, model, said = ask("Yes, it is.", "--ask", question, "--box", "10,10,60,79", "100,0,199,49")
    assert code == 0
    assert model.asked == [f"Is {FIRST} to the left of {SECOND}?"]
    assert "understood  1 (1 yes, 0 no) (confidence 0.80)" in said


def test_the_name_of_a_question_is_enough(ask: Any) -> None:
    code, model, said = ask("The width is 45 cm.", "--ask", "width", "--box", "10,10,60,79")
    assert code == 0
    assert model.asked == [f"What is the width of {FIRST}?"]
    assert "understood  0.45 m" in said
    code, model, said = ask("At 3 o'clock.", "--ask", "direction", "--box", "10,10,60,79", "100,0,199,49")
    assert model.asked == [f"If you are at {FIRST}, where will you find {SECOND}?"]
    assert "understood  3 o'clock" in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--ask", "width", "--box", "10,10,60,79", "1,1,2,2"], "is about 1 region(s), found 2"),
        (["--ask", "Is <mask> red?"], "names region 0 but 0 region(s) were given"),
        (["--ask", "Is it red?", "--box", "1,1,5,5"], "1 region(s) were given but the question names 0"),
        (["--ask", "Is <mask> red?", "--box", "1,1,500,5"], "reaches outside the photo"),
        (["--ask", "Is <mask> red?", "--box", "a,b"], "is not a region"),
        (["--box", "1,1,5,5"], "--box needs a question in words"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(ask: Any, arguments: list[str], expected: str) -> None:
    code, _, said = ask("Yes.", *arguments)
    assert code == 1
    assert expected in said
    assert said.count("\n") == 1


def test_the_help_names_every_question(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["query", "--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in object.FORMS)
