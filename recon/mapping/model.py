"""A map on its way from COLMAP's mappers to a ``Scene``: poses, points, observations as arrays, and back to files."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from recon.evidence.features import to_colmap_camera
from recon.mapping.bundle import BundleState, Observations
from recon.types import Camera, MetricScale, PosedView, Rejected, Scene

Float64Array = NDArray[np.float64]

UNKNOWN_SCALE = MetricScale(
    float("nan"), float("nan"), float("nan"), (), (), ("scale: unknown (no metric evidence was used)",)
)


@dataclass(frozen=True)
class MapModel:
    """Registered photos ``names`` [N] (indices of ``state.poses``), their observations and point colours [P, 3]."""

    names: tuple[str, ...]
    state: BundleState
    observations: Observations
    colors: NDArray[np.uint8]

    @property
    def num_registered(self) -> int:
        return len(self.names)

    def observations_per_view(self) -> NDArray[np.int64]:
        """Number of observed points of each photo, [N]."""
        return np.bincount(self.observations.view, minlength=len(self.names))


def from_colmap_camera(camera: pycolmap.Camera, source: Camera | None = None) -> Camera:
    """Our camera of a pycolmap one; the focal length counts as refined when it differs from ``source``'s."""
    params = tuple(float(p) for p in camera.params)
    if source is not None and source.params == params and source.model == camera.model.name:
        return source
    return Camera(camera.model.name, int(camera.width), int(camera.height), params, "refined")


def from_reconstruction(reconstruction: pycolmap.Reconstruction) -> MapModel:
    """The arrays of a reconstruction's registered images, in name order."""
    images = sorted((reconstruction.image(i) for i in reconstruction.reg_image_ids()), key=lambda image: image.name)
    camera_ids = sorted({image.camera_id for image in images})
    point_ids = sorted(reconstruction.points3D)
    row = {point_id: i for i, point_id in enumerate(point_ids)}
    views, points, pixels = [], [], []
    for i, image in enumerate(images):
        seen = image.get_observation_points2D()
        views += [i] * len(seen)
        points += [row[keypoint.point3D_id] for keypoint in seen]
        pixels += [keypoint.xy for keypoint in seen]
    nothing = np.full(len(views), np.nan)
    return MapModel(
        names=tuple(image.name for image in images),
        state=BundleState(
            poses=np.array([image.cam_from_world().matrix() for image in images]).reshape(-1, 3, 4),
            cameras=tuple(from_colmap_camera(reconstruction.camera(i)) for i in camera_ids),
            camera_of_view=np.array([camera_ids.index(image.camera_id) for image in images], dtype=np.int64),
            points=np.array([reconstruction.points3D[i].xyz for i in point_ids]).reshape(-1, 3),
        ),
        observations=Observations(
            np.array(views, dtype=np.int64),
            np.array(points, dtype=np.int64),
            np.array(pixels, dtype=np.float64).reshape(-1, 2),
            nothing,
            nothing.copy(),
        ),
        colors=np.array([reconstruction.points3D[i].color for i in point_ids], dtype=np.uint8).reshape(-1, 3),
    )


def prune(model: MapModel, keep: NDArray[np.bool_], min_track: int = 2) -> MapModel:
    """The model with the chosen observations [M] only; points left with fewer than ``min_track`` go."""
    obs = model.observations.select(keep)
    counts = np.bincount(obs.point, minlength=len(model.state.points))
    alive = counts >= min_track
    new_index = np.cumsum(alive) - 1
    obs = obs.select(alive[obs.point])
    obs = dataclasses.replace(obs, point=new_index[obs.point])
    state = dataclasses.replace(model.state, points=model.state.points[alive])
    return MapModel(model.names, state, obs, model.colors[alive])


def drop_views(model: MapModel, names: Sequence[str]) -> MapModel:
    """The model without the named photos."""
    stays = np.array([name not in set(names) for name in model.names], dtype=bool)
    if stays.all():
        return model
    pruned = prune(model, stays[model.observations.view])
    new_index = np.cumsum(stays) - 1
    obs = dataclasses.replace(pruned.observations, view=new_index[pruned.observations.view])
    state = dataclasses.replace(
        pruned.state, poses=pruned.state.poses[stays], camera_of_view=pruned.state.camera_of_view[stays]
    )
    return MapModel(tuple(n for n, s in zip(model.names, stays, strict=True) if s), state, obs, pruned.colors)


def to_scene(model: MapModel, errors_px: Float64Array, unregistered: Sequence[Rejected]) -> Scene:
    """The ``Scene`` of a model; ``errors_px`` [M] are the observations' reprojection errors."""
    obs, state = model.observations, model.state
    counts = np.maximum(np.bincount(obs.point, minlength=len(state.points)), 1)
    mean_error = np.bincount(obs.point, errors_px, minlength=len(state.points)) / counts
    views = []
    for i, name in enumerate(model.names):
        mine = obs.view == i
        camera = state.cameras[state.camera_of_view[i]]
        views.append(PosedView(name, camera, state.poses[i], obs.point[mine], obs.pixels[mine]))
    return Scene(tuple(views), state.points, model.colors, mean_error, tuple(unregistered), UNKNOWN_SCALE)


def from_scene(scene: Scene) -> MapModel:
    """The arrays of a scene; photos with equal cameras share one."""
    cameras = list(dict.fromkeys(view.camera for view in scene.views))
    view = np.concatenate([np.full(len(v.point_ids), i) for i, v in enumerate(scene.views)]).astype(np.int64)
    nothing = np.full(len(view), np.nan)
    return MapModel(
        names=tuple(v.name for v in scene.views),
        state=BundleState(
            poses=np.array([v.cam_from_world for v in scene.views]),
            cameras=tuple(cameras),
            camera_of_view=np.array([cameras.index(v.camera) for v in scene.views], dtype=np.int64),
            points=scene.points_world,
        ),
        observations=Observations(
            view,
            np.concatenate([v.point_ids for v in scene.views]).astype(np.int64),
            np.concatenate([np.asarray(v.pixels, dtype=np.float64).reshape(-1, 2) for v in scene.views]),
            nothing,
            nothing.copy(),
        ),
        colors=scene.point_colors,
    )


def to_reconstruction(model: MapModel, image_ids: Mapping[str, int] | None = None) -> pycolmap.Reconstruction:
    """A pycolmap model: cameras and points have ids 1, 2, ... in order; keypoints are the observed ones only.

    ``image_ids`` are the ids in the workspace's database, so that both fit together; otherwise 1, 2, ... in order.
    """
    reconstruction, state, obs = pycolmap.Reconstruction(), model.state, model.observations
    for camera_id, camera in enumerate(state.cameras, start=1):
        reconstruction.add_camera_with_trivial_rig(to_colmap_camera(camera, camera_id))
    tracks: list[list[pycolmap.TrackElement]] = [[] for _ in range(len(state.points))]
    for i, name in enumerate(model.names):
        mine = np.flatnonzero(obs.view == i)
        image = pycolmap.Image(
            name=name,
            keypoints=obs.pixels[mine],
            camera_id=int(state.camera_of_view[i]) + 1,
            image_id=image_ids[name] if image_ids is not None else i + 1,
        )
        reconstruction.add_image_with_trivial_frame(image, pycolmap.Rigid3d(state.poses[i]))
        for k, point in enumerate(obs.point[mine]):
            tracks[point].append(pycolmap.TrackElement(image.image_id, k))
    for xyz, color, elements in zip(state.points, model.colors, tracks, strict=True):
        reconstruction.add_point3D(xyz, pycolmap.Track(elements), color)
    return reconstruction


def write_model(scene: Scene, folder: Path, image_ids: Mapping[str, int] | None = None) -> None:
    """Writes ``cameras.bin images.bin points3D.bin`` (and rigs, frames) of COLMAP; each file appears whole or not."""
    reconstruction = to_reconstruction(from_scene(scene), image_ids)
    for point_id, error in enumerate(scene.point_errors_px, start=1):
        reconstruction.point3D(point_id).error = float(error)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as staging:
        reconstruction.write_binary(staging)
        for file in sorted(Path(staging).iterdir()):
            os.replace(file, folder / file.name)
