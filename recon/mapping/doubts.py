"""What should make the reader of a map doubt it, although its reprojection errors are small."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recon.types import Camera, Scene

_FEW = 60  # observations of the median photo: real maps that were right had 200 and more
_FOCAL_CHANGE = 0.05  # from what EXIF says: a lens is known to a few per cent (right maps: 4 at most)


def doubts(scene: Scene, cameras: Mapping[str, Camera]) -> list[str]:
    """Sentences for the user, none for a map that nothing speaks against.

    ``cameras`` are the intrinsics by photo before they were refined.
    """
    notes = []
    median = float(np.median([np.count_nonzero(view.point_ids >= 0) for view in scene.views]))
    if median < _FEW:
        notes.append(
            f"the map rests on few points ({median:.0f} in the median photo): poses and shape may be wrong; more "
            "photos, closer together, would hold it"
        )
    changed: dict[tuple[int, int], list[str]] = {}
    for view in scene.views:
        before = cameras.get(view.name)
        if before is not None and before.focal_source == "exif":
            factor = view.camera.focal_px / before.focal_px
            if abs(np.log(factor)) > _FOCAL_CHANGE:
                changed.setdefault((round(before.focal_px), round(view.camera.focal_px)), []).append(view.name)
    for (told, found), names in sorted(changed.items()):
        others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        notes.append(
            f"the focal length of {names[0]}{others} came out as {found} px, EXIF says {told} px "
            f"({found / told - 1:+.0%}): the photos hold it weakly, and depth and shape may be stretched"
        )
    return notes
