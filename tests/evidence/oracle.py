"""An engine that answers about a known scene in real text: a tilted plane seen by two cameras.

It reads the coordinates from the question's text, computes the exact answer, and writes it in the dialect's words;
parsing and mapping to measurements are the project's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.cameras.pinhole import project, rays
from recon.evidence.asking import Progress
from recon.questions import depth, match, pose
from recon.questions.dialects import get_dialect
from recon.questions.parse import parse_answer
from recon.questions.profile import CheckpointProfile
from recon.types import Answer, Camera, FloatArray, ImageArray, Question, UnifiedImage, View

PLANE_NORMAL, PLANE_OFFSET_M = np.array([0.2, -0.3, 1.0]), 4.0  # n . X = offset, in camera 1's frame


@dataclass(frozen=True)
class OracleView:
    """A view with its pixels (one grey value tells the views apart), camera and ``cam_from_cam1`` [3, 4]."""

    view: View
    pixels: ImageArray
    camera: Camera
    cam_from_cam1: NDArray[np.float64]


def oracle_view(index: int, camera: Camera, cam_from_cam1: NDArray[np.float64]) -> OracleView:
    pixels = np.full((camera.height_px, camera.width_px, 3), 50 * (index + 1), dtype=np.uint8)
    name = f"{index}.jpg"
    view = View(name, Path(name), str(index), camera.width_px, camera.height_px, "camera")
    return OracleView(view, pixels, camera, cam_from_cam1)


def plane_z(camera: Camera, pixels: FloatArray, cam_from_cam1: NDArray[np.float64]) -> NDArray[np.float64]:
    """z-depth [N] of the plane at pixels [N, 2]."""
    rotation, translation = cam_from_cam1[:, :3], cam_from_cam1[:, 3]
    normal = rotation @ PLANE_NORMAL  # n . R^T (X - t) = offset
    return (PLANE_OFFSET_M + normal @ translation) / (rays(camera, pixels) @ normal)


@dataclass(frozen=True)
class Checkpoint:
    profile: CheckpointProfile


class OracleEngine:
    """See the module's text. ``distort_text`` may change the text of any answer."""

    def __init__(
        self,
        profile: CheckpointProfile,
        views: Sequence[OracleView],
        depth_kind: str = "z",
        confidence: float = 1.0,
        distort_text: Callable[[Question, str], str] = lambda question, text: text,
    ) -> None:
        self.checkpoint = Checkpoint(profile)
        self._views = views
        self._depth_kind = depth_kind
        self._confidence = confidence
        self._distort_text = distort_text
        self.num_calls = 0

    def ask(
        self, images: Sequence[UnifiedImage], questions: Sequence[Question], progress: Progress | None = None
    ) -> list[Answer]:
        self.num_calls += 1
        answers = []
        for index, question in enumerate(questions):
            text = self._distort_text(question, self._text(images, question))
            parsed = parse_answer(question, text, images)
            answers.append(
                Answer(text, (), parsed.status, parsed.value, parsed.reason, np.log(self._confidence), self._confidence)
            )
            if progress is not None:
                progress(index + 1, len(questions))
        return answers

    def _which(self, image: UnifiedImage) -> OracleView:
        grey = image.pixels[image.pixels.shape[0] // 2, image.pixels.shape[1] // 2, 0]
        return self._views[round(int(grey) / 50) - 1]

    def _text(self, images: Sequence[UnifiedImage], question: Question) -> str:
        dialect = get_dialect(question.dialect)
        seen = [self._which(image) for image in images]
        if question.task == "pose":
            cam1_from_cam2 = _compose(seen[0].cam_from_cam1, _inverse(seen[1].cam_from_cam1))
            return pose.answer_text(dialect, question.kind, cam1_from_cam2)  # type: ignore[arg-type]
        form = dialect.depth if question.task == "depth" else dialect.match
        assert form is not None
        numbers = re.search(r"\D(\d+)\D+(\d+)", question.text)
        assert numbers is not None
        camera = images[0].camera
        pixel = form.coordinates.read([float(numbers[1]), float(numbers[2])], camera)[None]  # [1, 2]
        z = plane_z(camera, pixel, seen[0].cam_from_cam1)
        point = rays(camera, pixel)[0] * z[0]
        if question.task == "depth":
            return depth.answer_text(
                dialect, float(np.linalg.norm(point)) if self._depth_kind == "ray" else float(z[0])
            )
        other = _compose(seen[1].cam_from_cam1, _inverse(seen[0].cam_from_cam1))
        pixel2 = project(images[1].camera, (other[:, :3] @ point + other[:, 3])[None])[0]
        size = np.array([images[1].camera.width_px, images[1].camera.height_px])
        is_visible = bool((pixel2 >= 0).all() and (pixel2 <= size).all())
        return match.answer_text(dialect, images[1], pixel2 if is_visible else None)


def _inverse(transform: NDArray[np.float64]) -> NDArray[np.float64]:
    rotation = transform[:, :3].T
    return np.concatenate([rotation, -rotation @ transform[:, 3:]], axis=1)


def _compose(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([a[:, :3] @ b[:, :3], a[:, :3] @ b[:, 3:] + a[:, 3:]], axis=1)


DISTORTED = Camera("OPENCV", 640, 480, (520.0, 515.0, 322.0, 238.0, -0.08, 0.03, 0.001, -0.0005), "given")
PINHOLE = Camera.pinhole(480, 640, 500.0, 500.0, 240.0, 320.0)


def pair() -> tuple[OracleView, OracleView]:
    """Two views of the plane with different cameras, about 0.7 m and 11 degrees apart."""
    cam1_from_cam2 = np.concatenate([pose.rotation_from_euler(9.0, -4.0, 5.0), [[-0.6], [0.1], [0.3]]], axis=1)
    return oracle_view(0, DISTORTED, np.eye(3, 4)), oracle_view(1, PINHOLE, _inverse(cam1_from_cam2))
