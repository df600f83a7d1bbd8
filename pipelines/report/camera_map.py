"""The scene from above: cameras and where they look, GPS fixes, the surface as a shadow, and a scale bar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pipelines.report.axes import Axes
from pipelines.report.svg import drawing, markup, nice_step, path, put
from recon.capture.gps import enu_positions
from recon.mapping.georeference import fit_similarity
from recon.types import GpsFix, Scene

Float64Array = NDArray[np.float64]

_WIDTH = 760.0
_MIN_HEIGHT, _MAX_HEIGHT = 220.0, 430.0
_MARGIN = 34.0
_NAMED = 40  # cameras of which each gets a name on touch; more are drawn smaller


@dataclass(frozen=True)
class CameraMap:
    """The drawing, and what it shows of GPS in words (empty where the photos have none)."""

    picture: Markup
    gps: str


def draw_map(
    scene: Scene, axes: Axes, outline: Float64Array, gps: Mapping[str, GpsFix], pictured: Mapping[str, int]
) -> CameraMap | None:
    """The map; None when no photo is registered. ``outline`` [N, 3] are points of the surface."""
    if not scene.views:
        return None
    turn = axes.matrix
    centres = np.array([view.centre_world for view in scene.views]) @ turn.T
    looks = np.array([view.cam_from_world[2, :3] for view in scene.views]) @ turn.T
    fixes, said = _fixes_in_map(scene, gps, turn)
    around = outline @ turn.T
    around = around[(around[:, :2] >= np.percentile(around[:, :2], 1, axis=0)).all(axis=1)] if len(around) else around
    around = around[(around[:, :2] <= np.percentile(around[:, :2], 99, axis=0)).all(axis=1)] if len(around) else around
    spots = [centres[:, :2], around[:, :2], fixes[np.isfinite(fixes).all(axis=1)][:, :2]]
    everything = np.concatenate([s for s in spots if len(s)])
    low, high = everything.min(axis=0), everything.max(axis=0)
    width, depth = np.maximum(high - low, 1e-9)
    scale = min((_WIDTH - 2 * _MARGIN) / width, (_MAX_HEIGHT - 2 * _MARGIN) / depth)
    height = float(np.clip(depth * scale + 2 * _MARGIN, _MIN_HEIGHT, _MAX_HEIGHT))
    shift = np.array([_WIDTH, height]) / 2 - scale * np.array([1, -1]) * (low + high) / 2

    def place(points: Float64Array) -> Float64Array:
        return shift + scale * points[:, :2] * [1, -1]

    unit = "m" if scene.scale.is_known else "units of the map (its scale is unknown)"
    label = f"Map from above: {len(centres)} cameras" + (f", {len(gps)} with GPS" if said else "")
    svg = drawing(_WIDTH, height, label, "plot map")
    if len(around):
        dots = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in place(around))
        put(svg, "path", d=dots, class_="ground")
    at = place(centres)
    if len(at) > 1 and scene.georeference is None and _looks_like_a_walk(centres):
        put(svg, "path", d=path([(float(x), float(y)) for x, y in at]), class_="track")
    for fix, (x, y) in zip(place(fixes) if len(fixes) else (), at):
        if np.isfinite(fix).all():
            put(svg, "line", x1=float(fix[0]), y1=float(fix[1]), x2=float(x), y2=float(y), class_="residual")
            put(svg, "circle", cx=float(fix[0]), cy=float(fix[1]), r=3.5, class_="gps")
    few = len(at) <= _NAMED
    long = 15.0 if few else 9.0
    for view, (x, y), look in zip(scene.views, at, looks):
        flat = look[:2] * [1, -1]
        strength = float(np.linalg.norm(flat))
        ahead = flat / strength if strength > 1e-6 else np.array([0.0, -1.0])
        aside = np.array([-ahead[1], ahead[0]])
        far = np.array([x, y]) + long * max(strength, 0.35) * ahead
        corners = [(x, y), tuple(far + 0.45 * long * aside), tuple(far - 0.45 * long * aside)]
        attributes = {"data_photo": str(pictured[view.name])} if view.name in pictured else {}
        mark = put(svg, "g", class_="camera", **attributes)
        put(mark, "path", d=path([(float(a), float(b)) for a, b in corners]) + "Z")
        put(mark, "circle", cx=float(x), cy=float(y), r=2.6 if few else 1.8)
        put(mark, "title", view.name)
    bar = nice_step(width, 4)
    length = bar * scale
    put(svg, "path", d=f"M{_MARGIN / 2} {height - 16:.1f}v5h{length:.1f}v-5", class_="ruler")
    put(svg, "text", f"{bar:g} {unit}", x=_MARGIN / 2 + length + 8, y=height - 9, class_="tick")
    if scene.georeference is not None:
        put(svg, "path", d=f"M{_WIDTH - 20:.1f} 34V14m-5 7l5-8 5 8", class_="ruler")
        put(svg, "text", "N", x=_WIDTH - 20, y=40, class_="tick middle hanging")
    return CameraMap(markup(svg), said)


def _fixes_in_map(scene: Scene, gps: Mapping[str, GpsFix], turn: Float64Array) -> tuple[Float64Array, str]:
    """GPS positions [N, 3] of the registered photos on the map (NaN without a fix), and what was done, in words."""
    none = np.zeros((0, 3))
    positions = enu_positions([gps.get(view.name) for view in scene.views])
    if positions is None:
        return none, ""
    known = int(np.isfinite(positions.enu_m).all(axis=1).sum())
    centres = np.array([view.centre_world for view in scene.views])
    if scene.georeference is not None:
        apart = np.linalg.norm((positions.enu_m - centres)[:, :2], axis=1)
        return positions.enu_m @ turn.T, (
            f"Rings are the GPS positions of {known} photos, {np.nanmedian(apart):.2g}\u00a0m (median, on the ground) "
            "from where the map has them. North is up."
        )
    fit = fit_similarity(centres, positions)
    if fit is None or fit.scale <= 0:
        return none, f"{known} photos have GPS, too few or too close together to lay them over the map."
    world = (positions.enu_m - fit.translation) @ fit.rotation / fit.scale
    return world @ turn.T, (
        f"Rings are the GPS positions of {known} photos, laid over the cameras as well as they fit "
        f"({fit.residual_m:.2g}\u00a0m off, root mean square); the map itself is not georeferenced."
    )


def _looks_like_a_walk(centres: Float64Array) -> bool:
    """Whether photos that follow each other by name are mostly neighbours: then a line between them helps the eye."""
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    spread = float(np.linalg.norm(centres.std(axis=0)))
    return bool(np.median(steps) < 0.7 * spread) if spread > 0 else False
