"""From the detector to the sky and back, against numbers that others published."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("astropy")

from graphnet_icecube2nd.conventions import angles_to_unit_vector, opening_angle
from graphnet_icecube2nd.detector.site import ARCA, ORCA, SOUTH_POLE, Site
from graphnet_icecube2nd.tasks.direction.equatorial import (
    from_equatorial,
    mjd_to_time,
    time_to_mjd,
    to_equatorial,
)

WHEN = "2021-06-30T00:09:28.8461058"
# 48 directions over the sphere, and three times of day.
ZENITH, AZIMUTH = (
    part.ravel()
    for part in np.meshgrid(np.linspace(0.1, 3.0, 6), np.linspace(0, 6.0, 8))
)


def local(zenith: float, azimuth: float) -> np.ndarray:
    return np.asarray(angles_to_unit_vector(zenith, azimuth))


def on_sky(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    return np.asarray(angles_to_unit_vector(np.pi / 2 - dec, ra))


def rotating_pole(
    zenith: np.ndarray, azimuth: np.ndarray, mjd: float
) -> tuple[np.ndarray, np.ndarray]:
    """A detector on the Earth's axis that turns once a sidereal day.

    Constants: SkyLLH, skyllh/i3/utils/coords.py, `azi_to_ra_transform`.
    """
    turns = (mjd / 0.997269566) % 1
    return 2.54199002505 + 2 * np.pi * turns - azimuth, zenith - np.pi / 2


def test_an_event_that_icecube_published() -> None:
    """The example in the README of github.com/icecube/i3astropy, four decimals."""
    ra, dec = to_equatorial(local(0.73884, 2.7348), time_to_mjd(WHEN))
    assert np.degrees(ra) == pytest.approx(213.6190, abs=1e-4)
    assert np.degrees(dec) == pytest.approx(-47.5599, abs=1e-4)


def test_the_crab_nebula() -> None:
    """From the same example: azimuth 286.7096 deg, zenith 112.0318 deg."""
    ra = np.radians((5 + 34 / 60 + 31.94 / 3600) * 15)
    dec = np.radians(22 + 52.2 / 3600)
    found = from_equatorial(ra, dec, time_to_mjd(WHEN))
    expected = local(np.radians(112.0318), np.radians(286.7096))
    assert float(opening_angle(found, expected)) < np.radians(1e-4)


# Source: ANTARES' public wiki, astro_coordinatetransformation_howto.
ANTARES = Site.from_utm(268_221.6, 4_742_381.9, "32N", -2475.0)
KM3NET = {"ARCA": ARCA, "ORCA": ORCA, "antares": ANTARES}
# Date, azimuth and zenith of the source in UTM axes, right ascension and declination
# (J2000), deg. Source: km3net-testdata (MIT), astro/*_coordinate_systems_benchmark.csv.
Row = tuple[str, str, float, float, float, float]
BENCHMARK: list[Row] = [
    ("ARCA", "2007-10-04T03:03:03", 203.46, 168.03, 268.495892, -40.089231),
    ("ARCA", "2010-04-27T19:19:19", 12.50, 34.58, 204.413093, 35.633862),
    ("ORCA", "2007-10-04T03:03:03", 12.50, 146.03, 206.558376, -27.390486),
    ("ORCA", "2007-10-04T03:03:03", 153.33, 94.77, 313.361333, 14.356239),
    ("antares", "2007-10-04T03:03:03", 277.07, 157.03, 235.795, -65.255),
]


def agree(
    name: str, time: str, azimuth: float, zenith: float, ra: float, dec: float
) -> None:
    """KM3NeT's numbers lack the aberration of light, 0.006 deg, and UT1."""
    mjd, given = time_to_mjd(time), np.radians([zenith, azimuth, ra, dec])
    direction, place = local(*given[:2]), on_sky(*given[2:])
    found = on_sky(*to_equatorial(direction, mjd, KM3NET[name]))
    assert float(opening_angle(found, place)) < np.radians(0.012)
    back = from_equatorial(*given[2:], mjd, KM3NET[name])
    assert float(opening_angle(back, direction)) < np.radians(0.012)


@pytest.mark.parametrize("row", BENCHMARK)
def test_against_numbers_of_km3net(row: Row) -> None:
    agree(*row)


@pytest.mark.parametrize("name", KM3NET)
def test_against_all_benchmarks_of_km3net(name: str) -> None:
    data_path = pytest.importorskip("km3net_testdata").data_path
    kinds = {"coordinate_systems": 17, "astro_objects": 8, "moon_sun_position": 3}
    for kind, at_least in kinds.items():
        text = Path(data_path(f"astro/{name}_{kind}_benchmark.csv")).read_text("utf-8")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        # The Moon is near: its direction depends on the place.
        rows = [r for r in csv.DictReader(lines) if r.get("object") != "Moon"]
        assert len(rows) >= at_least
        for row in rows:
            angles = (float(row["azimuth"]), float(row["zenith"]))
            ra = degrees(row["RA-J2000"]) * (15 if ":" in row["RA-J2000"] else 1)
            time = f"{row['date']}T{row['time']}"
            agree(name, time, *angles, ra, degrees(row["DEC-J2000"]))


def degrees(text: str) -> float:
    """Of a number, or of hours or degrees, minutes and seconds."""
    whole, *parts = text.split(":")
    size = abs(float(whole)) + sum(float(p) / 60**n for n, p in enumerate(parts, 1))
    return -size if text.startswith("-") else size


def test_sites_on_a_grid() -> None:
    """Latitude, longitude, convergence of ARCA: km3net-testdata, local2eq_aanet."""
    found = (ARCA.latitude, ARCA.longitude, ARCA.bearing - 90)
    expected = np.degrees([0.6334068, 0.2788192, 0.0100733])
    assert found == pytest.approx(expected, abs=1e-3)
    # Of Snyder's formulas (Map projections, 1987): 51 S, 59.9 E in zone 41.
    south = Site.from_utm(282_496.2473, 4_345_600.3435, "41S")
    assert (south.latitude, south.longitude) == pytest.approx((-51, 59.9), abs=1e-7)
    assert south.bearing == pytest.approx(92.4101, abs=1e-4)
    with pytest.raises(ValueError, match=r"32N .* found 'N32'"):
        Site.from_utm(0.0, 0.0, "N32")
    with pytest.raises(ValueError, match=r"latitude .* found 95"):
        Site(latitude=95.0, longitude=0.0)


@pytest.mark.parametrize("site", [SOUTH_POLE, ARCA, Site(latitude=50.0, longitude=8.0)])
def test_the_pole_of_the_sky_is_north(site: Site) -> None:
    """Its compass bearing is 0, its height the latitude; at every site."""
    north = from_equatorial(0.0, np.pi / 2, 51544.5, site)
    turn, zenith = np.radians(site.bearing), np.radians(90 - site.latitude)
    assert float(opening_angle(north, local(zenith, turn))) < np.radians(0.02)


@pytest.mark.parametrize("mjd", [54700.03, 55197.5, 56345.678, 57388.9])
def test_against_a_pole_that_rotates(mjd: float) -> None:
    """2008 to 2016, where precession since J2000 stays below 0.25 deg."""
    direction = local(ZENITH, AZIMUTH)
    found = on_sky(*to_equatorial(direction, mjd))
    simple = on_sky(*rotating_pole(ZENITH, AZIMUTH, mjd))
    assert float(opening_angle(found, simple).max()) < np.radians(0.3)


def test_a_sidereal_day_later_the_sky_is_back() -> None:
    first = to_equatorial(local(1.0, 2.0), 56000.0)
    later = to_equatorial(local(1.0, 2.0), 56000.0 + 0.997269566)
    quarter = to_equatorial(local(1.0, 2.0), 56000.0 + 0.997269566 / 4)
    assert float(opening_angle(on_sky(*first), on_sky(*later))) < 1e-4
    turn = (quarter[0] - first[0]) % (2 * np.pi)
    assert turn == pytest.approx(np.pi / 2, abs=3e-3)


def test_round_trips() -> None:
    """Over the sphere, with poles and the azimuth's seam; each at its own time."""
    direction = np.concatenate([local(ZENITH, AZIMUTH), [[0, 0, 1.0], [0, 0, -1.0]]])
    mjd = 55000.0 + np.arange(len(direction)) * 37.123
    ra, dec = to_equatorial(direction, mjd)
    assert ra.shape == dec.shape == mjd.shape
    assert ((ra >= 0) & (ra < 2 * np.pi)).all()
    np.testing.assert_allclose(from_equatorial(ra, dec, mjd), direction, atol=1e-9)
    # Zenith is the sky's south pole, but for the detector's place and precession.
    assert np.degrees(dec[-2]) == pytest.approx(-90, abs=0.15)
    assert np.degrees(dec[-1]) == pytest.approx(90, abs=0.15)


@pytest.mark.parametrize("mjd", [37000.0, 66000.25, 88000.0])
def test_dates_beyond_the_tables(mjd: float) -> None:
    """1960, 2039 and 2099: no warning, right but for precession, 0.56 deg in 40 a."""
    direction = local(ZENITH, AZIMUTH)
    ra, dec = to_equatorial(direction, mjd)
    simple = on_sky(*rotating_pole(ZENITH, AZIMUTH, mjd))
    assert float(opening_angle(on_sky(ra, dec), simple).max()) < np.radians(1.5)
    np.testing.assert_allclose(from_equatorial(ra, dec, mjd), direction, atol=1e-9)


def test_nothing_is_downloaded(tmp_path: Path) -> None:
    """In a process of its own that ends at a socket's use, with an empty home."""
    code = (
        "import os, socket, warnings\n"
        "def fail(*a, **k): os._exit(3)\n"
        "socket.socket.connect = socket.getaddrinfo = fail\n"
        "warnings.simplefilter('error')\n"
        "from graphnet_icecube2nd.tasks.direction.equatorial import to_equatorial\n"
        "for mjd in (55000.0, 61300.0, 70000.0):\n"
        "    print(to_equatorial([0.0, 0.6, 0.8], mjd))\n"
    )
    command = [sys.executable, "-c", code]
    home = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME")}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | home | {"XDG_CONFIG_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize("mjd", [2459395.5, 0.0, np.nan, [55000.0, -5.0]])
def test_times_that_are_no_mjd(mjd: float) -> None:
    with pytest.raises(ValueError, match=r"mjd must lie in 36934\.\.88069"):
        to_equatorial([0.0, 0.0, 1.0], mjd)
    with pytest.raises(ValueError, match="mjd must lie in"):
        from_equatorial(0.0, 0.0, mjd)


@pytest.mark.parametrize(
    ("text", "mjd"),
    [
        ("1858-11-17", 0.0),
        ("2000-01-01T12:00:00", 51544.5),
        ("2000-01-01 12:00:00Z", 51544.5),
        ("2000-01-01T14:00:00.000000000+02:00", 51544.5),
        ("2000-01-01T12:00:08.64", 51544.5001),
        (WHEN, 59395.00658386697),
    ],
)
def test_times_in_words(text: str, mjd: float) -> None:
    assert time_to_mjd(text) == pytest.approx(mjd, abs=1e-10)
    assert time_to_mjd(mjd_to_time(mjd)) == pytest.approx(mjd, abs=1e-8)


@pytest.mark.parametrize("text", ["", "59395.0", "2021-06-30.5", "30.6.2021", "now"])
def test_words_that_are_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"2021-06-30T.*, got"):
        time_to_mjd(text)
