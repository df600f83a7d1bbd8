"""``vlm3-recon export RUN --format FORMAT``: a finished run in the form that another tool reads."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import numpy as np
from PIL import Image
from tyro.conf import Positional

from pipelines.runs import Run, open_run
from pipelines.workspace import check_output_folder, readable_os_errors
from recon.cameras.remap import warp
from recon.errors import BadInputError
from recon.evaluation.trajectory import align_cameras
from recon.interop.lidar import write_laz
from recon.interop.meshes import read_cloud, write_cloud, write_mesh
from recon.interop.photoset import write_nerfstudio, write_splat
from recon.interop.run import depth_files
from recon.interop.textured import TEXTURED_FORMATS, write_textured
from recon.interop.trajectory import write_tum
from recon.interop.undistorted import undistort_scene
from recon.mapping.georeference import georeference
from recon.mapping.model import write_model
from recon.surface.store import read_depth_map
from recon.surface.types import DepthMap, PointCloud
from recon.types import Camera, Capture, ImageArray, Scene, View

__all__ = ["Options", "export", "run"]

Format = Literal["colmap", "nerfstudio", "undistorted", "splat", "glb", "ply", "obj", "stl", "pcd", "laz", "tum"]
FOLDERS = ("colmap", "nerfstudio", "undistorted", "splat")
MARKER = ".vlm3-recon-export"
Writer = Callable[[Run, Path], tuple[str, ...]]


@dataclass(frozen=True)
class Options:
    """Write a finished run in the form that another tool reads.

    Folders: colmap (photos, database and model), nerfstudio (undistorted photos, transforms.json, depth, masks),
    undistorted (photos and model), splat (for Gaussian-splatting trainers). Files: glb (metres, y up) and obj (textured
    where the run is), ply, stl, pcd, laz (UTM, needs GPS), tum (trajectory).
    """

    run: Positional[Path]
    """a workspace, or the mesh beside it"""
    format: Format
    """what to write"""
    out: Path | None = None
    """file or folder to write (default: beside the run)"""
    overwrite: bool = False
    """replace an earlier export"""
    quiet: bool = False
    """say nothing"""


def run(options: Options) -> None:
    """The command. Raises ReconError with one line about what stands in the way."""
    path, notes = export(open_run(options.run), options.format, options.out, options.overwrite)
    if not options.quiet:
        print(f"wrote {path}")
        for note in notes:
            print(f"note: {note}")


def export(
    opened: Run, format_: Format, out: Path | None = None, overwrite: bool = False
) -> tuple[Path, tuple[str, ...]]:
    """Writes the export whole or not at all; returns where, and notes for the user.

    Raises:
        BadInputError: the run lacks what the format needs, or something is there already.
        OutputError: it can't be written.
    """
    if format_ not in get_args(Format):
        raise BadInputError(f"--format {format_}: accepted are {', '.join(get_args(Format))}")
    stem = opened.workspace.root.name.removesuffix("-workspace")
    parent = opened.workspace.root.parent
    default = parent / (
        f"{stem}-{format_}" if format_ in FOLDERS else f"{stem}.{'txt' if format_ == 'tum' else format_}"
    )
    target = (out or default).absolute()
    check_output_folder(target.parent, "--out")
    _check_target(opened, target, format_, overwrite)
    with readable_os_errors():
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            if format_ in FOLDERS:
                made = staging / target.name
                made.mkdir()
                (made / MARKER).write_text(f"vlm3-recon export, {format_}\n", encoding="utf-8")
            else:
                made = staging / f"{target.stem}.{target.suffix.lstrip('.').lower() or format_}"
            notes = WRITERS[format_](opened, made)
            beside = [file for file in sorted(staging.iterdir()) if file != made]  # materials and pictures of an .obj
            for file in beside:
                if (target.parent / file.name).exists() and not overwrite:
                    raise BadInputError(
                        f"--out {target}: {file.name} beside it is there already; name another or add --overwrite"
                    )
            if target.is_dir():
                shutil.rmtree(target)
            for file in beside:
                file.replace(target.parent / file.name)
            made.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target, notes


def _check_target(opened: Run, target: Path, format_: str, overwrite: bool) -> None:
    suffix = ".txt" if format_ == "tum" else f".{format_}"
    if format_ not in FOLDERS and target.suffix.lower() != suffix:
        raise BadInputError(f"--out {target}: the name of a {format_} file ends in {suffix}")
    root = opened.workspace.root
    if target == root or root in target.parents or target in root.parents:
        raise BadInputError(f"--out {target}: lies in or around the workspace; name a place beside it")
    if opened.output is not None and target == opened.output.absolute():
        raise BadInputError(f"{target}: the run's result has this format already; name another file with --out")
    if not target.exists():
        return
    if not overwrite:
        raise BadInputError(f"--out {target}: is there already; name another or add --overwrite")
    if target.is_dir() and (format_ not in FOLDERS or (any(target.iterdir()) and not (target / MARKER).is_file())):
        raise BadInputError(f"--out {target}: is a folder that no export made; it is not overwritten")
    if target.is_file() and format_ in FOLDERS:
        raise BadInputError(f"--out {target}: is a file; {format_} is a folder")


# ---------------------------------------------------------------------------------------------------------------------
# folders


def _image_path(opened: Run) -> Callable[[str], Path]:
    return lambda name: opened.workspace.images / name


def _load_pixels(opened: Run) -> Callable[[str], ImageArray]:
    def load(name: str) -> ImageArray:
        path = opened.workspace.images / name
        try:
            with Image.open(path) as picture:
                return np.asarray(picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise BadInputError(f"{path}: the photo can't be read ({error}); run the reconstruction again") from error

    return load


def _undistorted(opened: Run, folder: Path) -> Scene:
    return undistort_scene(opened.scene, _image_path(opened), _load_pixels(opened), folder / "images")


def _colmap(opened: Run, folder: Path) -> tuple[str, ...]:
    """The workspace's COLMAP part: registered and other photos, database, model, masks in COLMAP's naming."""
    workspace = opened.workspace
    shutil.copytree(workspace.images, folder / "images")
    shutil.copytree(workspace.sparse, folder / "sparse" / "0")
    if workspace.database.is_file():
        shutil.copyfile(workspace.database, folder / "database.db")
    if (workspace.root / "masks").is_dir():
        shutil.copytree(workspace.root / "masks", folder / "masks")
    return ()


def _undistorted_folder(opened: Run, folder: Path) -> tuple[str, ...]:
    write_model(_undistorted(opened, folder), folder / "sparse")
    return ()


def _splat(opened: Run, folder: Path) -> tuple[str, ...]:
    dense = None
    if opened.output is not None and len(opened.scene.points_world) < 100_000:
        dense = _thinned(_cloud(opened), 200_000)
    return write_splat(folder, _undistorted(opened, folder), dense)


def _nerfstudio(opened: Run, folder: Path) -> tuple[str, ...]:
    files = depth_files(opened.workspace.root)
    cameras = {view.name: view.camera for view in opened.scene.views}

    def load_depth(name: str) -> DepthMap | None:
        return read_depth_map(files[name]) if name in files else None

    def load_mask(name: str, camera: Camera) -> np.ndarray | None:
        path = opened.workspace.root / "masks" / f"{PurePosixPath(name)}.png"
        if not path.is_file():
            return None
        with Image.open(path) as picture:
            mask = np.asarray(picture.convert("L"))
        return warp(mask, cameras[name], camera, nearest=True)[0]

    return write_nerfstudio(folder, _undistorted(opened, folder), load_depth, load_mask)


# ---------------------------------------------------------------------------------------------------------------------
# files


def _output(opened: Run) -> Path:
    if opened.output is None:
        raise BadInputError(
            f"{opened.workspace.root}: the run's mesh or cloud is not there any more; run the reconstruction again or "
            "give the mesh instead of the workspace"
        )
    return opened.output


def _mesh(opened: Run, path: Path) -> tuple[str, ...]:
    source = _output(opened)
    if not opened.output_is_mesh:
        if path.suffix in {".ply", ".pcd"}:
            write_cloud(read_cloud(source), path)
            return ()
        raise BadInputError(f"{source}: is a cloud; {path.suffix[1:]} holds meshes only; accepted: ply, pcd, laz")
    textured = opened.textured()
    if textured is not None and path.suffix in TEXTURED_FORMATS:
        write_textured(textured, path, opened.axes)
    else:
        write_mesh(opened.mesh(source), path, opened.axes)
    return _unit_note(opened)


def _pcd(opened: Run, path: Path) -> tuple[str, ...]:
    write_cloud(_cloud(opened), path)
    return ("points are the mesh's vertices", *_unit_note(opened)) if opened.output_is_mesh else _unit_note(opened)


def _laz(opened: Run, path: Path) -> tuple[str, ...]:
    scene, fixes = opened.scene, opened.gps()
    cloud = _cloud(opened)
    if scene.georeference is None:
        views = [
            View(v.name, Path(v.name), "", v.camera.width_px, v.camera.height_px, "", gps=fixes.get(v.name))
            for v in scene.views
        ]
        placed = georeference(scene, Capture(tuple(views)))
        if placed.georeference is None:
            raise BadInputError(
                f"{opened.workspace.root}: LAZ needs a metric map and GPS of photos that don't lie on a line; "
                f"{len(fixes)} photos have GPS, the scale is {'known' if scene.scale.is_known else 'unknown'}; use ply"
            )
        before = np.array([view.cam_from_world for view in scene.views])
        after = np.array([view.cam_from_world for view in placed.views])
        turn = align_cameras(before, after, with_scale=False).transform
        cloud = dataclasses.replace(cloud, points_world_m=turn.apply(cloud.points_world_m), normals=None)
        scene = placed
    assert scene.georeference is not None
    system = write_laz(cloud, scene.georeference, path)
    return (f"coordinates in {system}; heights are the photos' GPS altitudes",)


def _tum(opened: Run, path: Path) -> tuple[str, ...]:
    write_tum(opened.scene.views, path)
    return ("timestamps count the photos in name order", *_unit_note(opened))


def _cloud(opened: Run) -> PointCloud:
    """The run's points: its cloud, or its mesh's vertices."""
    source = _output(opened)
    if not opened.output_is_mesh:
        return read_cloud(source)
    mesh = opened.mesh(source)
    return PointCloud(mesh.vertices_world_m, mesh.colors, mesh.normals)


def _thinned(cloud: PointCloud, count: int) -> PointCloud:
    if len(cloud.points_world_m) <= count:
        return cloud
    chosen = np.random.default_rng(0).choice(len(cloud.points_world_m), count, replace=False)
    return PointCloud(cloud.points_world_m[chosen], None if cloud.colors is None else cloud.colors[chosen])


def _unit_note(opened: Run) -> tuple[str, ...]:
    return () if opened.scene.scale.is_known else ("the scale is unknown: lengths are in the map's own unit",)


WRITERS: dict[str, Writer] = {
    "colmap": _colmap, "nerfstudio": _nerfstudio, "undistorted": _undistorted_folder, "splat": _splat, "glb": _mesh,
    "ply": _mesh, "obj": _mesh, "stl": _mesh, "pcd": _pcd, "laz": _laz, "tum": _tum,
}  # fmt: skip
