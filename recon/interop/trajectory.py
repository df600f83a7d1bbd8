"""Trajectories as TUM files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scipy.spatial.transform import Rotation

from recon.types import PosedView


def write_tum(views: Sequence[PosedView], path: Path) -> None:
    """``timestamp tx ty tz qx qy qz qw`` per photo, world from camera; timestamps count the photos in the given order.

    Format: TUM RGB-D benchmark; evo reads it. The photo's name stands in a comment line before, since the format has
    no place for it.
    """
    lines = ["# timestamp tx ty tz qx qy qz qw (world from camera); timestamps count the photos"]
    for index, view in enumerate(views):
        centre = view.centre_world
        x, y, z, w = Rotation.from_matrix(view.cam_from_world[:, :3].T).as_quat()
        values = " ".join(f"{value:.9f}" for value in (*centre, x, y, z, w))
        lines += [f"# {view.name}", f"{index:.6f} {values}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
