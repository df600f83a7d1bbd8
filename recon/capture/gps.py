"""GPS fixes of a capture as local metres: an east-north-up frame at the first one (WGS 84)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.types import GpsFix

_SEMI_MAJOR_M = 6378137.0
_FLATTENING = 1 / 298.257223563
_DEFAULT_ACCURACY_M = 5.0  # of a phone or consumer drone under open sky


@dataclass(frozen=True)
class GpsPositions:
    """Positions in a local frame: ``enu_m`` [N, 3] (NaN rows without a fix), ``sigma_m`` [N, 3] standard deviations,
    ``origin`` (latitude_deg, longitude_deg, altitude_m) of the frame.
    """

    enu_m: NDArray[np.float64]
    sigma_m: NDArray[np.float64]
    origin: tuple[float, float, float]


def enu_positions(fixes: Sequence[GpsFix | None]) -> GpsPositions | None:
    """East-north-up metres of the fixes, origin at the first one; None when no photo has a fix.

    A missing altitude becomes the origin's with a spread that says so. Vertical GPS errors are taken as twice the
    horizontal ones.
    """
    first = next((fix for fix in fixes if fix is not None), None)
    if first is None:
        return None
    altitudes = [fix.altitude_m for fix in fixes if fix is not None and fix.altitude_m is not None]
    ground = float(np.median(altitudes)) if altitudes else 0.0
    altitude_m = first.altitude_m if first.altitude_m is not None else ground
    origin = (float(first.latitude_deg), float(first.longitude_deg), float(altitude_m))
    centre = ecef(*origin)
    enu_from_ecef = enu_axes(origin[0], origin[1])
    enu = np.full((len(fixes), 3), np.nan)
    sigma = np.full((len(fixes), 3), np.nan)
    for i, fix in enumerate(fixes):
        if fix is None:
            continue
        altitude = fix.altitude_m if fix.altitude_m is not None else origin[2]
        enu[i] = enu_from_ecef @ (ecef(fix.latitude_deg, fix.longitude_deg, altitude) - centre)
        horizontal = fix.accuracy_m if fix.accuracy_m is not None and fix.accuracy_m > 0 else _DEFAULT_ACCURACY_M
        sigma[i] = horizontal, horizontal, 2 * horizontal if fix.altitude_m is not None else 1000.0
    return GpsPositions(enu, sigma, origin)


def ecef(latitude_deg: float, longitude_deg: float, altitude_m: float) -> NDArray[np.float64]:
    """Earth-centred coordinates [3] in metres (WGS 84)."""
    latitude, longitude = np.radians(latitude_deg), np.radians(longitude_deg)
    e2 = _FLATTENING * (2 - _FLATTENING)
    n = _SEMI_MAJOR_M / np.sqrt(1 - e2 * np.sin(latitude) ** 2)
    return np.array(
        [
            (n + altitude_m) * np.cos(latitude) * np.cos(longitude),
            (n + altitude_m) * np.cos(latitude) * np.sin(longitude),
            (n * (1 - e2) + altitude_m) * np.sin(latitude),
        ]
    )


def enu_axes(latitude_deg: float, longitude_deg: float) -> NDArray[np.float64]:
    """Rotation ``enu_from_ecef``, [3, 3]."""
    lat, lon = np.radians(latitude_deg), np.radians(longitude_deg)
    return np.array(
        [
            [-np.sin(lon), np.cos(lon), 0.0],
            [-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)],
            [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)],
        ]
    )
