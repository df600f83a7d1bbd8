"""Positions on Earth (WGS 84): local east-north-up metres to latitude and longitude, and to UTM."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SEMI_MAJOR_M = 6378137.0
_FLATTENING = 1 / 298.257223563
_UTM_SCALE, _UTM_EAST_M, _UTM_SOUTH_M = 0.9996, 500_000.0, 10_000_000.0


def geodetic_from_enu(enu_m: ArrayLike, origin: tuple[float, float, float]) -> NDArray[np.float64]:
    """Latitude, longitude (degrees) and height above the ellipsoid [N, 3] of east-north-up metres [N, 3].

    ``origin`` is the (latitude_deg, longitude_deg, altitude_m) of the local frame. Bowring's formula iterated to 1e-12.
    """
    e2 = _FLATTENING * (2 - _FLATTENING)
    lat, lon = np.radians(origin[:2])
    n = _SEMI_MAJOR_M / np.sqrt(1 - e2 * np.sin(lat) ** 2)
    up = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    east = np.array([-np.sin(lon), np.cos(lon), 0.0])
    centre = up * [n + origin[2], n + origin[2], n * (1 - e2) + origin[2]]  # Earth-centred
    x, y, z = (np.asarray(enu_m, dtype=np.float64) @ [east, np.cross(up, east), up] + centre).T
    distance = np.hypot(x, y)
    latitude = np.arctan2(z, distance * (1 - e2))
    for _ in range(10):
        n = _SEMI_MAJOR_M / np.sqrt(1 - e2 * np.sin(latitude) ** 2)
        previous, latitude = latitude, np.arctan2(z + e2 * n * np.sin(latitude), distance)
        if np.abs(latitude - previous).max(initial=0.0) < 1e-14:
            break
    n = _SEMI_MAJOR_M / np.sqrt(1 - e2 * np.sin(latitude) ** 2)
    # stable near the poles too, unlike distance / cos(latitude)
    height = distance * np.cos(latitude) + z * np.sin(latitude) - _SEMI_MAJOR_M**2 / n
    return np.stack([np.degrees(latitude), np.degrees(np.arctan2(y, x)), height], axis=1)


def utm_zone(latitude_deg: float, longitude_deg: float) -> tuple[int, bool]:
    """UTM zone number and whether it's the northern half; without the exceptions for Norway and Svalbard."""
    return int((longitude_deg + 180) // 6) % 60 + 1, latitude_deg >= 0


def utm_from_geodetic(geodetic: ArrayLike, zone: int, north: bool) -> NDArray[np.float64]:
    """Easting, northing (metres) and height [N, 3] of latitude, longitude, height [N, 3] in the given zone.

    Krüger's series to the fourth order in the third flattening (Karney, J. Geodesy 2011): exact to micrometres here.
    """
    values = np.asarray(geodetic, dtype=np.float64)
    latitude, longitude = np.radians(values[:, 0]), np.radians(values[:, 1] - (6 * zone - 183))
    n = _FLATTENING / (2 - _FLATTENING)
    radius = _SEMI_MAJOR_M / (1 + n) * (1 + n**2 / 4 + n**4 / 64)
    alpha = (
        n / 2 - 2 * n**2 / 3 + 5 * n**3 / 16 + 41 * n**4 / 180,
        13 * n**2 / 48 - 3 * n**3 / 5 + 557 * n**4 / 1440,
        61 * n**3 / 240 - 103 * n**4 / 140,
        49561 * n**4 / 161280,
    )
    e = 2 * np.sqrt(n) / (1 + n)
    t = np.sinh(np.arctanh(np.sin(latitude)) - e * np.arctanh(e * np.sin(latitude)))
    xi, eta = np.arctan2(t, np.cos(longitude)), np.arctanh(np.sin(longitude) / np.hypot(1.0, t))
    east, northing = eta.copy(), xi.copy()
    for order, coefficient in enumerate(alpha, start=1):
        east += coefficient * np.cos(2 * order * xi) * np.sinh(2 * order * eta)
        northing += coefficient * np.sin(2 * order * xi) * np.cosh(2 * order * eta)
    scale = _UTM_SCALE * radius
    south = 0.0 if north else _UTM_SOUTH_M
    return np.stack([_UTM_EAST_M + scale * east, south + scale * northing, values[:, 2]], axis=1)


def utm_wkt(zone: int, north: bool) -> str:
    """The coordinate system as WKT 1, as LAS files carry it."""
    code = (32600 if north else 32700) + zone
    half, south = ("N", "0") if north else ("S", "10000000")
    return (
        f'PROJCS["WGS 84 / UTM zone {zone}{half}",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,'
        '298.257223563,AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,AUTHORITY["EPSG",'
        '"8901"]],UNIT["degree",0.0174532925199433,AUTHORITY["EPSG","9122"]],AUTHORITY["EPSG","4326"]],'
        'PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",'
        f'{6 * zone - 183}],PARAMETER["scale_factor",0.9996],PARAMETER["false_easting",500000],'
        f'PARAMETER["false_northing",{south}],UNIT["metre",1,AUTHORITY["EPSG","9001"]],AXIS["Easting",EAST],'
        f'AXIS["Northing",NORTH],AUTHORITY["EPSG","{code}"]]'
    )
