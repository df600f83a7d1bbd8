"""Rays and projections of COLMAP's camera models in plain NumPy.

Models and parameter order are COLMAP's (``src/colmap/sensor/models.h``): ``SIMPLE_PINHOLE`` f cx cy; ``PINHOLE`` fx fy
cx cy; ``SIMPLE_RADIAL`` f cx cy k; ``RADIAL`` f cx cy k1 k2; ``OPENCV`` fx fy cx cy k1 k2 p1 p2; ``FULL_OPENCV``
... k1 k2 p1 p2 k3 k4 k5 k6; ``OPENCV_FISHEYE`` fx fy cx cy k1 k2 k3 k4.

A polynomial distortion folds back beyond the radius where it stops growing; points out there have no image in the
real lens. Both directions return NaN for them, where COLMAP returns a ghost.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import ArrayLike, NDArray

from recon.errors import BadInputError
from recon.types import Camera

Float64Array = NDArray[np.float64]

MODELS: dict[str, int] = {  # number of parameters
    "SIMPLE_PINHOLE": 3,
    "PINHOLE": 4,
    "SIMPLE_RADIAL": 4,
    "RADIAL": 5,
    "OPENCV": 8,
    "OPENCV_FISHEYE": 8,
    "FULL_OPENCV": 12,
}

_NEWTON_STEPS = 50
_TOLERANCE = 1e-12  # of the normalised image coordinates: about 1e-9 px
_ACCEPTED_RESIDUAL = 1e-8


def check_camera(camera: Camera) -> None:
    """Raises BadInputError when the model is unknown or a parameter makes no sense."""
    if camera.model not in MODELS:
        raise BadInputError(f"camera model {camera.model!r} is not supported; accepted: {', '.join(MODELS)}")
    if len(camera.params) != MODELS[camera.model]:
        raise BadInputError(
            f"camera model {camera.model} takes {MODELS[camera.model]} parameters, found {len(camera.params)}"
        )
    if camera.width_px <= 0 or camera.height_px <= 0:
        raise BadInputError(f"camera size must be positive, found {camera.width_px}x{camera.height_px}")
    fx, fy, _, _ = camera.fx_fy_cx_cy
    if not np.isfinite(camera.params).all() or fx <= 0 or fy <= 0:
        raise BadInputError(f"camera parameters must be finite with positive focal lengths, found {camera.params}")


def rays(camera: Camera, pixels: ArrayLike) -> Float64Array:
    """Viewing rays with z = 1 of distorted pixels: ``[N, 2]`` -> ``[N, 3]`` in the camera frame.

    NaN where the model has no ray for a pixel (outside the lens's image circle).
    """
    check_camera(camera)
    fx, fy, cx, cy = camera.fx_fy_cx_cy
    distorted = (_as_points(pixels, 2) - [cx, cy]) / [fx, fy]  # [N, 2]
    undistorted = distorted.copy() if not has_distortion(camera) else _undistort(camera, distorted)
    return np.concatenate([undistorted, np.ones((len(undistorted), 1))], axis=1)  # [N, 3]


def project(camera: Camera, points_cam: ArrayLike) -> Float64Array:
    """Distorted pixels ``[N, 2]`` of points in the camera frame ``[N, 3]``; NaN behind the camera or out of reach."""
    check_camera(camera)
    points = _as_points(points_cam, 3)
    fx, fy, cx, cy = camera.fx_fy_cx_cy
    z = np.where(points[:, 2] > 0, points[:, 2], np.nan)
    normalised = points[:, :2] / z[:, None]  # [N, 2]
    if has_distortion(camera):
        normalised = np.where(_reachable(camera, normalised)[:, None], _distort(camera, normalised), np.nan)
    return normalised * [fx, fy] + [cx, cy]


def unproject(camera: Camera, pixels: ArrayLike, depth_m: ArrayLike) -> Float64Array:
    """Points in the camera frame ``[N, 3]`` of distorted pixels ``[N, 2]`` with z-depths ``[N]``."""
    return rays(camera, pixels) * np.asarray(depth_m, dtype=np.float64)[:, None]


def ray_from_z(camera: Camera, pixels: ArrayLike, depth_z_m: ArrayLike) -> Float64Array:
    """Distances along the ray ``[N]`` (from the camera centre) of z-depths ``[N]`` at distorted pixels ``[N, 2]``."""
    return np.asarray(depth_z_m, dtype=np.float64) * np.linalg.norm(rays(camera, pixels), axis=1)


def undistort(camera: Camera, pixels: ArrayLike) -> Float64Array:
    """Where distorted pixels ``[N, 2]`` would be if the lens had no distortion (same focal lengths and centre)."""
    fx, fy, cx, cy = camera.fx_fy_cx_cy
    return rays(camera, pixels)[:, :2] * [fx, fy] + [cx, cy]


def has_distortion(camera: Camera) -> bool:
    """Whether the camera bends straight lines (a fisheye always does; others when a parameter is not 0)."""
    return camera.model == "OPENCV_FISHEYE" or any(value != 0.0 for value in camera.distortion)


# ---------------------------------------------------------------------------------------------------------------------
# distortion of normalised coordinates


def _rational(camera: Camera) -> tuple[tuple[float, ...], float, float]:
    """(k1, k2, k3, k4, k5, k6), p1, p2 of a perspective model; k4..k6 are the denominator's."""
    d = camera.distortion
    if camera.model == "SIMPLE_RADIAL":
        return (d[0], 0.0, 0.0, 0.0, 0.0, 0.0), 0.0, 0.0
    if camera.model == "RADIAL":
        return (d[0], d[1], 0.0, 0.0, 0.0, 0.0), 0.0, 0.0
    if camera.model == "OPENCV":
        return (d[0], d[1], 0.0, 0.0, 0.0, 0.0), d[2], d[3]
    return (d[0], d[1], d[4], d[5], d[6], d[7]), d[2], d[3]


def _distort(camera: Camera, normalised: Float64Array) -> Float64Array:
    """Distorted normalised coordinates ``[N, 2]`` of undistorted ones ``[N, 2]``."""
    x, y = normalised[:, 0], normalised[:, 1]
    if camera.model == "OPENCV_FISHEYE":
        radius = np.hypot(x, y)
        theta = np.arctan(radius)
        ratio = np.divide(_fisheye(camera, theta), radius, out=np.ones_like(radius), where=radius > 1e-12)
        return normalised * ratio[:, None]
    (k1, k2, k3, k4, k5, k6), p1, p2 = _rational(camera)
    x2, y2, xy = x * x, y * y, x * y
    r2 = x2 + y2
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    return np.stack(
        [
            x * radial + 2 * p1 * xy + p2 * (r2 + 2 * x2),
            y * radial + 2 * p2 * xy + p1 * (r2 + 2 * y2),
        ],
        axis=1,
    )


def _fisheye(camera: Camera, theta: Float64Array) -> Float64Array:
    k1, k2, k3, k4 = camera.distortion
    t2 = theta * theta
    return theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))


def _undistort(camera: Camera, distorted: Float64Array) -> Float64Array:
    if camera.model == "OPENCV_FISHEYE":
        return _undistort_fisheye(camera, distorted)
    # Newton's method on both coordinates with a central-difference Jacobian (as COLMAP's IterativeUndistortion).
    limit = np.sqrt(_reach_squared(camera))
    # start inside the model's reach, or Newton may run into the folded branch
    radius = np.linalg.norm(distorted, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # an unlimited reach times nothing, which is not chosen
        point = np.where(radius > 0.9 * limit, distorted * (0.9 * limit / np.maximum(radius, 1e-12)), distorted)
    step = 1e-6
    offset_x, offset_y = np.array([step, 0.0]), np.array([0.0, step])
    active = np.flatnonzero(np.isfinite(distorted).all(axis=1))
    with np.errstate(all="ignore"):  # diverging points become NaN and are found by their residual
        for _ in range(_NEWTON_STEPS):
            p = point[active]
            residual = _distort(camera, p) - distorted[active]
            jx = (_distort(camera, p + offset_x) - _distort(camera, p - offset_x)) / (2 * step)
            jy = (_distort(camera, p + offset_y) - _distort(camera, p - offset_y)) / (2 * step)
            det = jx[:, 0] * jy[:, 1] - jy[:, 0] * jx[:, 1]
            dx = (jy[:, 1] * residual[:, 0] - jy[:, 0] * residual[:, 1]) / det
            dy = (jx[:, 0] * residual[:, 1] - jx[:, 1] * residual[:, 0]) / det
            update = np.stack([dx, dy], axis=1)
            # near the fold the Jacobian is almost singular: a damped step stays on the right branch
            length = np.linalg.norm(update, axis=1, keepdims=True)
            update *= np.minimum(1.0, 0.5 / np.maximum(length, 1e-300))
            point[active] = p - update
            active = active[(length[:, 0] > _TOLERANCE) & np.isfinite(length[:, 0])]
            if len(active) == 0:
                break
        error = np.abs(_distort(camera, point) - distorted).max(axis=1)
        good = (error < _ACCEPTED_RESIDUAL) & _reachable(camera, point)
    return np.where(good[:, None], point, np.nan)


def _undistort_fisheye(camera: Camera, distorted: Float64Array) -> Float64Array:
    radius = np.linalg.norm(distorted, axis=1)
    limit = np.sqrt(_reach_squared(camera))  # of theta, at most pi/2: z = 1 rays do not reach further
    k1, k2, k3, k4 = camera.distortion
    theta = np.minimum(radius, 0.9 * limit)
    with np.errstate(all="ignore"):
        for _ in range(_NEWTON_STEPS):
            t2 = theta * theta
            slope = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
            update = np.clip((_fisheye(camera, theta) - radius) / slope, -0.5, 0.5)
            theta = np.clip(theta - update, 0.0, limit)
            if np.nanmax(np.abs(update), initial=0.0) < _TOLERANCE:
                break
        good = (np.abs(_fisheye(camera, theta) - radius) < _ACCEPTED_RESIDUAL) & (theta < limit)
        scale = np.divide(np.tan(theta), radius, out=np.ones_like(radius), where=radius > 1e-12)
    return np.where(good[:, None], distorted * scale[:, None], np.nan)


def _reachable(camera: Camera, normalised: Float64Array) -> NDArray[np.bool_]:
    r2 = (normalised**2).sum(axis=1)
    if camera.model == "OPENCV_FISHEYE":
        return np.arctan(np.sqrt(r2)) ** 2 < _reach_squared(camera)
    return r2 < _reach_squared(camera)


@lru_cache(maxsize=256)
def _reach_squared(camera: Camera) -> float:
    """Squared undistorted radius (fisheye: squared angle) up to which the radial distortion grows; inf without end.

    The distorted radius is ``r N(t) / D(t)`` with ``t = r^2``; its slope has the sign of
    ``(N + 2 t N') D - 2 t N D'``. Tangential terms are small and left out.
    """
    if camera.model == "OPENCV_FISHEYE":
        k1, k2, k3, k4 = camera.distortion
        slope = np.array([1.0, 3 * k1, 5 * k2, 7 * k3, 9 * k4])
        return min(_first_positive_root(slope), (np.pi / 2) ** 2)
    (k1, k2, k3, k4, k5, k6), _, _ = _rational(camera)
    numerator, denominator = np.array([1.0, k1, k2, k3]), np.array([1.0, k4, k5, k6])
    two_t = np.array([0.0, 2.0])
    grows = polynomial.polyadd(numerator, polynomial.polymul(two_t, polynomial.polyder(numerator)))
    shrinks = polynomial.polymul(polynomial.polymul(two_t, numerator), polynomial.polyder(denominator))
    slope = polynomial.polysub(polynomial.polymul(grows, denominator), shrinks)
    return min(_first_positive_root(slope), _first_positive_root(denominator))


def _first_positive_root(coefficients: NDArray[np.float64]) -> float:
    # smaller coefficients matter beyond any lens, and would overflow in the solver
    trimmed = polynomial.polytrim(coefficients, tol=1e-12)
    if len(trimmed) < 2:
        return float("inf")
    roots = polynomial.polyroots(trimmed)
    real = roots.real[(np.abs(roots.imag) < 1e-9 * np.maximum(1.0, np.abs(roots))) & (roots.real > 0)]
    return float(real.min()) if len(real) else float("inf")


def _as_points(values: ArrayLike, columns: int) -> Float64Array:
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != columns:
        raise ValueError(f"expected an array of shape [N, {columns}], got {points.shape}")
    return points
