"""An answerer that knows the truth and errs like the published checkpoints, speaking the real text protocol.

It stands where a checkpoint stands (``recon.evidence.asking.Engine``): questions come as text of the profile's
dialect, answers go out as text of the same dialect and are read by ``recon.questions``, so that rounding, integer
coordinates and wording are those of a real run. It lets geometry be tested on scenes with ground truth, synthetic or
real RGB-D, without weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt
from scipy.spatial.transform import Rotation

from recon.cameras import pinhole
from recon.cameras.pixels import containing_pixels
from recon.cameras.unify import to_source_pixels, to_unified_pixels
from recon.errors import BadInputError
from recon.questions import depth as depth_questions
from recon.questions import match as match_questions
from recon.questions import pose as pose_questions
from recon.questions.dialects import PoseKind, get_dialect
from recon.questions.parse import parse_answer
from recon.questions.profile import CheckpointProfile, default_profile
from recon.synth.render import SynthView
from recon.types import Answer, Camera, FloatArray, ImageArray, Question, UnifiedImage

_THUMBNAIL = (24, 18)
_KNOWN_WITHIN = 20.0  # mean grey levels: far more than undistortion or another resize costs


@dataclass(frozen=True)
class OracleErrors:
    """How wrong the answers are; the defaults are the published level (VLM3, arXiv 2605.30561), zeros are the truth.

    Attributes:
        depth_image_log_sigma: ln-error shared by all answers about one image.
        depth_log_sigma: further ln-error of each answer. With the shared one and the outliers: delta1 0.904.
        depth_outliers: share of depth answers with an ln-error of standard deviation 0.5.
        match_sigma: error per axis on the [0, 1000] scale; with the outliers a mean end-point error of 15.
        match_outliers: share of match answers anywhere in the second image.
        hidden_claimed: share of points hidden in the second image for which a position is claimed all the same (only
            where the dialect can say "not visible"; others always claim one).
        visible_denied: share of visible points called not visible.
        rotation_sigma_deg, direction_sigma_deg: typical size of the angle errors. With the outliers: AUC@30 0.94.
        distance_log_sigma: ln-error of translation distances.
        pose_outliers: share of pose answers that are far off (errors times ten).
    """

    depth_image_log_sigma: float = 0.09
    depth_log_sigma: float = 0.085
    depth_outliers: float = 0.04
    match_sigma: float = 4.0
    match_outliers: float = 0.025
    hidden_claimed: float = 0.1
    visible_denied: float = 0.03
    rotation_sigma_deg: float = 0.8
    direction_sigma_deg: float = 1.6
    distance_log_sigma: float = 0.1
    pose_outliers: float = 0.01

    @staticmethod
    def none() -> OracleErrors:
        """No error but the text's rounding."""
        return OracleErrors(*([0.0] * 11))


@dataclass(frozen=True)
class OracleView:
    """What is known of one photo.

    Attributes:
        name: of the photo; with the seed it decides the errors.
        image: the photo, [H, W, 3] RGB: the oracle recognises unified images by it.
        camera: its true camera (any lens model).
        depth_m: z-depth of the photo's pixels, [H, W], NaN where unknown (the nearest known one is answered).
        cam_from_world: true pose, metric, [3, 4].
    """

    name: str
    image: ImageArray
    camera: Camera
    depth_m: FloatArray
    cam_from_world: NDArray[np.float64]

    @staticmethod
    def of(view: SynthView, name: str) -> OracleView:
        """The truth of a rendered view."""
        return OracleView(name, view.image, view.camera, view.depth_m, view.cam_from_world)


@dataclass(frozen=True)
class OracleCheckpoint:
    """What evidence asks of a checkpoint: its profile."""

    profile: CheckpointProfile


class Oracle:
    """Answers depth, match and pose questions from ground truth, with errors.

    Args:
        views: all photos that may be asked about.
        profile: dialect, image profiles and tasks; the dialect ``recon-1`` when None.
        errors: see there; the published level when None.
        seed: of the errors. An answer depends on seed, photos and question alone, not on order or packing.

    Raises:
        BadInputError: two views of the same name, a size that differs from the camera's, or no known depth in a view.
    """

    def __init__(
        self,
        views: Sequence[OracleView],
        profile: CheckpointProfile | None = None,
        errors: OracleErrors | None = None,
        seed: int = 0,
    ) -> None:
        self.errors = errors or OracleErrors()
        self.seed = seed
        self._profile = profile or default_profile("recon-1", "oracle")
        self._dialect = get_dialect(self._profile.dialect)
        self._views: dict[str, OracleView] = {}
        for view in views:
            self._add(view)
        if not self._views:
            raise BadInputError("the oracle needs at least one view")
        self._thumbnails = np.stack([_thumbnail(view.image) for view in self._views.values()])

    def _add(self, view: OracleView) -> None:
        size = (view.camera.height_px, view.camera.width_px)
        if view.name in self._views:
            raise BadInputError(f"two views are called {view.name!r}")
        if view.image.shape[:2] != size or view.depth_m.shape != size:
            raise BadInputError(
                f"{view.name}: image {view.image.shape[:2]} and depth {view.depth_m.shape} must be {size} as the camera"
            )
        unknown = ~np.isfinite(view.depth_m)
        if unknown.all():
            raise BadInputError(f"{view.name}: no pixel has a known depth")
        if unknown.any():
            rows, columns = distance_transform_edt(unknown, return_distances=False, return_indices=True)
            view = replace(view, depth_m=view.depth_m[rows, columns])
        self._views[view.name] = view

    @property
    def checkpoint(self) -> OracleCheckpoint:
        """Stands for the loaded checkpoint."""
        return OracleCheckpoint(self._profile)

    def ask(
        self,
        images: Sequence[UnifiedImage],
        questions: Sequence[Question],
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Answer]:
        """Answers to questions about one unified image or an ordered pair, in order.

        Raises:
            BadInputError: an image of no known photo, another dialect than the profile's, or a task without truth.
        """
        views = [self._recognise(image) for image in images]
        answers = []
        for number, question in enumerate(questions):
            answers.append(self._answer(views, images, question))
            if progress is not None:
                progress(number + 1, len(questions))
        return answers

    def _recognise(self, image: UnifiedImage) -> OracleView:
        difference = np.abs(self._thumbnails - _thumbnail(image.pixels)).mean(axis=(1, 2))
        best = int(difference.argmin())
        if difference[best] > _KNOWN_WITHIN:
            raise BadInputError(
                f"the oracle knows no photo like the given one of {image.camera.width_px}x{image.camera.height_px} px; "
                f"known: {', '.join(self._views)}"
            )
        return list(self._views.values())[best]

    def _rng(self, *parts: str) -> np.random.Generator:
        digest = hashlib.sha256("\n".join([str(self.seed), *parts]).encode()).digest()
        return np.random.default_rng(np.frombuffer(digest, np.uint32))

    def _answer(self, views: Sequence[OracleView], images: Sequence[UnifiedImage], question: Question) -> Answer:
        if question.dialect != self._dialect.name:
            raise BadInputError(
                f"the oracle speaks the dialect {self._dialect.name!r}, the question is in {question.dialect!r}"
            )
        wanted = 1 if question.task == "depth" else 2
        if question.task not in ("depth", "match", "pose") or len(views) != wanted:
            raise BadInputError(
                f"the oracle answers depth of one image, match and pose of two, not {question.task} of {len(views)}"
            )
        rng = self._rng(*(view.name for view in views), question.text)
        if question.task == "depth":
            text, odd = self._depth(views[0], images[0], question, rng)
        elif question.task == "match":
            text, odd = self._match(views, images, question, rng)
        else:
            text, odd = self._pose(views, cast(PoseKind, question.kind), rng)
        parsed = parse_answer(question, text, images)
        # A wrong answer is on average a less sure one, as with real token probabilities.
        confidence = float(np.clip(rng.normal(0.55, 0.2) if odd else rng.normal(0.85, 0.08), 0.01, 0.999))
        spread = float("nan")
        if question.task == "depth" and parsed.value is not None:
            spread = parsed.value[0] * float(np.hypot(self.errors.depth_image_log_sigma, self.errors.depth_log_sigma))
        log_prob = float(np.log(confidence)) * max(len(text) // 4, 1)
        return Answer(text, (), parsed.status, parsed.value, parsed.reason, log_prob, confidence, spread)

    def _depth(
        self, view: OracleView, image: UnifiedImage, question: Question, rng: np.random.Generator
    ) -> tuple[str, bool]:
        assert question.point is not None
        pixel = _source_pixel(view, image, question.point)
        column, row = containing_pixels(pixel, view.camera.width_px, view.camera.height_px)[0]
        depth = float(view.depth_m[row, column])
        if self._profile.depth.depth_kind == "ray":
            depth *= float(np.linalg.norm(pinhole.rays(view.camera, pixel)[0]))
        # An image unified with a wrong focal length looks nearer or farther: the answer scales with the mistake.
        depth *= image.source_camera.focal_px / view.camera.focal_px
        odd = bool(rng.random() < self.errors.depth_outliers)
        shared = self._rng(view.name).normal() * self.errors.depth_image_log_sigma
        own = rng.normal() * (0.5 if odd else self.errors.depth_log_sigma)
        return depth_questions.answer_text(self._dialect, max(depth * float(np.exp(shared + own)), 0.01)), odd

    def _match(
        self,
        views: Sequence[OracleView],
        images: Sequence[UnifiedImage],
        question: Question,
        rng: np.random.Generator,
    ) -> tuple[str, bool]:
        assert question.point is not None
        size = np.array([images[1].camera.width_px, images[1].camera.height_px], np.float64)
        pixel, visible = _true_match(views, images, question.point)
        can_deny = self._dialect.match is not None and self._dialect.match.not_visible is not None
        odd = False
        if visible:
            if can_deny and rng.random() < self.errors.visible_denied:
                return match_questions.answer_text(self._dialect, images[1], None), True
        elif can_deny and rng.random() >= self.errors.hidden_claimed:
            return match_questions.answer_text(self._dialect, images[1], None), False
        else:
            odd = True
        pixel = pixel + rng.normal(size=2) * self.errors.match_sigma * size / 1000
        if rng.random() < self.errors.match_outliers:
            pixel, odd = rng.random(2) * size, True
        return match_questions.answer_text(self._dialect, images[1], np.clip(pixel, 0, size)), odd

    def _pose(self, views: Sequence[OracleView], kind: PoseKind, rng: np.random.Generator) -> tuple[str, bool]:
        first, second = (np.vstack([view.cam_from_world, [0.0, 0.0, 0.0, 1.0]]) for view in views)
        cam1_from_cam2 = first @ np.linalg.inv(second)
        odd = bool(rng.random() < self.errors.pose_outliers)
        worse = 10.0 if odd else 1.0
        # Sigmas are sizes of the whole angle: a vector of three normal numbers is sqrt(3) long in the mean square.
        turn = rng.normal(size=3) * np.radians(self.errors.rotation_sigma_deg) / np.sqrt(3) * worse
        rotation = Rotation.from_rotvec(turn).as_matrix() @ cam1_from_cam2[:3, :3]
        centre = cam1_from_cam2[:3, 3]
        distance = float(np.linalg.norm(centre))
        direction = centre / distance if distance > 1e-9 else np.array([0.0, 0.0, 1.0])
        swing = rng.normal(size=3) * np.radians(self.errors.direction_sigma_deg) / np.sqrt(2) * worse
        swing -= direction * (swing @ direction)
        direction = Rotation.from_rotvec(swing).as_matrix() @ direction
        distance *= float(np.exp(rng.normal() * self.errors.distance_log_sigma * worse))
        transform = np.column_stack([rotation, direction * max(distance, 1e-6)])
        return pose_questions.answer_text(self._dialect, kind, transform), odd


def _thumbnail(image: ImageArray) -> NDArray[np.float32]:
    """A small grey picture with the mean removed, to recognise a photo by."""
    small = Image.fromarray(image).convert("L").resize(_THUMBNAIL, Image.Resampling.BOX)
    grey = np.asarray(small, np.float32)
    return grey - grey.mean()


def _source_pixel(view: OracleView, image: UnifiedImage, point: tuple[float, float]) -> NDArray[np.float64]:
    """Pixel [1, 2] of the true photo for a point of its unified image, scaled if the photo was resized on the way."""
    scale = [view.camera.width_px / image.source_camera.width_px, view.camera.height_px / image.source_camera.height_px]
    return to_source_pixels(image, np.array([point])) * scale


def _true_match(
    views: Sequence[OracleView], images: Sequence[UnifiedImage], point: tuple[float, float]
) -> tuple[NDArray[np.float64], bool]:
    """Position [2] in the second unified image of what the first shows at ``point`` (anywhere inside if it does not
    project there), and whether the second photo sees it: its depth there agrees within 3 %."""
    size2 = np.array([images[1].camera.width_px, images[1].camera.height_px], np.float64)
    pixel1 = _source_pixel(views[0], images[0], point)
    camera1, camera2 = views[0].camera, views[1].camera
    column, row = containing_pixels(pixel1, camera1.width_px, camera1.height_px)[0]
    seen1 = pinhole.rays(camera1, pixel1)[0] * float(views[0].depth_m[row, column])
    pose1, pose2 = views[0].cam_from_world, views[1].cam_from_world
    world = pose1[:, :3].T @ (seen1 - pose1[:, 3])
    seen2 = pose2[:, :3] @ world + pose2[:, 3]
    if not np.isfinite(seen2).all() or seen2[2] < 0.01:
        return size2 / 2, False
    pixel2 = pinhole.project(camera2, seen2[None])
    inside = bool(np.all((pixel2 >= 0) & (pixel2 < [camera2.width_px, camera2.height_px])))
    column, row = containing_pixels(pixel2, camera2.width_px, camera2.height_px)[0]
    visible = inside and bool(abs(float(views[1].depth_m[row, column]) / seen2[2] - 1) < 0.03)
    source = images[1].source_camera
    scale = [source.width_px / camera2.width_px, source.height_px / camera2.height_px]
    unified = to_unified_pixels(images[1], pixel2 * scale)[0]
    if not np.isfinite(unified).all():
        return size2 / 2, False
    return np.clip(unified, 0, size2), visible
