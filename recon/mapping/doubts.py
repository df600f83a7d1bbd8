"""What should make the reader of a map doubt it, although its reprojection errors are small."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recon.mapping.contradictions import Explained
from recon.types import Camera, Scene

_FEW = 60  # observations of the median photo: real maps that were right had 200 and more
_FOCAL_CHANGE = 0.05  # from what EXIF says: a lens is known to a few per cent (right maps: 4 at most)
_LENSES = (0.3, 8.0)  # focal length over longer side: 118 to 7 degrees across it
_EXPLAINED = 0.9  # of the verified matches: real maps without look-alikes had 0.93 and more


def doubts(scene: Scene, cameras: Mapping[str, Camera], explained: Explained | None = None) -> list[str]:
    """Sentences for the user, none for a map that nothing speaks against.

    ``cameras`` are the intrinsics by photo before they were refined, ``explained`` what the map makes of the matches.
    """
    notes = []
    median = float(np.median([np.count_nonzero(view.point_ids >= 0) for view in scene.views]))
    if median < _FEW:
        notes.append(
            f"the map rests on few points ({median:.0f} in the median photo): poses and shape may be wrong; more "
            "photos, closer together, would hold it"
        )
    if explained is not None and explained.worst is not None and explained.share < _EXPLAINED:
        name1, name2 = explained.worst
        notes.append(
            f"{1 - explained.share:.0%} of the matches of its photos do not fit the map (most: the "
            f"{explained.worst_matches} of {name1} and {name2}): things look alike in several places, and the map may "
            "have taken one for another; look at it, or photograph what is around them, too"
        )
    changed: dict[tuple[int, int], list[str]] = {}
    guessed: dict[int, list[str]] = {}
    for view in scene.views:
        before = cameras.get(view.name)
        if before is not None and before.focal_source == "exif":
            factor = view.camera.focal_px / before.focal_px
            if abs(np.log(factor)) > _FOCAL_CHANGE:
                changed.setdefault((round(before.focal_px), round(view.camera.focal_px)), []).append(view.name)
        longer = max(view.camera.width_px, view.camera.height_px)
        if not _LENSES[0] < view.camera.focal_px / longer < _LENSES[1]:
            guessed.setdefault(round(view.camera.focal_px), []).append(view.name)
    for found, names in sorted(guessed.items()):
        others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        notes.append(
            f"the focal length of {names[0]}{others} came out as {found} px, as hardly any lens has it: the photos "
            "hold it weakly, and depth and shape are probably wrong; --focal-px gives it"
        )
    for (told, found), names in sorted(changed.items()):
        others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        notes.append(
            f"the focal length of {names[0]}{others} came out as {found} px, EXIF says {told} px "
            f"({found / told - 1:+.0%}): the photos hold it weakly, and depth and shape may be stretched"
        )
    return notes
