"""SkyMap: probability density of a neutrino's origin on the sphere.

The sphere is divided into pixels of equal area (HEALPix, Gorski et al., ApJ 622 (2005)
759). Each pixel has its mean probability per steradian. Shape letters: P pixels of the
map, p some of them, B events.

Files are FITS files that standard tools read. The first extension is a HEALPix map of
the whole sky: a column PROBDENSITY in 1/sr, and in the header PIXTYPE, ORDERING, NSIDE,
FIRSTPIX, LASTPIX, INDXSCHM, OBJECT and COORDSYS, so `healpy.read_map(path)` and
`astropy.table.Table.read(path, hdu=1)` read it. COORDSYS is C for equatorial maps
(ICRS), which also have the detector's position: SITELAT, SITELONG and SITEBEAR, the
bearing of its x axis (deg). It is DETECTOR for maps in the detector's coordinates,
where theta is zenith and phi is azimuth; tools that need a celestial frame refuse
these.

The header also has EVENTID, KAPPA, DATE-OBS and MJD-OBS (UTC), and for each contour
LEVELn, RADIUSn (deg), AREAn (area of the circle, square degrees) and PIXAREAn (area of
the pixels). The second extension holds the exact values of the `SkyMap`. Format:
HEALPix and the FITS standard (Pence et al., A&A 524 (2010) A42).
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

from graphnet_icecube2nd.conventions import angles_to_unit_vector
from graphnet_icecube2nd.detector.site import SOUTH_POLE, Site
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.files import write_whole
from graphnet_icecube2nd.lazy import import_extra
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.tasks.direction.calibration import (
    KappaCalibration,
    kappa_to_radius,
)
from graphnet_icecube2nd.tasks.direction.equatorial import (
    checked_mjd,
    mjd_to_time,
    to_equatorial,
)
from graphnet_icecube2nd.tasks.direction.radial_law import RadialLaw, cap_area
from graphnet_icecube2nd.version import __version__

Array = NDArray[np.float64]

LOCAL, EQUATORIAL = COORDINATES = ("local", "equatorial")
LEVELS = (0.5, 0.9)
ORDERS = ("ring", "nested")
DENSITY = "PROBDENSITY"
NUMBERS = "NUMBERS"  # name of the second extension
SITE = ("latitude", "longitude", "height", "bearing")  # in the second extension
FRAMES = {LOCAL: "DETECTOR", EQUATORIAL: "C"}
ENDINGS = (".fits", ".fit", ".fits.gz", ".fit.gz")
# Defaults: pixels within the 50% contour, smallest and largest NSIDE.
FEWEST_PIXELS, SMALLEST, LARGEST = 100, 64, 1024
# A pixel wider than this share of its distance from the direction, or of the radius of
# the 50% contour, gets the mean density of smaller pixels.
COARSE = 0.2
FINEST = 2**26
CHUNK = 2**20  # pixels computed at once
# Tolerance for radii that equal those of kappa, given the digits of a CSV.
SAME = 1e-4


@dataclass(frozen=True, kw_only=True)
class Contour:
    """Contour of a sky map: a circle, and the pixels of the same region."""

    level: float  # share of the probability inside
    radius: float  # rad, radius of the circle
    area: float  # square degrees, area of the circle
    num_pixels: int  # smallest number of pixels that hold the share
    pixel_area: float  # square degrees, area of these pixels
    density: float  # 1/sr, smallest density of these pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class SkyMap:
    """Probability density of an event's direction, pixel by pixel.

    Args:
        nside: NSIDE of HEALPix, a power of two; there are 12 nside^2 pixels.
        order: Pixel order, `ring` or `nested`.
        coordinates: `local`: theta is zenith and phi is azimuth in the detector;
            `equatorial`: theta is 90 deg - declination, phi is right ascension, ICRS.
        density_P: Densities, (P,), 1/sr; times the area of a pixel they sum to 1.
        direction: Predicted direction, (3,), unit vector in these coordinates.
        kappa: Concentration of the predicted direction.
        law: Radial law of the probability around the direction.
        levels: Contour levels of the file and the picture.
        event_id: Number of the event; None if it has none.
        mjd: Time of the event, UTC, d; None for local coordinates.
        site: Position of the detector, with which equatorial coordinates were computed.

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
    site: Site = SOUTH_POLE

    def __post_init__(self) -> None:
        _check_grid(self.nside, self.order)
        check_one_of("coordinates", self.coordinates, COORDINATES)
        if (self.mjd is None) == (self.coordinates == EQUATORIAL):
            raise ValueError(
                "mjd must be a time for equatorial maps and None for local ones, found "
                f"{self.coordinates} and {self.mjd}"
            )
        num = 12 * self.nside**2
        if self.density_P.shape != (num,) or self.direction.shape != (3,):
            raise ValueError(
                f"a map of NSIDE {self.nside} has {num} pixels and a direction, found "
                f"{self.density_P.shape} and {self.direction.shape}"
            )
        _checked_levels(self.levels)

    @property
    def pixel_area(self) -> float:
        """Area of a pixel, sr."""
        return 4 * np.pi / len(self.density_P)

    def contour(self, level: float) -> Contour:
        """Return a contour with its exact radius and the pixels of the map.

        Raises:
            ValueError: The level is not between 0 and 1.
        """
        return self.contours([level])[0]

    def contours(self, levels: Sequence[float] | None = None) -> list[Contour]:
        """Return contours of the given levels, or else of the map's own levels.

        Raises:
            ValueError: A level is not between 0 and 1.
        """
        chosen = _checked_levels(self.levels if levels is None else levels)
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
        """Return the density of the pixels that contain directions, 1/sr, shape (...).

        Args:
            direction: Unit vectors in the map's coordinates, shape (..., 3).
        """
        healpix = _import_maps("astropy_healpix")
        x, y, z = np.moveaxis(np.asarray(direction, np.float64), -1, 0)
        pixel = healpix.xyz_to_healpix(x, y, z, self.nside, order=self.order)
        found: Array = self.density_P[pixel]
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map as FITS, compressed if the name ends in .gz.

        A failed call leaves no partial file.

        Raises:
            ValueError: The name does not end in .fits or .fits.gz.
            ImportError: astropy is not installed.
        """
        path = check_name(path)
        fits = _import_maps("astropy.io.fits")
        column = {"name": DENSITY, "format": "D", "unit": "sr-1"}
        density = fits.Column(**column, array=self.density_P)
        pixels = fits.BinTableHDU.from_columns([density], name="SKYMAP")
        pixels.header.extend(_cards(self))
        units = [fits.PrimaryHDU(), pixels, _numbers(fits, self)]
        content = io.BytesIO()
        fits.HDUList(units).writeto(content)
        written = content.getvalue()
        if path.suffix.lower() == ".gz":
            # Without a date the same map gives the same file.
            written = gzip.compress(written, 6, mtime=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as temporary:
            temporary.write_bytes(written)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SkyMap:
        """Read a map that `save` wrote; all values are exact.

        Raises:
            OSError: The file does not exist or is no FITS file.
            ValueError: The file is no sky map of this package; names what is missing.
            ImportError: astropy is not installed.
        """
        with _import_maps("astropy.io.fits").open(path, memmap=False) as units:
            try:
                header, row = units[1].header, units[NUMBERS].data[0]
                frames = {word: name for name, word in FRAMES.items()}

                def numbers(name: str) -> tuple[float, ...]:
                    return tuple(np.atleast_1d(row[name]).tolist())

                values = dict(
                    nside=int(header["NSIDE"]),
                    order=str(header["ORDERING"]).lower(),
                    coordinates=frames[header["COORDSYS"]],
                    density_P=np.asarray(units[1].data[DENSITY]).astype(np.float64),
                    direction=np.asarray(row["DIRECTION"]).astype(np.float64),
                    kappa=float(row["KAPPA"]),
                    law=RadialLaw(
                        u=numbers("U"), share=numbers("SHARE"), rate=numbers("RATE")
                    ),
                    levels=numbers("LEVELS"),
                    event_id=header.get("EVENTID"),
                    mjd=float(row["MJD"]) if np.isfinite(row["MJD"]) else None,
                    # Older files are of IceCube.
                    site=Site(**dict(zip(SITE, numbers("SITE"), strict=True)))
                    if "SITE" in units[NUMBERS].columns.names
                    else SOUTH_POLE,
                )
            except (KeyError, IndexError, AttributeError, ValueError) as error:
                raise ValueError(
                    f"{path} is no sky map of this package: {error}"
                ) from None
        return cls(**values)


def sky_map(
    direction: ArrayLike,
    kappa: float,
    *,
    nside: int | None = None,
    order: str = "ring",
    calibration: KappaCalibration | None = None,
    law: RadialLaw | None = None,
    levels: Sequence[float] = LEVELS,
    event_id: int | None = None,
    mjd: float | None = None,
    site: Site = SOUTH_POLE,
) -> SkyMap:
    """Return the sky map of a direction and its kappa.

    The density is the von Mises-Fisher density, unless a calibration or a law gives
    another radial law; the contours then have the radii of that law. Densities are
    divided by their sum over the pixels, so that they integrate to 1.

    Args:
        direction: Vector to the neutrino's origin, (3,), in the detector's axes.
        kappa: Concentration, not calibrated if a calibration is given.
        nside: NSIDE, a power of two from 1 to 8192. By default it is 64 to 1024, so
            that at least 100 pixels lie within the 50% contour; there are fewer if that
            contour has a radius below 0.3 deg.
        order: Pixel order, `ring` or `nested`.
        calibration: Calibration of kappa and of the contours.
        law: Radial law, given instead of a calibration.
        levels: Contour levels, 0 to 1.
        event_id: Number of the event in the file and the picture.
        mjd: Time of the event, UTC, d; the map is then in equatorial coordinates.
        site: Position of the detector, for equatorial coordinates; default: IceCube.

    Raises:
        ValueError: A value is not allowed.
        ImportError: astropy-healpix, or astropy for equatorial ones, is not installed.
    """
    centre = np.asarray(direction, np.float64)
    length = float(np.linalg.norm(centre))
    if centre.shape != (3,) or not 0 < length < np.inf:
        raise ValueError(f"direction must be a vector (3,), found {centre.tolist()}")
    if calibration is not None and law is not None:
        raise ValueError("give either a calibration or a law, found both")
    chosen = _checked_levels(levels)
    centre = centre / length
    if mjd is not None:
        mjd = float(checked_mjd(mjd))
        ra, dec = to_equatorial(centre, mjd, site)
        centre = angles_to_unit_vector(np.pi / 2 - dec, ra).numpy()
    if calibration is not None:
        law = RadialLaw.calibrated(kappa, calibration, chosen)
    law = law or RadialLaw.of_kappa(kappa)
    nside = _default_nside(law) if nside is None else nside
    _check_grid(nside, order)
    return SkyMap(
        nside=nside,
        order=order,
        coordinates=LOCAL if mjd is None else EQUATORIAL,
        density_P=_mean_densities(law, centre, nside, order),
        direction=centre,
        kappa=float(kappa),
        law=law,
        levels=chosen,
        event_id=event_id,
        mjd=mjd,
        site=site,
    )


def sky_map_of_event(
    table: EventTable,
    event_id: int,
    *,
    calibration: KappaCalibration | None = None,
    site: Site | None = None,
    **options: Any,
) -> SkyMap:
    """Return the sky map of an event of a table; other options are those of `sky_map`.

    The default site is that of the table's detector, or IceCube if the table does not
    name a detector.

    If the table has contour radii, the map uses them, so calibrated results stay
    calibrated. Radii of other levels are interpolated; to have them exact, reconstruct
    with these levels (`contours`).

    Raises:
        ValueError: The table lacks the event, its direction or its kappa, a calibration
            is given for a calibrated table, a time is given and the detector's site
            is not known, or a value is not allowed.
        ImportError: astropy-healpix is not installed.
    """
    row = table.of_events(np.array([event_id]))
    if not row.is_ok[0]:
        raise ValueError(
            f"event {event_id} of {table.name} has no direction: {row.status_B[0]}"
        )
    kappa = float(row.kappa_B[0])
    if not np.isfinite(kappa):
        raise ValueError(
            f"event {event_id} of {table.name} has no kappa, which a sky map needs"
        )
    law = _given_law(row, kappa)
    if calibration is not None and law is not None:
        raise ValueError(
            f"{table.name} is calibrated already (its radii are not those of its "
            "kappa): leave the calibration out"
        )
    own: dict[str, Any] = {"calibration": calibration, "law": law}
    site = site or table.site
    if site is None and table.detector and options.get("mjd") is not None:
        raise ValueError(
            f"{table.name}: the position on the Earth of detector {table.detector!r} "
            "is not known, so its directions have no right ascension. Give it: "
            "--site LATITUDE,LONGITUDE,BEARING (`site=Site(latitude=..., "
            "longitude=..., bearing=...)`), or leave out the time"
        )
    own["site"] = site or SOUTH_POLE
    return sky_map(row.direction_B3[0], kappa, event_id=event_id, **own, **options)


def _given_law(row: EventTable, kappa: float) -> RadialLaw | None:
    """Return the law of a row's own radii; None if they agree with its kappa."""
    radii = {
        level: float(radius_B[0])
        for level, radius_B in row.levels.items()
        if np.isfinite(radius_B[0])
    }
    own = [float(kappa_to_radius(kappa, level)) for level in radii]
    if np.allclose(list(radii.values()), own, rtol=SAME, atol=0):
        return None
    try:
        return RadialLaw.through(kappa, radii)
    except ValueError as error:
        raise ValueError(f"event {row.event_id[0]} of {row.name}: {error}") from None


def check_name(path: str | os.PathLike[str]) -> Path:
    """Return a path; ValueError unless it ends in .fits or .fits.gz."""
    path = Path(path)
    if not path.name.lower().endswith(ENDINGS):
        raise ValueError(
            f"{path}: the name of a sky map must end in {' or '.join(ENDINGS)}"
        )
    return path


def _checked_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Return levels; ValueError unless all are between 0 and 1 and distinct."""
    chosen = tuple(float(level) for level in levels)
    if not chosen or not all(0 < level < 1 for level in chosen):
        raise ValueError(f"levels must be between 0 and 1, found {chosen}")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"levels must be distinct, found {chosen}")
    return chosen


def _check_grid(nside: int, order: str) -> None:
    """Raise ValueError if NSIDE or the order is not allowed."""
    if not 1 <= nside <= 8192 or nside & (nside - 1):
        raise ValueError(f"nside must be a power of two from 1 to 8192, found {nside}")
    check_one_of("order", order, ORDERS)


def _import_maps(module: str) -> Any:
    """Return a module of astropy or astropy_healpix; ImportError names the extra."""
    return import_extra(module, "sky maps need", "maps")


def _default_nside(law: RadialLaw) -> int:
    """Return the NSIDE with which the 50% contour covers 100 pixels or more.

    NSIDE is at least 64, which tools expect, and at most 1024, 12.6 million pixels.
    """
    half = 2 * np.sin(law.radius(0.5) / 2) ** 2
    wanted = np.sqrt(FEWEST_PIXELS / (6 * half))
    power = 1 << max(int(np.ceil(np.log2(wanted))), 0)
    return min(max(power, SMALLEST), LARGEST)


def _mean_densities(law: RadialLaw, centre: Array, nside: int, order: str) -> Array:
    """Return mean densities of all pixels around a direction (3,), (P,), 1/sr.

    The densities integrate to 1.
    """
    density_P = np.empty(12 * nside**2)
    for start in range(0, len(density_P), CHUNK):
        pixel_p = np.arange(start, min(start + CHUNK, len(density_P)))
        density_P[pixel_p] = _densities_of(pixel_p, law, centre, nside, order)
    total = float(density_P.sum()) * 4 * np.pi / len(density_P)
    density_P /= total
    return density_P


def _densities_of(
    pixel_p: NDArray[np.int64], law: RadialLaw, centre: Array, nside: int, order: str
) -> Array:
    """Return mean densities of pixels, (p,), 1/sr; large pixels are divided by four."""
    healpix = _import_maps("astropy_healpix")
    place_p3 = np.stack(healpix.healpix_to_xyz(pixel_p, nside, order=order), axis=-1)
    u_p = np.minimum(((place_p3 - centre) ** 2).sum(axis=1) / 2, 2.0)
    mean_p = law.density(u_p)
    width = np.sqrt(np.pi / 3) / nside
    distance_p = 2 * np.arcsin(np.sqrt(u_p / 2))
    large_p = width > COARSE * np.maximum(distance_p, law.radius(0.5))
    if large_p.any() and nside < FINEST:
        nested = pixel_p[large_p]
        if order != "nested":
            place = place_p3[large_p].T
            nested = healpix.xyz_to_healpix(*place, nside, order="nested")
        quarters = (4 * nested[:, None] + np.arange(4)).ravel()
        finer = _densities_of(quarters, law, centre, 2 * nside, "nested")
        mean_p[large_p] = finer.reshape(-1, 4).mean(axis=1)
    return mean_p


def _cards(sky_map: SkyMap) -> list[tuple[str, Any, str]]:
    """Return the cards of the header: keyword, value, comment."""
    celestial = sky_map.coordinates == EQUATORIAL
    frame = "equatorial, ICRS" if celestial else "theta zenith, phi azimuth"
    cards: list[tuple[str, Any, str]] = [
        ("PIXTYPE", "HEALPIX", "HEALPix pixels"),
        ("ORDERING", sky_map.order.upper(), "RING or NESTED"),
        ("NSIDE", sky_map.nside, "12 NSIDE^2 pixels"),
        ("FIRSTPIX", 0, "first pixel"),
        ("LASTPIX", len(sky_map.density_P) - 1, "last pixel"),
        ("INDXSCHM", "IMPLICIT", "rows are pixels"),
        ("OBJECT", "FULLSKY", "whole sky"),
        ("COORDSYS", FRAMES[sky_map.coordinates], frame),
        ("CREATOR", f"graphnet-icecube2nd {__version__}", "software"),
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
            ("MJD-OBS", sky_map.mjd, "[d] UTC of the event"),
            ("SITELAT", sky_map.site.latitude, "[deg] latitude of the detector"),
            ("SITELONG", sky_map.site.longitude, "[deg] longitude of the detector"),
            ("SITEBEAR", sky_map.site.bearing, "[deg] compass bearing of its x axis"),
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
            (f"RADIUS{number}", radius, "[deg] radius of the contour"),
            (f"AREA{number}", contour.area, "[deg2] area of the circle"),
            (f"PIXAREA{number}", contour.pixel_area, "[deg2] area of the pixels"),
        ]
    return cards


def _numbers(fits: Any, sky_map: SkyMap) -> Any:
    """Return the second extension: one row with all values, exact."""
    law = sky_map.law
    numbers: dict[str, Sequence[float]] = {
        "DIRECTION": sky_map.direction.tolist(),
        "KAPPA": [sky_map.kappa],
        "MJD": [np.nan if sky_map.mjd is None else sky_map.mjd],
        "SITE": [getattr(sky_map.site, name) for name in SITE],
        "LEVELS": sky_map.levels,
        **{"U": law.u, "SHARE": law.share, "RATE": law.rate},
    }
    columns = [
        fits.Column(name=name, format=f"{len(v)}D", array=np.array([v], np.float64))
        for name, v in numbers.items()
    ]
    return fits.BinTableHDU.from_columns(columns, name=NUMBERS)
