"""The scene of one photo alone: no map can be made, but measured or trusted metric depth still places what it shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from recon.errors import MappingError
from recon.mapping.scale import ScaleOptions
from recon.types import Camera, DepthSamples, MetricScale, PosedView, ScaleVote, Scene

NOTICE = (
    "one usable photo: what it shows is placed by its depth alone, nothing is confirmed from a second place and the "
    "focal length is taken as it is; take more photos that overlap for a map"
)


def single_photo_scene(
    name: str, camera: Camera, depths: Sequence[DepthSamples], options: ScaleOptions | None = None
) -> Scene:
    """The photo at the origin of the world, without points; metres as its best source of depth says.

    Args:
        name: the photo.
        camera: its camera, as well as it is known.
        depths: of the photo; untrusted ones are left aside, a sensor is preferred to a checkpoint.
        options: what is known about the sources.

    Raises:
        MappingError: no trusted depth of the photo.
    """
    options = options or ScaleOptions()
    trusted = [s for s in depths if s.name == name and s.trusted and len(s.depth_m)]
    if not trusted:
        raise MappingError(f"{name}: one photo alone needs metric depth, from a sensor or a trusted checkpoint")
    votes = []
    for samples in sorted(trusted, key=lambda s: s.source != "sensor"):
        is_sensor = samples.source == "sensor"
        source = "sensor depth" if is_sensor else f"{samples.source} depth"
        sigma = options.sensor_systematic if is_sensor else options.depth_systematic
        votes.append(ScaleVote(source, 1.0, sigma, len(samples.depth_m)))
    best = votes[0]
    width = math.exp(1.96 * best.log_sigma)
    scale = MetricScale(1.0, 1.0 / width, width, (best.source,), tuple(votes), (NOTICE,))
    view = PosedView(name, camera, np.eye(3, 4), np.empty(0, dtype=np.int64), np.empty((0, 2)))
    nothing = np.empty((0, 3))
    return Scene((view,), nothing, nothing.astype(np.uint8), np.empty(0), (), scale)
