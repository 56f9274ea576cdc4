"""The sky map of an event of a table of directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphnet_icecube2nd.report.sky.contours import LEVELS
from graphnet_icecube2nd.report.sky.map import SkyMap, sky_map
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.tasks.direction.calibration import KappaCalibration
from graphnet_icecube2nd.tasks.direction.metrics import kappa_to_radius
from graphnet_icecube2nd.tasks.direction.radial_law import RadialLaw

# Radii that a table gives: those of its kappa up to what digits of a CSV lose?
SAME = 1e-4


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
