"""The pages of the atlas: charts cut out of the photos, levelled, and continued beyond their borders."""

from __future__ import annotations

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon.surface.backend import open3d
from recon.surface.texture.charts import CELL_PX, Charts, cell_weights
from recon.types import ImageArray

_ROWS = 256  # of a page at a time
_JPEG_QUALITY = 92


def empty_pages(charts: Charts) -> list[ImageArray]:
    """Black pages [H, W, 3]."""
    return [np.zeros((height, width, 3), dtype=np.uint8) for height, width in charts.pages]


def cut_out(pages: list[ImageArray], charts: Charts, photo: int, color: ImageArray, gain: NDArray[np.float64]) -> None:
    """Puts the charts of a photo [H, W, 3] into their pages, its channels divided by ``gain`` [3]."""
    height, width = color.shape[:2]
    table = np.clip(np.rint(np.arange(256)[:, None] / gain), 0, 255).astype(np.uint8)[None]  # [1, 256, 3]
    for chart in np.flatnonzero(charts.photo == photo):
        left, top = charts.low_px[chart]
        across, down = charts.size_px[chart]
        # What lies beyond the photo repeats its border.
        rows = np.clip(np.arange(top, top + down), 0, height - 1)
        columns = np.clip(np.arange(left, left + across), 0, width - 1)
        part = cv2.LUT(np.ascontiguousarray(color[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]), table)
        part = part[rows - rows[0]][:, columns - columns[0]]
        size = charts.extent[chart]
        if tuple(size) != (across, down):
            part = cv2.resize(part, (int(size[0]), int(size[1])), interpolation=cv2.INTER_AREA)
        x, y = charts.place[chart]
        pages[charts.page[chart]][y : y + size[1], x : x + size[0]] = part


def paint_cells(
    pages: list[ImageArray], charts: Charts, faces: NDArray[np.int64], corners: NDArray[np.float64], color: NDArray
) -> None:
    """Paints the cells of triangles ``faces`` [N] that no photo shows with the ``color`` [N, 3, 3] of their corners.

    ``corners`` [F, 3, 2] are the places of all triangles in their pages.
    """
    if len(faces) == 0:
        return
    texels = np.einsum("yxk,nkc->nyxc", cell_weights(), color.astype(np.float64))
    texels = np.clip(np.rint(texels), 0, 255).astype(np.uint8)
    low = np.floor(corners[faces, 0]).astype(np.int64)
    page = charts.page[charts.of_face[faces]]
    for y in range(CELL_PX):
        for x in range(CELL_PX):
            for number in np.unique(page):
                here = page == number
                pages[number][low[here, 1] + y, low[here, 0] + x] = texels[here, y, x]


def finish_page(
    page: ImageArray,
    corners: NDArray[np.float64],
    offset: NDArray[np.float32],
    cells: NDArray[np.int64],
    padding: float,
) -> ImageArray:
    """The page with the offsets of the seam levelling, and with its charts continued beyond their triangles.

    Args:
        page: the charts as cut out [H, W, 3].
        corners: of the triangles with a photo on this page, in texels [N, 3, 2].
        offset: to be added to their colours at their corners [N, 3, 3].
        cells: left top corners of the cells on this page [M, 2].
        padding: so many texels around triangles show the photo; beyond, the nearest texel is repeated, so that smaller
            versions of the page take no colour from outside a chart.
    """
    height, width = page.shape[:2]
    added = np.zeros(page.shape, dtype=np.int8)
    covered = np.zeros((height, width), dtype=bool)
    if len(corners):
        o3d = open3d()
        flat = np.zeros((len(corners) * 3, 3), dtype=np.float32)
        flat[:, :2] = corners.reshape(-1, 2)
        scene = o3d.t.geometry.RaycastingScene()
        scene.add_triangles(
            o3d.core.Tensor(flat), o3d.core.Tensor(np.arange(len(flat), dtype=np.uint32).reshape(-1, 3))
        )
        nothing = o3d.t.geometry.RaycastingScene.INVALID_ID
        for top in range(0, height, _ROWS):
            rows = min(_ROWS, height - top)
            rays = np.zeros((rows, width, 6), dtype=np.float32)
            rays[..., 0] = np.arange(width) + 0.5
            rays[..., 1] = (top + np.arange(rows) + 0.5)[:, None]
            rays[..., 2], rays[..., 5] = 1.0, -1.0
            hit = scene.cast_rays(o3d.core.Tensor(rays))
            face = hit["primitive_ids"].numpy()
            inside = face != nothing
            weight = hit["primitive_uvs"].numpy()[inside]
            of_corner = offset[face[inside]]  # [K, 3, 3]
            value = of_corner[:, 0] + weight[:, :1] * (of_corner[:, 1] - of_corner[:, 0])
            value += weight[:, 1:] * (of_corner[:, 2] - of_corner[:, 0])
            added[top : top + rows][inside] = np.clip(np.rint(value), -127, 127).astype(np.int8)
            covered[top : top + rows] = inside
    for y in range(CELL_PX):
        for x in range(CELL_PX):
            covered[cells[:, 1] + y, cells[:, 0] + x] = True
    if not covered.any():
        return page
    distance, label = cv2.distanceTransformWithLabels(
        (~covered).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.zeros(int(label.max()) + 1, dtype=np.int64)  # [labels], place of the texel that each stands for
    nearest[label[covered]] = np.flatnonzero(covered)
    out = np.empty_like(page)
    for top in range(0, height, _ROWS):
        band = slice(top, top + _ROWS)
        source = nearest[label[band]]
        shift = added.reshape(-1, 3)[source].astype(np.int16)
        own = (distance[band] <= padding)[..., None]
        base = np.where(own, page[band], page.reshape(-1, 3)[source])
        out[band] = np.clip(base + shift, 0, 255).astype(np.uint8)
    return out


def to_jpeg(page: ImageArray) -> NDArray[np.uint8]:
    """The bytes of a JPEG file [N] that keeps the full resolution of colours."""
    buffer = io.BytesIO()
    Image.fromarray(page).save(buffer, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def sample(image: NDArray, places: NDArray[np.floating]) -> NDArray[np.float64]:
    """Colours [N, 3] of an image [H, W, 3] at pixels [N, 2] (its corner is (0, 0)), bilinear; its border goes on."""
    height, width = image.shape[:2]
    x = np.clip(places[:, 0] - 0.5, 0, width - 1)
    y = np.clip(places[:, 1] - 0.5, 0, height - 1)
    left, top = x.astype(np.int64), y.astype(np.int64)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    a, b = (x - left)[:, None], (y - top)[:, None]
    upper = (1 - a) * image[top, left] + a * image[top, right]
    lower = (1 - a) * image[bottom, left] + a * image[bottom, right]
    return (1 - b) * upper + b * lower
