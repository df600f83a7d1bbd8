"""Template speculation: answers are mostly fixed text, so draft it and let the model verify it.

Templates are learned from the first answers of a kind of question. An answer's *shape* is its tokens with every piece
that holds a digit or a sign replaced by the piece's form (``#`` for digits, ``±`` for signs); answers of one shape make
a template of literal tokens and slots. A slot that always repeats an earlier one is a copy. Drafts are literals and
copies up to the next free slot; the engine verifies each token (Leviathan et al. 2023, greedy case), so a wrong
template costs time and changes nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

MIN_ANSWERS = 4  # of one shape, before it is a template
MAX_ANSWERS = 64  # per kind of question; later ones are not looked at
MIN_DRAFTED_SHARE = 0.3  # below it, verifying costs more than it saves
_SLOT = re.compile(r"[\d+-]")


def slot_form(piece: str) -> str:
    """The form of a piece that holds a number or a sign, ``x233`` -> ``x#``; empty for fixed text."""
    if not _SLOT.search(piece):
        return ""
    return re.sub(r"[+-]", "±", re.sub(r"\d+", "#", piece))


@dataclass(frozen=True)
class Element:
    """One token of a template: a literal ``token``, or a slot (``form`` not empty) that repeats place ``copy_of``."""

    token: int
    form: str = ""
    copy_of: int = -1

    @property
    def is_free(self) -> bool:
        return bool(self.form) and self.copy_of < 0


@dataclass(frozen=True)
class Template:
    """An answer's tokens without the end token, and how many answers had this shape."""

    elements: tuple[Element, ...]
    count: int

    @property
    def drafted_share(self) -> float:
        return 1 - sum(element.is_free for element in self.elements) / max(len(self.elements), 1)

    def continuation(self, ids: Sequence[int]) -> list[int]:
        """Literals and copies that follow ``ids``, up to the next free slot."""
        out: list[int] = []
        for element in self.elements[len(ids) :]:
            if element.is_free:
                break
            if element.copy_of < 0:
                out.append(element.token)
            else:
                place = element.copy_of
                out.append(ids[place] if place < len(ids) else out[place - len(ids)])
        return out

    def decides(self, num_tokens: int) -> bool:
        """Whether an answer of that many tokens is decided: its last token is fixed text, no free slot follows."""
        if not 0 < num_tokens <= len(self.elements) or self.elements[num_tokens - 1].form:
            return False
        had_slot = any(element.form for element in self.elements[:num_tokens])
        return had_slot and not any(element.is_free for element in self.elements[num_tokens:])


@dataclass
class _Kind:
    """What is known about one kind of question."""

    num_answers: int = 0
    shapes: dict[tuple[int | str, ...], list[tuple[int, ...]]] = field(default_factory=lambda: defaultdict(list))
    templates: list[Template] = field(default_factory=list)


class TemplateBook:
    """The templates of all kinds of questions asked so far."""

    def __init__(self, piece: Callable[[int], str], end_token_ids: Sequence[int]) -> None:
        self._piece = piece
        self._end_ids = frozenset(end_token_ids)
        self._kinds: dict[Hashable, _Kind] = defaultdict(_Kind)
        self._forms: dict[int, str] = {}

    def form(self, token: int) -> str:
        if token not in self._forms:
            self._forms[token] = slot_form(self._piece(token))
        return self._forms[token]

    def knows(self, kind: Hashable) -> bool:
        """Whether enough answers were seen to have (or to do without) templates."""
        return kind in self._kinds and self._kinds[kind].num_answers >= MIN_ANSWERS

    def learn(self, kind: Hashable, ids: Sequence[int]) -> None:
        """Takes in one answer that ended by itself."""
        known = self._kinds[kind]
        if known.num_answers >= MAX_ANSWERS:
            return
        known.num_answers += 1
        body = tuple(token for token in ids if token not in self._end_ids)
        shape = tuple(self.form(token) or token for token in body)
        known.shapes[shape].append(body)
        known.templates = sorted(
            (self._template(bodies) for bodies in known.shapes.values() if len(bodies) >= MIN_ANSWERS),
            key=lambda template: -template.count,
        )

    def templates(self, kind: Hashable) -> list[Template]:
        """Templates worth drafting from, the most frequent first."""
        if kind not in self._kinds:
            return []
        return [t for t in self._kinds[kind].templates if t.drafted_share >= MIN_DRAFTED_SHARE]

    def completion(self, kind: Hashable, ids: Sequence[int]) -> list[int]:
        """The rest of an answer that was stopped behind its number."""
        for template in self._kinds[kind].templates if kind in self._kinds else []:
            if self.fits(template, ids, 0) and template.decides(len(ids)):
                return template.continuation(ids)
        return []

    def fits(self, template: Template, ids: Sequence[int], begin: int) -> bool:
        """Whether tokens from place ``begin`` on agree with a template."""
        if len(ids) > len(template.elements):
            return False
        for token, element in zip(ids[begin:], template.elements[begin : len(ids)], strict=True):
            if self.form(token) != element.form or (not element.form and token != element.token):
                return False
        return True

    def _template(self, bodies: list[tuple[int, ...]]) -> Template:
        columns = list(zip(*bodies, strict=True))
        elements = []
        for place, column in enumerate(columns):
            form = self.form(column[0])
            copies = [p for p in range(place) if form and len(set(column)) > 1 and columns[p] == column]
            elements.append(Element(column[0], form, copies[0] if copies else -1))
        return Template(tuple(elements), len(bodies))


class WaveDrafter:
    """Drafts for the questions of one wave; remembers per question which templates still fit."""

    def __init__(self, book: TemplateBook, kinds: Sequence[Hashable], stops: bool) -> None:
        self._book = book
        self.stops = stops
        by_kind = {kind: book.templates(kind) for kind in set(kinds)}
        self._fitting = [by_kind[kind] for kind in kinds]
        self._checked = [0] * len(kinds)

    def draft(self, index: int, ids: Sequence[int]) -> list[int]:
        fitting = self._still_fitting(index, ids)
        if not fitting:
            return []
        rest = fitting[0].continuation(ids)
        is_whole = len(ids) + len(rest) == len(fitting[0].elements)
        return [] if self.stops and is_whole else rest  # the next token decides, and nothing behind it is wanted

    def is_complete(self, index: int, ids: Sequence[int]) -> bool:
        fitting = self._still_fitting(index, ids)
        if not fitting or not all(template.decides(len(ids)) for template in fitting):
            return False
        return len({tuple(template.continuation(ids)) for template in fitting}) == 1

    def _still_fitting(self, index: int, ids: Sequence[int]) -> list[Template]:
        begin = self._checked[index]
        if begin < len(ids) and self._fitting[index]:
            self._fitting[index] = [t for t in self._fitting[index] if self._book.fits(t, ids, begin)]
        self._checked[index] = len(ids)
        return self._fitting[index]
