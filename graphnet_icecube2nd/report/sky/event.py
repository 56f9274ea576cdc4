"""The sky map of an event: of a direction and its kappa, or of a row of a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from graphnet_icecube2nd.conventions import angles_to_unit_vector
from graphnet_icecube2nd.report.sky.map import SkyMap
from graphnet_icecube2nd.report.sky.pixels import (
    EQUATORIAL,
    LEVELS,
    LOCAL,
    check_grid,
    check_levels,
    default_nside,
    mean_densities,
)
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.tasks.direction.calibration import (
    KappaCalibration,
    kappa_to_radius,
)
from graphnet_icecube2nd.tasks.direction.equatorial import checked_mjd, to_equatorial
from graphnet_icecube2nd.tasks.direction.radial_law import RadialLaw

# Radii that a table gives: those of its kappa up to what digits of a CSV lose?
SAME = 1e-4


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
) -> SkyMap:
    """Make the sky map of a direction and its kappa.

    The density is the von Mises-Fisher one, unless a calibration or a law says how the
    probability spreads; then contours have the radii of those. Densities are divided by
    their sum over the pixels, so that they integrate to 1.

    Args:
        direction: (3,) vector back to where the neutrino came from, in the detector's
            axes.
        kappa: Concentration, not calibrated if a calibration is given.
        nside: A power of two, 1 to 8192. By default at least 100 pixels lie within the
            50% contour, and NSIDE is 64 to 1024; so it is fewer where that contour has
            a radius of less than 0.3 deg.
        order: `ring` or `nested`.
        calibration: Makes contours hold what they say.
        law: In place of a calibration.
        levels: Contours, 0 to 1.
        event_id: For the file and the picture.
        mjd: Time of the event, UTC, d: the map is in equatorial coordinates then.

    Raises:
        ValueError: A value is not allowed.
        ImportError: astropy-healpix, or astropy for equatorial ones, is not installed.
    """
    centre = np.asarray(direction, np.float64)
    length = float(np.linalg.norm(centre))
    if centre.shape != (3,) or not 0 < length < np.inf:
        raise ValueError(f"direction must be a vector (3,), got {centre.tolist()}")
    if calibration is not None and law is not None:
        raise ValueError("give a calibration or a law, not both")
    chosen = check_levels(levels)
    centre = centre / length
    if mjd is not None:
        mjd = float(checked_mjd(mjd))
        ra, dec = to_equatorial(centre, mjd)
        centre = angles_to_unit_vector(np.pi / 2 - dec, ra).numpy()
    if calibration is not None:
        law = RadialLaw.calibrated(kappa, calibration, chosen)
    law = law or RadialLaw.of_kappa(kappa)
    nside = default_nside(law) if nside is None else nside
    check_grid(nside, order)
    return SkyMap(
        nside=nside,
        order=order,
        coordinates=LOCAL if mjd is None else EQUATORIAL,
        density_P=mean_densities(law, centre, nside, order),
        direction=centre,
        kappa=float(kappa),
        law=law,
        levels=chosen,
        event_id=event_id,
        mjd=mjd,
    )


def sky_map_of_event(
    table: EventTable,
    event_id: int,
    *,
    nside: int | None = None,
    order: str = "ring",
    calibration: KappaCalibration | None = None,
    levels: Sequence[float] = LEVELS,
    mjd: float | None = None,
) -> SkyMap:
    """Make the sky map of an event of a table.

    Where the table gives radii of contours, the map has those: results of a calibrated
    reconstruction stay calibrated. Others follow the law through them; reconstruct with
    those that are wanted (`contours`) to have them exact.

    Args:
        table: Directions with kappa.
        event_id: Which event.
        nside: As `sky_map`.
        order: `ring` or `nested`.
        calibration: For a table whose kappa is not calibrated yet.
        levels: Contours, 0 to 1.
        mjd: Time of the event, UTC, d: the map is in equatorial coordinates then.

    Raises:
        ValueError: The table lacks the event, its direction or its kappa; or it is
            calibrated already; or a value is not allowed.
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
            f"{table.name} is calibrated already: its radii are not those of its kappa"
        )
    return sky_map(
        row.direction_B3[0],
        kappa,
        nside=nside,
        order=order,
        calibration=calibration,
        law=law,
        levels=levels,
        event_id=event_id,
        mjd=mjd,
    )


def _given_law(row: EventTable, kappa: float) -> RadialLaw | None:
    """Return the law of a row's own radii; None if they are those of its kappa."""
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
