"""Which photos show a triangle, how well, and in what colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from recon.cameras import pinhole
from recon.cameras.unify import MAX_UNIFIED_PIXELS, ImageProfile, unified_camera, unify
from recon.surface.backend import open3d
from recon.surface.options import TextureOptions
from recon.surface.types import DepthMap, Mesh, Photos
from recon.types import Camera, ImageArray, PosedView

_MARGIN_PX = 2.0  # triangles nearer to the photo's border are not shown by it
_PARTLY = 1e-4  # times the size where a corner is hidden: for triangles that no photo shows whole
_HIDDEN = 1e-3  # where the photo's own depth is nearer: something that the mesh lacks is in front
_UNCONFIRMED = 0.4  # where the photo's own depth does not say that it shows this surface
_SAME_DEPTH = 0.02  # parts of the depth by which they may differ
_CORNER = 0.9  # of the way from the middle to a corner: where it is tested


@dataclass(frozen=True)
class Projector:
    """Where points lie in a photo without distortion; ``camera`` is the PINHOLE camera of that, ``view`` as taken."""

    view: PosedView
    camera: Camera

    def pixels(self, points_world: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels [N, 2] of points [N, 3]; NaN behind the camera."""
        return pinhole.project(self.camera, self._in_camera(points_world))

    def shown(
        self, points_world: NDArray[np.float64], pixels: NDArray[np.float64], mask: NDArray[np.bool_] | None
    ) -> NDArray[np.bool_]:
        """Which points [N, 3] with these ``pixels`` lie in the photo, not at its border, where ``mask`` is True.

        ``mask`` [h, w] is that of the photo as taken, in any size.
        """
        size = np.array([self.camera.width_px, self.camera.height_px])
        taken_size = np.array([self.view.camera.width_px, self.view.camera.height_px])
        taken = pixels * (taken_size / size)
        if pinhole.has_distortion(self.view.camera):
            taken = pinhole.project(self.view.camera, self._in_camera(points_world))
        with np.errstate(invalid="ignore"):
            shown = ((pixels > _MARGIN_PX) & (pixels < size - _MARGIN_PX)).all(axis=1)
            shown &= ((taken > _MARGIN_PX) & (taken < taken_size - _MARGIN_PX)).all(axis=1)
        if mask is not None:
            column, row = (taken[shown] * ([mask.shape[1], mask.shape[0]] / taken_size)).astype(np.int64).T
            shown[shown] = mask[row, column]
        return shown

    def load(self, photos: Photos) -> ImageArray:
        """The photo without distortion, [H, W, 3]."""
        return unify(photos.pixels(self.view.name), self.view.camera, _profile(self.view.camera)).pixels

    def _in_camera(self, points_world: NDArray[np.float64]) -> NDArray[np.float64]:
        return points_world @ self.view.cam_from_world[:, :3].T + self.view.cam_from_world[:, 3]


def projector(view: PosedView) -> Projector:
    """That of a photo at its own size, or as large as an image may be."""
    return Projector(view, unified_camera(view.camera, _profile(view.camera)))


def _profile(camera: Camera) -> ImageProfile:
    longer, shorter = max(camera.width_px, camera.height_px), min(camera.width_px, camera.height_px)
    if longer * shorter <= MAX_UNIFIED_PIXELS:
        return ImageProfile("long_edge", float(longer))
    return ImageProfile("long_edge", float(int((MAX_UNIFIED_PIXELS * longer / shorter) ** 0.5) - 1))


@dataclass(frozen=True)
class Seen:
    """What one photo shows: ``faces`` [N] their numbers, ``size`` [N] in pixels (less where it is not sure that they
    are seen), ``detail`` [N] of the photo there, mean ``color`` [N, 3].
    """

    faces: NDArray[np.int64]
    size: NDArray[np.float32]
    detail: NDArray[np.float32]
    color: NDArray[np.float32]


class Visibility:
    """Asks of photo after photo which triangles of one mesh it shows; hidden parts are found by casting rays."""

    def __init__(self, mesh: Mesh, normals: NDArray[np.float64], tolerance: float, options: TextureOptions) -> None:
        o3d = open3d()
        self._vertices = np.asarray(mesh.vertices_world_m, dtype=np.float64)
        self._faces, self._normals, self._tolerance, self._options = mesh.faces, normals, tolerance, options
        self._middles = self._vertices[mesh.faces].mean(axis=1)
        self._tensor = o3d.core.Tensor
        self._rays: Any = o3d.t.geometry.RaycastingScene()
        self._rays.add_triangles(
            self._tensor(self._vertices.astype(np.float32)), self._tensor(mesh.faces.astype(np.uint32))
        )

    def seen_by(
        self, place: Projector, photo: ImageArray, mask: NDArray[np.bool_] | None, depth: DepthMap | None = None
    ) -> Seen:
        """Triangles that face the photo, lie in it with all corners, and whose middle nothing hides.

        Their size is next to nothing where a corner is hidden, or where the photo's own ``depth`` (if there is one) is
        nearer: leaves of a tree that is not in the mesh.
        """
        centre = np.asarray(place.view.centre_world, dtype=np.float64)
        pixels = place.pixels(self._vertices)
        shown = place.shown(self._vertices, pixels, mask)
        away = centre - self._middles
        cosine = np.einsum("fd,fd->f", self._normals, away) / np.maximum(np.linalg.norm(away, axis=1), 1e-12)
        faces = np.flatnonzero(shown[self._faces].all(axis=1) & (cosine > self._options.min_cosine))
        faces = faces[self._unhidden(centre, self._middles[faces])]
        corners = pixels[self._faces[faces]]  # [N, 3, 2]
        first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        area = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
        whole = np.ones(len(faces), dtype=bool)
        for k in range(3):
            corner = self._vertices[self._faces[faces, k]]
            spot = self._middles[faces] + _CORNER * (corner - self._middles[faces])
            whole[whole] = self._unhidden(centre, spot[whole])
        side = int(np.clip(np.sqrt(np.median(area)) if len(area) else 3, 3, 31)) | 1
        middle = corners.mean(axis=1).astype(np.int64)
        detail, color = _detail(photo, side)[middle[:, 1], middle[:, 0]], cv2.blur(photo, (side, side))
        size = area * np.where(whole, 1.0, _PARTLY)
        if depth is not None:
            size *= self._confirmed(self._middles[faces], depth)
        return Seen(faces, size.astype(np.float32), detail, color[middle[:, 1], middle[:, 0]].astype(np.float32))

    def _confirmed(self, points: NDArray[np.float64], depth: DepthMap) -> NDArray[np.float64]:
        """Factor for points [N] that says how sure a photo's depth map is that the photo shows them."""
        camera_points = points @ depth.cam_from_world[:, :3].T + depth.cam_from_world[:, 3]
        z = camera_points[:, 2]
        pixels = np.nan_to_num(pinhole.project(depth.camera, camera_points), nan=-1.0)
        height, width = depth.depth_m.shape
        inside = np.all((pixels >= 0) & (pixels < [width, height]), axis=1)
        column, row = np.where(inside[:, None], pixels, 0).astype(np.int64).T
        measured = np.where(inside, depth.depth_m[row, column], np.nan)
        tolerance = np.maximum(2 * self._tolerance, _SAME_DEPTH * z)
        with np.errstate(invalid="ignore"):
            nearer, same = measured < z - tolerance, np.abs(measured - z) <= tolerance
        return np.where(same, 1.0, np.where(nearer, _HIDDEN, _UNCONFIRMED))

    def _unhidden(self, centre: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which points [N, 3] the first hit of a ray from ``centre`` is not clearly in front of."""
        if len(points) == 0:
            return np.zeros(0, dtype=bool)
        direction = points - centre
        distance = np.linalg.norm(direction, axis=1)
        rays = np.empty((len(points), 6), dtype=np.float32)
        rays[:, :3], rays[:, 3:] = centre, direction / np.maximum(distance, 1e-12)[:, None]
        hit = self._rays.cast_rays(self._tensor(rays))["t_hit"].numpy()
        return hit > distance - np.maximum(self._tolerance, 1e-4 * distance)


def _detail(color: ImageArray, side: int) -> NDArray[np.float32]:
    """Mean length of the gradient in windows of ``side`` pixels, [H, W], in grey levels per pixel."""
    grey = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
    along_x = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=1 / 8)
    along_y = cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=1 / 8)
    return cv2.blur(cv2.magnitude(along_x, along_y), (side, side))
