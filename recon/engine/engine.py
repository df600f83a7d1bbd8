"""The engine: thousands of questions about one image or one pair, answered as if asked one by one.

In float32 every answer is token for token what ``generate(do_sample=False)`` gives for that question alone. The image
prefix is computed once and kept; the questions are packed behind it and decoded together (DESIGN section 5).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from recon.engine import fp8
from recon.engine.answers import AnswerReader
from recon.engine.checkpoint import Checkpoint
from recon.engine.decoding import DecodeOptions, WaveDecoder
from recon.engine.forward import TextRunner
from recon.engine.modules import inference_twin
from recon.engine.prefix import Prefix, PrefixCache, Segment, content_hash
from recon.engine.prompts import PromptWriter, common_prefix_length
from recon.engine.tape import Generated
from recon.engine.templates import TemplateBook, WaveDrafter
from recon.errors import BadInputError, DeviceMemoryError
from recon.types import Answer, Question, UnifiedImage

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

_GPU_MEMORY_SHARE = 0.5  # of the free memory, for kept prefixes and questions in flight
_CPU_MEMORY_BYTES = 2 * 1024**3
_EXPECTED_ANSWER_TOKENS = 48
_LARGEST_WAVE = 4096
_NUM_SCOUTS = 8  # questions decoded first, for their templates
_LONG_ANSWER_TOKENS = 32  # a limit from which on answers may hold enough fixed text for scouts to pay
_CPU_CHUNK_TOKENS, _GPU_CHUNK_TOKENS = 2048, 8192


@dataclass(frozen=True)
class EngineOptions:
    """How the engine works; none of it changes an answer's tokens, except the last three.

    Attributes:
        wave_size: most questions in flight; 0: as many as the memory holds.
        kv_memory_bytes: memory for keys and values (half for kept prefixes, half for questions in flight); 0: half of
            the GPU's free memory, or 2 GiB on a CPU.
        chunk_tokens: tokens per packed prefill pass; 0: chosen for the device.
        speculation: draft the fixed parts of answers from templates learned from the first answers, and verify.
        share_beginnings: run equal first tokens of the questions' own parts (coordinates) once.
        prune_last_layer: run the last layer's queries only where an output is read.
        cuda_graphs: record small decoding passes as CUDA graphs (on a GPU; no effect elsewhere).
        fp8: run the text layers in 8-bit floating point (on GPUs that can); answers are approximate.
        stop_after_number: stop when the number is decided and the learned template gives the rest.
        max_new_tokens: token limit per answer; 0: the profile's for each task.
    """

    wave_size: int = 0
    kv_memory_bytes: int = 0
    chunk_tokens: int = 0
    speculation: bool = True
    share_beginnings: bool = True
    prune_last_layer: bool = True
    cuda_graphs: bool = True
    fp8: bool = False
    stop_after_number: bool = False
    max_new_tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("wave_size", "kv_memory_bytes", "chunk_tokens", "max_new_tokens"):
            if getattr(self, name) < 0:
                raise BadInputError(f"{name} must be 0 (automatic) or positive, found {getattr(self, name)}")


class Engine:
    """Asks one checkpoint. Keeps image prefixes between calls, so ask about an image's pairs one after another."""

    def __init__(self, checkpoint: Checkpoint, options: EngineOptions | None = None) -> None:
        self.checkpoint = checkpoint
        self.options = options or EngineOptions()
        if self.options.fp8:
            fp8.check_device(checkpoint.device)
            logger.warning("%s: runs in FP8, so its answers are approximate", checkpoint.source)
        replace = fp8.fp8_modules(checkpoint.model) if self.options.fp8 else None
        checkpoint = dataclasses.replace(checkpoint, model=inference_twin(checkpoint.model, replace))
        self._runner = TextRunner(checkpoint.model)
        self._kv_bytes = self.options.kv_memory_bytes or _default_memory(self._runner.device)
        self.prefixes = PrefixCache(checkpoint, self._runner, self._kv_bytes // 2)
        self._prompts = PromptWriter(checkpoint.tokenizer, checkpoint.model.config.image_token_id)
        self._reader = AnswerReader(checkpoint.tokenizer)
        self.decoder = self.make_decoder(self.options.cuda_graphs and self._runner.device.type == "cuda")
        self._book = TemplateBook(self._reader.piece, checkpoint.end_token_ids)
        self._largest_wave = self.options.wave_size or _LARGEST_WAVE
        self._said_full = False

    def make_decoder(self, fixed_sizes: bool) -> WaveDecoder:
        """A decoder as the options say; ``fixed_sizes`` are for CUDA graphs, but run on any device."""
        chunk = _CPU_CHUNK_TOKENS if self._runner.device.type == "cpu" else _GPU_CHUNK_TOKENS
        options = DecodeOptions(
            chunk_tokens=self.options.chunk_tokens or chunk,
            slab_bytes=self._kv_bytes // 2,
            share_beginnings=self.options.share_beginnings,
            prune_last_layer=self.options.prune_last_layer,
            fixed_sizes=fixed_sizes,
        )
        return WaveDecoder(self._runner, self.checkpoint.end_token_ids, self._reader.digit_ids, options)

    def ask(
        self, images: Sequence[UnifiedImage], questions: Sequence[Question], progress: Progress | None = None
    ) -> list[Answer]:
        """Answers of all questions about the same images (one, or a pair in order), in the questions' order.

        Raises:
            BadInputError: no image, or a question that can't be written as a prompt.
            CheckpointError: a question of a task that the checkpoint does not offer.
            DeviceMemoryError: the GPU does not hold the images and one question.
        """
        if not images:
            raise BadInputError("a question needs at least one image, found none")
        if not questions:
            return []
        limits = [self._limit(question) for question in questions]
        with torch.inference_mode(), _current(self._runner.device):
            prompts = self._prompts.encode([question.text for question in questions], len(images))
            num_shared = common_prefix_length(prompts)
            prefix = self._prefix(self._segments(images, prompts[0][:num_shared]))
            suffixes = [prompt[num_shared:] for prompt in prompts]
            kinds: list[Hashable] = [(q.dialect, q.task, q.kind, len(images)) for q in questions]
            generated = self._decode(prefix, suffixes, limits, kinds, progress)
        completions = [() if g.ended else self._completion(k, g) for k, g in zip(kinds, generated, strict=True)]
        return [
            self._reader.read(question, images, answer, completion)
            for question, answer, completion in zip(questions, generated, completions, strict=True)
        ]

    def _completion(self, kind: Hashable, generated: Generated) -> tuple[int, ...]:
        return tuple(self._book.completion(kind, generated.ids)) if self.options.stop_after_number else ()

    def _limit(self, question: Question) -> int:
        return self.options.max_new_tokens or self.checkpoint.profile.task(question.task).max_new_tokens

    def _segments(self, images: Sequence[UnifiedImage], shared_text: Sequence[int]) -> list[Segment]:
        form = self._prompts.form(len(images))
        segments = [
            Segment(head, image.pixels, content_hash(image.pixels))
            for head, image in zip(form.heads, images, strict=True)
        ]
        if shared_text:
            segments.append(Segment(tuple(shared_text)))
        return segments

    def _decode(
        self,
        prefix: Prefix,
        suffixes: list[list[int]],
        limits: list[int],
        kinds: list[Hashable],
        progress: Progress | None,
    ) -> list[Generated]:
        """Decodes in waves as large as the memory allows; halves the wave when a GPU runs out of memory."""
        answers: dict[int, Generated] = {}
        waiting = list(range(len(suffixes)))
        scouts = self._scouts(limits, kinds)
        while waiting:
            wave = scouts or waiting[: self._wave_size([suffixes[i] for i in waiting], [limits[i] for i in waiting])]
            scouts = []

            def finished(count: int, num_before: int = len(answers)) -> None:
                if progress is not None:
                    progress(num_before + count, len(suffixes))

            drafter = self._drafter([kinds[i] for i in wave])
            try:
                decoded = self.decoder.decode(
                    prefix, [suffixes[i] for i in wave], [limits[i] for i in wave], drafter, finished
                )
            except torch.OutOfMemoryError:
                self._make_room(len(wave))
                continue
            answers.update(zip(wave, decoded, strict=True))
            waiting = [i for i in waiting if i not in answers]
            if self.options.speculation or self.options.stop_after_number:
                for i in wave:
                    if answers[i].ended:
                        self._book.learn(kinds[i], answers[i].ids)
        return [answers[i] for i in range(len(suffixes))]

    def _prefix(self, segments: list[Segment]) -> Prefix:
        """The prefix; when memory is full, once more with nothing else kept."""
        try:
            return self.prefixes.get(segments)
        except torch.OutOfMemoryError:
            self.prefixes.clear()
            self._release()
        try:
            return self.prefixes.get(segments)
        except torch.OutOfMemoryError as error:
            sizes = ", ".join(f"{s.image.shape[1]}x{s.image.shape[0]}" for s in segments if s.image is not None)
            raise DeviceMemoryError(
                f"memory of {self._runner.device} is too small for the images ({sizes} pixels); "
                f"use smaller images or another --device"
            ) from error

    def _make_room(self, num_questions: int) -> None:
        """After a wave of that many questions did not fit: half as many from now on; said once."""
        self._release()
        if num_questions == 1:
            raise DeviceMemoryError(
                f"memory of {self._runner.device} is too small for a single question about these images; "
                f"use smaller images or another --device"
            )
        self._largest_wave = num_questions // 2
        say = logger.info if self._said_full else logger.warning
        say("GPU memory is full: at most %d questions in flight from now on", self._largest_wave)
        self._said_full = True

    def _release(self) -> None:
        self.decoder.release()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _scouts(self, limits: list[int], kinds: list[Hashable]) -> list[int]:
        """A few questions spread over all, to be answered first when nothing is known about long answers."""
        if not (self.options.speculation or self.options.stop_after_number) or len(kinds) < 4 * _NUM_SCOUTS:
            return []
        unknown = [i for i, kind in enumerate(kinds) if limits[i] >= _LONG_ANSWER_TOKENS and not self._book.knows(kind)]
        step = max(1, len(unknown) // _NUM_SCOUTS)
        return unknown[::step][:_NUM_SCOUTS]

    def _drafter(self, kinds: list[Hashable]) -> WaveDrafter | None:
        if not (self.options.speculation or self.options.stop_after_number):
            return None
        if not any(self._book.templates(kind) for kind in set(kinds)):
            return None
        return WaveDrafter(self._book, kinds, self.options.stop_after_number)

    def _wave_size(self, suffixes: list[list[int]], limits: list[int]) -> int:
        tokens = max(len(s) for s in suffixes) + min(_EXPECTED_ANSWER_TOKENS, max(limits))
        fitting = (self._kv_bytes // 2) // (tokens * self._runner.kv_bytes_per_token)
        return max(1, min(fitting, self._largest_wave))


def _default_memory(device: torch.device) -> int:
    if device.type != "cuda":
        return _CPU_MEMORY_BYTES
    # What PyTorch holds without using it is free too, though the driver does not know it.
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int((torch.cuda.mem_get_info(device)[0] + unused) * _GPU_MEMORY_SHARE)


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Makes a GPU the current one: Triton launches on that, wherever the tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
