"""The stages of each photo's dense depth.

Every photo goes through four stages, each kept in a :class:`~recon.surface.store.DepthStore`, so that a run that was
stopped goes on where it was: ``photometric`` (sensor depth where given, otherwise the multi-view search around the
prior), ``confirmed`` (checked against the neighbours), ``filled`` (holes filled from the aligned prior, where it may be
trusted, from what other photos have confirmed, and from planes of the scene) and ``final`` (fillings of neighbours made
one surface).
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np

from recon.mapping.uncertainty import depth_log_sigmas
from recon.surface.align import FrameSamples
from recon.surface.consensus import agreed
from recon.surface.consistency import contradicted, count_consistent, remove_speckles
from recon.surface.densify import aligned_answers, complete, dense_depth, photo_to_frame, sensor_depth
from recon.surface.frames import Frame, choose_neighbours, make_frame
from recon.surface.layout import find_planes, witness
from recon.surface.multiview import Prior, refine, resolve_device
from recon.surface.options import SurfaceOptions
from recon.surface.planes import Plane
from recon.surface.precise import at_view, precise_scene
from recon.surface.regions import on_planes
from recon.surface.rims import rims
from recon.surface.store import DepthStore, Stage
from recon.surface.sweep import Shown, placed_by_photos
from recon.surface.types import DepthMap, Photos
from recon.types import DepthSamples, Scene

_T = TypeVar("_T")
_BEHIND = 1.04  # a rim's depth times this: from here on the filled surface lies behind it
_LENDERS = 12  # photos asked for confirmed depth of what one shows
_LENT_CONFIDENCE = 0.3
_CACHED = 24  # frames and maps kept in memory: a photo's neighbours are mostly those of the photo before


class DepthStages:
    """Dense depth of photo after photo, with frames and maps read through small caches."""

    def __init__(
        self,
        scene: Scene,
        photos: Photos,
        depth_samples: Sequence[DepthSamples],
        options: SurfaceOptions,
        store: DepthStore,
    ) -> None:
        self._photos, self._options, self._store = photos, options, store
        # Photos are matched in poses that fit them, and what they show goes back to the scene's at the end.
        self._given, self._scene = scene, scene
        if options.refine and not self._has_sensor():
            self._scene = precise_scene(scene) or scene
        scene = self._scene
        self._samples: dict[str, list[DepthSamples]] = {}
        for samples in depth_samples:
            if samples.source != "sensor" and (samples.trusted or options.fill == "always"):
                self._samples.setdefault(samples.name, []).append(samples)
        multiview = options.multiview
        self._neighbours = choose_neighbours(
            scene, multiview.num_neighbours, multiview.min_angle_deg, multiview.max_angle_deg
        )
        # Whoever sees the same surface knows about it, however wide the angle.
        self._lenders = choose_neighbours(scene, _LENDERS, 0.0, 180.0)
        self._log_sigmas = depth_log_sigmas(scene)
        self._frames: OrderedDict[str, Frame] = OrderedDict()
        self._maps: defaultdict[Stage, OrderedDict[str, DepthMap]] = defaultdict(OrderedDict)

    def _has_sensor(self) -> bool:
        """Sensor depth is what the scene's own poses follow."""
        read = self._photos.sensor_depth
        return self._options.use_sensor_depth and any(read(view.name) is not None for view in self._given.views)

    def photometric(self, name: str) -> DepthMap:
        return self._stage("photometric", name, self._compute_photometric)

    def confirmed(self, name: str) -> DepthMap:
        """The photo's own depth as far as neighbours confirm it or a sensor measured it."""
        return self._stage("confirmed", name, self._compute_confirmed)

    def filled(self, name: str) -> DepthMap:
        return self._stage("filled", name, self._compute_filled)

    def _stage(self, stage: Stage, name: str, compute: Callable[[str], DepthMap]) -> DepthMap:
        depth_map = self._maps[stage].get(name)
        if depth_map is None:
            depth_map = self._store.load(stage, name)
        if depth_map is None:
            # Read back: the store rounds confidences, and a run that goes on after a kill sees what was stored.
            self._store.save(stage, compute(name))
            depth_map = self._store.load(stage, name)
            assert depth_map is not None
        _remember(self._maps[stage], name, depth_map)
        return depth_map

    def _lent(self, name: str) -> DepthMap:
        """The photo's confirmed depth for others: without what is weak, and without rims, which may be of the surface
        behind."""
        depth_map = self.confirmed(name)
        weak = rims(depth_map.depth_m, self._rim_px(depth_map)) | (depth_map.confidence < _LENT_CONFIDENCE)
        return dataclasses.replace(depth_map, depth_m=np.where(weak, np.nan, depth_map.depth_m).astype(np.float32))

    def _rim_px(self, depth_map: DepthMap) -> float:
        return self._options.multiview.window_px / 2 if depth_map.source == "multiview" else 0.0

    def final(self, name: str) -> DepthMap:
        depth_map = self._store.load("final", name)
        if depth_map is None:
            depth_map = self._compute_final(name)
            self._store.save("final", depth_map)
        return depth_map

    def reason(self, name: str) -> str:
        """Why a photo has no depth."""
        if not self._neighbours[name]:
            return "shares too few points with other photos at a useful angle, and no trusted depth is there"
        return "its photometric depth is not confirmed by other photos, and no trusted depth is there"

    def _frame(self, name: str) -> Frame:
        frame = self._frames.get(name)
        if frame is None:
            view, work_px = self._scene.view(name), self._options.multiview.work_px
            frame = make_frame(self._scene, view, self._photos.pixels(name), work_px, self._log_sigmas[name])
        _remember(self._frames, name, frame)
        return frame

    def _compute_photometric(self, name: str) -> DepthMap:
        options, frame = self._options, self._frame(name)
        if options.use_sensor_depth:
            sensor = self._photos.sensor_depth(name)
            if sensor is not None:
                return sensor_depth(frame, sensor, self._scene.scale.is_known, options.densify)
        prior = dense_depth(frame, self._samples.get(name, []), self._scene.scale.is_known, options.densify)
        if options.refine:
            frames = [self._frame(other) for other in self._neighbours[name]]
            search = None if prior is None else Prior(prior.depth_m, prior.stats["log_sigma"])
            refined = refine(frame, frames, options.multiview, search, options.device)
            if refined is not None:
                return refined
        if prior is not None:
            return dataclasses.replace(prior, confidence=np.full_like(prior.confidence, options.fill_confidence))
        empty = np.full(frame.color.shape[:2], np.nan, dtype=np.float32)
        return DepthMap(name, empty, np.zeros_like(empty), frame.camera, frame.cam_from_world, frame.color, "none", {})

    def _compute_final(self, name: str) -> DepthMap:
        depth_map, frame = self.filled(name), self._frame(name)
        if depth_map.stats.get("filled", 0.0) > 0:
            neighbours = [self.filled(other) for other in self._lenders[name]]
            depth_m = agreed(depth_map, neighbours, self._options.fill_confidence)
            depth_map = dataclasses.replace(depth_map, depth_m=depth_m)
        if self._scene is not self._given:
            depth_map = at_view(depth_map, self._given, self._scene)
        mask = self._photos.mask(name)
        if mask is None:
            return depth_map
        use = photo_to_frame(frame, mask, False)
        return dataclasses.replace(
            depth_map,
            depth_m=np.where(use, depth_map.depth_m, np.nan).astype(np.float32),
            confidence=np.where(use, depth_map.confidence, 0).astype(np.float32),
        )

    def _compute_filled(self, name: str) -> DepthMap:
        depth_map, frame, source = self.confirmed(name), self._frame(name), self.photometric(name).source
        confirmed = float(np.isfinite(depth_map.depth_m).mean())
        fill = self._options.fill != "never" and source in ("multiview", "sensor") and name in self._samples
        if fill and (source == "multiview" or self._options.fill == "always"):
            depth_map = self._filled(depth_map, frame)
        known = float(np.isfinite(depth_map.depth_m).mean())
        stats = depth_map.stats | {"confirmed": confirmed, "filled": known - confirmed}
        return dataclasses.replace(depth_map, stats=stats)

    @cached_property
    def _planes(self) -> list[Plane]:
        """What photos with answers see together."""
        if not self._options.planes:
            return []
        known, options = self._scene.scale.is_known, self._options.densify
        answers = {}
        for name in (view.name for view in self._scene.views if view.name in self._samples):
            own = aligned_answers(self._frame(name), self._lent(name).depth_m, self._samples[name], known, options)
            if own is not None:
                answers[name] = own
        planes = find_planes([witness(self._lent(name), own, len(answers)) for name, own in answers.items()])
        shown = (self._shown(name, own, planes) for name, own in answers.items())
        centres = np.array([view.centre_world for view in self._scene.views])
        return placed_by_photos(planes, centres, shown, resolve_device(self._options.device))

    def _shown(self, name: str, answers: FrameSamples, planes: Sequence[Plane]) -> Shown:
        lent, others = self._lent(name), [self._lent(other) for other in self._lenders[name]]
        neighbours = [self._frame(other) for other in self._neighbours[name]]
        return Shown(self._frame(name), neighbours, on_planes(lent, lent.depth_m, answers, planes, others))

    def _compute_confirmed(self, name: str) -> DepthMap:
        """Pixels that enough neighbours confirm; fewer are asked for where a photo has only one neighbour."""
        raw, neighbours = self.photometric(name), [self.photometric(other) for other in self._neighbours[name]]
        if raw.source != "multiview":
            return raw
        options = self._options.multiview
        needed = max(1, min(options.min_consistent, len(neighbours)))
        count, mean = count_consistent(raw, neighbours, options)
        seen = (raw.confidence >= options.min_score) & (count >= needed)
        # Weak texture that more views than needed agree on is surface, too, at half the confidence.
        weak = ~seen & (raw.confidence >= 0.4 * options.min_score) & (count >= needed + 1)
        depth_m = np.where(seen | weak, mean, np.nan).astype(np.float32)
        kept = remove_speckles(depth_m, options.min_speckle_px)
        agreement = np.minimum(1.0, count / (needed + 1))
        confidence = np.where(weak, 0.5, 1.0) * raw.confidence * agreement
        return dataclasses.replace(
            raw,
            depth_m=np.where(kept, depth_m, np.nan).astype(np.float32),
            confidence=np.where(kept, confidence, 0).astype(np.float32),
        )

    def _filled(self, depth_map: DepthMap, frame: Frame) -> DepthMap:
        """Holes filled from the aligned prior at ``fill_confidence``, except where a neighbour sees through them."""
        options, rim_px, name = self._options, self._rim_px(depth_map), frame.name
        lenders = [self._lent(other) for other in self._lenders[name]]
        known = self._scene.scale.is_known
        depth_m = complete(frame, depth_map, self._samples[name], known, options.densify, rim_px, lenders, self._planes)
        if depth_m is None:
            return depth_map
        # A rim that the surface behind it passes under is that surface.
        with np.errstate(invalid="ignore"):
            fattened = rims(depth_map.depth_m, rim_px) & (depth_m > _BEHIND * depth_map.depth_m)
        hole = ~np.isfinite(depth_map.depth_m) | fattened
        candidate = dataclasses.replace(depth_map, depth_m=np.where(hole, depth_m, np.nan).astype(np.float32))
        neighbours = [self.photometric(other) for other in self._neighbours[name]]
        hole &= ~contradicted(candidate, neighbours, options.multiview.min_score)
        return dataclasses.replace(
            depth_map,
            depth_m=np.where(hole, depth_m, depth_map.depth_m).astype(np.float32),
            confidence=np.where(hole, options.fill_confidence, depth_map.confidence).astype(np.float32),
            source=f"{depth_map.source}+prior",
        )


def _remember(cache: OrderedDict[str, _T], name: str, value: _T) -> None:
    cache[name] = value
    cache.move_to_end(name)
    while len(cache) > _CACHED:
        cache.popitem(last=False)
