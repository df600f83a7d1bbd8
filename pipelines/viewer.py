"""What the live viewer shows of a run, as nodes and controls of a viser server."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from pipelines.report.axes import find_axes, find_viewpoint
from pipelines.runs import Run
from recon.cameras.pinhole import rays
from recon.errors import BadInputError
from recon.evaluation.measure import Measurement, hit_mesh, hit_points, measure
from recon.interop.gltf import write_glb, write_textured_glb
from recon.interop.run import depth_files
from recon.interop.textured import split_pages
from recon.surface.store import read_depth_map
from recon.surface.texture.types import TexturedMesh
from recon.surface.types import Mesh, PointCloud

HOST = "127.0.0.1"
NOTHING = "none"
THUMBNAIL_PX = 320
GREY = (128, 128, 128)
FRUSTUM_SIZE = 0.03  # of the cameras' and points' extent
POINTS_PER_PHOTO = 100_000
_AWAY = 0.75  # of the scene's size: viser sees 75 degrees from top to bottom
_OWN_PAGES = re.compile(r"http://(127\.0\.0\.1|localhost):\d+")


def start_server(port: int, label: str) -> Any:
    """A viser server that this machine alone can reach, and no other web page of its browser.

    viser answers any page's WebSocket and offers a public tunnel; both are closed here, because the scene is somebody's
    home. The port is the next free one when ``port`` is taken.

    Raises:
        BadInputError: viser is not installed.
    """
    try:
        import viser
        import websockets.asyncio.server as websockets
    except ImportError as error:
        raise BadInputError('the viewer needs viser: pip install "vlm3-recon[view]"') from error

    class LocalServer(viser.ViserServer):
        def request_share_url(self, verbose: bool = True) -> str | None:
            return None  # a page may ask for a tunnel through viser's own server on the internet: never

    # None: programs that are no browsers send no origin
    guarded = functools.partial(websockets.serve, origins=[_OWN_PAGES, None])
    with mock.patch.object(websockets, "serve", guarded), contextlib.redirect_stdout(io.StringIO()):
        server = LocalServer(host=HOST, port=port, label=label, verbose=False)
    server.gui.configure_theme(show_share_button=False, show_logo=False)
    return server


class Viewer:
    """The scene of a run on a server: nodes ``/mesh`` or ``/cloud`` (the ``surface`` given, which
    shows as ``textured`` if that is there), ``/points`` of the map,
    ``/cameras/PHOTO``, ``/depth`` of the chosen photo, ``/measured``.
    """

    def __init__(
        self, server: Any, run: Run, surface: Mesh | PointCloud | None, textured: TexturedMesh | None = None
    ) -> None:
        self.server, self.run, self.scene, self.surface = server, run, run.scene, surface
        self.textured = textured
        self.depth_files = depth_files(run.workspace.root)
        self.depth_node: Any = None
        self.surface_node: Any = None
        self.first_click: NDArray[np.float64] | None = None
        self.measurement: Measurement | None = None
        self._depth: tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]] | None = None
        self._lock = threading.Lock()  # callbacks come from a pool of threads
        self._set_viewpoint()
        self._add_surface()
        self._add_cameras()
        self._add_controls()

    def _set_viewpoint(self) -> None:
        """Up as people see it, the scene's size, and from where a new browser looks."""
        shown = places_of(self.surface)
        some = np.asarray((shown if len(shown) else self.scene.points_world), dtype=np.float64)
        some = some[:: max(1, len(some) // 50_000)]
        axes = find_axes(self.scene, some)
        viewpoint = find_viewpoint(self.scene, some, axes)
        self.size = viewpoint.size
        self.server.scene.set_up_direction(tuple(axes.up))
        start = self.server.initial_camera
        eye = viewpoint.target + _AWAY * viewpoint.size * viewpoint.direction
        start.up, start.position, start.look_at = tuple(axes.up), tuple(eye), tuple(viewpoint.target)

    def _add_surface(self) -> None:
        scene, surface = self.server.scene, self.surface
        if isinstance(surface, Mesh):
            content = io.BytesIO()
            if self.textured is not None:
                write_textured_glb(content, split_pages(self.textured, np.eye(3)))
            else:
                vertices = np.asarray(surface.vertices_world_m, dtype=np.float32)
                write_glb(content, vertices, surface.faces.astype(np.uint32), surface.colors)
            self.surface_node = scene.add_glb("/mesh", content.getvalue(), cast_shadow=False, receive_shadow=False)
        elif surface is not None:
            self.surface_node = self._add_points("/cloud", surface.points_world_m, surface.colors, 0.002)
        self.points_node = self._add_points("/points", self.scene.points_world, self.scene.point_colors, 0.004)
        self.points_node.visible = surface is None

    def _add_points(self, name: str, points: NDArray, colors: NDArray[np.uint8] | None, size: float) -> Any:
        return self.server.scene.add_point_cloud(
            name, np.asarray(points, dtype=np.float32), GREY if colors is None else colors,
            point_size=size * self.size, precision="float32", point_shading="flat",
        )  # fmt: skip

    def _add_cameras(self) -> None:
        scene, self.camera_nodes = self.server.scene, []
        for view in self.scene.views:
            world_from_cam = view.cam_from_world[:, :3].T
            x, y, z, w = Rotation.from_matrix(world_from_cam).as_quat()
            _, fy, _, _ = view.camera.fx_fy_cx_cy
            node = scene.add_camera_frustum(
                f"/cameras/{view.name}", fov=2 * math.atan(view.camera.height_px / 2 / fy),
                aspect=view.camera.width_px / view.camera.height_px, scale=FRUSTUM_SIZE * self.size,
                image=thumbnail(self.run.workspace.images / view.name), wxyz=(w, x, y, z),
                position=tuple(view.centre_world), color=(235, 120, 40),
            )  # fmt: skip
            node.on_click(functools.partial(self._stand_at, view.name))
            self.camera_nodes.append(node)

    def _add_controls(self) -> None:
        gui = self.server.gui
        gui.add_markdown(self._about())
        if self.surface_node is not None:
            shown = gui.add_checkbox("Mesh" if isinstance(self.surface, Mesh) else "Cloud", initial_value=True)
            shown.on_update(lambda _: setattr(self.surface_node, "visible", shown.value))
        points = gui.add_checkbox("Map points", initial_value=self.surface_node is None)
        points.on_update(lambda _: setattr(self.points_node, "visible", points.value))
        cameras = gui.add_checkbox("Cameras", initial_value=True)
        cameras.on_update(lambda _: self._show_cameras(cameras.value))
        with gui.add_folder("Depth of a photo"):
            self.depth_choice = gui.add_dropdown("Photo", (NOTHING, *sorted(self.depth_files)), initial_value=NOTHING)
            self.confidence = gui.add_slider("Confidence at least", min=0.0, max=1.0, step=0.01, initial_value=0.0)
            self.depth_text = gui.add_markdown("")
        self.depth_choice.on_update(lambda _: self.show_depth(self.depth_choice.value))
        self.confidence.on_update(lambda _: self._show_confident())
        with gui.add_folder("Measure"):
            self.measuring = gui.add_checkbox("Click two places", initial_value=False)
            self.measure_text = gui.add_markdown("")
        self.measuring.on_update(lambda _: self._measure_or_not())

    def _about(self) -> str:
        scale = self.scene.scale
        if scale.is_known:
            low, high = (100 * (bound / scale.metres_per_unit - 1) for bound in (scale.low, scale.high))
            known = f"metres, 95 % interval {low:+.1f} % to {high:+.1f} %"
        else:
            known = "unknown: lengths are in the map's own unit"
        surface = (
            f"{len(self.surface.faces)} triangles" if isinstance(self.surface, Mesh)
            else f"{len(places_of(self.surface))} points"
        )  # fmt: skip
        return f"{len(self.scene.views)} photos, {surface} shown. Scale: {known}. A click on a camera stands you there."

    def _show_cameras(self, visible: bool) -> None:
        for node in self.camera_nodes:
            node.visible = visible

    def _stand_at(self, name: str, event: Any) -> None:
        view = self.scene.view(name)
        x, y, z, w = Rotation.from_matrix(view.cam_from_world[:, :3].T).as_quat()
        with event.client.atomic():
            event.client.camera.wxyz = np.array([w, x, y, z])
            event.client.camera.position = view.centre_world

    # -----------------------------------------------------------------------------------------------------------------
    # depth of one photo

    def show_depth(self, name: str) -> None:
        """Shows the depth map of a photo as points (``none``: of no photo)."""
        with self._lock:
            if self.depth_node is not None:
                self.depth_node.remove()
            self.depth_node, self._depth, self.depth_text.content = None, None, ""
            if name != NOTHING:
                try:
                    self._depth = depth_points(self.depth_files[name])
                except BadInputError as error:
                    self.depth_text.content = str(error)
        self._show_confident()

    def _show_confident(self) -> None:
        with self._lock:
            if self._depth is None:
                return
            points, colors, confidence = self._depth
            kept = confidence >= self.confidence.value
            if self.depth_node is not None:
                self.depth_node.remove()
            self.depth_node = self._add_points("/depth", points[kept], colors[kept], 0.002)
            self.depth_text.content = f"{kept.sum()} of {len(points)} points"

    # -----------------------------------------------------------------------------------------------------------------
    # measuring

    def _measure_or_not(self) -> None:
        self.first_click = None
        self.server.scene.remove_by_name("/measured")
        if self.measuring.value:
            self.measure_text.content = "click the first place"
            self.server.scene.on_click()(lambda event: self.click(event.ray_origin, event.ray_direction))
        else:
            self.measure_text.content = ""
            self.server.scene.remove_click_callback("all")

    def click(self, origin: Sequence[float], direction: Sequence[float]) -> None:
        """A click along a line of sight: the first of two places, or the second, which gives the measurement."""
        with self._lock:
            place = self._hit(origin, direction)
            if place is None:
                self.measure_text.content = "nothing is there; click on the surface"
                return
            self._mark(place, "second" if self.first_click is not None else "first")
            if self.first_click is None:
                self.server.scene.remove_by_name("/measured/line")
                self.server.scene.remove_by_name("/measured/second")
                self.first_click, self.measure_text.content = place, "click the second place"
                return
            self.measurement = measure(self.first_click, place, self.scene.scale)
            ends = np.stack([self.first_click, place])[None].astype(np.float32)
            self.server.scene.add_line_segments("/measured/line", ends, (255, 40, 40), thickness=0.002 * self.size)
            self.first_click, self.measure_text.content = None, f"**{self.measurement.text()}**"

    def _hit(self, origin: Sequence[float], direction: Sequence[float]) -> NDArray[np.float64] | None:
        """What is seen first of the things shown."""
        shown = self.surface is not None and self.surface_node.visible
        clouds: list[NDArray[np.floating]] = [self._depth[0]] if self._depth is not None else []
        clouds += [places_of(self.surface)] if shown and not isinstance(self.surface, Mesh) else []
        clouds += [self.scene.points_world] if self.points_node.visible else []
        found = [hit_points(origin, direction, cloud) for cloud in clouds]
        if shown and isinstance(self.surface, Mesh):
            found.append(hit_mesh(origin, direction, np.asarray(self.surface.vertices_world_m), self.surface.faces))
        there = [place for place in found if place is not None]
        return min(there, key=lambda place: float(np.linalg.norm(place - origin)), default=None)

    def _mark(self, place: NDArray[np.float64], which: str) -> None:
        self.server.scene.add_icosphere(f"/measured/{which}", 0.005 * self.size, (255, 40, 40), position=tuple(place))


def places_of(surface: Mesh | PointCloud | None) -> NDArray[np.floating]:
    """Vertices or points [N, 3] of a surface."""
    if surface is None:
        return np.zeros((0, 3), np.float32)
    return np.asarray(surface.vertices_world_m if isinstance(surface, Mesh) else surface.points_world_m)


def thumbnail(path: Path) -> NDArray[np.uint8] | None:
    """A small picture of a photo [H, W, 3]; None where the file is gone: the camera is shown without."""
    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (THUMBNAIL_PX, THUMBNAIL_PX))
            small = picture.convert("RGB")
        small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    except (OSError, ValueError, SyntaxError):
        return None
    return np.asarray(small)


def depth_points(path: Path) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
    """Points of a depth map in the world [N, 3], their colours [N, 3] and confidence [N]; evenly thinned.

    Raises:
        BadInputError: the file is damaged.
    """
    try:
        depth = read_depth_map(path)
    except Exception as error:
        raise BadInputError(f"{path}: damaged ({error}); run the reconstruction again") from error
    row, column = np.nonzero(np.isfinite(depth.depth_m) & (depth.depth_m > 0))
    step = max(1, math.ceil(len(row) / POINTS_PER_PHOTO))
    row, column = row[::step], column[::step]
    seen = rays(depth.camera, np.stack([column + 0.5, row + 0.5], axis=1))  # [N, 3] with z = 1
    in_camera = seen * depth.depth_m[row, column, None]
    world = (in_camera - depth.cam_from_world[:, 3]) @ depth.cam_from_world[:, :3]
    return world.astype(np.float32), depth.color[row, column], depth.confidence[row, column]
