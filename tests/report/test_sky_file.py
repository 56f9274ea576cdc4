"""Sky maps as files: every bit comes back, and other tools read them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("astropy_healpix")

from astropy.io import fits
from astropy.table import Table
from astropy_healpix import HEALPix

from graphnet_icecube2nd.conventions import angles_to_unit_vector
from graphnet_icecube2nd.detector.site import ORCA, SOUTH_POLE
from graphnet_icecube2nd.report.sky.map import SkyMap, sky_map
from graphnet_icecube2nd.tasks.direction.equatorial import to_equatorial
from graphnet_icecube2nd.tasks.direction.radial_law import RadialLaw

ZENITH, AZIMUTH = 1.1, 4.2
DIRECTION = np.asarray(angles_to_unit_vector(ZENITH, AZIMUTH))
MJD = 56000.25


@pytest.mark.parametrize("ending", ["fits", "fits.gz"])
@pytest.mark.parametrize("order", ["ring", "nested"])
def test_files_give_every_bit_back(order: str, ending: str, tmp_path: Path) -> None:
    made = sky_map(
        DIRECTION,
        123.456789012345678,
        nside=32,
        order=order,
        law=RadialLaw.through(100.0, {0.5: 0.1, 0.9: 0.4}),
        levels=(0.1, 0.68, 0.95),
        event_id=10**12,
        mjd=MJD if order == "ring" else None,
        site=ORCA if ending == "fits" else SOUTH_POLE,
    )
    path = tmp_path / "new" / f"map.{ending}"
    made.save(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    back = SkyMap.load(path)
    np.testing.assert_array_equal(back.density_P, made.density_P)
    np.testing.assert_array_equal(back.direction, made.direction)
    names = ("nside", "order", "coordinates", "kappa", "law", "levels", "mjd", "site")
    for name in names:
        assert getattr(back, name) == getattr(made, name)
    assert back.event_id == 10**12
    assert back.contours() == made.contours()
    first = path.read_bytes()
    made.save(path)
    assert path.read_bytes() == first
    assert (first[:2] == b"\x1f\x8b") == ending.endswith("gz")
    if ending.endswith("gz"):
        assert gzip.decompress(first)[:6] == b"SIMPLE"
        assert first[4:8] == bytes(4)  # no date


def test_other_tools_read_them(tmp_path: Path) -> None:
    path = tmp_path / "map.fits"
    made = sky_map(DIRECTION, 50.0, nside=32, event_id=41, mjd=MJD)
    made.save(path)
    column = Table.read(path, hdu=1)["PROBDENSITY"]
    assert str(column.unit) == "1 / sr"
    np.testing.assert_array_equal(column, made.density_P)
    with fits.open(path) as units:
        assert len(units) == 3
        units.verify("exception")
        header = units[1].header
        grid = HEALPix.from_header(units[1])
    assert (grid.nside, grid.order, grid.frame.name) == (32, "ring", "icrs")
    expected = {
        "PIXTYPE": "HEALPIX",
        "ORDERING": "RING",
        "NSIDE": 32,
        "FIRSTPIX": 0,
        "LASTPIX": 12287,
        "INDXSCHM": "IMPLICIT",
        "OBJECT": "FULLSKY",
        "COORDSYS": "C",
        "EVENTID": 41,
        "KAPPA": 50.0,
        "DATE-OBS": "2012-03-14T06:00:00.000",
        "MJD-OBS": MJD,
        "SITELAT": -89.9944,
        "LEVEL2": 0.9,
    }
    assert {key: header[key] for key in expected} == expected
    ninety = made.contour(0.9)
    assert header["RADIUS2"] == pytest.approx(np.degrees(ninety.radius))
    assert header["AREA2"] == pytest.approx(ninety.area)
    assert header["PIXAREA2"] == pytest.approx(ninety.pixel_area)
    ra, dec = to_equatorial(DIRECTION, MJD)
    assert (header["RA"], header["DEC"]) == pytest.approx(
        (np.degrees(ra), np.degrees(dec))
    )


def test_the_detectors_coordinates_are_no_celestial_frame(tmp_path: Path) -> None:
    path = tmp_path / "map.fits"
    sky_map(DIRECTION, 50.0, nside=8, order="nested").save(path)
    with fits.open(path) as units:
        header = units[1].header
        assert (header["COORDSYS"], header["ORDERING"]) == ("DETECTOR", "NESTED")
        assert header["ZENITH"] == pytest.approx(np.degrees(ZENITH))
        assert header["AZIMUTH"] == pytest.approx(np.degrees(AZIMUTH))
        assert "EVENTID" not in header
        assert "RA" not in header
        with pytest.raises((KeyError, TypeError, ValueError)):
            HEALPix.from_header(units[1])


def test_files_that_are_none_of_ours(tmp_path: Path) -> None:
    made = sky_map(DIRECTION, 50.0, nside=8)
    with pytest.raises(ValueError, match=r"map.txt.* must end in \.fits"):
        made.save(tmp_path / "map.txt")
    with pytest.raises(FileNotFoundError):
        SkyMap.load(tmp_path / "map.fits")
    Table({"a": [1.0]}).write(tmp_path / "other.fits")
    with pytest.raises(ValueError, match=r"other\.fits is no sky map"):
        SkyMap.load(tmp_path / "other.fits")
