"""Loading a checkpoint of the Qwen3-VL architecture: a hub id, a folder in Hugging Face's layout, or ``embedded``.

Only safetensors are read and no code of the checkpoint is ever run (no pickles, no ``trust_remote_code``).
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import logging as transformers_logging

from recon.errors import BadInputError, CheckpointError
from recon.questions.profile import PROFILE_FILE, PUBLIC_PROFILES, CheckpointProfile, default_profile, load_profile

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).resolve().parent.parent / "assets" / EMBEDDED
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_WANTED_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "README.md", "LICEN[SC]E*"]
# Settings of a generation_config that change greedy answers; the engine's answers are plain greedy.
_GREEDY_SETTINGS: dict[str, Any] = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "bad_words_ids": None,
    "forced_eos_token_id": None,
    "sequence_bias": None,
}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: everything that is needed to ask it.

    ``model`` is in eval mode on ``device``; ``image_processor`` is the PIL one (same resizing on every machine);
    ``end_token_ids`` end an answer; ``source`` is what the user named.
    """

    model: Qwen3VLForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    image_processor: Qwen2VLImageProcessorPil
    profile: CheckpointProfile
    source: str
    device: torch.device
    dtype: torch.dtype
    end_token_ids: tuple[int, ...]
    ignored_settings: tuple[str, ...] = ()


def load_checkpoint(
    source: str, device: str = "auto", dtype: str = "auto", dialect: str | None = None, offline: bool = False
) -> Checkpoint:
    """Loads a checkpoint for inference.

    Args:
        source: hub id (``owner/name``), a folder, or ``embedded``.
        device: ``auto`` (the GPU when there is one), ``cpu``, ``cuda``, ``cuda:1`` ...
        dtype: ``auto`` (bfloat16 on a GPU, float32 on a CPU), ``float32``, ``bfloat16``, ``float16``.
        dialect: asks in this dialect instead of the profile's; needed when the checkpoint has no profile.
        offline: use hub checkpoints only from the local cache.

    Raises:
        CheckpointError: missing, damaged, pickled, or not of this architecture; one line that says which.
        BadInputError: unknown device, dtype or dialect.
    """
    torch_device = _device(device)
    torch_dtype = _dtype(dtype, torch_device)
    folder = _folder(source, offline)
    _check_config(folder)
    _check_weights(folder)
    profile = _profile(source, folder, dialect)
    config = Qwen3VLConfig.from_pretrained(folder, local_files_only=True)
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # a library prints nothing
    try:
        model, report = Qwen3VLForConditionalGeneration.from_pretrained(
            folder,
            config=config,
            dtype=torch_dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}: the weights can't be loaded ({_one_line(error)})") from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    missing = sorted(report["missing_keys"])
    if missing or report["mismatched_keys"]:
        wrong = missing or [str(key) for key in report["mismatched_keys"]]
        raise CheckpointError(f"{folder}: {len(wrong)} weights are missing or of a wrong shape, the first: {wrong[0]}")
    tokenizer = _tokenizer(folder)
    try:
        image_processor = Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder}: preprocessor_config.json can't be read ({_one_line(error)})") from error
    return from_parts(
        model.to(torch_device).eval(),
        tokenizer,
        image_processor,
        profile,
        source,
    )


def from_parts(
    model: Qwen3VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    image_processor: Qwen2VLImageProcessorPil,
    profile: CheckpointProfile,
    source: str,
) -> Checkpoint:
    """A checkpoint from objects already in memory (training, tests)."""
    settings = model.generation_config
    ends = settings.eos_token_id if settings.eos_token_id is not None else tokenizer.eos_token_id
    if ends is None:
        raise CheckpointError(f"{source}: neither generation_config.json nor the tokenizer names an end token")
    ignored = tuple(
        f"{name}={getattr(settings, name)}"
        for name, neutral in _GREEDY_SETTINGS.items()
        if getattr(settings, name, None) not in (None, neutral)
    )
    if ignored:
        logger.warning("%s: generation settings not applied (answers are plain greedy): %s", source, ", ".join(ignored))
    return Checkpoint(
        model=model,
        tokenizer=tokenizer,
        image_processor=image_processor,
        profile=profile,
        source=source,
        device=model.device,
        dtype=model.dtype,
        end_token_ids=tuple(ends) if isinstance(ends, (list, tuple)) else (int(ends),),
        ignored_settings=ignored,
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInputError(f"device {name!r} is unknown; accepted: auto, cpu, cuda, cuda:0 ...") from error
    if device.type not in ("cpu", "cuda"):
        raise BadInputError(f"device {name!r} is not supported; accepted: auto, cpu, cuda, cuda:0 ...")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInputError(f"device {name!r} is not there: {torch.cuda.device_count()} CUDA devices were found")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in _DTYPES:
        raise BadInputError(f"dtype {name!r} is unknown; accepted: auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _folder(source: str, offline: bool) -> Path:
    """The local folder of a source; downloads a hub checkpoint into Hugging Face's cache."""
    if source == EMBEDDED:
        if not (EMBEDDED_FOLDER / "config.json").is_file():
            raise CheckpointError(f"the embedded checkpoint is missing in this installation ({EMBEDDED_FOLDER})")
        return EMBEDDED_FOLDER
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise CheckpointError(f"{source}: is a file; accepted: a checkpoint folder, a hub id, or '{EMBEDDED}'")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source) or source.startswith(("./", "../")):
        raise CheckpointError(f"{source}: no such folder; accepted: a checkpoint folder, a hub id, or '{EMBEDDED}'")
    return _download(source, offline)


def _download(source: str, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns=_WANTED_FILES, local_files_only=offline))
    except GatedRepoError as error:
        raise CheckpointError(
            f"{source}: access is gated; accept its licence on huggingface.co and log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"{source}: no such folder, and no such checkpoint on huggingface.co") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise CheckpointError(
            f"{source}: not in the local cache and huggingface.co can't be reached ({_one_line(error)}); "
            f"download it elsewhere and name its folder"
        ) from error


def _check_config(folder: Path) -> None:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: has no config.json; expected a Hugging Face checkpoint folder") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: can't be read ({_one_line(error)})") from error
    found = config.get("model_type") if isinstance(config, dict) else type(config).__name__
    if found != "qwen3_vl":
        raise CheckpointError(f"{path}: model_type is {found!r}; accepted: 'qwen3_vl'")


def _check_weights(folder: Path) -> None:
    """Every weight file opens as safetensors; an index names only files that are there."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern))
        found = f"found only pickled weights ({pickles[0]})" if pickles else "found no weights"
        raise CheckpointError(f"{folder}: {found}; accepted: *.safetensors")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{index}: can't be read ({_one_line(error)})") from error
        absent = sorted(named - {file.name for file in files})
        if absent:
            raise CheckpointError(f"{folder}: {absent[0]} is missing (named in {index.name})")
    for file in files:
        try:
            with safe_open(file, framework="pt") as weights:
                weights.keys()
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: damaged safetensors ({_one_line(error)}); fetch it again") from error


def _profile(source: str, folder: Path, dialect: str | None) -> CheckpointProfile:
    """The folder's own profile, else the built-in one of a public hub id, else a cautious one for ``dialect``."""
    path = folder / PROFILE_FILE
    if dialect is not None:
        return default_profile(dialect, source)
    if path.is_file():
        return load_profile(path)
    if source in PUBLIC_PROFILES:
        return PUBLIC_PROFILES[source]
    raise CheckpointError(
        f"{source}: has no {PROFILE_FILE} and is not a public VLM3 checkpoint; name its dialect with --dialect"
    )


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, use_fast=True)
    except Exception as error:  # the tokenizers library raises plain Exception for a damaged tokenizer.json
        raise CheckpointError(f"{folder}: the tokenizer can't be loaded ({_one_line(error)})") from error
    if not getattr(tokenizer, "chat_template", None):
        path = folder / "chat_template.json"
        if not path.is_file():
            raise CheckpointError(f"{folder}: has no chat template (chat_template.jinja or chat_template.json)")
        try:
            tokenizer.chat_template = json.loads(path.read_text(encoding="utf-8"))["chat_template"]
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path}: can't be read ({_one_line(error)})") from error
    return tokenizer


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
