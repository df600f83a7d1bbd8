"""The dialects: how a family of checkpoints was taught to be asked and to answer, as data.

``vlm3-released``: the four public checkpoints' wire protocol; the prompts are byte for byte what they were trained on.
``vlm3-paper``: depth and match as worded in the paper (arXiv 2605.30561; the match wording from secondary sources, its
range taken from the released checkpoint). Its pose and object wordings are not published, so it offers neither.
``recon-1``: ours. Coordinates come last, so that questions share nearly their whole prefix, and are words of their own
(``x512``, one token each in our tokenizer).

Adding a dialect is adding an entry to :data:`DIALECTS`; no other code names one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recon.cameras.pixels import PixelConvention, from_normalised, to_integers
from recon.cameras.unify import ImageProfile
from recon.errors import BadInputError
from recon.questions.reading import FLAGS, NUMBER
from recon.types import Camera, Task

PoseKind = Literal["rotation_angle", "euler_natural", "translation_direction", "translation_distance"]
POSE_KINDS: tuple[PoseKind, ...] = (
    "rotation_angle",
    "euler_natural",
    "translation_direction",
    "translation_distance",
)


@dataclass(frozen=True)
class Coordinates:
    """How pixels are written: integers ``round(value / size * range_)``, at most ``largest``.

    ``convention`` says what ``value`` counts from (:mod:`recon.cameras.pixels`).
    """

    range_: int
    convention: PixelConvention
    largest: int

    def write(self, pixels: ArrayLike, camera: Camera) -> NDArray[np.int64]:
        """Text coordinates of pixels ``[..., 2]`` of the camera's image; ValueError when a pixel is not finite."""
        numbers = to_integers(pixels, camera.width_px, camera.height_px, self.range_, self.convention)
        return np.minimum(numbers, self.largest)

    def read(self, numbers: ArrayLike, camera: Camera) -> NDArray[np.float64]:
        """Pixels ``[..., 2]`` of text coordinates (which need not be whole), kept within the image's edges."""
        pixels = from_normalised(numbers, camera.width_px, camera.height_px, self.range_, self.convention)
        return np.clip(pixels, 0.0, [camera.width_px, camera.height_px])


@dataclass(frozen=True)
class DepthForm:
    """Metric depth of one pixel. ``prompt`` holds ``{x}`` and ``{y}``, ``answer`` holds ``{depth}`` (two decimals).

    ``pattern`` has the group ``depth``; the first match in the answer counts. ``expected`` words the form for reasons.
    """

    coordinates: Coordinates
    prompt: str
    answer: str
    pattern: re.Pattern[str]
    expected: str
    image: ImageProfile
    max_new_tokens: int


@dataclass(frozen=True)
class MatchForm:
    """The pixel of the second image that shows the same point. ``prompt`` and ``answer`` hold ``{x}`` and ``{y}``.

    ``pattern`` has the groups ``x`` and ``y``; thinking is removed first. ``think_suffix`` is added to the prompt when
    the checkpoint shall think. ``not_visible`` is the whole answer for a point that the second image does not show;
    None in dialects that can't say so.
    """

    coordinates: Coordinates
    prompt: str
    answer: str
    pattern: re.Pattern[str]
    expected: str
    image: ImageProfile
    max_new_tokens: int
    think_suffix: str = ""
    max_new_tokens_thinking: int = 0
    not_visible: str | None = None


@dataclass(frozen=True)
class PoseForm:
    """Relative pose in four questions. All dialects answer in the released forms (:mod:`recon.questions.pose`)."""

    prompts: Mapping[PoseKind, str]
    image: ImageProfile
    max_new_tokens: int


@dataclass(frozen=True)
class ObjectForm:
    """Questions about regions; ``region`` holds ``{x1} {y1} {x2} {y2}`` and stands for a region in a question.

    ``brief_answers``: teachers' answers leave out the statement around the value (``Correct.``, ``1.25 meters.``).
    """

    coordinates: Coordinates
    region: str
    image: ImageProfile
    max_new_tokens: int
    brief_answers: bool = False


@dataclass(frozen=True)
class Dialect:
    """One dialect: a form per task, None for tasks that it does not define."""

    name: str
    depth: DepthForm | None
    match: MatchForm | None
    pose: PoseForm | None
    object: ObjectForm | None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that the dialect defines."""
        names: tuple[Task, ...] = ("depth", "match", "pose", "object")
        return tuple(name for name in names if getattr(self, name) is not None)

    def require(self, task: Task) -> None:
        """Raises BadInputError when the dialect does not define the task."""
        if task not in self.tasks:
            raise BadInputError(f"dialect {self.name!r} has no {task} questions; it has: {', '.join(self.tasks)}")


def get_dialect(name: str) -> Dialect:
    """The dialect of that name; raises BadInputError naming the known ones."""
    if name not in DIALECTS:
        raise BadInputError(f"dialect {name!r} is unknown; accepted: {', '.join(DIALECTS)}")
    return DIALECTS[name]


# ---------------------------------------------------------------------------------------------------------------------
# the public checkpoints

_TAGGED_NUMBER = re.compile(rf"<answer>\s*+(?P<depth>{NUMBER})\s*+</answer>", re.ASCII)
# A pair may start only where no number is cut in two: "1e3, 5" holds no pair rather than (3, 5).
_DECIMAL = r"[-+]?(?:\d++(?:\.\d++)?|\.\d++)"
_PAIR = re.compile(rf"(?<![\w.+-])(?P<x>{_DECIMAL})\s*+,\s*+(?P<y>{_DECIMAL})(?![\w+-]|\.\d)", re.ASCII)
# "1,5 meters" is not 5 meters
_METRES = re.compile(rf"(?<![\w.,+-])(?P<depth>{NUMBER})\s*+m(?:et(?:er|re)s?+)?+(?!\w)", FLAGS)

_RELEASED_2000 = Coordinates(2000, "index", 2000)
_RELEASED_1000 = Coordinates(1000, "index", 1000)

_RELEASED_POSE_PROMPTS: Mapping[PoseKind, str] = MappingProxyType(
    {
        "rotation_angle": (
            "Given these two images captured from different viewpoints, what is the relative rotation angle (in "
            "degrees) between the two camera poses?"
        ),
        "euler_natural": (
            "Treating the first image as the reference viewpoint, describe the camera's reorientation needed to reach "
            "the second image's viewpoint as yaw, pitch and roll about the first camera's local axes, applied "
            "intrinsically in the order yaw -> pitch -> roll.  Conventions: yaw is rotation about the vertical (down) "
            "axis, positive = turn right; pitch is about the lateral (right) axis after yaw, positive = look up; roll "
            "is about the optical (forward) axis after yaw and pitch, positive = bank to the right (image content "
            "rotates clockwise from the operator's POV)."
        ),
        "translation_direction": (
            "Where did the camera move, expressed in the first camera's local frame (X right, Y down, Z forward)?  "
            "Give a qualitative direction and the precise unit direction vector (x, y, z)."
        ),
        "translation_distance": "Estimate the magnitude of the camera translation between the two viewpoints.",
    }
)

_RELEASED = Dialect(
    name="vlm3-released",
    depth=DepthForm(
        coordinates=_RELEASED_2000,
        prompt=(
            "Given this image, how far is the point at coordinates ({x}, {y}) from the camera? The coordinates are in "
            "normalised [0, 2000] format relative to image width and height. Output the thinking process in <think> "
            "</think> and final answer (the meter number only, without the unit) in <answer> </answer> tags."
        ),
        answer=("<think> The point is around {depth} meters away from the camera. </think> <answer> {depth} </answer>"),
        pattern=_TAGGED_NUMBER,
        expected="<answer> METRES </answer>",
        image=ImageProfile("focal", 1000),
        max_new_tokens=256,
    ),
    match=MatchForm(
        coordinates=_RELEASED_1000,
        prompt=(
            "Given these two images, what pixel in the second image corresponds to pixel ({x}, {y}) in the first "
            "image? Report the answer as (x, y)."
        ),
        answer="({x}, {y})",
        pattern=_PAIR,
        expected="a pair (x, y)",
        image=ImageProfile("long_edge", 1024),
        max_new_tokens=256,
        think_suffix=(
            ' Please think step by step and follow the format: "<think> [think process] </think>\n\n[answer]".'
        ),
        max_new_tokens_thinking=2048,
    ),
    pose=PoseForm(prompts=_RELEASED_POSE_PROMPTS, image=ImageProfile("focal", 750), max_new_tokens=512),
    object=ObjectForm(
        coordinates=_RELEASED_1000,
        region="bounding box region ({x1}, {y1}, {x2}, {y2})",
        image=ImageProfile("focal", 1000, square_pixels=False),
        max_new_tokens=512,
    ),
)

_PAPER = Dialect(
    name="vlm3-paper",
    depth=DepthForm(
        coordinates=Coordinates(2000, "index", 1999),  # the prompt says [0, 2000)
        prompt="How far is the pixel at ({x}, {y}) from the camera? Both x and y are normalized to between [0, 2000).",
        answer="{depth} meters",
        pattern=_METRES,
        expected="NUMBER meters",
        image=ImageProfile("focal", 1000),
        max_new_tokens=64,
    ),
    match=MatchForm(
        coordinates=_RELEASED_1000,
        prompt="What pixel in the second image corresponds to ({x}, {y}) in the first?",
        answer="({x}, {y})",
        pattern=_PAIR,
        expected="a pair (x, y)",
        image=ImageProfile("long_edge", 1024),
        max_new_tokens=64,
    ),
    pose=None,
    object=None,
)

# ---------------------------------------------------------------------------------------------------------------------
# ours

_RECON_1000 = Coordinates(1000, "corner", 1000)
_RECON_IMAGE = ImageProfile("focal", 224)

_RECON_1 = Dialect(
    name="recon-1",
    depth=DepthForm(
        coordinates=_RECON_1000,
        prompt="Depth in metres at x{x} y{y}",
        answer="{depth}",
        # the number is the whole answer up to a blank, so that "2.35x" or a coordinate is not taken for a depth
        pattern=re.compile(rf"\A\s*+(?P<depth>{NUMBER})(?!\S)", re.ASCII),
        expected="METRES",
        image=_RECON_IMAGE,
        max_new_tokens=12,
    ),
    match=MatchForm(
        coordinates=_RECON_1000,
        prompt="Second image position of x{x} y{y}",
        answer="x{x} y{y}",
        pattern=re.compile(r"(?<!\w)x(?P<x>\d++)\s*+y(?P<y>\d++)(?!\w)", re.ASCII),
        expected="x0..x1000 y0..y1000 or 'not visible'",
        image=_RECON_IMAGE,
        max_new_tokens=8,
        not_visible="not visible",
    ),
    pose=PoseForm(
        prompts=MappingProxyType(
            {
                "rotation_angle": "Rotation angle",
                "euler_natural": "Yaw, pitch, roll",
                "translation_direction": "Direction of motion",
                "translation_distance": "Distance moved",
            }
        ),
        image=_RECON_IMAGE,
        max_new_tokens=64,
    ),
    object=ObjectForm(
        coordinates=_RECON_1000,
        region="region x{x1} y{y1} x{x2} y{y2}",
        image=_RECON_IMAGE,
        max_new_tokens=16,
        brief_answers=True,
    ),
)

DIALECTS: Mapping[str, Dialect] = MappingProxyType({dialect.name: dialect for dialect in (_RELEASED, _PAPER, _RECON_1)})
