"""Columns by the names that files give them, as a DirectionTable.

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import angles_to_unit_vector
from graphnet_icecube2nd.results.direction_table import (
    COLUMNS,
    EVENT_NAMES,
    OK,
    DirectionTable,
    radius_level,
)
from graphnet_icecube2nd.store.manifest import N_PULSES

# What files call them: ours first, then GraphNeT's direction and angle tasks.
DIRECTION_NAMES = (COLUMNS, ("dir_x_pred", "dir_y_pred", "dir_z_pred"))
ANGLE_NAMES = (("azimuth", "zenith"), ("azimuth_pred", "zenith_pred"))
KAPPA_NAMES = ("kappa", "direction_kappa", "dir_kappa_pred")


def table_of_columns(
    columns: Mapping[str, Any], name: str, angles: str = "origin"
) -> DirectionTable:
    """Make a table of columns; see `DirectionTable.from_columns`."""
    if angles not in ("origin", "flight"):
        raise ValueError(f"angles must be origin or flight, got {angles!r}")
    columns = {str(key): np.asarray(columns[key]) for key in columns}
    key = _first(columns, EVENT_NAMES, name)
    vectors = _names_there(columns, DIRECTION_NAMES)
    if vectors is not None:
        direction_B3 = np.stack([columns[c] for c in vectors], axis=1).astype(float)
    else:
        pair = _names_there(columns, ANGLE_NAMES)
        if pair is None:
            wanted = " or ".join(", ".join(n) for n in (*DIRECTION_NAMES, *ANGLE_NAMES))
            raise ValueError(
                f"table {name!r} has no directions, {wanted}; it has "
                f"{', '.join(columns)}"
            )
        azimuth, zenith = (columns[column].astype(float) for column in pair)
        direction_B3 = angles_to_unit_vector(zenith, azimuth).numpy()
    if angles == "flight":
        direction_B3 = -direction_B3
    finite_B = np.isfinite(direction_B3).all(axis=1)
    status_B = np.where(finite_B, OK, "no direction")
    if "status" in columns:
        given_B = columns["status"].astype(str)
        # A reason that is given stays; `ok` without a direction is not.
        status_B = np.where((given_B == OK) & ~finite_B, status_B, given_B)
    kappa = next((columns[n] for n in KAPPA_NAMES if n in columns), None)
    if kappa is None:
        kappa = np.full(len(direction_B3), np.nan)
    return DirectionTable(
        name=name,
        event_id=columns[key].astype(np.int64),
        direction_B3=direction_B3,
        kappa_B=kappa.astype(float),
        status_B=status_B,
        radii={n: columns[n].astype(float) for n in columns if radius_level(n)},
        n_pulses_B=whole_counts(columns[N_PULSES]) if N_PULSES in columns else None,
    )


def whole_counts(numbers: NDArray[Any]) -> NDArray[np.int64] | None:
    """Return numbers of pulses; None if one is missing, as in joined tables."""
    values = numbers.astype(float)
    return values.astype(np.int64) if np.isfinite(values).all() else None


def _names_there(
    columns: Mapping[str, Any], choices: Sequence[tuple[str, ...]]
) -> tuple[str, ...] | None:
    return next((names for names in choices if set(names) <= set(columns)), None)


def _first(columns: Mapping[str, Any], wanted: Sequence[str], name: str) -> str:
    for column in wanted:
        if column in columns:
            return column
    raise ValueError(
        f"table {name!r} has no column {' or '.join(wanted)}; it has "
        f"{', '.join(columns)}"
    )
