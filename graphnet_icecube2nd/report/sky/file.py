"""Sky maps as FITS, as standard tools read them.

The first extension is a HEALPix map of the whole sky: a column PROBDENSITY in 1/sr,
and in the header PIXTYPE, ORDERING, NSIDE, FIRSTPIX, LASTPIX, INDXSCHM, OBJECT and
COORDSYS, so `healpy.read_map(path)` and `astropy.table.Table.read(path, hdu=1)` read
it. COORDSYS is C for equatorial maps (ICRS). Those in the detector's coordinates, where
theta is zenith and phi azimuth, have DETECTOR: no celestial frame, and tools that want
one refuse it.

The header also has EVENTID, KAPPA, DATE-OBS and MJD-OBS (UTC), and for each contour
LEVELn, RADIUSn (deg), AREAn (square degrees within the circle), PIXAREAn (of pixels).
The second extension holds the numbers that a map is made of, to the last bit. Format:
HEALPix's and the FITS standard's (Pence et al., A&A 524 (2010) A42).
"""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphnet_icecube2nd.files import write_whole
from graphnet_icecube2nd.report.sky.pixels import EQUATORIAL, LOCAL, Contour
from graphnet_icecube2nd.tasks.direction.equatorial import mjd_to_time
from graphnet_icecube2nd.tasks.direction.radial_law import RadialLaw
from graphnet_icecube2nd.version import __version__

DENSITY = "PROBDENSITY"
NUMBERS = "NUMBERS"  # the second extension
FRAMES = {LOCAL: "DETECTOR", EQUATORIAL: "C"}
ENDINGS = (".fits", ".fit", ".fits.gz", ".fit.gz")


def write_sky_file(
    path: str | os.PathLike[str],
    values: Mapping[str, Any],
    contours: Sequence[Contour],
) -> None:
    """Write a map whole or not at all; compressed if the name ends in .gz.

    Args:
        path: The file.
        values: Fields of a `SkyMap` by name.
        contours: Of its levels.

    Raises:
        ValueError: The name does not end in .fits or .fits.gz.
        ImportError: astropy is not installed.
    """
    path = check_name(path)
    fits = _import_fits()
    pixels = fits.BinTableHDU.from_columns(
        [fits.Column(name=DENSITY, format="D", unit="sr-1", array=values["density_P"])],
        name="SKYMAP",
    )
    pixels.header.extend(_cards(values, contours))
    content = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), pixels, _numbers(fits, values)]).writeto(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        if path.suffix.lower() == ".gz":
            # No date: the same map gives the same file.
            temporary.write_bytes(gzip.compress(content.getbuffer(), 6, mtime=0))
        else:
            temporary.write_bytes(content.getbuffer())


def check_name(path: str | os.PathLike[str]) -> Path:
    """Return a path that a sky map can have.

    Raises:
        ValueError: The name does not end in .fits or .fits.gz.
    """
    path = Path(path)
    if not path.name.lower().endswith(ENDINGS):
        raise ValueError(f"{path}: sky maps end in one of {', '.join(ENDINGS)}")
    return path


def read_sky_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the values that `write_sky_file` wrote, to the last bit.

    Raises:
        OSError: There is no such file, or it is no FITS file.
        ValueError: It is none of our sky maps; says what is missing.
        ImportError: astropy is not installed.
    """
    with _import_fits().open(path, memmap=False) as units:
        try:
            header, row = units[1].header, units[NUMBERS].data[0]
            frames = {word: name for name, word in FRAMES.items()}
            values: dict[str, Any] = dict(
                nside=int(header["NSIDE"]),
                order=str(header["ORDERING"]).lower(),
                coordinates=frames[header["COORDSYS"]],
                density_P=np.asarray(units[1].data[DENSITY]).astype(np.float64),
                direction=np.asarray(row["DIRECTION"]).astype(np.float64),
                kappa=float(row["KAPPA"]),
                law=RadialLaw(
                    **{
                        name: tuple(np.atleast_1d(row[name.upper()]).tolist())
                        for name in ("u", "share", "rate")
                    }
                ),
                levels=tuple(np.atleast_1d(row["LEVELS"]).tolist()),
                event_id=header.get("EVENTID"),
                mjd=float(row["MJD"]) if np.isfinite(row["MJD"]) else None,
            )
        except (KeyError, IndexError, AttributeError) as error:
            raise ValueError(f"{path} is none of our sky maps: {error}") from None
    return values


def _cards(
    values: Mapping[str, Any], contours: Sequence[Contour]
) -> list[tuple[str, Any, str]]:
    """Return the header: keyword, value, comment."""
    celestial = values["coordinates"] == EQUATORIAL
    frame = "equatorial, ICRS" if celestial else "theta zenith, phi azimuth, IceCube"
    cards: list[tuple[str, Any, str]] = [
        ("PIXTYPE", "HEALPIX", "HEALPix pixels"),
        ("ORDERING", values["order"].upper(), "RING or NESTED"),
        ("NSIDE", values["nside"], "12 NSIDE^2 pixels"),
        ("FIRSTPIX", 0, "first pixel"),
        ("LASTPIX", len(values["density_P"]) - 1, "last pixel"),
        ("INDXSCHM", "IMPLICIT", "rows are pixels"),
        ("OBJECT", "FULLSKY", "all of the sky"),
        ("COORDSYS", FRAMES[values["coordinates"]], frame),
        ("CREATOR", f"graphnet-icecube2nd {__version__}", "what made it"),
        ("KAPPA", values["kappa"], "concentration"),
    ]
    if values["event_id"] is not None:
        cards.append(("EVENTID", values["event_id"], "event"))
    x, y, z = values["direction"].tolist()
    theta = float(np.degrees(np.arctan2(np.hypot(x, y), z)))
    phi = float(np.degrees(np.arctan2(y, x))) % 360
    if celestial:
        assert values["mjd"] is not None
        cards += [
            ("RADESYS", "ICRS", "celestial frame"),
            ("RA", phi, "[deg] right ascension of the direction"),
            ("DEC", 90 - theta, "[deg] declination of the direction"),
            ("DATE-OBS", mjd_to_time(values["mjd"]), "UTC of the event"),
            ("MJD-OBS", values["mjd"], "[d] the same"),
        ]
    else:
        cards += [
            ("ZENITH", theta, "[deg] zenith of the direction"),
            ("AZIMUTH", phi, "[deg] azimuth of the direction"),
        ]
    for number, contour in enumerate(contours, 1):
        radius = float(np.degrees(contour.radius))
        cards += [
            (f"LEVEL{number}", contour.level, "share of the probability"),
            (f"RADIUS{number}", radius, "[deg] of the contour"),
            (f"AREA{number}", contour.area, "[deg2] within the circle"),
            (f"PIXAREA{number}", contour.pixel_area, "[deg2] of the pixels"),
        ]
    return cards


def _numbers(fits: Any, values: Mapping[str, Any]) -> Any:
    """Return the second extension: one row, every value in full."""
    law = values["law"]
    mjd = np.nan if values["mjd"] is None else values["mjd"]
    numbers: dict[str, Sequence[float]] = {
        "DIRECTION": values["direction"].tolist(),
        "KAPPA": [values["kappa"]],
        "MJD": [mjd],
        "LEVELS": values["levels"],
        "U": law.u,
        "SHARE": law.share,
        "RATE": law.rate,
    }
    columns = [
        fits.Column(name=name, format=f"{len(v)}D", array=np.array([v], np.float64))
        for name, v in numbers.items()
    ]
    return fits.BinTableHDU.from_columns(columns, name=NUMBERS)


def _import_fits() -> Any:
    try:
        from astropy.io import fits
    except ImportError as error:
        raise ImportError(
            "sky maps need astropy: pip install graphnet-icecube2nd[maps]"
        ) from error
    return fits
