"""GPS fixes as terms of the adjustment: the map turned into east-north-up metres, and what its cameras should be at."""

from __future__ import annotations

import dataclasses

import numpy as np

from recon.capture.gps import enu_positions
from recon.mapping.factors import PositionFactors
from recon.mapping.georeference import fit_similarity
from recon.mapping.model import MapModel
from recon.mapping.pose_graph import inverse
from recon.types import Capture


def in_gps_metres(model: MapModel, capture: Capture) -> tuple[MapModel, PositionFactors | None]:
    """The model in the frame of its photos' GPS fixes, and the fixes as factors.

    The model comes back as it is, without factors, where the fixes do not determine a frame: fewer than three, on a
    line, or on a track not three times as wide as their errors. A fix farther from its camera than four times the
    typical one is left out. The spread of a fix is that of its distance from the fitted map, at least a tenth of its
    stated accuracy (fixes seconds apart share their error, which the map can not and need not correct).
    """
    fixes = {view.name: view.gps for view in capture.views}
    gps = enu_positions([fixes.get(name) for name in model.names])
    if gps is None:
        return model, None
    centres = inverse(model.state.poses)[:, :, 3]
    fit = fit_similarity(centres, gps)
    if fit is None or fit.spread_m[1] < 3 * max(fit.residual_m, 0.05):
        return model, None
    poses = model.state.poses.copy()
    rotation = poses[:, :, :3] @ fit.rotation.T
    poses[:, :, 3] = fit.scale * poses[:, :, 3] - rotation @ fit.translation
    poses[:, :, :3] = rotation
    points = fit.scale * model.state.points @ fit.rotation.T + fit.translation
    depth = model.observations.depth * fit.scale
    moved = dataclasses.replace(
        model,
        state=dataclasses.replace(model.state, poses=poses, points=points),
        observations=dataclasses.replace(model.observations, depth=depth),
    )
    known = np.isfinite(gps.enu_m).all(axis=1)
    gap = np.linalg.norm(inverse(poses)[:, :, 3] - gps.enu_m, axis=1)
    near = known & (np.nan_to_num(gap, nan=np.inf) <= 4 * max(float(np.median(gap[known])), 1e-6))
    view = np.flatnonzero(near)
    floor = np.maximum(0.1 * gps.sigma_m[view], fit.residual_m)
    floor[:, 2] = np.where(gps.sigma_m[view, 2] > 100.0, gps.sigma_m[view, 2], floor[:, 2])  # no altitude in the photo
    return moved, PositionFactors(view, gps.enu_m[view], floor)
