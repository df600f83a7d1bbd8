"""The texture of a mesh from registered photos, step by step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon.surface.mesh import UNKNOWN_GREY
from recon.surface.options import TextureOptions
from recon.surface.texture.bake import cut_out, empty_pages, finish_page, paint_cells, sample, to_jpeg
from recon.surface.texture.candidates import Candidates, drop_outliers, estimate_gains
from recon.surface.texture.charts import cut_charts, place_charts, texel_corners
from recon.surface.texture.level import Corners, level, piece_corners
from recon.surface.texture.select import pieces, select_photos
from recon.surface.texture.topology import face_neighbours, face_normals, split_long_edges
from recon.surface.texture.types import TexturedMesh
from recon.surface.texture.views import Projector, Visibility, projector
from recon.surface.types import DepthMap, Mesh, Photos
from recon.types import PosedView

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
_SEAM_BLUR_PX = 5


def texture_mesh(
    mesh: Mesh,
    views: Sequence[PosedView],
    photos: Photos,
    options: TextureOptions,
    depth_maps: Sequence[DepthMap] = (),
    invented: NDArray[np.bool_] | None = None,
    progress: Progress | None = None,
) -> TexturedMesh:
    """The mesh with the photos' own pixels on it.

    Every photo is read twice, and only one is in memory at a time.

    Args:
        mesh: wound so that its triangles face the cameras; its vertex colours stand where no photo shows it. Long edges
            are cut (:func:`split_long_edges`), so the result has somewhat more triangles.
        views: the registered photos.
        photos: their pixels and masks.
        options: sizes of pages, and how photos are chosen.
        depth_maps: of the photos: a photo whose own depth is nearer than the mesh shows something else.
        invented: vertices [V] of surface that was made up: photos that look at its place don't show it.
        progress: called with (steps done, steps): two per photo and one at the end.

    Raises:
        SurfaceError: the charts don't fit on the pages.
    """
    mesh, made_up = _prepare(mesh, invented, options.longest_edge)
    places = [projector(view) for view in views]
    labels, gains, piece = _choose(mesh, made_up, places, photos, depth_maps, options, progress)
    seen, unseen = np.flatnonzero(labels >= 0), np.flatnonzero(labels < 0)
    used = [int(photo) for photo in np.unique(labels[seen])]
    corners = piece_corners(mesh.faces, piece, seen)
    photo_of, pixels = _places_in_photos(mesh, corners, labels, piece, places)
    corners_px = np.zeros((len(labels), 3, 2), dtype=np.float32)
    corners_px[seen] = pixels[corners.of_face]
    cut = cut_charts(labels, piece, corners_px, options.padding_px)
    charts = place_charts(*cut, options.page_px, options.max_pages)
    texels = texel_corners(charts, corners_px)
    logger.info("texture: %d charts on pages %s at scale %.3f", len(charts.photo), charts.pages, charts.scale)

    pages = empty_pages(charts)
    color = np.zeros((len(photo_of), 3))
    for done, photo in enumerate(used):
        image = places[photo].load(photos)
        cut_out(pages, charts, photo, image, gains[photo])
        here = photo_of == photo
        color[here] = sample(cv2.blur(image, (_SEAM_BLUR_PX, _SEAM_BLUR_PX)), pixels[here]) / gains[photo]
        _tell(progress, len(views) + 1 + done, 2 * len(views) + 1)
    offset = np.zeros((len(labels), 3, 3), dtype=np.float32)
    offset[seen] = level(corners, color)[corners.of_face]
    painted = np.full((len(mesh.vertices_world_m), 3), UNKNOWN_GREY, np.uint8) if mesh.colors is None else mesh.colors
    paint_cells(pages, charts, unseen, texels, painted[mesh.faces[unseen]])

    page = charts.page[charts.of_face].astype(np.int32)
    jpegs = []
    for number in range(len(pages)):
        mine, cells = seen[page[seen] == number], unseen[page[unseen] == number]
        low = np.floor(texels[cells, 0]).astype(np.int64).reshape(-1, 2)
        jpegs.append(to_jpeg(finish_page(pages[number], texels[mine], offset[mine], low, options.padding_px / 2)))
        pages[number] = np.zeros((0, 0, 3), np.uint8)  # not needed any more
    _tell(progress, 2 * len(views) + 1, 2 * len(views) + 1)
    sizes = np.array([(width, height) for height, width in charts.pages], dtype=np.float64).reshape(-1, 2)
    areas = face_normals(np.asarray(mesh.vertices_world_m, dtype=np.float64), mesh.faces)[1]
    share = float(areas[seen].sum() / max(areas.sum(), 1e-30))
    uv = (texels / sizes[page][:, None]).astype(np.float32)
    return TexturedMesh(mesh, uv, page, tuple(jpegs), share, charts.scale, len(used))


def _places_in_photos(
    mesh: Mesh, corners: Corners, labels: NDArray[np.int32], piece: NDArray[np.int64], places: Sequence[Projector]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The photo [N] that each of the ``corners`` has its colour from, and where it is in there [N, 2]."""
    vertices = np.asarray(mesh.vertices_world_m, dtype=np.float64)
    photo_of_piece = np.full(int(piece.max(initial=0)) + 1, -1, dtype=np.int64)
    photo_of_piece[piece] = labels
    photo_of = photo_of_piece[corners.piece]
    pixels = np.zeros((len(photo_of), 2), dtype=np.float32)
    for photo in np.unique(photo_of):
        here = photo_of == photo
        pixels[here] = places[photo].pixels(vertices[corners.vertex[here]])
    return photo_of, pixels


def _prepare(mesh: Mesh, invented: NDArray[np.bool_] | None, longest: float) -> tuple[Mesh, NDArray[np.bool_]]:
    """The mesh without long edges, and which of its triangles [F] are made up."""
    vertices = np.asarray(mesh.vertices_world_m, dtype=np.float64)
    extent = float(np.linalg.norm(np.subtract(*np.percentile(vertices, [98, 2], axis=0))))
    split = split_long_edges(mesh, longest * extent) if extent > 0 else mesh
    if invented is None:
        return split, np.zeros(len(split.faces), dtype=bool)
    # New vertices lie on old edges: what their nearest old vertex is, they are.
    _, nearest = cKDTree(vertices).query(np.asarray(split.vertices_world_m, dtype=np.float64))
    return split, invented[nearest][split.faces].all(axis=1)


def _choose(
    mesh: Mesh,
    made_up: NDArray[np.bool_],
    places: Sequence[Projector],
    photos: Photos,
    depth_maps: Sequence[DepthMap],
    options: TextureOptions,
    progress: Progress | None,
) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]:
    """Photo of each triangle [F] (-1: none), gains of the photos [P, 3], connected piece of each triangle [F]."""
    vertices = np.asarray(mesh.vertices_world_m, dtype=np.float64)
    normals, _ = face_normals(vertices, mesh.faces)
    neighbours = face_neighbours(mesh.faces)
    edges = vertices[mesh.faces] - vertices[np.roll(mesh.faces, -1, axis=1)]
    visibility = Visibility(mesh, normals, float(np.median(np.linalg.norm(edges, axis=-1))), options)
    candidates = Candidates.none(len(mesh.faces), options.candidates)
    numbers = {depth_map.name: index for index, depth_map in enumerate(depth_maps)}
    for index, place in enumerate(places):
        name = place.view.name
        depth_map = depth_maps[numbers[name]] if name in numbers else None
        candidates.add(index, visibility.seen_by(place, place.load(photos), photos.mask(name), depth_map))
        _tell(progress, index + 1, 2 * len(places) + 1)
    candidates.drop(np.broadcast_to(made_up[:, None], candidates.photo.shape))
    candidates.drop_poor()
    candidates.weigh_detail()
    gains = estimate_gains(candidates, len(places))
    outliers = drop_outliers(candidates, gains, neighbours)
    labels = select_photos(candidates, neighbours, options)
    used = labels[labels >= 0]
    if len(used):  # as bright as the photos that are used are in the mean
        gains /= np.exp(np.log(gains)[used].mean(axis=0))
    logger.debug("gains %s", np.round(gains, 2).tolist())
    _, piece = pieces(labels, neighbours)
    logger.info("texture: %d of %d triangles seen, %d outliers", (labels >= 0).sum(), len(labels), outliers)
    return labels, gains, piece


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
