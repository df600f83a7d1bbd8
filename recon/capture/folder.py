"""Imports a scene: every usable photo as upright 8-bit RGB into the workspace, every other one with a reason."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from recon.capture.decode import ACCEPTED, DecodedPhoto, UnusablePhotoError, decode_photo
from recon.capture.files import atomic_path, content_hash, file_sha256, printable, remove_leftovers, safe_name
from recon.capture.given import GivenIntrinsics, find_intrinsics, fit_to_photo
from recon.capture.masks import find_depth, find_mask, import_depth, import_mask, load_mask, load_sensor_depth
from recon.capture.options import CaptureOptions
from recon.capture.records import ImportRecord, read_record, record_path, write_record
from recon.capture.sources import Source, SourcePhoto, find_source
from recon.errors import BadInputError
from recon.types import Camera, Capture, ImageArray, Rejected, View

__all__ = ["CaptureOptions", "content_hash", "load_mask", "load_pixels", "load_sensor_depth", "read_capture"]

Progress = Callable[[int, int], None]
JPEG_QUALITY = 95  # with full chroma resolution; for photos that were stored with losses already
logger = logging.getLogger(__name__)


def read_capture(
    source: Path | Sequence[Path],
    images_dir: Path,
    options: CaptureOptions | None = None,
    progress: Progress | None = None,
) -> Capture:
    """Imports a scene into a workspace.

    Args:
        source: folder of photos (sub-folders too), a folder with ``images/`` (and ``masks/``, ``depth/``, known
            intrinsics beside it), a list of photo files, or a video file.
        images_dir: the workspace's ``images/`` folder; masks and import records go beside it.
        options: limits.
        progress: called with (done, total) after every photo.

    Returns:
        the capture. A second call does only what changed since.

    Raises:
        BadInputError: no usable photo at all, or known intrinsics that can't be read.
        OutputError: the workspace can't be written.
    """
    options = options or CaptureOptions()
    workspace = images_dir.parent
    found = find_source(source, workspace)
    remove_leftovers(images_dir)
    if found.video is not None:
        from recon.capture.video import read_video

        return read_video(found.video, images_dir, options, progress)
    capture = _import_photos(found, images_dir, options, progress)
    if not capture.views:
        first = capture.rejected[0]
        where = printable(source) if isinstance(source, Path) else "the list of files"
        raise BadInputError(
            f"{where}: none of {len(capture.rejected)} files is a usable photo ({first.name}: {first.reason}); "
            f"accepted: {ACCEPTED}"
        )
    return capture


def load_pixels(view: View) -> ImageArray:
    """The view's upright pixels, uint8 ``[H, W, 3]``.

    Raises:
        BadInputError: the file is gone, damaged or not of the recorded size.
    """
    try:
        pixels = _read_rgb(view.path)
    except Exception as error:  # decoders meet arbitrary bytes
        raise BadInputError(f"{view.path}: the stored photo can't be read ({error}); run again to import it") from error
    if pixels.shape != (view.height_px, view.width_px, 3):
        raise BadInputError(
            f"{view.path}: {pixels.shape[1]}x{pixels.shape[0]} instead of {view.width_px}x{view.height_px}; "
            f"run again to import it"
        )
    return pixels


# ---------------------------------------------------------------------------------------------------------------------


def _import_photos(found: Source, images_dir: Path, options: CaptureOptions, progress: Progress | None) -> Capture:
    workspace = images_dir.parent
    given = find_intrinsics(list(found.intrinsics_roots))
    views: list[View] = []
    rejected = list(found.rejected)
    taken: set[str] = set()
    first_with: dict[str, str] = {}  # content hash -> source name
    records: set[Path] = set()
    for done, photo in enumerate(found.photos, start=1):
        label = printable(photo.relative)
        try:
            record = _import_photo(photo, images_dir, options, taken)
            if record.content_hash in first_with:
                (images_dir / record.name).unlink(missing_ok=True)
                other = first_with[record.content_hash]
                raise UnusablePhotoError(f"has exactly the same pixels as {other}, of which one copy is enough")
            first_with[record.content_hash] = label
            views.append(_view(photo, record, found.beside, images_dir, given))
            records.add(record_path(workspace, photo.relative))
        except UnusablePhotoError as error:
            rejected.append(Rejected(label, str(error)))
            logger.info("%s left out: %s", label, error)
        if progress is not None:
            progress(done, len(found.photos))
    _forget_others(images_dir, records, {view.name for view in views})
    if given is not None and not any(view.camera for view in views):
        raise BadInputError(
            f"{given.source}: none of its cameras fits one of the {len(views)} photos by name and size; correct "
            f"or remove it"
        )
    return Capture(tuple(views), tuple(rejected))


def _import_photo(photo: SourcePhoto, images_dir: Path, options: CaptureOptions, taken: set[str]) -> ImportRecord:
    """Imports one photo, or finds that it was imported before."""
    path = record_path(images_dir.parent, photo.relative)
    record = read_record(path)
    try:
        key = _import_key(file_sha256(photo.path), options)
    except OSError as error:
        raise UnusablePhotoError(f"the file can't be read ({error.strerror}); needs a readable file") from error
    if record is not None and record.key == key and record.name.casefold() not in taken:
        stored = images_dir / record.name
        if stored.is_file() and stored.stat().st_size == record.size_bytes:
            taken.add(record.name.casefold())
            return record
    decoded = decode_photo(photo.path, options)
    name = safe_name(photo.relative, decoded.suffix, taken)
    stored = images_dir / name
    pixels = _store(photo.path, decoded, stored)
    height, width = pixels.shape[:2]
    notes = decoded.notes + decoded.exif.notes
    if name != str(photo.relative):
        notes = (f"stored as {name}", *notes)
    record = ImportRecord(
        key=key,
        source=printable(photo.relative),
        name=name,
        size_bytes=stored.stat().st_size,
        content_hash=content_hash(pixels),
        width_px=width,
        height_px=height,
        orientation=decoded.orientation,
        camera=decoded.exif.camera,
        exif_focal_px=decoded.exif.focal_px,
        gps=decoded.exif.gps,
        notes=notes,
    )
    write_record(path, record)
    return record


def _store(source: Path, decoded: DecodedPhoto, stored: Path) -> ImageArray:
    """Writes the upright photo; returns the pixels that the stored file decodes to."""
    with atomic_path(stored) as temporary:
        if decoded.keep_file:
            shutil.copyfile(source, temporary)
        elif decoded.suffix == ".png":
            Image.fromarray(decoded.pixels).save(temporary, format="PNG", compress_level=3)
        else:
            image = Image.fromarray(decoded.pixels)
            image.save(temporary, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return decoded.pixels if decoded.suffix == ".png" or decoded.keep_file else _read_rgb(stored)


def _view(
    photo: SourcePhoto, record: ImportRecord, beside: Path | None, images_dir: Path, given: GivenIntrinsics | None
) -> View:
    notes = list(record.notes)
    size = (record.width_px, record.height_px)
    mask_path = depth_path = None
    if beside is not None:
        mask = find_mask(beside, photo.relative)
        if mask is not None:
            target = images_dir.parent / "masks" / f"{record.name}.png"
            problem = import_mask(mask, target, size, record.orientation)
            mask_path = target if problem is None else None
            notes += [problem] if problem else []
        depth = find_depth(beside, photo.relative)
        if depth is not None:
            target = images_dir.parent / "depth" / f"{record.name}.png"
            depth_path, problem = import_depth(depth, target, size, record.orientation)
            notes += [problem] if problem else []
    camera = _given_camera(photo, record, given, notes)
    return View(
        name=record.name,
        path=images_dir / record.name,
        content_hash=record.content_hash,
        width_px=record.width_px,
        height_px=record.height_px,
        camera_key=_camera_key(photo, record, camera),
        exif_focal_px=record.exif_focal_px,
        gps=record.gps,
        camera=camera,
        mask_path=mask_path,
        depth_path=depth_path,
        notes=tuple(notes),
    )


def _given_camera(
    photo: SourcePhoto, record: ImportRecord, given: GivenIntrinsics | None, notes: list[str]
) -> Camera | None:
    camera = given.lookup(photo.relative) if given is not None else None
    if camera is None:
        return None
    if record.orientation != 1:
        notes.append("given intrinsics ignored: they belong to the photo before its EXIF orientation is applied")
        return None
    fitting = fit_to_photo(camera, record.width_px, record.height_px)
    if fitting is None:
        notes.append(
            f"given intrinsics ignored: they are for {camera.width_px}x{camera.height_px}, the photo is "
            f"{record.width_px}x{record.height_px}"
        )
    return fitting


def _camera_key(photo: SourcePhoto, record: ImportRecord, camera: Camera | None) -> str:
    size = f"{record.width_px}x{record.height_px}"
    if camera is not None:
        return f"given|{camera.model}|{size}|{','.join(f'{value:.9g}' for value in camera.params)}"
    focal = f"{record.exif_focal_px:.1f}px" if record.exif_focal_px is not None else "?"
    # photos that do not name their camera share one per folder (COLMAP's habit for several cameras)
    body = record.camera or f"unknown in {printable(photo.relative.parent)}"
    return f"{body}|{size}|{focal}"


def _forget_others(images_dir: Path, records: set[Path], names: set[str]) -> None:
    """Removes imports whose source is gone, no longer usable or stored under a new name: only files imported here."""
    workspace = images_dir.parent
    for path in (workspace / "imports").glob("*.json"):
        if path in records:
            continue
        record = read_record(path)
        if record is not None and record.name not in names:
            (images_dir / record.name).unlink(missing_ok=True)
            (workspace / "masks" / f"{record.name}.png").unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _import_key(source_sha256: str, options: CaptureOptions) -> str:
    """Changes when the file's bytes, an option that matters, or the way of importing change."""
    text = json.dumps([1, source_sha256, dataclasses.asdict(options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_rgb(path: Path) -> ImageArray:
    with Image.open(path, formats=("JPEG", "PNG")) as image:
        return np.asarray(image.convert("RGB"))
