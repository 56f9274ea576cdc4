"""Site: where a detector stands on the Earth, and the bearing of its x axis.

A detector's azimuth grows from x towards y, seen from above; a compass bearing grows
from true north towards east. So a horizontal direction of azimuth a has the bearing
`Site.bearing` - a. `tasks.direction.equatorial` does the rest.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

# WGS84: equatorial radius [m] and flattening; scale and false easting [m] of UTM.
RADIUS, FLATTENING = 6378137.0, 1 / 298.257223563
UTM_SCALE, UTM_EASTING = 0.9996, 500_000.0


@dataclass(frozen=True, kw_only=True)
class Site:
    """Position of a detector on the Earth, and the orientation of its axes.

    Args:
        latitude: Geographic latitude, deg, north positive.
        longitude: Geographic longitude, deg, east positive.
        height: Height above sea level, m, of z = 0 in the detector's own coordinates:
            the sea floor for KM3NeT, the centre of the detector for IceCube.
        bearing: Compass bearing of the x axis, deg from true north towards east.
            Default: x points east and y north.

    Raises:
        ValueError: A value is not finite, or the latitude not between -90 and 90.
    """

    latitude: float
    longitude: float
    height: float = 0.0
    bearing: float = 90.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not math.isfinite(value):
                raise ValueError(f"site: {name} must be finite, found {value}")
        if abs(self.latitude) > 90:
            raise ValueError(
                "site: latitude must be between -90 and 90 deg, found "
                f"{self.latitude:g}"
            )

    @property
    def x_axis(self) -> str:
        """Bearing of the x axis as text, with `assumed` if no source gives it."""
        return f"{self.bearing:.2f} deg" + ", assumed" * (self in ASSUMED)

    @classmethod
    def from_utm(
        cls, easting: float, northing: float, zone: str, height: float = 0.0
    ) -> Site:
        """Return the site of a detector whose x and y are UTM easting and northing.

        KM3NeT's detector files have these numbers, on the ellipsoid WGS84. Grid north
        differs from true north by the meridian convergence. Formulas: series of Krueger
        to the third order, exact to 1 mm; C. F. F. Karney, J. Geodesy 85 (2011) 475.

        Args:
            easting: Easting of the origin, m.
            northing: Northing of the origin, m.
            zone: Zone and hemisphere, such as `32N` or `51S`.
            height: Height above sea level of z = 0, m.

        Raises:
            ValueError: The zone is not of this form.
        """
        found = re.fullmatch(r"(\d{1,2})([NS])", zone)
        if found is None or not 1 <= int(found[1]) <= 60:
            raise ValueError(f"site: zone must be like 32N or 51S, found {zone!r}")
        n = FLATTENING / (2 - FLATTENING)
        length = UTM_SCALE * RADIUS / (1 + n) * (1 + n**2 / 4 + n**4 / 64)
        xi = (northing - (1e7 if found[2] == "S" else 0.0)) / length
        eta = (easting - UTM_EASTING) / length
        beta = (
            n / 2 - 2 / 3 * n**2 + 37 / 96 * n**3,
            n**2 / 48 + n**3 / 15,
            17 / 480 * n**3,
        )
        delta = (
            2 * n - 2 / 3 * n**2 - 2 * n**3,
            7 / 3 * n**2 - 8 / 5 * n**3,
            56 / 15 * n**3,
        )
        terms = [(2 * k, b) for k, b in enumerate(beta, 1)]
        north = xi - sum(b * math.sin(k * xi) * math.cosh(k * eta) for k, b in terms)
        east = eta - sum(b * math.cos(k * xi) * math.sinh(k * eta) for k, b in terms)
        chi = math.asin(math.sin(north) / math.cosh(east))
        latitude = chi + sum(d * math.sin(2 * k * chi) for k, d in enumerate(delta, 1))
        # Longitude from the central meridian of the zone.
        longitude = math.atan2(math.sinh(east), math.cos(north))
        convergence = math.atan(math.tan(longitude) * math.sin(latitude))
        return cls(
            latitude=math.degrees(latitude),
            longitude=math.degrees(longitude) + 6 * int(found[1]) - 183,
            height=height,
            bearing=90 + math.degrees(convergence),
        )


# IceCube's x points to grid east and y to grid north, along the Greenwich meridian, so
# the bearing of x is 90 deg - longitude. Source: IceCube's coordinate documentation.
SOUTH_POLE = Site(
    latitude=-89.9944, longitude=-62.6081, height=883.9, bearing=90 + 62.6081
)
# UTM positions in KM3NeT's detector files (km3net-testdata, MIT).
ARCA = Site.from_utm(587_600.0, 4_016_800.0, "33N", -3450.0)
ORCA = Site.from_utm(256_500.0, 4_743_000.0, "32N", -2440.0)
# From the experiments' papers, which do not say how x and y lie.
# P-ONE's strings end 1000 m above the sea floor, 2660 m deep; arXiv:2005.09493.
CASCADIA = Site(latitude=47.75, longitude=-127.73, height=-2160.0)
# arXiv:2207.04519, arXiv:1808.10353
SOUTH_CHINA_SEA = Site(latitude=17.4, longitude=114.0, height=-3475.0)
BAIKAL = Site(latitude=51.77, longitude=104.42, height=-910.0)
# x is taken to point east and y north.
ASSUMED = (CASCADIA, SOUTH_CHINA_SEA, BAIKAL)
