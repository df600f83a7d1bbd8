"""Exact correspondence between two views of a world, from their depth maps and normals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.synth.render import SynthView
from recon.types import Camera, FloatArray


def covisible_share(
    depth1: NDArray[np.float32],
    camera1: Camera,
    cam1_from_world: NDArray[np.float64],
    depth2: NDArray[np.float32],
    camera2: Camera,
    cam2_from_world: NDArray[np.float64],
    tolerance: float = 0.05,
) -> float:
    """Share of view 1's pixels whose surface point view 2 sees too, by comparing depths [H, W] within ``tolerance``.

    Meant for coarse depth maps, hence the wide relative tolerance; ``true_correspondence`` is the exact test.
    """
    fx, fy, cx, cy = camera1.fx_fy_cx_cy
    x = (np.arange(camera1.width_px) + 0.5 - cx) / fx
    y = (np.arange(camera1.height_px) + 0.5 - cy) / fy
    rays = np.stack(np.broadcast_arrays(x[None, :], y[:, None], np.ones((len(y), len(x)))), -1).reshape(-1, 3)
    points = (rays * depth1.reshape(-1, 1) - cam1_from_world[:, 3]) @ cam1_from_world[:, :3]
    seen = points @ cam2_from_world[:, :3].T + cam2_from_world[:, 3]
    fx, fy, cx, cy = camera2.fx_fy_cx_cy
    ahead = seen[:, 2] > 0.05
    z = np.where(ahead, seen[:, 2], 1.0)
    column = np.floor(seen[:, 0] / z * fx + cx)
    row = np.floor(seen[:, 1] / z * fy + cy)
    inside = ahead & (column >= 0) & (column < camera2.width_px) & (row >= 0) & (row < camera2.height_px)
    found = depth2[np.where(inside, row, 0).astype(np.int64), np.where(inside, column, 0).astype(np.int64)]
    return float(np.mean(inside & (np.abs(found - z) < tolerance * z + 0.02)))


def _tangent_depth(view: SynthView, pixels: NDArray[np.int64], rays: FloatArray) -> FloatArray:
    """Z-depth [N] where rays [N, 3] (z = 1) meet the planes tangent to the surface at pixels (column, row) [N, 2]."""
    fx, fy, cx, cy = view.camera.fx_fy_cx_cy
    column, row = pixels[:, 0], pixels[:, 1]
    centre = np.stack([(column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy, np.ones(len(pixels))], -1)
    depth = view.depth_m[row, column].astype(np.float64)
    normal = view.normals_world[row, column].astype(np.float64) @ view.cam_from_world[:, :3].T
    towards, across = (normal * centre).sum(-1), (normal * rays).sum(-1)
    ratio = towards / np.where(np.abs(across) < 1e-9, 1e-9, across)
    return depth * np.clip(ratio, 0.7, 1.4)  # beyond that the plane is seen edge-on and says nothing


def visible_points(
    view: SynthView, points_world_m: FloatArray, relative: float = 0.005, absolute_m: float = 0.003
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Where points of the world's surface appear in a view, and whether the view sees them.

    A point is seen when it projects inside the image and one of the four pixels around says that its surface passes
    through it (its tangent plane, within ``relative`` of its depth and ``absolute_m``).

    Args:
        view: the view.
        points_world_m: points on surfaces, [N, 3].
        relative, absolute_m: tolerance. The default takes the two sides of a thin board for the same; a tenth of it
            does not, and still holds on curved surfaces a few pixels wide.

    Returns:
        pixels [N, 2] (NaN behind the camera), and visibility [N].
    """
    seen = points_world_m @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
    ahead = seen[:, 2] > 1e-3
    z = np.where(ahead, seen[:, 2], 1.0)
    rays = seen / z[:, None]
    fx, fy, cx, cy = view.camera.fx_fy_cx_cy
    pixels = np.stack([rays[:, 0] * fx + cx, rays[:, 1] * fy + cy], -1)
    size = np.array([view.camera.width_px, view.camera.height_px])
    inside = ahead & np.all((pixels >= 0) & (pixels < size), axis=-1)
    corner = np.floor(np.where(inside[:, None], pixels, 0.5) - 0.5).astype(np.int64)
    visible = np.zeros(len(pixels), bool)
    for shift in ((0, 0), (0, 1), (1, 0), (1, 1)):
        at = np.clip(corner + np.array(shift), 0, size - 1)
        visible |= np.abs(_tangent_depth(view, at, rays) - z) < relative * z + absolute_m
    pixels[~ahead] = np.nan
    return pixels, visible & inside


def true_correspondence(
    view1: SynthView, view2: SynthView, pixels1: FloatArray
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Where surface points seen at ``pixels1`` appear in the other view.

    The depth between pixel centres comes from the tangent plane of the pixel, exact on flat surfaces.

    Args:
        view1, view2: views of the same world.
        pixels1: continuous positions in view 1, corner convention, inside the image, [N, 2].

    Returns:
        positions in view 2, [N, 2] (also for hidden points; NaN behind the camera), and visibility, [N].

    Raises:
        ValueError: views of different worlds, or a position outside the image.
    """
    if view1.seed != view2.seed:
        raise ValueError(f"the views show different worlds (seeds {view1.seed} and {view2.seed})")
    pixels1 = np.asarray(pixels1, np.float64).reshape(-1, 2)
    size = np.array([view1.camera.width_px, view1.camera.height_px])
    if not np.all((pixels1 >= 0) & (pixels1 <= size)):
        raise ValueError("pixels1 must lie inside the first image")
    fx, fy, cx, cy = view1.camera.fx_fy_cx_cy
    rays = np.stack([(pixels1[:, 0] - cx) / fx, (pixels1[:, 1] - cy) / fy, np.ones(len(pixels1))], -1)
    cells = np.minimum(np.floor(pixels1), size - 1).astype(np.int64)
    depth = _tangent_depth(view1, cells, rays)
    points = (rays * depth[:, None] - view1.cam_from_world[:, 3]) @ view1.cam_from_world[:, :3]
    return visible_points(view2, points)
