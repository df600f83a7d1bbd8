"""The layouts on disk that labels are made from, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from recon.errors import BadInputError
from recon.interop.datasets.eth3d import read_eth3d
from recon.interop.datasets.frames import SceneFrames
from recon.interop.datasets.kitti import read_kitti
from recon.interop.datasets.megadepth import read_megadepth
from recon.interop.datasets.nuscenes import read_nuscenes
from recon.interop.datasets.nyu import read_nyu
from recon.interop.datasets.scannetpp import read_scannetpp


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk: its reader ``(root, folder for photos that have to be unpacked)``, and what must be
    there, for messages."""

    read: Callable[[Path, Path], list[SceneFrames]]
    needs: str


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "scannetpp": Layout(read_scannetpp, "data/SCENE/iphone/{rgb,depth,pose_intrinsic_imu.json}"),
        "eth3d": Layout(read_eth3d, "SCENE/{images,dslr_calibration_undistorted,dslr_calibration_jpg}"),
        "nyuv2": Layout(read_nyu, "nyu_depth_v2_labeled.mat, or rgb_*.jpg with sync_depth_*.png"),
        "kitti": Layout(
            read_kitti, "DATE/DRIVE_sync/image_02 with {train,val}/DRIVE_sync/proj_depth, or the selection"
        ),
        "nuscenes": Layout(read_nuscenes, "v1.0-*/*.json and samples/"),
        "megadepth": Layout(read_megadepth, "phoenix/S6/zl548/MegaDepth_v1 and Undistorted_SfM/SCENE/sparse-txt"),
    }
)


def read_layout(name: str, root: Path, work: Path) -> list[SceneFrames]:
    """The scenes of a data set that lies at ``root``.

    Raises:
        BadInputError: unknown layout, no such folder, or nothing of the layout in it.
    """
    if name not in LAYOUTS:
        raise BadInputError(f"layout {name!r} is unknown; accepted: {', '.join(LAYOUTS)}")
    if not root.is_dir():
        raise BadInputError(f"{root}: no such folder; accepted: the root of {name} with {LAYOUTS[name].needs}")
    scenes = LAYOUTS[name].read(root, work)
    if not any(scene.frames for scene in scenes):
        raise BadInputError(f"{root}: nothing of {name} is there; it needs {LAYOUTS[name].needs}")
    return scenes
