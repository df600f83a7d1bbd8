"""The parts of a checkpoint to train, and the finished checkpoint as an ordinary Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from recon.engine.checkpoint import EMBEDDED, EMBEDDED_FOLDER, load_checkpoint
from recon.errors import BadInputError, CheckpointError
from recon.questions.profile import PROFILE_FILE, CheckpointProfile, DepthProfile, default_profile
from recon.training.init import new_model
from recon.training.shape import SIZES, ModelSize, make_config
from recon.training.texts import tokenizer_texts
from recon.training.tokenizer import build_image_processor, build_tokenizer, save_processor

TRAINED_ON = "procedural rooms"


@dataclass(frozen=True)
class Parts:
    """Model (float32), tokenizer and image processor of a checkpoint in training."""

    model: Qwen3VLForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    image_processor: Any


def build_parts(config: str, seed: int) -> Parts:
    """A new model of a named size, or of the sizes in a JSON file.

    Raises:
        BadInputError: unknown size, unreadable file, or fields that are not those of ``ModelSize``.
    """
    tokenizer = build_tokenizer(tokenizer_texts())
    return Parts(new_model(_read_size(config), tokenizer, seed), tokenizer, build_image_processor())


def load_parts(source: str) -> Parts:
    """The parts of an existing checkpoint (folder, hub id or ``embedded``).

    Raises:
        CheckpointError: it is missing, damaged, or not of this architecture.
    """
    checkpoint = load_checkpoint(source, device="cpu", dtype="float32", dialect=None)
    return Parts(checkpoint.model.train(), checkpoint.tokenizer, checkpoint.image_processor)


def checkpoint_config(source: str) -> Qwen3VLConfig:
    """The configuration of an existing checkpoint (folder or ``embedded``), without its weights.

    Raises:
        CheckpointError: no readable configuration of this architecture.
    """
    folder = EMBEDDED_FOLDER if source == EMBEDDED else Path(source)
    try:
        data = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if data.get("model_type") != "qwen3_vl":
            raise CheckpointError(f"{folder}: model_type is {data.get('model_type')!r}; accepted: qwen3_vl")
        return Qwen3VLConfig.from_dict(data)
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder}: config.json can't be read ({' '.join(str(error).split())})") from error


def new_config(config: str) -> Qwen3VLConfig:
    """The configuration of a new model of a named size, or of the sizes in a JSON file; raises as ``build_parts``."""
    return make_config(_read_size(config), build_tokenizer(tokenizer_texts()))


def _read_size(config: str) -> ModelSize:
    if config in SIZES:
        return SIZES[config]
    path = Path(config)
    if not path.is_file():
        raise BadInputError(f"--config {config}: neither a size ({', '.join(SIZES)}) nor a JSON file")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: not readable JSON ({error})") from error
    names = [entry.name for entry in fields(ModelSize)]
    if not isinstance(data, dict) or not set(data) <= set(names):
        raise BadInputError(f"{path}: accepted keys: {', '.join(names)}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    return replace(SIZES["small"], **values)


def export_checkpoint(
    parts: Parts,
    folder: Path,
    dialect: str,
    tasks: Sequence[str],
    trained_on: str,
    name: str = "vlm3-recon-small",
    depth_log_sigma: float | None = None,
    measured: Mapping[str, float] | None = None,
    dtype: torch.dtype = torch.bfloat16,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes weights (safetensors), configuration, tokenizer, image steps and ``vlm3_profile.json``.

    Args:
        parts: what was trained; the model is not changed.
        folder: made when missing; files of the same names are replaced.
        dialect: what it was trained in.
        tasks: what it was trained for; others are not offered.
        trained_on: the training data in words.
        name: for reports.
        depth_log_sigma: measured standard deviation of ln(depth).
        measured: figures for the record.
        dtype: of the stored weights.
        weights: written instead of the model's own, which may be spread over several processes.
    """
    general = default_profile(dialect, name)
    settings = {task: general.tasks[task] for task in general.tasks if task in tasks}
    if "depth" in settings:
        depth = general.depth
        sigma = depth.log_sigma if depth_log_sigma is None else depth_log_sigma
        settings["depth"] = DepthProfile(depth.image, depth.max_new_tokens, "z", (0.1, 50.0), sigma)
    profile = CheckpointProfile(
        name=name,
        dialect=dialect,
        license="Apache-2.0",
        trained_on=trained_on,
        trusted_on_photos=False,
        tasks=settings,
        measured=dict(measured or {}),
    )
    folder.mkdir(parents=True, exist_ok=True)
    copy = Qwen3VLForConditionalGeneration(parts.model.config).to(dtype)
    copy.load_state_dict(parts.model.state_dict() if weights is None else weights)
    copy.tie_weights()
    for config in (copy.config, copy.config.text_config, copy.config.vision_config):
        config.dtype = dtype
    copy.config.use_cache = True
    copy.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=parts.tokenizer.eos_token_id,
        pad_token_id=parts.tokenizer.pad_token_id,
        bos_token_id=copy.config.text_config.bos_token_id,
    )
    copy.set_attn_implementation("sdpa")
    copy.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)  # safetensors writes them for the owner alone
    save_processor(parts.tokenizer, parts.image_processor, folder)
    (folder / PROFILE_FILE).write_text(json.dumps(profile.to_json(), indent=2) + "\n", encoding="utf-8")
