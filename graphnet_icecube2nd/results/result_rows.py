"""A network's vectors as rows of results, kappa and radii calibrated where asked.

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.results.direction_table import (
    DirectionTable,
    radius_name,
)
from graphnet_icecube2nd.results.result_files import Columns
from graphnet_icecube2nd.tasks.direction.calibration import KappaCalibration
from graphnet_icecube2nd.tasks.direction.metrics import kappa_to_radius

CONTOURS = (0.5, 0.9)  # shares, of the radii of results


def checked_contours(contours: Sequence[float]) -> tuple[float, ...]:
    """Return the shares of contours, rising, each once.

    Raises:
        ValueError: None, or one that is not between 0 and 1.
    """
    rising = tuple(sorted({round(float(level), 6) for level in contours}))
    if not rising or not 0 < rising[0] <= rising[-1] < 1:
        raise ValueError(f"contours hold shares between 0 and 1, got {contours}")
    return rising


def result_rows(
    table: DirectionTable,
    length_B: NDArray[np.integer[Any]],
    calibration: KappaCalibration | None = None,
    contours: Sequence[float] = CONTOURS,
) -> Columns:
    """Return the columns of results of a table of directions.

    Args:
        table: Directions, with kappa as the network has it.
        length_B: (B,) pulses of each event.
        calibration: Makes kappa and radii honest; None leaves the network's own.
        contours: Shares that the contours hold whose radii are given.

    Returns:
        event_id; direction_x, _y, _z; azimuth, zenith (rad); kappa; radius_50 and
        radius_90, or of what contours are asked for (rad); n_pulses; status. What has
        no direction has NaN.
    """
    columns = table.columns()
    kappa_B = np.where(table.is_ok, columns["kappa"], np.nan)
    status_B = columns.pop("status")
    radii = radii_of(kappa_B, calibration, contours)
    if calibration is not None:
        kappa_B = calibration.kappa(kappa_B)
    return {
        **columns,
        "kappa": kappa_B,
        **radii,
        "n_pulses": np.asarray(length_B).astype(np.int64),
        "status": status_B,
    }


def radii_of(
    kappa_B: NDArray[np.float64],
    calibration: KappaCalibration | None,
    contours: Sequence[float] = CONTOURS,
) -> dict[str, NDArray[np.float64]]:
    """Return the radii of contours, rad, (B,) by column; NaN where kappa is.

    Args:
        kappa_B: Concentrations as the network has them.
        calibration: Makes radii honest; None: those of kappa.
        contours: Shares that they hold.
    """
    known_B = np.isfinite(kappa_B)
    radii = {}
    for level in contours:
        radius_B = np.full(len(kappa_B), np.nan)
        if calibration is not None:
            radius_B[known_B] = calibration.radius(kappa_B[known_B], level)
        else:
            radius_B[known_B] = kappa_to_radius(kappa_B[known_B], level).numpy()
        radii[radius_name(level)] = radius_B
    return radii
