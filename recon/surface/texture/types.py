"""What texturing makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.surface.types import Mesh

_MOSTLY = 0.9  # of the area: less is worth a word
_FULL_SIZE = 0.95  # of the photos' own


@dataclass(frozen=True)
class TexturedMesh:
    """A mesh whose triangles lie in pictures, the pages of its atlas.

    ``mesh`` shares vertices between triangles, as any mesh; ``uv`` [F, 3, 2] float32 places the corners of each
    triangle in its page, in parts of its width and height from the left top corner (as in glTF); ``page`` [F] says in
    which; ``pages`` are JPEG files, each a uint8 array of its bytes. ``seen_share`` is the part of the area that a
    photo shows; the rest has the colours of the mesh's vertices. ``scale`` is how many texels a pixel of a photo became
    (1 or less), along a side.
    """

    mesh: Mesh
    uv: NDArray[np.float32]
    page: NDArray[np.int32]
    pages: tuple[NDArray[np.uint8], ...]
    seen_share: float
    scale: float
    photos_used: int

    def doubts(self) -> tuple[str, ...]:
        """What the user should know about the texture, one sentence each; nothing where all is well."""
        notes = []
        if self.seen_share < _MOSTLY:
            notes.append(
                f"photos show {self.seen_share:.0%} of the textured mesh's area whole and unhidden; the rest has the "
                "colours of its vertices"
            )
        if self.scale < _FULL_SIZE:
            notes.append(
                f"the texture has {self.scale:.0%} of the photos' resolution, which is what fits on its "
                f"{len(self.pages)} pages; --texture-size makes them larger"
            )
        return tuple(notes)
