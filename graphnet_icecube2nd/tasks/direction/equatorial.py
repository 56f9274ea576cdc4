"""Conversion between detector directions and right ascension and declination.

A horizontal direction of azimuth a has the astronomical azimuth, from true north
eastwards, `Site.bearing` - a; z is up. astropy does the rest, without refraction. Tests
compare with numbers that IceCube, KM3NeT and ANTARES published.

Nothing is downloaded. Dates outside astropy's own Earth-rotation tables (before 1973,
and from about a year after its release) are computed with UT1 = UTC. The error is at
most 0.9 s, or 14 arcsec, while leap seconds are in use.

Shape legend: ``...`` any leading shape.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphnet_icecube2nd.conventions import angles_to_unit_vector, unit_vector_to_angles
from graphnet_icecube2nd.detector.site import SOUTH_POLE, Site
from graphnet_icecube2nd.lazy import import_extra

Array = NDArray[np.float64]

# From 1960, when UTC begins, to 2100; a number outside is most likely not an MJD.
FIRST_MJD, LAST_MJD = 36934.0, 88069.0


def to_equatorial(
    direction: ArrayLike, mjd: ArrayLike, site: Site = SOUTH_POLE
) -> tuple[Array, Array]:
    """Return the sky positions of detector directions.

    Args:
        direction: Vectors to where neutrinos came from, in the detector's axes,
            (..., 3).
        mjd: Modified Julian dates, UTC, d; leading shapes broadcast.
        site: Position and orientation of the detector; default: IceCube.

    Returns:
        Right ascension, 0..2 pi, and declination, ICRS (J2000), rad, (...) each.

    Raises:
        ValueError: A time is not between 1960 and 2100, or a vector has no direction.
        ImportError: astropy is not installed.
    """
    zenith, azimuth = (a.numpy() for a in unit_vector_to_angles(np.asarray(direction)))
    with _offline():
        from astropy import units
        from astropy.coordinates import ICRS, AltAz

        local = AltAz(
            alt=(np.pi / 2 - zenith) * units.rad,
            az=(np.radians(site.bearing) - azimuth) * units.rad,
            **_place_and_time(mjd, site),
        )
        sky = local.transform_to(ICRS())
        return np.asarray(sky.ra.rad) % (2 * np.pi), np.asarray(sky.dec.rad)


def from_equatorial(
    ra: ArrayLike, dec: ArrayLike, mjd: ArrayLike, site: Site = SOUTH_POLE
) -> Array:
    """Return the detector directions of sky positions; inverse of `to_equatorial`.

    Converts right ascension, declination, rad, and dates to unit vectors, (..., 3).

    Raises:
        ValueError: A time is not between 1960 and 2100.
        ImportError: astropy is not installed.
    """
    with _offline():
        from astropy import units
        from astropy.coordinates import ICRS, AltAz

        sky = ICRS(ra=np.asarray(ra) * units.rad, dec=np.asarray(dec) * units.rad)
        local = sky.transform_to(AltAz(**_place_and_time(mjd, site)))
        zenith = np.pi / 2 - np.asarray(local.alt.rad)
        azimuth = np.radians(site.bearing) - np.asarray(local.az.rad)
    direction: Array = angles_to_unit_vector(zenith, azimuth).numpy()
    return direction


def time_to_mjd(text: str) -> float:
    """Return the modified Julian date, UTC, of a time like `2021-06-30T00:09:28.846`.

    The time is ISO 8601 in UTC, or with an offset such as +02:00; ValueError otherwise.
    """
    try:
        # Python 3.10 accepts neither Z nor fractions with other than 3 or 6 digits.
        head, point, rest = text.strip().replace("Z", "+00:00").partition(".")
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        when = datetime.fromisoformat(head + rest[len(digits) :])
        fraction = float(f"0.{digits}") if point else 0.0
        if point and head.count(":") != 2:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"a time must look like 2021-06-30T00:09:28.846, got {text!r}"
        ) from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    since = when - datetime(1858, 11, 17, tzinfo=timezone.utc)
    return since.days + (since.seconds + fraction) / 86400


def mjd_to_time(mjd: float) -> str:
    """Return a modified Julian date, UTC, as text: `2021-06-30T00:09:28.846`."""
    when = datetime(1858, 11, 17) + timedelta(milliseconds=round(mjd * 86_400_000))
    return when.isoformat(timespec="milliseconds")


def checked_mjd(mjd: ArrayLike) -> Array:
    """Return times as an array; ValueError unless all are from 1960 to 2100."""
    times = np.asarray(mjd, np.float64)
    bad = ~((times >= FIRST_MJD) & (times <= LAST_MJD))
    if bad.any():
        raise ValueError(
            f"mjd must lie in {FIRST_MJD:.0f}..{LAST_MJD:.0f} (1960 to 2100), got "
            f"{times[bad].ravel()[0]:g}"
        )
    return times


def _place_and_time(mjd: ArrayLike, site: Site) -> dict[str, Any]:
    """Return location and time for astropy's frames."""
    from astropy import units
    from astropy.coordinates import EarthLocation
    from astropy.time import Time

    return {
        "obstime": Time(checked_mjd(mjd), format="mjd", scale="utc"),
        "location": EarthLocation(
            lat=site.latitude * units.deg,
            lon=site.longitude * units.deg,
            height=site.height * units.m,
        ),
    }


@contextmanager
def _offline() -> Iterator[None]:
    """Keep astropy offline and silent about dates outside its tables."""
    iers = import_extra("astropy.utils.iers", "equatorial coordinates need", "maps")
    with (
        iers.conf.set_temp("auto_download", False),
        iers.conf.set_temp("auto_max_age", None),
        iers.conf.set_temp("iers_degraded_accuracy", "ignore"),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Tried to get polar motions")
        warnings.filterwarnings("ignore", message=".*dubious year")
        warnings.filterwarnings("ignore", message=".*leap-second")
        yield
