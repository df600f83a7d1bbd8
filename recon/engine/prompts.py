"""From questions to token ids: the chat turn around the images and the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from recon.errors import BadInputError, CheckpointError

_PROBES = ("QUESTION ONE", "another (2)")


@dataclass(frozen=True)
class ChatForm:
    """One user turn with images first: ``heads[i]`` are the ids before image ``i``, ``after_images`` those after the
    last one, ``tail`` the text that follows the question (end of turn, assistant head)."""

    heads: tuple[tuple[int, ...], ...]
    after_images: tuple[int, ...]
    tail: str


class PromptWriter:
    """Writes prompts with the checkpoint's own chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image_token_id: int) -> None:
        self._tokenizer = tokenizer
        self._image_token_id = image_token_id
        self._image_token = str(tokenizer.convert_ids_to_tokens(image_token_id))
        self._forms: dict[int, ChatForm] = {}

    def form(self, num_images: int) -> ChatForm:
        """The chat turn for that many images."""
        if num_images not in self._forms:
            self._forms[num_images] = self._read_form(num_images)
        return self._forms[num_images]

    def encode(self, texts: Sequence[str], num_images: int) -> list[list[int]]:
        """The ids of each prompt from the first token after the last image's placeholder."""
        form = self.form(num_images)
        for text in texts:
            if self._image_token in text:
                raise BadInputError(f"a question may not contain {self._image_token!r}: {text[:80]!r}")
        ids = self._ids([text + form.tail for text in texts])
        return [[*form.after_images, *suffix] for suffix in ids]

    def full_prompt(self, text: str, tokens_per_image: Sequence[int]) -> list[int]:
        """The whole prompt, tokenised at once as Hugging Face's processor does."""
        rendered = self._render(text, len(tokens_per_image))
        parts = rendered.split(self._image_token)
        whole = parts[0]
        for count, part in zip(tokens_per_image, parts[1:], strict=True):
            whole += self._image_token * count + part
        return self._ids([whole])[0]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    def _render(self, text: str, num_images: int) -> str:
        content = [{"type": "image"}] * num_images + [{"type": "text", "text": text}]
        messages = [{"role": "user", "content": content}]
        rendered = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert isinstance(rendered, str)
        return rendered

    def _read_form(self, num_images: int) -> ChatForm:
        frames = []
        for probe in _PROBES:
            before, found, tail = self._render(probe, num_images).partition(probe)
            if not found:
                raise CheckpointError("the chat template changes the question's text")
            frames.append((before, tail))
        before, tail = frames[0]
        if frames[0] != frames[1] or before.count(self._image_token) != num_images:
            raise CheckpointError(f"the chat template does not put {num_images} images before the text")
        pieces = [tuple(ids) for ids in self._ids(before.split(self._image_token))]
        form = ChatForm(tuple(pieces[:-1]), pieces[-1], tail)
        # Pieces are tokenised apart (the image part is done once): that must give what the whole text gives.
        joined = [i for head in form.heads for i in (*head, self._image_token_id)] + [*form.after_images]
        joined += self._ids([_PROBES[0] + tail])[0]
        if joined != self._ids([before + _PROBES[0] + tail])[0]:
            raise CheckpointError("the tokenizer merges the question with the turn around it")
        return form


def common_prefix_length(sequences: Sequence[Sequence[int]]) -> int:
    """Length of the longest common prefix that leaves every sequence at least one token."""
    # The lexicographic extremes differ first.
    first, last = min(map(tuple, sequences)), max(map(tuple, sequences))
    limit = min(len(s) for s in sequences) - 1
    length = 0
    while length < limit and first[length] == last[length]:
        length += 1
    return length
