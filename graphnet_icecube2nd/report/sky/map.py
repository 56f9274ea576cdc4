"""SkyMap: where an event's neutrino may have come from, as density on the sphere.

The sphere is cut into pixels of one area (HEALPix, Gorski et al., ApJ 622 (2005) 759),
each with its mean probability per steradian. Shape letters: P pixels, B events.

Files are FITS, as standard tools read them. The first extension is a HEALPix map of the
whole sky: a column PROBDENSITY in 1/sr, and in the header PIXTYPE, ORDERING, NSIDE,
FIRSTPIX, LASTPIX, INDXSCHM, OBJECT and COORDSYS, so `healpy.read_map(path)` and
`astropy.table.Table.read(path, hdu=1)` read it. COORDSYS is C for equatorial maps
(ICRS). Those in the detector's coordinates, where
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphnet_icecube2nd.files import write_whole
from graphnet_icecube2nd.report.sky.pixels import (
    COORDINATES,
    EQUATORIAL,
    LEVELS,
    LOCAL,
    Contour,
    check_grid,
    check_levels,
    import_maps,
)
from graphnet_icecube2nd.tasks.direction.equatorial import mjd_to_time
from graphnet_icecube2nd.tasks.direction.radial_law import RadialLaw, cap_area
from graphnet_icecube2nd.version import __version__

Array = NDArray[np.float64]

DENSITY = "PROBDENSITY"
NUMBERS = "NUMBERS"  # the second extension
FRAMES = {LOCAL: "DETECTOR", EQUATORIAL: "C"}
ENDINGS = (".fits", ".fit", ".fits.gz", ".fit.gz")


@dataclass(frozen=True, kw_only=True, eq=False)
class SkyMap:
    """Probability density of an event's direction, pixel by pixel.

    Args:
        nside: HEALPix's NSIDE, a power of two; there are 12 nside^2 pixels.
        order: `ring` or `nested`.
        coordinates: `local`: theta is zenith and phi azimuth in the detector;
            `equatorial`: theta is 90 deg - declination, phi right ascension, ICRS.
        density_P: (P,) 1/sr; times the area of a pixel they sum up to 1.
        direction: (3,) the predicted direction, unit vector in these coordinates.
        kappa: Concentration that came with it.
        law: How the probability spreads around it.
        levels: Contours that a file and a picture show.
        event_id: None where there is none.
        mjd: Time of the event, UTC, d; None for local coordinates.

    Raises:
        ValueError: A value is not allowed.
    """

    nside: int
    order: str = "ring"
    coordinates: str = LOCAL
    density_P: Array
    direction: Array
    kappa: float
    law: RadialLaw
    levels: tuple[float, ...] = LEVELS
    event_id: int | None = None
    mjd: float | None = None

    def __post_init__(self) -> None:
        check_grid(self.nside, self.order)
        if self.coordinates not in COORDINATES:
            raise ValueError(
                f"coordinates must be one of {', '.join(COORDINATES)}, got "
                f"{self.coordinates!r}"
            )
        if (self.mjd is None) == (self.coordinates == EQUATORIAL):
            raise ValueError(
                "equatorial maps have an mjd and local ones none, got "
                f"{self.coordinates} and {self.mjd}"
            )
        num = 12 * self.nside**2
        if self.density_P.shape != (num,) or self.direction.shape != (3,):
            raise ValueError(
                f"a map of NSIDE {self.nside} has {num} pixels and one direction, got "
                f"{self.density_P.shape} and {self.direction.shape}"
            )
        check_levels(self.levels)

    @property
    def pixel_area(self) -> float:
        """Area of a pixel, sr."""
        return 4 * np.pi / len(self.density_P)

    def contour(self, level: float) -> Contour:
        """Return a contour; its radius is exact, its pixels are those of the map.

        Raises:
            ValueError: The level is not between 0 and 1.
        """
        return self.contours([level])[0]

    def contours(self, levels: Sequence[float] | None = None) -> list[Contour]:
        """Return contours of some levels, by default the map's own.

        Raises:
            ValueError: A level is not between 0 and 1.
        """
        chosen = check_levels(self.levels if levels is None else levels)
        falling = np.sort(self.density_P)[::-1]
        within = np.cumsum(falling) * self.pixel_area
        found = []
        for level in chosen:
            radius = self.law.radius(level)
            num = min(int(np.searchsorted(within, level)) + 1, len(falling))
            found.append(
                Contour(
                    level=level,
                    radius=radius,
                    area=cap_area(radius),
                    num_pixels=num,
                    pixel_area=num * float(np.degrees(np.degrees(self.pixel_area))),
                    density=float(falling[num - 1]),
                )
            )
        return found

    def density_at(self, direction: ArrayLike) -> Array:
        """Return the density of the pixels in which directions lie, 1/sr, shape (...).

        Args:
            direction: Unit vectors in the map's coordinates, shape (..., 3).
        """
        healpix = import_maps("astropy_healpix")
        x, y, z = np.moveaxis(np.asarray(direction, np.float64), -1, 0)
        pixel = healpix.xyz_to_healpix(x, y, z, self.nside, order=self.order)
        found: Array = self.density_P[pixel]
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map as FITS, whole or not at all; compressed if it ends in .gz.

        Raises:
            ValueError: The name does not end in .fits or .fits.gz.
            ImportError: astropy is not installed.
        """
        path = check_name(path)
        fits = import_maps("astropy.io.fits")
        density = fits.Column(
            name=DENSITY, format="D", unit="sr-1", array=self.density_P
        )
        pixels = fits.BinTableHDU.from_columns([density], name="SKYMAP")
        pixels.header.extend(_cards(self))
        units = [fits.PrimaryHDU(), pixels, _numbers(fits, self)]
        content = io.BytesIO()
        fits.HDUList(units).writeto(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        written = content.getvalue()
        if path.suffix.lower() == ".gz":
            # No date: the same map gives the same file.
            written = gzip.compress(written, 6, mtime=0)
        with write_whole(path) as temporary:
            temporary.write_bytes(written)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SkyMap:
        """Read what `save` wrote, to the last bit.

        Raises:
            OSError: There is no such file, or it is no FITS file.
            ValueError: It is none of our sky maps; says what is missing.
            ImportError: astropy is not installed.
        """
        with import_maps("astropy.io.fits").open(path, memmap=False) as units:
            try:
                header, row = units[1].header, units[NUMBERS].data[0]
                frames = {word: name for name, word in FRAMES.items()}
                values = dict(
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
        return cls(**values)


def check_name(path: str | os.PathLike[str]) -> Path:
    """Return a path that a sky map can have.

    Raises:
        ValueError: The name does not end in .fits or .fits.gz.
    """
    path = Path(path)
    if not path.name.lower().endswith(ENDINGS):
        raise ValueError(f"{path}: sky maps end in one of {', '.join(ENDINGS)}")
    return path


def _cards(sky_map: SkyMap) -> list[tuple[str, Any, str]]:
    """Return the header: keyword, value, comment."""
    celestial = sky_map.coordinates == EQUATORIAL
    frame = "equatorial, ICRS" if celestial else "theta zenith, phi azimuth, IceCube"
    cards: list[tuple[str, Any, str]] = [
        ("PIXTYPE", "HEALPIX", "HEALPix pixels"),
        ("ORDERING", sky_map.order.upper(), "RING or NESTED"),
        ("NSIDE", sky_map.nside, "12 NSIDE^2 pixels"),
        ("FIRSTPIX", 0, "first pixel"),
        ("LASTPIX", len(sky_map.density_P) - 1, "last pixel"),
        ("INDXSCHM", "IMPLICIT", "rows are pixels"),
        ("OBJECT", "FULLSKY", "all of the sky"),
        ("COORDSYS", FRAMES[sky_map.coordinates], frame),
        ("CREATOR", f"graphnet-icecube2nd {__version__}", "what made it"),
        ("KAPPA", sky_map.kappa, "concentration"),
    ]
    if sky_map.event_id is not None:
        cards.append(("EVENTID", sky_map.event_id, "event"))
    x, y, z = sky_map.direction.tolist()
    theta = float(np.degrees(np.arctan2(np.hypot(x, y), z)))
    phi = float(np.degrees(np.arctan2(y, x))) % 360
    if celestial:
        assert sky_map.mjd is not None
        cards += [
            ("RADESYS", "ICRS", "celestial frame"),
            ("RA", phi, "[deg] right ascension of the direction"),
            ("DEC", 90 - theta, "[deg] declination of the direction"),
            ("DATE-OBS", mjd_to_time(sky_map.mjd), "UTC of the event"),
            ("MJD-OBS", sky_map.mjd, "[d] the same"),
        ]
    else:
        cards += [
            ("ZENITH", theta, "[deg] zenith of the direction"),
            ("AZIMUTH", phi, "[deg] azimuth of the direction"),
        ]
    for number, contour in enumerate(sky_map.contours(), 1):
        radius = float(np.degrees(contour.radius))
        cards += [
            (f"LEVEL{number}", contour.level, "share of the probability"),
            (f"RADIUS{number}", radius, "[deg] of the contour"),
            (f"AREA{number}", contour.area, "[deg2] within the circle"),
            (f"PIXAREA{number}", contour.pixel_area, "[deg2] of the pixels"),
        ]
    return cards


def _numbers(fits: Any, sky_map: SkyMap) -> Any:
    """Return the second extension: one row, every value in full."""
    law = sky_map.law
    mjd = np.nan if sky_map.mjd is None else sky_map.mjd
    numbers: dict[str, Sequence[float]] = {
        "DIRECTION": sky_map.direction.tolist(),
        "KAPPA": [sky_map.kappa],
        "MJD": [mjd],
        "LEVELS": sky_map.levels,
        "U": law.u,
        "SHARE": law.share,
        "RATE": law.rate,
    }
    columns = [
        fits.Column(name=name, format=f"{len(v)}D", array=np.array([v], np.float64))
        for name, v in numbers.items()
    ]
    return fits.BinTableHDU.from_columns(columns, name=NUMBERS)
