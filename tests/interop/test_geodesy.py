"""Positions on Earth against PROJ."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest

from recon.interop.geodesy import geodetic_from_enu, utm_from_geodetic, utm_wkt, utm_zone

PLACES = [(47.3769, 8.5417, 408.0), (-33.8568, 151.2153, 5.0), (0.001, -179.9, -20.0), (71.17, 25.78, 307.0)]


@pytest.mark.parametrize("place", PLACES)
def test_utm_agrees_with_proj(place: tuple[float, float, float]) -> None:
    zone, north = utm_zone(place[0], place[1])
    offsets = np.random.default_rng(0).normal(size=(50, 3)) * [300, 300, 50]
    # PROJ's own local frame: east, north, up around the place, then geodetic, then UTM
    chain = pyproj.Transformer.from_pipeline(
        f"+proj=pipeline +step +inv +proj=topocentric +ellps=WGS84 +lat_0={place[0]} +lon_0={place[1]} +h_0={place[2]} "
        f"+step +inv +proj=cart +ellps=WGS84 +step +proj=utm +zone={zone} {'' if north else '+south'} +ellps=WGS84"
    )
    expected = np.stack(chain.transform(*offsets.T), axis=1)
    found = utm_from_geodetic(geodetic_from_enu(offsets, place), zone, north)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_the_text_form_names_the_same_system(place: tuple[float, float, float]) -> None:
    zone, north = utm_zone(place[0], place[1])
    assert pyproj.CRS.from_wkt(utm_wkt(zone, north)).to_epsg() == (32600 if north else 32700) + zone
    assert pyproj.CRS.from_wkt(utm_wkt(zone, north)) == pyproj.CRS.from_epsg((32600 if north else 32700) + zone)
