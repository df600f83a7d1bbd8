"""Training samples of the tasks, in any dialect, from procedural views with exact ground truth.

The questions and answers are written by ``recon.questions``; here it is decided what is asked. A sample is a pure
function of its source and a seed.
"""

from __future__ import annotations

import numpy as np

from recon.cameras.pixels import containing_pixels
from recon.questions import depth
from recon.questions.dialects import Dialect
from recon.training.encode import Lesson, Sample
from recon.training.pool import PooledView


def depth_sample(
    view: PooledView,
    dialect: Dialect,
    num_questions: int,
    rng: np.random.Generator,
    dataset: str = "depth",
    round_m: float = 0.0,
) -> Sample:
    """Depth questions at random pixels, half of them evenly spread (one per cell of a grid), half anywhere.

    The label is the depth at the pixel that the text names after rounding. With ``round_m`` labels are rounded to
    multiples of it (at least one): the last digits of exact depths are noise to a beginner, three quarters of its loss,
    so that a curriculum may start with coarse labels.
    """
    camera = view.image.camera
    size = np.array([camera.width_px, camera.height_px])
    pixels = rng.random((num_questions, 2))  # [N, 2] in units of the image
    even = num_questions // 2
    if even:
        columns = int(np.ceil(np.sqrt(even * camera.width_px / camera.height_px)))
        rows = int(np.ceil(even / columns))
        cells = rng.permutation(rows * columns)[:even]
        pixels[:even, 0] = (cells % columns + pixels[:even, 0]) / columns
        pixels[:even, 1] = (cells // columns + pixels[:even, 1]) / rows
    questions = depth.ask(dialect, view.image, pixels * size)
    points = np.array([question.point for question in questions])
    columns_rows = containing_pixels(points, camera.width_px, camera.height_px)
    depths_m = view.depth_m[columns_rows[:, 1], columns_rows[:, 0]]
    if round_m > 0:
        depths_m = np.maximum(np.rint(depths_m / round_m), 1) * round_m
    lessons = tuple(
        Lesson(question.text, depth.answer_text(dialect, float(depth_m)))
        for question, depth_m in zip(questions, depths_m, strict=True)
    )
    return Sample((view.image,), lessons, dataset)
