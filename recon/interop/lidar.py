"""Georeferenced clouds as LAZ (compressed LAS 1.4), through laspy."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from recon.errors import BadInputError, OutputError
from recon.interop.geodesy import geodetic_from_enu, utm_from_geodetic, utm_wkt, utm_zone
from recon.surface.types import PointCloud

_STEP_M = 0.001  # coordinates are stored as multiples of this


def _laspy() -> Any:
    try:
        importlib.import_module("lazrs")
        return importlib.import_module("laspy")
    except ImportError as error:
        raise BadInputError('LAZ needs laspy with lazrs: pip install "vlm3-recon[laz]"') from error


def write_laz(cloud: PointCloud, origin: tuple[float, float, float], path: Path) -> str:
    """Writes a cloud in east-north-up metres around ``origin`` (latitude_deg, longitude_deg, altitude_m) in UTM.

    Heights are the GPS altitudes as the photos give them (cameras write them above sea level or above the ellipsoid).
    Returns the name of the coordinate system.

    Raises:
        BadInputError: laspy is not installed. OutputError: the cloud is empty.
    """
    laspy = _laspy()
    if len(cloud.points_world_m) == 0:
        raise OutputError(f"{path}: the point cloud is empty, nothing was written")
    zone, north = utm_zone(origin[0], origin[1])
    positions = utm_from_geodetic(geodetic_from_enu(cloud.points_world_m, origin), zone, north)
    header = laspy.LasHeader(point_format=7, version="1.4")  # 7: with RGB
    header.scales = np.full(3, _STEP_M)
    header.offsets = np.floor(positions.min(axis=0))
    header.generating_software = "vlm3-recon"
    header.global_encoding.wkt = True
    header.vlrs.append(laspy.vlrs.known.WktCoordinateSystemVlr(utm_wkt(zone, north)))
    las = laspy.LasData(header)
    las.x, las.y, las.z = positions.T
    if cloud.colors is not None:
        las.red, las.green, las.blue = (np.asarray(cloud.colors, dtype=np.uint16) * 257).T  # LAS colours have 16 bits
    las.write(str(path))
    return f"WGS 84 / UTM zone {zone}{'N' if north else 'S'}"
