"""What a checkpoint is: its dialect, which tasks it answers, how it wants its images, and how far it can be trusted.

A checkpoint folder holds it as ``vlm3_profile.json``; the public hub checkpoints have built-in profiles. The errors in
a profile are standard deviations measured on held-out data (or, for the public checkpoints, derived from their
published figures: depth delta1 0.904 is a log-normal sigma of 0.13; match end-point error 15.4 px is a per-axis sigma
of 12 px; pose AUC@30 0.94 is about 2 degrees; the distance's error is not published and taken as large).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

from recon.cameras.unify import ImageProfile
from recon.errors import BadInputError, CheckpointError
from recon.questions import strict_json
from recon.questions.dialects import DIALECTS, get_dialect
from recon.types import Task

PROFILE_FILE = "vlm3_profile.json"
FORMAT = 1
COARSE_MATCH = 0.03
"""Matches with a larger standard deviation, in units of the image's focal length or long edge, don't help a map:
refining them looks for the point within a few pixels, and classical features are a hundred times as exact. (The public
checkpoint: 0.012.)"""
COARSE_ROTATION_DEG = 10.0
"""Nor do relative poses with a larger standard deviation of the rotation. (The public checkpoint: about 2.)"""


@dataclass(frozen=True)
class DepthProfile:
    """``depth_kind``: what the checkpoint means by distance; ``auto`` is decided by agreement with triangulated points.
    ``range_m``: answers outside are not believed; ``log_sigma``: standard deviation of ln(depth)."""

    image: ImageProfile
    max_new_tokens: int
    depth_kind: Literal["z", "ray", "auto"]
    range_m: tuple[float, float]
    log_sigma: float


@dataclass(frozen=True)
class MatchProfile:
    """``sigma_px``: standard deviation per axis in pixels of the unified image; ``think``: ask to think first."""

    image: ImageProfile
    max_new_tokens: int
    sigma_px: float
    think: bool = False


@dataclass(frozen=True)
class PoseProfile:
    """Standard deviations of the rotation, the direction of motion, and ln(distance)."""

    image: ImageProfile
    max_new_tokens: int
    rotation_sigma_deg: float
    direction_sigma_deg: float
    distance_log_sigma: float


@dataclass(frozen=True)
class ObjectProfile:
    image: ImageProfile
    max_new_tokens: int


TaskProfile = DepthProfile | MatchProfile | PoseProfile | ObjectProfile

_TASK_PROFILES: Mapping[Task, type] = {
    "depth": DepthProfile,
    "match": MatchProfile,
    "pose": PoseProfile,
    "object": ObjectProfile,
}


@dataclass(frozen=True)
class CheckpointProfile:
    """A checkpoint's profile.

    Attributes:
        name: for reports, and in the ``source`` of evidence.
        dialect: name of its dialect.
        license: the weights' licence; the user is told of it on load when it restricts use.
        trained_on: what it learned from, in words.
        trusted_on_photos: whether its metric answers about photos may set a scale by themselves.
        tasks: the tasks it answers; absent ones are not offered.
        measured: figures measured by whoever trained it, for the record.
    """

    name: str
    dialect: str
    license: str
    trained_on: str
    trusted_on_photos: bool
    tasks: Mapping[Task, TaskProfile]
    measured: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dialect = get_dialect(self.dialect)
        if not self.tasks:
            raise BadInputError(f"profile of {self.name!r} offers no task; accepted: {', '.join(dialect.tasks)}")
        for task, settings in self.tasks.items():
            dialect.require(task)
            if not isinstance(settings, _TASK_PROFILES[task]):
                raise BadInputError(f"profile of {self.name!r}: task {task!r} holds a {type(settings).__name__}")

    @property
    def depth(self) -> DepthProfile:
        return cast(DepthProfile, self.task("depth"))

    @property
    def match(self) -> MatchProfile:
        return cast(MatchProfile, self.task("match"))

    @property
    def pose(self) -> PoseProfile:
        return cast(PoseProfile, self.task("pose"))

    @property
    def object(self) -> ObjectProfile:
        return cast(ObjectProfile, self.task("object"))

    def task(self, task: Task) -> TaskProfile:
        """The settings of a task; raises CheckpointError when the checkpoint does not offer it."""
        if task not in self.tasks:
            raise CheckpointError(
                f"checkpoint {self.name!r} answers no {task} questions, only: {', '.join(self.tasks)}; give one that "
                f"does with --{task}-model"
            )
        return self.tasks[task]

    def too_coarse(self, task: Task) -> str:
        """Why the answers of a task are too coarse to help a map, by their measured errors; empty when they are not."""
        settings = self.tasks.get(task)
        if isinstance(settings, MatchProfile) and settings.sigma_px > COARSE_MATCH * settings.image.target_px:
            error = settings.sigma_px / settings.image.target_px
            unit = "focal length" if settings.image.mode == "focal" else "image"
            return f"its matches are off by {error:.1%} of the {unit} on each axis; maps use up to {COARSE_MATCH:.0%}"
        if isinstance(settings, PoseProfile) and settings.rotation_sigma_deg > COARSE_ROTATION_DEG:
            return (
                f"its rotations are off by {settings.rotation_sigma_deg:.0f} degrees; maps use up to "
                f"{COARSE_ROTATION_DEG:.0f}"
            )
        return ""

    def to_json(self) -> dict[str, Any]:
        """The content of ``vlm3_profile.json``."""
        data: dict[str, Any] = {
            "format": FORMAT,
            "name": self.name,
            "dialect": self.dialect,
            "license": self.license,
            "trained_on": self.trained_on,
            "trusted_on_photos": self.trusted_on_photos,
            "tasks": {task: _task_to_json(settings) for task, settings in self.tasks.items()},
        }
        if self.measured:
            data["measured"] = dict(self.measured)
        return data

    @staticmethod
    def from_json(data: Any, where: str = PROFILE_FILE) -> CheckpointProfile:
        """Reads and checks a profile; raises CheckpointError naming the file (``where``) and the key at fault."""
        required = ("format", "name", "dialect", "license", "trained_on", "trusted_on_photos", "tasks")
        entries = strict_json.keys(data, required, ("measured",), where)
        if entries["format"] != FORMAT:
            raise CheckpointError(f"{where}: format {entries['format']!r} is not readable; accepted: {FORMAT}")
        if entries["dialect"] not in DIALECTS:
            raise CheckpointError(
                f"{where}: dialect {entries['dialect']!r} is unknown; accepted: {', '.join(DIALECTS)}"
            )
        tasks = strict_json.keys(entries["tasks"], (), tuple(_TASK_PROFILES), f"{where}: tasks")
        try:
            return CheckpointProfile(
                name=strict_json.read(entries, "name", strict_json.text, where),
                dialect=entries["dialect"],
                license=strict_json.read(entries, "license", strict_json.text, where),
                trained_on=strict_json.read(entries, "trained_on", strict_json.text, where),
                trusted_on_photos=strict_json.read(entries, "trusted_on_photos", strict_json.boolean, where),
                tasks={
                    cast(Task, task): _task_from_json(cast(Task, task), settings, f"{where}: tasks.{task}")
                    for task, settings in tasks.items()
                },
                measured=strict_json.read(entries, "measured", strict_json.figures, where)
                if "measured" in entries
                else {},
            )
        except BadInputError as error:
            raise CheckpointError(f"{where}: {error}") from error


def load_profile(path: Path) -> CheckpointProfile:
    """Reads a ``vlm3_profile.json``; raises CheckpointError when it can't be read or is not a profile."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: not a readable profile ({error}); expected JSON of a checkpoint profile"
        ) from error
    return CheckpointProfile.from_json(data, str(path))


def default_profile(dialect_name: str, name: str) -> CheckpointProfile:
    """A profile for a checkpoint without its own: all tasks of the dialect, with cautious errors.

    Raises:
        BadInputError: unknown dialect.
    """
    dialect = get_dialect(dialect_name)
    tasks: dict[Task, TaskProfile] = {}
    if dialect.depth is not None:
        tasks["depth"] = DepthProfile(dialect.depth.image, dialect.depth.max_new_tokens, "auto", (0.05, 500.0), 0.3)
    if dialect.match is not None:
        tasks["match"] = MatchProfile(dialect.match.image, dialect.match.max_new_tokens, 16.0)
    if dialect.pose is not None:
        tasks["pose"] = PoseProfile(dialect.pose.image, dialect.pose.max_new_tokens, 5.0, 10.0, 0.4)
    if dialect.object is not None:
        tasks["object"] = ObjectProfile(dialect.object.image, dialect.object.max_new_tokens)
    return CheckpointProfile(name, dialect_name, "unknown", "unknown", True, tasks)


def with_thinking(profile: CheckpointProfile) -> CheckpointProfile:
    """The profile that asks its checkpoint to think before it matches, with room for the thoughts.

    Raises:
        BadInputError: the dialect has no form that asks to think.
        CheckpointError: the checkpoint answers no match questions.
    """
    form = get_dialect(profile.dialect).match
    if form is None or not form.think_suffix:
        raise BadInputError(f"dialect {profile.dialect!r} has no match question that asks to think first")
    match = replace(profile.match, think=True, max_new_tokens=form.max_new_tokens_thinking)
    return replace(profile, tasks={**profile.tasks, "match": match})


def _public_profiles() -> dict[str, CheckpointProfile]:
    cautious = default_profile("vlm3-released", "")
    tasks: dict[str, tuple[Task, TaskProfile]] = {
        "depth": ("depth", replace(cautious.depth, log_sigma=0.15)),
        "corr": ("match", replace(cautious.match, sigma_px=12.0)),
        "pose": (
            "pose",
            replace(cautious.pose, rotation_sigma_deg=2.0, direction_sigma_deg=4.0, distance_log_sigma=0.3),
        ),
        "object": ("object", cautious.object),
    }
    return {
        f"facebook/VLM3-{suffix}": CheckpointProfile(
            name=f"facebook/VLM3-{suffix}",
            dialect="vlm3-released",
            license="FAIR CC-BY-NC",
            trained_on="the data mixture of arXiv 2605.30561",
            trusted_on_photos=True,
            tasks={task: settings},
        )
        for suffix, (task, settings) in tasks.items()
    }


# ---------------------------------------------------------------------------------------------------------------------
# strict JSON


def _task_to_json(settings: TaskProfile) -> dict[str, Any]:
    data = {entry.name: getattr(settings, entry.name) for entry in fields(settings)}
    image: dict[str, Any] = {"mode": settings.image.mode, "target_px": settings.image.target_px}
    if not settings.image.square_pixels:
        image["square_pixels"] = False
    data["image"] = image
    if "range_m" in data:
        data["range_m"] = list(data["range_m"])
    return data


def _task_from_json(task: Task, data: object, where: str) -> TaskProfile:
    readers: dict[str, Callable[[object], Any]] = {
        "image": lambda value: _image(value, f"{where}.image"),
        "max_new_tokens": strict_json.positive_integer,
        "depth_kind": strict_json.choice("z", "ray", "auto"),
        "range_m": strict_json.interval,
        "think": strict_json.boolean,
    }
    cls = _TASK_PROFILES[task]
    names = [entry.name for entry in fields(cls)]
    optional = ("think",) if "think" in names else ()
    entries = strict_json.keys(data, tuple(name for name in names if name not in optional), optional, where)
    return cls(
        **{name: strict_json.read(entries, name, readers.get(name, strict_json.positive), where) for name in entries}
    )


def _image(data: object, where: str) -> ImageProfile:
    entries = strict_json.keys(data, ("mode", "target_px"), ("square_pixels",), where)
    square = (
        strict_json.read(entries, "square_pixels", strict_json.boolean, where) if "square_pixels" in entries else True
    )
    return ImageProfile(
        strict_json.read(entries, "mode", strict_json.choice("focal", "long_edge"), where),
        strict_json.read(entries, "target_px", strict_json.positive, where),
        square,
    )


PUBLIC_PROFILES: Mapping[str, CheckpointProfile] = _public_profiles()
"""Built-in profiles of the public hub checkpoints, by hub id."""
