"""The nouns of the project: frozen dataclasses that the rooms hand to one another.

Conventions (everywhere): OpenCV camera axes (x right, y down, z forward); transforms are named ``a_from_b``; pixel
coordinates are continuous ``(x, y)`` with the image's top-left *corner* at (0, 0), so the first pixel's centre is
(0.5, 0.5) (COLMAP's convention); images are indexed ``[row, column]``; ``depth_m`` is z-depth in metres, float32, NaN
where unknown.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
ImageArray = NDArray[np.uint8]  # [H, W, 3] RGB

FocalSource = Literal["given", "exif", "prior", "refined"]
DepthKind = Literal["z", "ray"]
Task = Literal["depth", "match", "pose", "object"]
AnswerStatus = Literal["ok", "not_visible", "unparsed", "out_of_range", "truncated"]


# ---------------------------------------------------------------------------------------------------------------------
# capture and cameras


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one camera, in COLMAP's models and parameter order.

    Attributes:
        model: COLMAP model name: ``SIMPLE_PINHOLE PINHOLE SIMPLE_RADIAL RADIAL OPENCV OPENCV_FISHEYE FULL_OPENCV`` ...
        width_px, height_px: size of the upright image these parameters belong to.
        params: in COLMAP's order for the model (``PINHOLE``: fx fy cx cy; ``SIMPLE_RADIAL``: f cx cy k).
        focal_source: where the focal length comes from; ``prior`` is a guess that bundle adjustment must refine.
    """

    model: str
    width_px: int
    height_px: int
    params: tuple[float, ...]
    focal_source: FocalSource = "prior"

    @property
    def _has_two_focals(self) -> bool:
        return not (self.model.startswith("SIMPLE_") or self.model in {"RADIAL", "RADIAL_FISHEYE", "FOV"})

    @property
    def fx_fy_cx_cy(self) -> tuple[float, float, float, float]:
        """Focal lengths and principal point in pixels (a single focal length is repeated)."""
        if self._has_two_focals:
            fx, fy, cx, cy = self.params[:4]
            return fx, fy, cx, cy
        f, cx, cy = self.params[:3]
        return f, f, cx, cy

    @property
    def focal_px(self) -> float:
        """Geometric mean of the two focal lengths, in pixels."""
        fx, fy, _, _ = self.fx_fy_cx_cy
        return float(np.sqrt(fx * fy))

    @property
    def distortion(self) -> tuple[float, ...]:
        """Distortion parameters in the model's order (empty for pinhole models)."""
        return self.params[4:] if self._has_two_focals else self.params[3:]

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The calibration matrix K, [3, 3], distortion left out."""
        fx, fy, cx, cy = self.fx_fy_cx_cy
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    @staticmethod
    def pinhole(
        width_px: int, height_px: int, fx: float, fy: float, cx: float, cy: float, source: FocalSource = "given"
    ) -> Camera:
        return Camera("PINHOLE", width_px, height_px, (fx, fy, cx, cy), source)

    def resized(self, width_px: int, height_px: int) -> Camera:
        """The same camera for an image resized to the given size (corner-based pixels scale without any shift)."""
        sx, sy = width_px / self.width_px, height_px / self.height_px
        if self._has_two_focals:
            fx, fy, cx, cy = self.params[:4]
            head: tuple[float, ...] = (fx * sx, fy * sy, cx * sx, cy * sy)
        else:
            f, cx, cy = self.params[:3]
            head = (f * float(np.sqrt(sx * sy)), cx * sx, cy * sy)
        return dataclasses.replace(self, width_px=width_px, height_px=height_px, params=head + self.distortion)


@dataclass(frozen=True)
class GpsFix:
    """A GPS position as stored in EXIF; ``accuracy_m`` is None when the photo does not say."""

    latitude_deg: float
    longitude_deg: float
    altitude_m: float | None = None
    accuracy_m: float | None = None


@dataclass(frozen=True)
class View:
    """One usable photo of a capture: upright 8-bit RGB pixels on disk, and what its file says about it.

    Attributes:
        name: path relative to the workspace's ``images/`` folder, with ``/``; unique within a capture.
        path: the upright image file (in the workspace).
        content_hash: hex SHA-256 of the upright pixels (shape and bytes), the key of everything computed from them.
        width_px, height_px: upright size.
        camera_key: photos with equal keys were taken with the same camera and lens setting (share intrinsics).
        exif_focal_px: focal length from EXIF in pixels of the upright image, None when absent or nonsense.
        gps: GPS fix from EXIF, None when absent or nonsense.
        camera: known intrinsics given by the user, None otherwise.
        mask_path: 8-bit mask, 0 = ignore (COLMAP's naming), None when absent.
        depth_path: sensor depth, 16-bit PNG in millimetres, aligned to the image, 0 = invalid, None when absent.
        notes: what was found odd in the file (ignored EXIF, dropped alpha ...), for the report.
    """

    name: str
    path: Path
    content_hash: str
    width_px: int
    height_px: int
    camera_key: str
    exif_focal_px: float | None = None
    gps: GpsFix | None = None
    camera: Camera | None = None
    mask_path: Path | None = None
    depth_path: Path | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rejected:
    """A photo (or pair) that could not be used, and the one-line reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Capture:
    """All usable photos of one scene in order (name order, or time for a video), and those left out with reasons."""

    views: tuple[View, ...]
    rejected: tuple[Rejected, ...] = ()
    is_sequence: bool = False  # neighbours in the tuple are neighbours in time (video frames)

    def view(self, name: str) -> View:
        for view in self.views:
            if view.name == name:
                return view
        raise KeyError(name)


@dataclass(frozen=True)
class UnifiedImage:
    """An image prepared for a checkpoint's task: distortion removed, square pixels, unified focal length or size.

    ``pixels`` [H, W, 3] uint8; ``camera`` is the PINHOLE camera of these pixels; ``source_camera`` that of the photo.
    """

    pixels: ImageArray
    camera: Camera
    source_camera: Camera


# ---------------------------------------------------------------------------------------------------------------------
# questions and answers


@dataclass(frozen=True)
class Question:
    """One question in text about one image (depth, object) or an ordered pair (match, pose, object).

    Attributes:
        task: which of the four tasks.
        kind: what is asked within the task, e.g. ``depth``, ``match``, ``rotation_angle``, ``euler_natural``,
            ``translation_direction``, ``translation_distance``, ``object``.
        dialect: name of the dialect (``recon.questions.dialects``) that wrote the text and parses the answer.
        text: the user turn's text part, exactly as the checkpoint was trained on.
        point: the pixel in the unified image (continuous x, y) that the text names after rounding its coordinates,
            where the question names one: the answer is about this point, up to half a text step from the asked one.
    """

    task: Task
    kind: str
    dialect: str
    text: str
    point: tuple[float, float] | None = None


@dataclass(frozen=True)
class Answer:
    """What the checkpoint said to one question.

    Attributes:
        text: decoded answer, special tokens left out.
        token_ids: generated ids, end token included when it was reached.
        status: ``ok``; ``not_visible`` (a valid answer of a match question: the point has no image there);
            ``unparsed`` (no value of the dialect's form); ``out_of_range``; ``truncated``.
        value: parsed value when ok. depth: ``(metres,)`` as the checkpoint means it; match: ``(x, y)`` in pixels of
            the second unified image; rotation_angle: ``(deg,)``; euler_natural: ``(yaw, pitch, roll)`` degrees;
            translation_direction: unit ``(x, y, z)``; translation_distance: ``(metres,)``; object_polarity: ``(1.0,)``
            yes or ``(0.0,)`` no; object_length: ``(metres,)``; object_clock: ``(hour,)``; None otherwise.
        reason: one line why the status is not ok, else empty.
        log_prob: sum of the log-probabilities of the generated tokens.
        confidence: in [0, 1]: geometric-mean probability of the tokens that carry the value.
        spread: for a single number: its standard deviation over the digit alternatives at each digit, in the value's
            unit; NaN otherwise.
    """

    text: str
    token_ids: tuple[int, ...]
    status: AnswerStatus
    value: tuple[float, ...] | None
    reason: str
    log_prob: float
    confidence: float
    spread: float = float("nan")


# ---------------------------------------------------------------------------------------------------------------------
# evidence


@dataclass(frozen=True)
class DepthSamples:
    """Depth measurements at pixels of one photo.

    ``pixels`` [N, 2] in the photo (distorted, as taken); ``depth_m`` [N] in ``depth_kind``; ``log_sigma`` [N] standard
    deviation of ln(depth); ``focal_px`` the photo's focal length assumed when asking (metric answers scale with it; NaN
    where depth does not depend on it, as with a sensor); ``depth_kind_is_assumed`` True while the kind is a guess;
    ``source`` e.g. ``vlm:embedded``, ``sensor``; ``trusted`` False when the checkpoint says that it was not trained for
    such photos (then it never sets the scale by itself).
    """

    name: str
    pixels: FloatArray
    depth_m: FloatArray
    log_sigma: FloatArray
    depth_kind: DepthKind
    focal_px: float
    source: str
    trusted: bool = True
    num_asked: int = 0
    num_parsed: int = 0
    depth_kind_is_assumed: bool = False


@dataclass(frozen=True)
class Matches:
    """Point correspondences of a pair, [N, 2] pixels in each photo (as taken), with scores [N] in [0, 1].

    Of ``num_asked`` questions ``num_parsed`` had an answer of the right form; those kept are verified. ``sigma_px`` is
    the standard deviation of ``pixels2`` per axis in pixels of photo 2, NaN where it is not known.
    """

    name1: str
    name2: str
    pixels1: FloatArray
    pixels2: FloatArray
    score: FloatArray
    source: str
    num_asked: int = 0
    num_parsed: int = 0
    sigma_px: float = float("nan")


@dataclass(frozen=True)
class RelativePose:
    """Relative pose of a pair: ``rotation_cam1_from_cam2`` [3, 3]; ``direction1`` [3] unit vector towards camera 2's
    centre in camera 1's frame; ``distance_m`` between the centres (NaN where unknown); errors as standard deviations.
    """

    name1: str
    name2: str
    rotation_cam1_from_cam2: NDArray[np.float64]
    direction1: NDArray[np.float64]
    distance_m: float
    rotation_sigma_deg: float
    direction_sigma_deg: float
    distance_log_sigma: float
    source: str
    trusted: bool = True


# ---------------------------------------------------------------------------------------------------------------------
# map


@dataclass(frozen=True)
class PosedView:
    """A registered photo: its refined camera, pose and the map points seen in it.

    ``cam_from_world`` [3, 4]; ``point_ids`` [M] rows of ``Scene.points_world``; ``pixels`` [M, 2] where they are seen.
    """

    name: str
    camera: Camera
    cam_from_world: NDArray[np.float64]
    point_ids: NDArray[np.int64]
    pixels: FloatArray

    @property
    def centre_world(self) -> NDArray[np.float64]:
        """Camera centre in the world frame, [3]."""
        return -self.cam_from_world[:, :3].T @ self.cam_from_world[:, 3]


@dataclass(frozen=True)
class ScaleVote:
    """One source's opinion on the scale: metres per unit of the unscaled map, with its spread in ln."""

    source: str
    metres_per_unit: float
    log_sigma: float
    num_measurements: int


@dataclass(frozen=True)
class MetricScale:
    """The map's metric scale: factor and 95 % interval, or unknown (``metres_per_unit`` NaN) with the reason in notes.

    ``votes`` holds every source's opinion, also those not used; ``used`` names the sources behind the factor.
    """

    metres_per_unit: float
    low: float
    high: float
    used: tuple[str, ...]
    votes: tuple[ScaleVote, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        return bool(np.isfinite(self.metres_per_unit))


@dataclass(frozen=True)
class Scene:
    """A sparse map. Metres when ``scale.is_known`` (the factor is already applied), arbitrary units otherwise.

    ``points_world`` [P, 3]; ``point_colors`` [P, 3] uint8; ``point_errors_px`` [P] mean reprojection error;
    ``unregistered`` says why each left-out photo is not in the map; ``georeference`` is the (latitude_deg,
    longitude_deg, altitude_m) of the world origin when axes are east-north-up from GPS.
    """

    views: tuple[PosedView, ...]
    points_world: NDArray[np.float64]
    point_colors: NDArray[np.uint8]
    point_errors_px: FloatArray
    unregistered: tuple[Rejected, ...]
    scale: MetricScale
    georeference: tuple[float, float, float] | None = None

    def view(self, name: str) -> PosedView:
        for view in self.views:
            if view.name == name:
                return view
        raise KeyError(name)
