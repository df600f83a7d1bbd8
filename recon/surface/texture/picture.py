"""Pictures of textured meshes by ray casting."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon.surface.picture import cast_camera
from recon.surface.texture.bake import sample
from recon.surface.texture.types import TexturedMesh
from recon.types import Camera, ImageArray

_BACKGROUND = 255


def decode_page(page: NDArray[np.uint8]) -> ImageArray:
    """The pixels [H, W, 3] of a page."""
    with Image.open(io.BytesIO(page.tobytes())) as picture:
        return np.asarray(picture.convert("RGB"))


def render_textured(
    textured: TexturedMesh, camera: Camera, cam_from_world: NDArray[np.float64], oversample: int = 2
) -> ImageArray:
    """Picture of a textured mesh from a pinhole camera, [H, W, 3], on white, without light.

    ``oversample`` rays per pixel and axis smooth it.
    """
    face, weights, _ = cast_camera(textured.mesh, camera, cam_from_world, oversample)
    image = np.full((*face.shape, 3), _BACKGROUND, dtype=np.float32)
    for number, encoded in enumerate(textured.pages):
        page = decode_page(encoded)
        hit = (face >= 0) & (textured.page[np.maximum(face, 0)] == number)
        places = np.einsum("kcd,kc->kd", textured.uv[face[hit]], weights[hit]) * [page.shape[1], page.shape[0]]
        image[hit] = sample(page, places)
    height, width = camera.height_px, camera.width_px
    image = image.reshape(height, oversample, width, oversample, 3).mean(axis=(1, 3))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
