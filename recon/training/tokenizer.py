"""The small tokenizer of checkpoints that this project trains from nothing.

A byte-level BPE as Qwen's own (same splitting rule, one token per digit, same special tokens and chat layout), so that
every text is reproduced byte for byte, with one addition: a text coordinate of our dialect (``x0`` ... ``x1000``,
``y0`` ... ``y1000``) is a single ordinary token. It is saved as an ordinary Hugging Face processor folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

COORDINATE_RANGE = 1000
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

_COORDINATE = r"[xy](?:1000|[1-9][0-9]{0,2}|0)(?![\p{L}\p{N}])"
# Qwen2's rule with the coordinate before it; a space before a coordinate stays a token of its own.
_SPLIT = (
    rf"(?<![\p{{L}}\p{{N}}]){_COORDINATE}"
    r"|(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    rf"|[^\r\n\p{{L}}\p{{N}}]?(?!{_COORDINATE})\p{{L}}+"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Qwen3-VL's layout for user and assistant turns with images: image parts, then text, no system turn of its own.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\\n' -}}"
    "{%- if message.content is string -%}{{- message.content -}}{%- else -%}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif part.type == 'video' or 'video' in part -%}"
    "{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}"
    "{%- elif 'text' in part -%}{{- part.text -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def coordinate_ids(tokenizer: PreTrainedTokenizerBase, axis: str) -> list[int]:
    """The ids of ``x0 ... x1000`` or ``y0 ... y1000``."""
    ids: list[int] = tokenizer.convert_tokens_to_ids([f"{axis}{value}" for value in range(COORDINATE_RANGE + 1)])
    return ids


def _coordinate_merges() -> Iterator[tuple[str, str]]:
    """Merges that build each coordinate from its letter and digits, shorter ones first."""
    for digits in (1, 2, 3, 4):
        for axis in "xy":
            for value in range(COORDINATE_RANGE + 1):
                text = str(value)
                if len(text) == digits:
                    yield axis + text[:-1], text[-1]


def build_tokenizer(texts: Iterable[str], num_merges: int = 600) -> PreTrainedTokenizerFast:
    """Trains the tokenizer on the dialects' texts.

    Args:
        texts: prompts and answers that should be short in tokens; every other text is still reproduced losslessly.
        num_merges: at most so many learned merges (fewer when the texts are exhausted).

    Returns:
        tokenizer with 256 bytes + merges + 2002 coordinates + 7 special tokens.
    """
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    scratch = Tokenizer(models.BPE())
    scratch.pre_tokenizer = split
    trainer = trainers.BpeTrainer(
        vocab_size=256 + num_merges, initial_alphabet=alphabet, min_frequency=1, show_progress=False
    )
    # coordinates get their own merges below: numbers of the training texts must not shape the learned ones
    scratch.train_from_iterator((_without_coordinates(text) for text in texts), trainer)
    learned = _read_merges(scratch)

    vocab = {token: index for index, token in enumerate(alphabet)}
    merges = []
    for left, right in [*_coordinate_merges(), *learned]:
        if left + right in vocab:
            continue  # a second rule for the same token would come later than the first and change its rank
        vocab[left + right] = len(vocab)
        merges.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        clean_up_tokenization_spaces=False,
        model_max_length=32768,
        chat_template=CHAT_TEMPLATE,
    )


def build_image_processor(max_pixels: int = 512 * 512) -> Qwen2VLImageProcessorPil:
    """Qwen3-VL's image steps: patch 16, merge 2, mean and deviation 0.5; sides rounded to multiples of 32.

    Args:
        max_pixels: larger images are reduced to about so many pixels.
    """
    return Qwen2VLImageProcessorPil(
        size={"shortest_edge": 32 * 32, "longest_edge": max_pixels},
        patch_size=16,
        temporal_patch_size=2,
        merge_size=2,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def save_processor(tokenizer: PreTrainedTokenizerFast, image_processor: Qwen2VLImageProcessorPil, folder: Path) -> None:
    """Writes tokenizer, chat template and image steps so that ``AutoProcessor`` finds a Qwen3-VL processor.

    The classes are named as the public checkpoints name them (Hugging Face picks the PIL variant where torchvision is
    absent; its video processor needs torchvision, so that part is written as text).
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    settings = image_processor.to_dict() | {"image_processor_type": "Qwen2VLImageProcessor"}
    settings["processor_class"] = "Qwen3VLProcessor"
    _write_json(folder / "preprocessor_config.json", settings)
    shared = ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std", "size")
    video = {key: settings[key] for key in shared} | {"video_processor_type": "Qwen3VLVideoProcessor"}
    _write_json(folder / "video_preprocessor_config.json", video | {"processor_class": "Qwen3VLProcessor"})


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _without_coordinates(text: str) -> str:
    words = text.split(" ")
    return " ".join(word for word in words if word[:1] not in ("x", "y") or not word[1:].isdigit())


def _read_merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    model = json.loads(tokenizer.to_str())["model"]
    return [(merge[0], merge[1]) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
