"""What is read of an HDF5 file with a flat table of pulses and offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.readers.columns import EVENT_COLUMNS, choose_columns
from graphnet_icecube2nd.store.readers.hdf5_file import (
    TEXT,
    H5Table,
    find_column,
    find_tables,
)
from graphnet_icecube2nd.store.readers.hdf5_part import H5Layout
from graphnet_icecube2nd.store.readers.hdf5_ranges import find_ranges
from graphnet_icecube2nd.store.readers.tables import (
    choose_pulses,
    choose_truth,
    truth_columns,
)


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a user wants of a file; `hdf5_source` says what each means."""

    pulses: str | None
    truth: str | bool | None
    offsets: str | Sequence[str] | None
    pulse_map: PulseMap | None
    event_column: str | None
    keep: str | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What is read of a file, and what there is to say of it."""

    layout: H5Layout
    pulse_map: PulseMap
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def look_at_flat(file: Any, path: Path, wishes: Wishes) -> Looked:
    """Find what is to be read of a file with offsets.

    Args:
        file: The file, open.
        path: Its path.
        wishes: What the user wants of it.
    """
    place = str(path)
    tables = find_tables(file)
    # Of several tables of one name, that of the pulses is the longest.
    longest = {t.name: t for t in sorted(tables, key=lambda table: table.num_rows)}
    chosen, pulse_map = choose_pulses(
        list(longest.values()),
        place=place,
        name=wishes.pulses,
        pulse_map=wishes.pulse_map,
    )
    pulses = longest[chosen.name]
    ranges = find_ranges(tables, pulses, wishes.offsets, place)
    claimed = ranges.claimed(file, place)
    notes: list[str] = []
    if claimed < pulses.num_rows:
        notes.append(
            f"{place}: {pulses.num_rows - claimed} of {pulses.num_rows} pulses belong "
            "to no event; left out"
        )
    others = [table for table in tables if table is not pulses]
    one_an_event = [t for t in others if t.num_rows == ranges.num_events]
    of_name = [table.num_rows for table in others if table.name == wishes.truth]
    if of_name and ranges.num_events not in of_name:
        raise ValueError(
            f"{place}, table {wishes.truth!r}: {of_name[0]} rows for "
            f"{ranges.num_events} events; truth has one row an event"
        )
    truth_table = choose_truth(
        one_an_event, place=place, name=wishes.truth, pulse_map=pulse_map
    )
    assert truth_table is None or isinstance(truth_table, H5Table)
    event_id = find_event_id(one_an_event, truth_table, wishes, place)
    if event_id is None:
        notes.append(f"{place}: no event_id; the events are counted from 0")
    truth: tuple[tuple[H5Table, tuple[str, ...]], ...] = ()
    if truth_table is not None:
        without: set[str | None] = set()
        if event_id is not None and event_id[0] is truth_table:
            without |= {event_id[1]}
        if ranges.table is truth_table:
            without |= {ranges.first, ranges.count}
        columns = [c for c in truth_table.columns if c not in without]
        truth_taken, more = truth_columns(columns, place)
        truth = ((truth_table, truth_taken),)
        notes += more
    taken, left_out = choose_columns(pulses.columns, pulse_map, wishes.keep)
    text = _text_among(pulses, taken, pulse_map, wishes, place)
    taken = tuple(column for column in taken if column not in text)
    layout = H5Layout(
        path=path,
        pulses=pulses,
        read=taken,
        taken=taken,
        compute=None,
        ranges=ranges,
        truth=truth,
        angles=(pulse_map.labels.azimuth, pulse_map.labels.zenith),
        truth_exists=None,
        event_id=event_id,
        num_events=ranges.num_events,
    )
    return Looked(
        layout=layout,
        pulse_map=pulse_map,
        left_out=(*left_out, *text, *pulses.others),
        notes=tuple(notes),
    )


def find_event_id(
    tables: Sequence[H5Table], truth: H5Table | None, wishes: Wishes, place: str
) -> tuple[H5Table, str] | None:
    """Return table and column of the event_id; None if there is none.

    Raises:
        ValueError: Not the one that the user wants.
    """
    first = [truth] if truth is not None else []
    wanted = wishes.event_column
    if wanted is not None:
        for table in first:
            if wanted in table.columns:
                return table, wanted
        return find_column(tables, wanted, place)
    for table in (*first, *tables):
        for column in EVENT_COLUMNS:
            if column in table.columns:
                return table, column
    return None


def _text_among(
    table: H5Table,
    taken: Sequence[str],
    pulse_map: PulseMap,
    wishes: Wishes,
    place: str,
) -> tuple[str, ...]:
    text = tuple(column for column in taken if table.types[column] == TEXT)
    for column in text:
        if column in pulse_map.columns() or wishes.keep != "all":
            raise ValueError(
                f"{place}, table {table.name!r}: column {column!r} of the pulses holds "
                "text; it must hold numbers"
            )
    return text
