"""A map laid onto its GPS fixes, and where its origin is on the earth (WGS 84)."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from recon.capture.gps import GpsPositions, ecef, enu_axes, enu_positions
from recon.types import Capture, Scene

_DRIFT = 0.1  # rms about its mean of what errors change by in the minutes of a capture, in parts of the accuracy


@dataclass(frozen=True)
class GpsFit:
    """``enu = scale * rotation @ world + translation`` in metres; ``residual_m`` rms per axis; ``spread_m`` [3]
    rms extents of the used GPS positions along their principal axes.
    """

    scale: float
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    log_scale_sigma: float
    residual_m: float
    spread_m: NDArray[np.float64]
    num_used: int


def fit_similarity(centres: NDArray[np.float64], gps: GpsPositions) -> GpsFit | None:
    """Robust similarity from camera centres [N, 3] to GPS positions; None below 3 fixes or without any extent.

    The scale's spread has two parts. What scatters from fix to fix shows in the residuals; by Gauss-Markov it gives
    sigma / sqrt(sum of squared distances from the mean), so more fixes help. Errors of fixes seconds apart are alike,
    and drift while the photographer moves on. A drift along the track is a stretch: no residual shows it, and it is as
    large with a thousand fixes as with three. A tenth of the stated accuracy is allowed for it: half a metre rms, which
    is a walk of 1.7 m from the first photo to the last, where the file states no accuracy.
    """
    known = np.isfinite(gps.enu_m).all(axis=1)
    if known.sum() < 3:
        return None
    source, target, stated = centres[known], gps.enu_m[known], gps.sigma_m[known]
    weight = np.ones(len(source))
    for _ in range(20):  # iteratively reweighted (Cauchy): single wrong fixes lose their pull
        fit = _weighted_umeyama(source, target, weight)
        if fit is None:
            return None
        scale, rotation, translation = fit
        error = np.linalg.norm(scale * source @ rotation.T + translation - target, axis=1)
        reach = max(1.4826 * float(np.median(error)), 0.1 * float(np.median(stated[:, 0])))
        weight = 1.0 / (1.0 + (error / (2.0 * reach)) ** 2)
    used = error < 4 * reach
    degrees = max(3 * int(used.sum()) - 7, 1)
    residual = float(np.sqrt((error[used] ** 2).sum() / degrees))
    scatter = residual * float(student_t.ppf(0.975, degrees)) / 1.96  # few fixes: the residuals' spread is uncertain
    drift = _DRIFT * float(np.median(stated[:, 0]))
    centred = target[used] - target[used].mean(axis=0)
    extent = float(np.sqrt((centred**2).sum()))
    if extent <= 0:
        return None
    spread = np.linalg.svd(centred, compute_uv=False) / np.sqrt(len(centred))
    spread = np.pad(spread, (0, 3 - len(spread)))
    sigma = float(np.hypot(scatter / extent, drift / (extent / np.sqrt(len(centred)))))
    return GpsFit(scale, rotation, translation, sigma, residual, spread, int(used.sum()))


def georeference(scene: Scene, capture: Capture) -> Scene:
    """The scene turned and shifted into east-north-up metres; unchanged where GPS does not determine that.

    The scene must be metric already: its scale stays. A straight track leaves the turn about itself open, and a track
    not much longer than the GPS error leaves everything open; both come back unchanged.
    """
    fixes = {view.name: view.gps for view in capture.views}
    gps = enu_positions([fixes.get(view.name) for view in scene.views])
    if gps is None or not scene.scale.is_known:
        return scene
    centres = np.array([view.centre_world for view in scene.views])
    fit = fit_similarity(centres, gps)
    if fit is None or fit.spread_m[1] < 3 * max(fit.residual_m, 0.05):
        return scene
    known = np.isfinite(gps.enu_m).all(axis=1)
    shift = np.median(gps.enu_m[known] - centres[known] @ fit.rotation.T, axis=0)
    views = []
    for view in scene.views:
        rotation = view.cam_from_world[:, :3] @ fit.rotation.T  # cam_from_enu
        translation = view.cam_from_world[:, 3] - rotation @ shift
        views.append(dataclasses.replace(view, cam_from_world=np.column_stack([rotation, translation])))
    points = scene.points_world @ fit.rotation.T + shift
    return dataclasses.replace(scene, views=tuple(views), points_world=points, georeference=gps.origin)


def georeference_json(scene: Scene) -> dict[str, object] | None:
    """Where the map's origin is on the earth, as JSON data; None when the map is not georeferenced."""
    if scene.georeference is None:
        return None
    latitude_deg, longitude_deg, altitude_m = scene.georeference
    return {
        "axes": "x east, y north, z up, metres",
        "datum": "WGS 84",
        "origin": {"latitude_deg": latitude_deg, "longitude_deg": longitude_deg, "altitude_m": altitude_m},
        "ecef_from_world": np.column_stack(
            [enu_axes(latitude_deg, longitude_deg).T, ecef(latitude_deg, longitude_deg, altitude_m)]
        ).tolist(),
    }


def write_georeference(scene: Scene, folder: Path) -> None:
    """Writes ``georeference.json`` beside a COLMAP model, or removes it where the map has no place on the earth."""
    path, content = folder / "georeference.json", georeference_json(scene)
    if content is None:
        path.unlink(missing_ok=True)
        return
    staged = path.with_suffix(".tmp")
    staged.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(staged, path)


def _weighted_umeyama(
    source: NDArray[np.float64], target: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]] | None:
    """Weighted similarity ``target = s R source + t`` (Umeyama, PAMI 1991); None when the source has no extent."""
    w = weight / weight.sum()
    mean_s, mean_t = w @ source, w @ target
    a, b = source - mean_s, target - mean_t
    variance = float(w @ (a**2).sum(axis=1))
    if variance <= 1e-18:
        return None
    u, singular, vt = np.linalg.svd((b * w[:, None]).T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])
    rotation = (u * sign) @ vt
    scale = float((singular * sign).sum() / variance)
    return (scale, rotation, mean_t - scale * rotation @ mean_s) if scale > 0 else None
