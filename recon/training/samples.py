"""Training samples of the four tasks, in any dialect, from procedural views with exact ground truth.

The questions and answers are written by ``recon.questions``, as the engine's callers do; here it is decided what is
asked. A sample is a pure function of its source and a seed. Labels belong to the pixel that the text names after
rounding, not to the pixel that was drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from recon.cameras.pixels import containing_pixels
from recon.questions import depth, match, pose
from recon.questions import object as regions
from recon.questions.dialects import POSE_KINDS, Dialect
from recon.synth.correspondence import true_correspondence
from recon.synth.objects import ViewObject, well_seen
from recon.training.coarse import coarse_length, coarse_motion
from recon.training.dense_pairs import motion_of
from recon.training.encode import Layout, Lesson, Sample
from recon.training.pooled import PooledPair, PooledView
from recon.training.region_targets import region_target
from recon.training.sources import BadSampleError
from recon.types import Camera

HIDDEN_SHARE = 0.25  # of match questions, where the dialect can say "not visible"


def depth_sample(
    view: PooledView,
    dialect: Dialect,
    num_questions: int,
    rng: np.random.Generator,
    dataset: str = "depth",
    round_m: float = 0.0,
    layout: Layout = "packed",
) -> Sample:
    """Depth questions at random pixels, half of them evenly spread (one per cell of a grid), half anywhere.

    The label is the depth at the pixel that the text names after rounding; pixels without depth (sky) are left out.
    With ``round_m`` labels are rounded to multiples of it (at least one): the last digits of exact depths are noise to
    a beginner, three quarters of its loss, so that a curriculum may start with coarse labels.

    Raises:
        BadSampleError: no drawn pixel has a depth.
    """
    camera = view.image.camera
    known = float(np.isfinite(view.depth_m).mean())
    drawn = num_questions if known == 1 else min(int(num_questions / max(known, 0.05)) + 4, 20 * num_questions)
    questions = depth.ask(dialect, view.image, spread_pixels(camera, drawn, rng))
    points = np.array([question.point for question in questions])
    columns_rows = containing_pixels(points, camera.width_px, camera.height_px)
    depths_m = view.depth_m[columns_rows[:, 1], columns_rows[:, 0]]
    usable = np.flatnonzero(np.isfinite(depths_m))
    if drawn > num_questions:
        usable = rng.permutation(usable)[:num_questions]
    if not usable.size:
        raise BadSampleError(f"view of seed {view.seed}: none of {drawn} pixels has a depth")
    if round_m > 0:
        depths_m = np.maximum(np.rint(depths_m / round_m), 1) * round_m
    lessons = tuple(
        Lesson(questions[i].text, depth.answer_text(dialect, max(float(depths_m[i]), 0.01))) for i in usable.tolist()
    )
    return Sample((view.image,), lessons, dataset, layout)


def match_sample(
    pair: PooledPair,
    dialect: Dialect,
    num_questions: int,
    rng: np.random.Generator,
    dataset: str = "match",
    hidden_share: float = HIDDEN_SHARE,
    layout: Layout = "packed",
) -> Sample:
    """Where points of the first image are in the second.

    At most ``hidden_share`` of the questions are about points that the second image does not show, and none in a
    dialect that can't say so.

    Raises:
        BadSampleError: none of the drawn points can be asked.
    """
    assert dialect.match is not None
    first, second = pair.first, pair.second
    questions = match.ask(dialect, first.image, second.image, spread_pixels(first.image.camera, 4 * num_questions, rng))
    points = np.array([question.point for question in questions])
    columns, rows = containing_pixels(points, first.image.camera.width_px, first.image.camera.height_px).T
    known = np.isfinite(first.depth_m[rows, columns])
    found, visible = true_correspondence(first.geometry(), second.geometry(), points)
    order = rng.permutation(len(questions))
    can_deny = dialect.match.not_visible is not None
    num_hidden = round(num_questions * hidden_share) if can_deny else 0
    hidden = [i for i in order if known[i] and not visible[i]][:num_hidden]
    seen = [i for i in order if known[i] and visible[i]][: num_questions - len(hidden)]
    chosen = rng.permutation(np.array([*seen, *hidden], dtype=np.int64)).tolist()
    if not chosen:
        raise BadSampleError(f"pair of seed {first.seed}: none of {len(questions)} points can be asked")
    lessons = tuple(
        Lesson(questions[i].text, match.answer_text(dialect, second.image, found[i] if visible[i] else None))
        for i in chosen
    )
    return Sample((first.image, second.image), lessons, dataset, layout)


def pose_sample(
    pair: PooledPair,
    dialect: Dialect,
    dataset: str = "pose",
    layout: Layout = "packed",
    coarse: bool = False,
    with_motion: bool = False,
) -> Sample:
    """All four questions about how the camera moved; ``coarse`` labels as in :mod:`recon.training.coarse`.

    ``with_motion`` adds the motion in numbers, to be taught beside the answers.
    """
    relative = coarse_motion(pair.cam1_from_cam2) if coarse else pair.cam1_from_cam2
    lessons = tuple(
        Lesson(question.text, pose.answer_text(dialect, kind, relative))
        for question, kind in zip(pose.ask(dialect), POSE_KINDS, strict=True)
    )
    motion = motion_of(pair.cam1_from_cam2) if with_motion else None
    return Sample((pair.first.image, pair.second.image), lessons, dataset, layout, motion)


def spread_pixels(camera: Camera, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random pixels [count, 2], the first half of them evenly spread (one per cell of a grid), the others anywhere."""
    pixels = rng.random((count, 2))  # in units of the image
    even = count // 2
    if even:
        columns = int(np.ceil(np.sqrt(even * camera.width_px / camera.height_px)))
        rows = int(np.ceil(even / columns))
        cells = rng.permutation(rows * columns)[:even]
        pixels[:even, 0] = (cells % columns + pixels[:even, 0]) / columns
        pixels[:even, 1] = (cells // columns + pixels[:even, 1]) / rows
    return pixels * [camera.width_px, camera.height_px]


# ---------------------------------------------------------------------------------------------------------------------
# object questions

_CLEAR_RATIO = 1.2  # between sizes that are compared
_CLEAR_SHIFT_M = 0.15  # between places that are compared
_CLEAR_LENGTH_M = 0.1  # shorter ones are not asked: two decimals say too little about them

Measure = Callable[[ViewObject, ViewObject], float | None]
"""Value of a form for two things (one-region forms look at the first): metres, hour, 1 or 0; None when unclear."""


def _size(thing: ViewObject) -> NDArray[np.float64]:
    return np.array(thing.high_m) - np.array(thing.low_m)


def _step(a: ViewObject, b: ViewObject) -> NDArray[np.float64]:
    """From the middle of ``a`` to the middle of ``b``: right, down, forward."""
    return (np.array(b.low_m) + np.array(b.high_m) - np.array(a.low_m) - np.array(a.high_m)) / 2


def _larger(measure: Callable[[NDArray[np.float64]], float], sign: int) -> Measure:
    def compare(a: ViewObject, b: ViewObject) -> float | None:
        first, second = measure(_size(a)), measure(_size(b))
        if max(first, second) < _CLEAR_RATIO * min(first, second):
            return None
        return float((first - second) * sign > 0)

    return compare


def _farther(axis: int, sign: int) -> Measure:
    """Whether ``a`` lies more to the positive (sign 1) or negative side of ``b`` along an axis."""

    def compare(a: ViewObject, b: ViewObject) -> float | None:
        shift = -float(_step(a, b)[axis])
        return None if abs(shift) < _CLEAR_SHIFT_M else float(shift * sign > 0)

    return compare


def _length(measure: Callable[[ViewObject, ViewObject], float]) -> Measure:
    def read(a: ViewObject, b: ViewObject) -> float | None:
        length = measure(a, b)
        return length if length >= _CLEAR_LENGTH_M else None

    return read


def _clock(a: ViewObject, b: ViewObject) -> float | None:
    """Hour of ``b`` on a clock face around ``a`` whose 12 points away from the camera."""
    right, _, forward = _step(a, b)
    if np.hypot(right, forward) < 2 * _CLEAR_SHIFT_M:
        return None
    return float(round(np.degrees(np.arctan2(right, forward)) / 30) % 12 or 12)


def _volume(size: NDArray[np.float64]) -> float:
    return float(np.prod(size))


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "bigger": _larger(_volume, 1),
        "smaller": _larger(_volume, -1),
        "wider": _larger(lambda size: float(size[0]), 1),
        "thinner": _larger(lambda size: float(size[0]), -1),
        "taller": _larger(lambda size: float(size[1]), 1),
        "shorter": _larger(lambda size: float(size[1]), -1),
        "left": _farther(0, -1),
        "right": _farther(0, 1),
        "above": _farther(1, -1),
        "below": _farther(1, 1),
        "behind": _farther(2, 1),
        "front": _farther(2, -1),
        "width": _length(lambda a, b: float(_size(a)[0])),
        "height": _length(lambda a, b: float(_size(a)[1])),
        "distance": _length(lambda a, b: float(np.linalg.norm(_step(a, b)))),
        "horizontal": _length(lambda a, b: float(np.hypot(*_step(a, b)[[0, 2]]))),
        "vertical": _length(lambda a, b: abs(float(_step(a, b)[1]))),
        "direction": _clock,
    }
)
"""What each form of ``recon.questions.object`` asks, in the levelled camera frame (``recon.synth.objects``).

Distances are between the middles of the things' 3D boxes, width is the box's extent to the right and height the one
along gravity, size its volume, 12 o'clock points away from the camera: SpatialRGPT's definitions (arXiv 2406.01584)
on exact boxes of the whole things.
"""


def _between(true_m: float, known_m: float) -> float:
    """The geometric mean, for noise that nobody can learn: half of it goes. Gross disagreement counts as a factor 2."""
    return math.sqrt(true_m * min(max(known_m, true_m / 2), 2 * true_m))


def named_objects(view: PooledView) -> tuple[ViewObject, ...]:
    """The things of a view that are seen well enough to be asked about."""
    return well_seen(view.objects, view.image.camera)


def object_sample(
    view: PooledView,
    dialect: Dialect,
    num_questions: int,
    rng: np.random.Generator,
    dataset: str = "object",
    layout: Layout = "packed",
    coarse: bool = False,
    with_targets: bool = False,
) -> Sample:
    """Questions of all categories about things of a view, named by text boxes; comparisons only where they are clear.

    Categories are taken in turn in a random order; no question is asked twice. ``coarse`` rounds lengths;
    ``with_targets`` adds what region units learn (:mod:`recon.training.region_targets`), and lengths are then
    answered half way to what boxes and known depths say.

    Raises:
        BadSampleError: the view shows nothing that can be asked about.
    """
    things = named_objects(view)
    lessons: dict[str, Lesson] = {}
    names = [str(name) for name in rng.permutation(list(MEASURES))]
    for attempt in range(4 * num_questions if things else 0):
        if len(lessons) == num_questions:
            break
        name = names[attempt % len(names)]
        if regions.get_form(name).num_regions > len(things):
            continue
        a, b = (things[i] for i in (rng.permutation(len(things))[:2] if len(things) > 1 else (0, 0)))
        value = MEASURES[name](a, b)
        if value is None:
            continue
        boxes = [a.box_px, b.box_px][: regions.get_form(name).num_regions]
        target = region_target(view, name, boxes) if with_targets else None
        if regions.get_form(name).kind == "object_length":
            value = value if target is None else _between(value, math.exp(target.values[target.form]))
            value = coarse_length(value) if coarse else value
        question = regions.ask_form(dialect, view.image, name, boxes)
        answer = regions.answer_text(dialect, view.image, name, boxes, value)
        lessons.setdefault(question.text, Lesson(question.text, answer, target))
    if not lessons:
        raise BadSampleError(f"view of seed {view.seed}: it shows nothing that can be asked about")
    return Sample((view.image,), tuple(lessons.values()), dataset, layout)
