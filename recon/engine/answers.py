"""From generated tokens to answers: text, value, confidence, spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from transformers import PreTrainedTokenizerBase

from recon.engine.tape import Generated
from recon.questions.parse import parse_answer
from recon.types import Answer, Question, UnifiedImage

_MOST_TEXTS = 20_000
_DIGIT_POWERS = np.stack([np.arange(10.0), np.arange(10.0) ** 2], axis=1)  # [10, 2]


class AnswerReader:
    """Turns :class:`Generated` into :class:`Answer` with the checkpoint's tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._pieces: dict[int, str] = {}
        self._texts: dict[tuple[int, ...], str] = {}  # short answers repeat
        self._special = frozenset(tokenizer.all_special_ids)

    @property
    def digit_ids(self) -> tuple[int, ...]:
        """The ids of the ten single-digit tokens; empty when the vocabulary has not all of them."""
        ids = [self._tokenizer.convert_tokens_to_ids(str(d)) for d in range(10)]
        return tuple(ids) if all(isinstance(i, int) and self.piece(i) == str(d) for d, i in enumerate(ids)) else ()

    def piece(self, token_id: int) -> str:
        """The text of one token; empty for special tokens."""
        if token_id not in self._pieces:
            text = "" if token_id in self._special else self._tokenizer.decode([token_id])
            self._pieces[token_id] = text
        return self._pieces[token_id]

    def text(self, ids: Sequence[int]) -> str:
        """The decoded answer without special tokens."""
        key = tuple(ids)
        if key not in self._texts:
            if len(self._texts) >= _MOST_TEXTS:
                self._texts.clear()
            self._texts[key] = str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
        return self._texts[key]

    def read(
        self,
        question: Question,
        images: Sequence[UnifiedImage],
        generated: Generated,
        completion: Sequence[int] = (),
    ) -> Answer:
        """The answer; ``completion`` are tokens that a learned template adds after a stop behind the number."""
        text = self.text([*generated.ids, *completion])
        is_complete = generated.ended or bool(completion)
        parsed = parse_answer(question, text, images, is_complete)
        carriers = self._carriers(generated.ids, text, parsed.span)
        log_probs = generated.log_probs[carriers] if carriers else generated.log_probs
        confidence = math.exp(math.fsum(log_probs.tolist()) / len(log_probs)) if parsed.status == "ok" else 0.0
        is_number = parsed.value is not None and len(parsed.value) == 1
        return Answer(
            text=text,
            token_ids=generated.ids,
            status=parsed.status,
            value=parsed.value,
            reason=parsed.reason,
            log_prob=float(generated.log_probs.sum(dtype=np.float64)),
            confidence=min(confidence, 1.0),
            spread=self._spread(generated, carriers) if is_number else math.nan,
        )

    def _carriers(self, ids: Sequence[int], text: str, span: tuple[int, int] | None) -> list[int]:
        """Places of the tokens that overlap the characters ``span`` of the text."""
        if span is None:
            return []
        ends = self._ends(ids, text)
        begins = [0, *ends[:-1]]
        return [i for i, (a, b) in enumerate(zip(begins, ends, strict=True)) if a < span[1] and b > span[0]]

    def _ends(self, ids: Sequence[int], text: str) -> list[int]:
        """Where each token ends in the text."""
        pieces = [self.piece(token) for token in ids]
        if text.startswith("".join(pieces)):
            return list(accumulate(map(len, pieces)))
        return [len(self.text(ids[: i + 1])) for i in range(len(ids))]  # tokens that are parts of a character

    def _spread(self, generated: Generated, carriers: Sequence[int]) -> float:
        """Standard deviation of the number over the alternatives at each digit, given the digits before it."""
        pieces = [self.piece(generated.ids[i]) for i in carriers]
        number = "".join(pieces).strip()
        whole = number.lstrip("+-").partition(".")[0]
        if generated.digit_log_probs.shape[1] != 10 or not whole.isdigit() or "e" in number.lower():
            return math.nan
        digits = [i for i, piece in zip(carriers, pieces, strict=True) if piece.strip() not in ("", ".", "+", "-")]
        if any(len(self.piece(generated.ids[i])) != 1 for i in digits):
            return math.nan  # a token of several digits
        probs = np.exp(generated.digit_log_probs[digits].astype(np.float64))  # [k, 10]
        mean, mean_square = (probs @ _DIGIT_POWERS / probs.sum(axis=1, keepdims=True)).T
        places = 10.0 ** np.arange(len(whole) - 1, len(whole) - 1 - len(digits), -1)
        return math.sqrt(max(float(places**2 @ (mean_square - mean**2)), 0.0))
