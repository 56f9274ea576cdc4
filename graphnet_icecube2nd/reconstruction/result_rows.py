"""A network's vectors as rows of results, kappa and radii calibrated where asked.

Shape letters: B events.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.direction.calibration import KappaCalibration
from graphnet_icecube2nd.direction.metrics import kappa_to_radius
from graphnet_icecube2nd.reconstruction.direction_table import DirectionTable
from graphnet_icecube2nd.reconstruction.result_files import Columns

RADII = {"radius_50": 0.5, "radius_90": 0.9}


def result_rows(
    table: DirectionTable,
    length_B: NDArray[np.integer[Any]],
    calibration: KappaCalibration | None = None,
) -> Columns:
    """Return the columns of results of a table of directions.

    Args:
        table: Directions, with kappa as the network has it.
        length_B: (B,) pulses of each event.
        calibration: Makes kappa and radii honest; None leaves the network's own.

    Returns:
        event_id; direction_x, _y, _z; azimuth, zenith (rad); kappa; radius_50 and
        radius_90 (rad); n_pulses; status. What has no direction has NaN.
    """
    columns = table.columns()
    kappa_B = np.where(table.is_ok, columns["kappa"], np.nan)
    status_B = columns.pop("status")
    radii = _radii(kappa_B, calibration)
    if calibration is not None:
        kappa_B = calibration.kappa(kappa_B)
    return {
        **columns,
        "kappa": kappa_B,
        **radii,
        "n_pulses": np.asarray(length_B).astype(np.int64),
        "status": status_B,
    }


def _radii(
    kappa_B: NDArray[np.float64], calibration: KappaCalibration | None
) -> Columns:
    known_B = np.isfinite(kappa_B)
    radii = {}
    for name, level in RADII.items():
        radius_B = np.full(len(kappa_B), np.nan)
        if calibration is not None:
            radius_B[known_B] = calibration.radius(kappa_B[known_B], level)
        else:
            radius_B[known_B] = kappa_to_radius(kappa_B[known_B], level).numpy()
        radii[name] = radius_B
    return radii
