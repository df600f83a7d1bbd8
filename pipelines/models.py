"""Which checkpoint answers which task, and loading them one after the other, only when something is left to ask."""

from __future__ import annotations

import dataclasses
import gc
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

import recon
from pipelines.records import file_digest
from recon.errors import BadInputError, CheckpointError
from recon.questions.dialects import DIALECTS
from recon.questions.profile import (
    PROFILE_FILE,
    PUBLIC_PROFILES,
    CheckpointProfile,
    default_profile,
    load_profile,
    with_thinking,
)
from recon.types import Task

if TYPE_CHECKING:
    from recon.engine.engine import Engine

logger = logging.getLogger(__name__)
EMBEDDED = "embedded"
RESTRICTED_LICENSES = ("FAIR CC-BY-NC",)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HASHED_BYTES = 64 << 20  # larger files are known by size and time


@dataclass(frozen=True)
class ModelOptions:
    """Which checkpoints answer: a hub id, a folder in Hugging Face's layout, or ``embedded``."""

    model: str = EMBEDDED
    """answers all its tasks: hub id, folder, or 'embedded' (small, trained on synthetic rooms only)"""
    depth_model: str | None = None
    """answers the depth questions instead"""
    match_model: str | None = None
    """answers the correspondence questions instead"""
    pose_model: str | None = None
    """answers the camera motion questions instead"""
    object_model: str | None = None
    """answers the object questions instead"""
    dialect: str | None = None
    """how to ask a checkpoint that has no profile of its own"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    dtype: str = "auto"
    """auto, float32, bfloat16, float16"""
    trust_model: bool = False
    """let the checkpoint's metres set the scale even if it was not trained on photos"""
    kv_memory_gib: Annotated[float, tyro.conf.arg(name="kv-memory")] = 0.0
    """GiB for the model's keys and values; 0: half of the GPU's free memory, or 2 on a CPU"""
    wave_size: int = 0
    """most questions in flight; 0: as many as that memory holds"""
    think: bool = False
    """let the checkpoint think step by step before it answers correspondence questions (slow; vlm3-released only)"""
    stop_after_number: bool = False
    """do not decode the fixed text behind an answer's last number"""
    cuda_graphs: bool = True
    """record small decoding passes as CUDA graphs (on a GPU)"""
    fp8: bool = False
    """run the checkpoint in 8-bit floating point: faster on recent GPUs, and approximate"""

    def check(self) -> None:
        """Raises BadInputError for values out of range."""
        for name, value in (("kv-memory", self.kv_memory_gib), ("wave-size", self.wave_size)):
            if not 0 <= value < float("inf"):
                raise BadInputError(f"--{name} must be 0 (automatic) or positive, found {value}")

    def source(self, task: Task) -> str:
        chosen: str | None = getattr(self, f"{task}_model")
        return chosen or self.model


class TaskModel:
    """One task's checkpoint. Its profile is known without loading; the engine is loaded on first use."""

    def __init__(self, options: ModelOptions, task: Task) -> None:
        options.check()
        self.task = task
        self.options = options
        self.source = options.source(task)
        self.folder = local_folder(self.source)
        self.profile = self._as_asked(find_profile(self.source, self.folder, options.dialect))
        self._engine: Engine | None = None

    def _as_asked(self, profile: CheckpointProfile) -> CheckpointProfile:
        if not self.options.think or self.task != "match" or self.task not in profile.tasks:
            return profile
        try:
            return with_thinking(profile)
        except BadInputError as error:
            raise BadInputError(f"--think: {error} (checkpoint {self.source!r})") from error

    @property
    def offers_task(self) -> bool:
        return self.task in self.profile.tasks

    @property
    def too_coarse(self) -> str:
        """Why its answers about pairs would not help a map; empty when they may, or when it was named for this task."""
        named = getattr(self.options, f"{self.task}_model") is not None
        return "" if named else self.profile.too_coarse(self.task)

    @property
    def trusted(self) -> bool:
        """Whether its metres may set the scale by themselves."""
        return self.profile.trusted_on_photos or self.options.trust_model

    @property
    def engine(self) -> Engine:
        """The engine, loaded on first use."""
        if self._engine is None:
            from recon.engine.checkpoint import load_checkpoint
            from recon.engine.engine import Engine, EngineOptions

            logger.info("loading checkpoint %s for %s questions", self.source, self.task)
            checkpoint = load_checkpoint(
                self.source, device=self.options.device, dtype=self.options.dtype, dialect=self.options.dialect
            )
            profile = dataclasses.replace(self._as_asked(checkpoint.profile), trusted_on_photos=self.trusted)
            options = EngineOptions(
                kv_memory_bytes=int(self.options.kv_memory_gib * 2**30),
                wave_size=self.options.wave_size,
                stop_after_number=self.options.stop_after_number,
                cuda_graphs=self.options.cuda_graphs,
                fp8=self.options.fp8,
            )
            self._engine = Engine(dataclasses.replace(checkpoint, profile=profile), options)
        return self._engine

    def release(self) -> None:
        """Frees the memory, so that the next checkpoint fits where this one was."""
        if self._engine is None:
            return
        import torch

        self._engine = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def notice(self) -> str:
        """What the user should know before relying on its answers; empty when there is nothing to say."""
        if self.profile.license in RESTRICTED_LICENSES:
            return f"{self.source}: the weights' licence is {self.profile.license} (non-commercial use only)"
        if not self.profile.trusted_on_photos:
            trust = (
                "its metres are trusted as asked (--trust-model)"
                if self.options.trust_model
                else (
                    "its metres do not set the scale (--trust-model to let them); photos need a real checkpoint, "
                    "see --model"
                )
            )
            return f"checkpoint {self.source!r} was trained on {self.profile.trained_on} only: {trust}"
        return ""

    @property
    def identity(self) -> dict[str, object]:
        """What the answers depend on: the checkpoint's files by content (very large ones by size and time)."""
        marks: dict[str, str] = {"source": self.source}
        if self.folder is not None:
            for path in sorted(self.folder.iterdir()):
                if path.suffix in (".json", ".jinja", ".safetensors", ".txt"):
                    stat = path.stat()
                    small = stat.st_size <= _HASHED_BYTES
                    marks[path.name] = file_digest(path) if small else f"{stat.st_size} {stat.st_mtime_ns}"
        ways = {name: getattr(self.options, name) for name in ("dtype", "fp8", "stop_after_number")}
        return {"files": marks, "profile": self.profile.to_json(), "trusted": self.trusted, **ways}


def local_folder(source: str) -> Path | None:
    """The folder of a checkpoint that is on this machine; None for a hub id that has to be fetched first."""
    if source == EMBEDDED:
        return Path(recon.__file__).parent / "assets" / EMBEDDED
    folder = Path(source).expanduser()
    return folder if folder.is_dir() else None


def find_profile(source: str, folder: Path | None, dialect: str | None) -> CheckpointProfile:
    """The profile a checkpoint will be used with: its own, the built-in one of a public hub id, or the dialect's.

    Raises:
        CheckpointError: there is none, or no such checkpoint.
        BadInputError: unknown dialect.
    """
    if dialect is not None:
        return default_profile(dialect, source)
    if folder is not None and (folder / PROFILE_FILE).is_file():
        return load_profile(folder / PROFILE_FILE)
    if source in PUBLIC_PROFILES:
        return PUBLIC_PROFILES[source]
    if source == EMBEDDED:
        raise CheckpointError(f"the embedded checkpoint is missing in this installation ({folder})")
    if folder is None and not HUB_ID.fullmatch(source):
        raise CheckpointError(f"{source}: no such folder; accepted: a checkpoint folder, a hub id, or {EMBEDDED!r}")
    raise CheckpointError(
        f"{source}: has no {PROFILE_FILE} and is not a public VLM3 checkpoint; name its dialect with --dialect "
        f"(accepted: {', '.join(DIALECTS)})"
    )
