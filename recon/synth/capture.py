"""A whole capture of a procedural world: JPEG photos with EXIF, and ground truth in the layout of the real test data.

``python -m recon.synth.capture --folder FOLDER --seed 119`` writes::

    images/0000.jpg ...     photos, upright, with EXIF focal length (35 mm equivalent)
    gt/cameras.json         per photo K, size, R_cw, t_cw; pixel (0, 0) is the CENTRE of the top-left pixel
    gt/depth/0000.png ...   16-bit PNG, z-depth in millimetres
    gt/mesh.ply             the surface that the photos show, in metres
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon.cameras.pixels import index_from_corner
from recon.errors import BadInputError, OutputError
from recon.surface.types import Mesh
from recon.synth.block import make_block
from recon.synth.dataset import Scenery
from recon.synth.gt_mesh import visible_mesh
from recon.synth.render import Lens, SynthView, render_view
from recon.synth.room import make_room
from recon.synth.trajectories import PATHS, PathKind
from recon.synth.world import World
from recon.types import Camera

FULL_FRAME_DIAGONAL_MM = 43.267  # of 36 x 24 mm; "35 mm equivalent" compares diagonals (CIPA DCG-001)
CONVENTION = (
    "OpenCV axes (x right, y down, z forward); x_cam = R_cw @ X_world + t_cw; camera centre = -R_cw^T t_cw; "
    "pixel (0,0) is the CENTRE of the top-left pixel (for COLMAP add 0.5 to cx, cy); "
    "K, width, height belong to the stored image"
)


@dataclass(frozen=True)
class SynthCaptureOptions:
    """What is photographed and what is written.

    Attributes:
        num_views: photos on the path.
        path: an orbit, a walk through, or a grid flown over it.
        scenery: a furnished room or an outdoor block.
        width_px, height_px, focal_px: of every photo.
        room_m: width, length and height of the room (rooms only).
        extra_pictures: tries to hang more pictures than the room has: bare walls give structure from motion nothing.
        depth_views: ground-truth depth is written for this many photos, evenly spread.
        jpeg_quality: 1-95.
        supersample: samples per pixel along each axis.
        shadows: cast shadows.
        mesh_cell_m: resolution of the visible part of ``gt/mesh.ply``; 0 writes no mesh.
    """

    num_views: int = 16
    path: PathKind = "orbit"
    scenery: Scenery = "room"
    width_px: int = 640
    height_px: int = 480
    focal_px: float = 482.0
    room_m: tuple[float, float, float] = (4.4, 3.8, 2.55)
    extra_pictures: int = 12
    depth_views: int = 3
    jpeg_quality: int = 85
    supersample: int = 2
    shadows: bool = True
    mesh_cell_m: float = 0.05


def capture_views(
    seed: int, options: SynthCaptureOptions | None = None, progress: Callable[[int, int], None] | None = None
) -> tuple[World, list[SynthView]]:
    """The world of ``seed`` and its photos; ``progress(done, total)`` is called after each."""
    options = options or SynthCaptureOptions()
    if options.num_views < 1:
        raise BadInputError(f"num_views must be at least 1, got {options.num_views}")
    world = make_block(seed) if options.scenery == "block" else make_room(seed, options.room_m, options.extra_pictures)
    camera = Camera.pinhole(
        options.width_px,
        options.height_px,
        options.focal_px,
        options.focal_px,
        options.width_px / 2,
        options.height_px / 2,
    )
    views = []
    for k, pose in enumerate(PATHS[options.path](world, camera, options.num_views, seed)):
        lens = Lens(exposure=1.25, vignette=0.15, noise=1.5, seed=k)
        views.append(render_view(world, camera, pose, options.supersample, options.shadows, lens))
        if progress is not None:
            progress(k + 1, options.num_views)
    return world, views


def equivalent_35mm(camera: Camera) -> int:
    """EXIF's FocalLengthIn35mmFilm of a camera: whole millimetres, as cameras write it."""
    return round(camera.focal_px * FULL_FRAME_DIAGONAL_MM / float(np.hypot(camera.width_px, camera.height_px)))


def _jpeg(view: SynthView, quality: int, second: int) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "vlm3-recon"  # Make
    exif[0x0110] = "synthetic camera"  # Model
    photo = exif.get_ifd(0x8769)
    photo[0x9003] = f"2024:01:01 12:00:{second % 60:02d}"  # DateTimeOriginal
    photo[0x920A] = 4.25  # FocalLength in mm of the little sensor
    photo[0xA405] = equivalent_35mm(view.camera)
    buffer = io.BytesIO()
    Image.fromarray(view.image).save(buffer, "JPEG", quality=quality, optimize=True, exif=exif)
    return buffer.getvalue()


def depth_png(depth_m: NDArray[np.float32]) -> bytes:
    """16-bit PNG in millimetres, 0 where the depth is NaN or beyond 65.535 m."""
    millimetres = np.where(np.isfinite(depth_m) & (depth_m < 65.535), np.round(depth_m * 1000.0), 0)
    buffer = io.BytesIO()
    Image.fromarray(millimetres.astype(np.uint16)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def ply_bytes(mesh: Mesh) -> bytes:
    """Binary little-endian PLY of the vertices (float32) and triangles, nothing else."""
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(mesh.vertices_world_m)}\n"
        f"property float x\nproperty float y\nproperty float z\nelement face {len(mesh.faces)}\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    rows = np.empty(len(mesh.faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    rows["count"], rows["corners"] = 3, mesh.faces
    return header.encode() + mesh.vertices_world_m.astype("<f4").tobytes() + rows.tobytes()


def camera_record(view: SynthView, name: str, depth_name: str | None) -> dict[str, object]:
    """One photo's entry in ``gt/cameras.json``."""
    fx, fy, cx, cy = view.camera.fx_fy_cx_cy
    cx, cy = (float(v) for v in index_from_corner([cx, cy]))
    record: dict[str, object] = {
        "file": name,
        "width": view.camera.width_px,
        "height": view.camera.height_px,
        "K": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]],
        "fx": fx,
        "fy": fy,
        "cx": cx,
        "cy": cy,
        "distortion": {"model": "none"},
        "metric": True,
        "R_cw": view.cam_from_world[:, :3].round(9).tolist(),
        "t_cw": view.cam_from_world[:, 3].round(9).tolist(),
    }
    if depth_name is not None:
        record["depth"] = depth_name
    return record


def write_capture(
    folder: Path,
    seed: int,
    num_views: int | None = None,
    options: SynthCaptureOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[SynthView]:
    """Photograph the world of ``seed`` and write photos and ground truth; the same arguments give the same bytes.

    Args:
        folder: created if needed; files of the same names are replaced.
        seed: of the world and the path.
        num_views: overrides ``options.num_views``.
        options: sizes and what to write; defaults when None.
        progress: called with (photos done, photos in all).

    Returns:
        the views, in the order of the photos.

    Raises:
        BadInputError: ``num_views`` below 1, or a room without free places.
        OutputError: the folder can't be written.
    """
    options = options or SynthCaptureOptions()
    if num_views is not None:
        options = replace(options, num_views=num_views)
    world, views = capture_views(seed, options, progress)
    with_depth = set(np.linspace(0, len(views) - 1, min(options.depth_views, len(views))).round().astype(int).tolist())
    files: dict[str, bytes] = {}
    records = []
    for k, view in enumerate(views):
        name, depth_name = f"images/{k:04d}.jpg", f"gt/depth/{k:04d}.png" if k in with_depth else None
        files[name] = _jpeg(view, options.jpeg_quality, 2 * k)
        if depth_name is not None:
            files[depth_name] = depth_png(view.depth_m)
        records.append(camera_record(view, name, depth_name))
    cameras = {
        "scene": f"procedural {options.scenery}, seed {seed}",
        "metric": True,
        "convention": CONVENTION,
        "depth": "uint16 PNG, millimetres, z-depth",
        "images": records,
    }
    files["gt/cameras.json"] = (json.dumps(cameras, indent=1) + "\n").encode()
    if options.mesh_cell_m > 0:
        files["gt/mesh.ply"] = ply_bytes(visible_mesh(world, views, options.mesh_cell_m))
    try:
        for relative, content in files.items():
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{folder}: can't write the capture ({error.strerror or error})") from error
    return views


_DEFAULTS = SynthCaptureOptions()


def main(folder: Path, seed: int = 119, options: SynthCaptureOptions = _DEFAULTS) -> None:
    """Write a synthetic capture with ground truth."""
    write_capture(folder, seed, options=options)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
