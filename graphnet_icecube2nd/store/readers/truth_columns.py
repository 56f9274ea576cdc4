"""Which columns of the truth are read, and opening tables of truth by them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.readers.arrow_values import (
    is_number,
    is_string,
    no_values,
)
from graphnet_icecube2nd.store.readers.columns import find_event_column
from graphnet_icecube2nd.store.readers.rows import Rows
from graphnet_icecube2nd.store.readers.tables import truth_columns
from graphnet_icecube2nd.store.readers.truth_rows import Truth


def open_truth(
    tables: Sequence[Rows],
    pulse_map: PulseMap,
    *,
    event_column: str | None = None,
    like: str | None = None,
) -> tuple[Truth, tuple[str, ...], tuple[str, ...]]:
    """Open tables of truth.

    Args:
        tables: One or several, of the same columns.
        pulse_map: Says what the columns of the angles are called.
        event_column: The column of event_ids, or None to look for it.
        like: What it is called in the table of pulses.

    Returns:
        The truth, columns left out, and what there is to say.

    Raises:
        ValueError: An empty table, or a column that is missing or of another type.
    """
    first, types = tables[0], tables[0].types()
    key = find_event_column(types, event_column, first.name, like)
    taken, left_out, notes = choose_truth_columns(types, pulse_map, first.name, (key,))
    angles = (pulse_map.labels.azimuth, pulse_map.labels.zenith)
    found = tuple(column for column in angles if column in taken)
    if not found:
        notes = (
            *notes,
            f"{first.name} has no directions: no columns {angles[0]!r} and "
            f"{angles[1]!r}",
        )
    for rows in tables:
        others = rows.types()
        for column in (key, *taken):
            if column not in others:
                raise ValueError(
                    f"{rows.name} has no column {column!r}, which {first.name} has; "
                    f"there is {', '.join(others)}"
                )
            ours, theirs = (
                no_values(types[column]).dtype,
                no_values(others[column]).dtype,
            )
            if ours != theirs and column != key:
                raise ValueError(
                    f"column {column!r} is {ours} in {first.name}, but {theirs} in "
                    f"{rows.name}"
                )
        if not rows.num_rows():
            raise ValueError(f"{rows.name} is empty: it has no rows")
    truth = Truth(rows=tuple(tables), event_column=key, columns=taken, angles=found)
    return truth, left_out, notes


def choose_truth_columns(
    types: dict[str, Any], pulse_map: PulseMap, name: str, without: Collection[str]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Choose the columns of truth to take: numbers, booleans and strings.

    Args:
        types: Arrow type by column.
        pulse_map: Says what the columns of the angles are called.
        name: What messages call the table.
        without: Columns that are not truth, such as that of the event_id.

    Returns:
        The columns to take, those left out, and what there is to say.

    Raises:
        ValueError: One of the two angles is missing, or is no number.
    """
    plain = [c for c, kind in types.items() if is_number(kind) or is_string(kind)]
    taken, notes = truth_columns(plain, name, without)
    left_out = tuple(c for c in types if c not in taken and c not in without)
    nested = [column for column in left_out if column not in plain]
    if nested:
        notes = (
            *notes,
            f"{name}: no numbers or strings, left out: {', '.join(nested)}",
        )
    angles = (pulse_map.labels.azimuth, pulse_map.labels.zenith)
    there = [column for column in angles if column in taken]
    wrong = [c for c in angles if c in types and not is_number(types[c])]
    if len(there) == 1 or wrong:
        lost = wrong[0] if wrong else next(c for c in angles if c not in there)
        what = f"is {types[lost]}, not a number" if wrong else "is not there"
        raise ValueError(
            f"{name}: column {lost!r}, an angle of pulse map {pulse_map.name!r}, "
            f"{what}; there is {', '.join(types)}. Name the columns of the angles: "
            "azimuth=..., zenith=... of the pulse map"
        )
    return taken, left_out, notes
